//! Tools that Debian 12 does not package: rustup's components, cargo-deny, cargo-fuzz, rumqttd, and the Python side of the
//! end-to-end tests.
//!
//! Invariant: every version is pinned, so a run tomorrow uses what today's used. A driver.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, line, root, run, succeeds, target_dir};
use crate::packages::Consent;

/// Reads deny.toml as written there; older versions do not know all of its keys.
const CARGO_DENY: &str = "0.20.2";
/// Builds libFuzzer's targets.
const CARGO_FUZZ: &str = "0.13.2";

/// The broker in Rust that is measured beside ours.
const RUMQTTD: &str = "0.20.0";

/// rustfmt and clippy, which a minimal rustup profile leaves out.
pub(crate) fn rust_components(consent: Consent) -> Result<()> {
    if ["fmt", "clippy"]
        .iter()
        .all(|tool| succeeds(cargo(tool).arg("--version")))
    {
        return Ok(());
    }
    install(
        Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]),
        consent,
    )
}

/// The `cargo-deny` to run.
pub(crate) fn cargo_deny(consent: Consent) -> Result<PathBuf> {
    cargo_tool("cargo-deny", CARGO_DENY, consent)
}

/// The `cargo-fuzz` to run.
pub(crate) fn cargo_fuzz(consent: Consent) -> Result<PathBuf> {
    cargo_tool("cargo-fuzz", CARGO_FUZZ, consent)
}

/// A cargo subcommand: the one on PATH, or ours in the user's cache, where the next clone finds it.
fn cargo_tool(name: &str, version: &str, consent: Consent) -> Result<PathBuf> {
    if succeeds(Command::new(name).arg("--version")) {
        return Ok(name.into());
    }
    let cache = cache_dir()?.join(format!("{name}-{version}"));
    let program = cache.join("bin").join(name);
    if !program.exists() {
        let mut command = cargo("install");
        command
            .args(["--locked", name, "--version", version, "--root"])
            .arg(&cache);
        command.arg("--target-dir").arg(target_dir().join(name));
        // They do little themselves: cargo-deny is unoptimised built in one minute on two cores instead of five.
        command.envs([
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
            ("CARGO_PROFILE_RELEASE_LTO", "off"),
        ]);
        install(&mut command, consent)?;
    }
    Ok(program)
}

/// The `rumqttd` to compare with, in the user's cache like cargo-deny.
pub(crate) fn rumqttd(consent: Consent) -> Result<PathBuf> {
    let cache = cache_dir()?.join(format!("rumqttd-{RUMQTTD}"));
    let program = cache.join("bin/rumqttd");
    if !program.exists() {
        let mut command = cargo("install");
        // Not `--locked`: that pins a `metrics` which newer compilers refuse. Without the feature it ignores clients'
        // certificates.
        command.args(["rumqttd", "--version", RUMQTTD]);
        command.args(["--features", "verify-client-cert", "--root"]);
        command.arg(&cache);
        command
            .arg("--target-dir")
            .arg(target_dir().join("rumqttd"));
        install(&mut command, consent)?;
    }
    Ok(program)
}

/// The interpreter of a virtual environment with what tests/requirements.txt pins.
pub(crate) fn python(consent: Consent) -> Result<PathBuf> {
    environment("venv", "tests/requirements.txt", consent)
}

/// The same with the ThingsBoard gateway, which needs another version of pymodbus.
pub(crate) fn thingsboard(consent: Consent) -> Result<PathBuf> {
    environment(
        "venv-thingsboard",
        "tests/requirements-thingsboard.txt",
        consent,
    )
}

fn environment(name: &str, requirements: &str, consent: Consent) -> Result<PathBuf> {
    let wanted = root().join(requirements);
    let venv = target_dir().join(name);
    let (python, stamp) = (venv.join("bin/python"), venv.join("requirements.txt"));
    let requirements =
        std::fs::read(&wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if std::fs::read(&stamp).is_ok_and(|there| there == requirements) {
        return Ok(python);
    }
    // Debian's own interpreter, whatever pyenv or conda put on PATH: python3-venv belongs to this one.
    install(
        Command::new("/usr/bin/python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
        consent,
    )?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--requirement"])
        .arg(&wanted))?;
    std::fs::write(&stamp, requirements)
        .with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

fn install(command: &mut Command, consent: Consent) -> Result<()> {
    if consent == Consent::Refused {
        bail!(
            "not installing anything; type this, then try again:\n  {}",
            line(command)
        );
    }
    run(command)
}

/// Outside the tree, because the tools take a minute to build.
fn cache_dir() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join("gateway-tools"))
}
