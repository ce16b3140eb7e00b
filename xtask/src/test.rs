//! `cargo xtask test`: what must hold before a change lands, cheapest first.
//!
//! Invariant: what runs alone by its name runs the same as within the whole. Shell.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::command::{cargo, root, run, target_dir};
use crate::packages::{self, BUILD, CROSS, Consent, TEST};
use crate::steps::Steps;
use crate::{bench, cross, fuzz, tools};

/// The exposure that `systemd-analyze security` may find at most, times ten.
const MOST_EXPOSED: u32 = 20;

/// One check of the run.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Check {
    /// rustfmt
    Format,
    /// systemd's opinion of the unit
    Service,
    /// licences, banned crates and sources
    Deny,
    /// clippy, warnings are errors
    Lint,
    /// rustdoc, warnings are errors
    Docs,
    /// tests within the crates
    Unit,
    /// bytes of strangers against the broker, shortly
    Fuzz,
    /// a few seconds of the benchmarks
    Bench,
    /// the gateway for 64-bit ARM
    Arm64,
    /// tests/: real processes
    Promises,
}

/// Runs one check, or all of them and then prints a summary. `name` selects among the tests of a check.
pub(crate) fn all_or_one(check: Option<Check>, name: Option<&str>, consent: Consent) -> Result<()> {
    ensure!(
        name.is_none() || matches!(check, Some(Check::Unit | Check::Promises)),
        "only unit and promises have tests that can be chosen by name"
    );
    let checks = check
        .as_ref()
        .map_or(Check::value_variants(), std::slice::from_ref);
    let needed: Vec<_> = checks.iter().flat_map(Check::packages).copied().collect();
    packages::need(&needed, consent)?;
    let mut steps = Steps::default();
    for check in checks {
        let value = check
            .to_possible_value()
            .context("every check has a name")?;
        let purpose = value
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        steps.run(value.get_name(), &purpose, || check.run(name, consent));
    }
    steps.finish()
}

impl Check {
    fn packages(&self) -> &'static [&'static [&'static str]] {
        match self {
            Check::Format | Check::Deny => &[],
            Check::Service => &[TEST],
            Check::Lint | Check::Docs | Check::Fuzz => &[BUILD],
            Check::Unit | Check::Bench => &[BUILD, TEST],
            Check::Arm64 => &[BUILD, CROSS],
            Check::Promises => &[BUILD, TEST, CROSS],
        }
    }

    fn run(self, name: Option<&str>, consent: Consent) -> Result<()> {
        match self {
            Check::Format => format(consent),
            Check::Service => service(),
            Check::Deny => deny(consent),
            Check::Lint => lint(consent),
            Check::Docs => run(cargo("doc")
                .args(["--locked", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "-Dwarnings")),
            Check::Unit => run(cargo("test")
                .args(["--locked", "--workspace", "--exclude", "tests"])
                .args(name)
                .env("TEST_PYTHON", tools::python(consent)?)),
            Check::Fuzz => fuzz::short(),
            Check::Bench => {
                bench::smoke()?;
                bench::line::smoke()?;
                bench::fieldbus::smoke(consent)?;
                bench::store::smoke(consent)
            }
            Check::Arm64 => cross::arm64_for_tests().map(drop),
            Check::Promises => promises(name, consent),
        }
    }
}

/// Whose kills.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Killed {
    /// broker-lite alone, and what lasting sessions are to get
    Broker,
    /// The gateway and the Mosquitto above it, and what is to arrive there
    Gateway,
}

/// The tests by killing, for as long as one likes.
pub(crate) fn kill(
    what: Option<Killed>,
    rounds: u32,
    seed: Option<u64>,
    consent: Consent,
) -> Result<()> {
    packages::need(&[BUILD, TEST], consent)?;
    let chosen = what
        .as_ref()
        .map_or(Killed::value_variants(), std::slice::from_ref);
    for killed in chosen {
        match killed {
            Killed::Broker => kill_broker(rounds)?,
            Killed::Gateway => kill_gateway(rounds, seed)?,
        }
    }
    Ok(())
}

