//! What was compared, as the packages' own tools name it. Driver.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command::output;

/// Debian packages, each as `name version`.
pub(crate) fn debian(packages: &[&str]) -> Result<Vec<String>> {
    let query = ["-W", "-f=${Package} ${Version}\n"];
    let listed = output(Command::new("dpkg-query").args(query).args(packages))?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Those of these packages that this Python has, written the same way.
pub(crate) fn pip(python: &Path, packages: &[&str]) -> Result<Vec<String>> {
    let listed = output(Command::new(python).args(["-m", "pip", "freeze"]))?;
    let known = listed.lines().filter_map(|line| line.split_once("=="));
    let wanted = known.filter(|(name, _)| packages.contains(name));
    Ok(wanted
        .map(|(name, version)| format!("{name} {version}"))
        .collect())
}
