//! Tells the program when it was built, for no right clock shows an earlier time, and which
//! profiles of devices it brings along. Driver.
#![expect(clippy::disallowed_methods, reason = "driver: the clock of the build")]

use std::{
    env,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // Set by whoever wants the same bytes from the same source (reproducible-builds.org).
    let built = env::var("SOURCE_DATE_EPOCH").ok();
    let built = built.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs()).to_string()
    });
    println!("cargo::rustc-env=BUILT_AT_S={built}");
    println!("cargo::rerun-if-changed=profiles");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("profiles.rs"), profiles()?)
}

/// `SHIPPED`: name and text of every `profiles/NAME.toml`, sorted by name.
fn profiles() -> io::Result<String> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?);
    let entries = fs::read_dir(folder.join("profiles"))?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "toml"));
    files.sort_by(|one, other| one.file_stem().cmp(&other.file_stem()));
    let mut list = "const SHIPPED: &[(&str, &str)] = &[\n".to_owned();
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        writeln!(list, "    ({name:?}, include_str!({file:?})),").map_err(io::Error::other)?;
    }
    list.push_str("];\n");
    Ok(list)
}