fn kill_broker(rounds: u32) -> Result<()> {
    run(cargo("test")
        .args(["--locked", "--package", "broker-lite", "--test", "kill"])
        .args(["--", "--nocapture"])
        .env("BROKER_LITE_KILL_ROUNDS", rounds.to_string()))
}

fn kill_gateway(rounds: u32, seed: Option<u64>) -> Result<()> {
    run(cargo("build").args(["--locked", "--package", "gateway"]))?;
    let mut command = cargo("test");
    command
        .args(["--locked", "--package", "tests", "--test", "promises"])
        .args(["kills::", "--", "--nocapture"])
        .env("GATEWAY_BIN", target_dir().join("debug/gateway"))
        .env("GATEWAY_KILL_ROUNDS", rounds.to_string());
    if let Some(seed) = seed {
        command.env("GATEWAY_KILL_SEED", seed.to_string());
    }
    run(&mut command)
}

fn format(consent: Consent) -> Result<()> {
    tools::rust_components(consent)?;
    run(cargo("fmt").args(["--all", "--check"]))
}

fn lint(consent: Consent) -> Result<()> {
    tools::rust_components(consent)?;
    run(cargo("clippy").args([
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))
}

fn deny(consent: Consent) -> Result<()> {
    let cargo_deny = tools::cargo_deny(consent)?;
    // Offline, it wants to see the crates of every platform, not only of this one.
    run(cargo("fetch").arg("--locked"))?;
    run(Command::new(cargo_deny).current_dir(root()).args([
        "--offline",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))
}

/// `verify` insists that the binary is installed, so it reads a copy that names one that is; tests/systemd.rs verifies
/// the unit as it stands, in its place, when it starts it.
fn service() -> Result<()> {
    check_unit("gateway")?;
    check_unit("broker-lite")
}

fn check_unit(name: &str) -> Result<()> {
    let unit = root().join(format!("systemd/{name}.service"));
    let text =
        fs::read_to_string(&unit).with_context(|| format!("cannot read {}", unit.display()))?;
    let folder = target_dir().join("service-check");
    let copy = folder.join(format!("{name}.service"));
    fs::create_dir_all(&folder)
        .and_then(|()| {
            fs::write(
                &copy,
                text.replace(&format!("/usr/bin/{name}"), "/bin/true"),
            )
        })
        .with_context(|| format!("cannot write {}", copy.display()))?;
    run(Command::new("systemd-analyze").arg("verify").arg(&copy))?;
    let threshold = format!("--threshold={MOST_EXPOSED}");
    let exposure = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=yes", &threshold])
        .arg(&unit)
        .output()
        .context("cannot start systemd-analyze")?;
    let table = String::from_utf8_lossy(&exposure.stdout);
    for finding in table
        .lines()
        .filter(|line| line.starts_with(['\u{2717}', '\u{2192}']))
    {
        println!("    {}", finding.trim_end());
    }
    ensure!(
        exposure.status.success(),
        "systemd-analyze security finds {} too exposed",
        unit.display()
    );
    Ok(())
}

/// The tests find the programs they start through these variables; tests/main.rs reads them.
fn promises(name: Option<&str>, consent: Consent) -> Result<()> {
    let python = tools::python(consent)?;
    let arm64 = cross::arm64_for_tests()?;
    if !nix::unistd::geteuid().is_root() {
        // Booting systemd needs root; the test itself cannot ask for a password.
        run(Command::new("sudo").arg("--validate"))?;
    }
    run(cargo("build").args([
        "--locked",
        "--package",
        "gateway",
        "--package",
        "broker-lite",
    ]))?;
    run(cargo("test")
        .args(["--locked", "--package", "tests", "--test", "promises"])
        .args(name)
        .env("GATEWAY_BIN", target_dir().join("debug/gateway"))
        .env("GATEWAY_ARM64_BIN", arm64)
        .env("TEST_PYTHON", python)
        // A broken promise tells what happened; where in the test it was noticed adds nothing.
        .env("RUST_LIB_BACKTRACE", "0"))
}
