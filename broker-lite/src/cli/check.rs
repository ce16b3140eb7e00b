//! `broker-lite check`: everything that is wrong with a configuration and with the files that it
//! names, at once. Shell.

use std::{path::PathBuf, process::ExitCode};

use broker_lite::preflight;
use settings::{Problem, Severity};

use crate::file;

/// Arguments of `check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The configuration file
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/broker-lite/broker-lite.toml"
    )]
    config: PathBuf,
    /// Look at the file only, not at what it names on this machine
    #[arg(long)]
    file_only: bool,
}

/// Prints what was found; exit code 2 where something of it is an error.
pub(crate) fn run(args: &Args) -> ExitCode {
    let loaded = match file::load(&args.config) {
        Ok(loaded) => loaded,
        Err(problems) => return super::fail(super::CONFIGURATION, &problems.to_string()),
    };
    let broker = &loaded.value.broker;
    let mut found: Vec<Problem> = loaded.warnings.iter().cloned().collect();
    if !args.file_only {
        found.extend(preflight::check(broker, &loaded.document, ""));
    }
    found.sort_by_key(|problem| problem.location);
    let is_error = |problem: &&Problem| problem.severity == Severity::Error;
    let errors = found.iter().filter(is_error).count();
    let lines: String = found.iter().map(|problem| format!("{problem}\n")).collect();
    let printed = super::print(&format!(
        "{lines}{}: errors: {errors}; listeners: {}, access rules: {}, users: {}\n",
        args.config.display(),
        broker.listeners.len(),
        broker.access.len(),
        broker.users.len()
    ));
    match errors {
        0 => printed,
        _ => ExitCode::from(super::CONFIGURATION),
    }
}
