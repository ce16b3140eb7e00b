//! `cargo xtask`: the project's own commands, from a fresh Debian 12 to a running demonstration or a full test run.
//!
//! ```text
//! main ── setup ──┬── packages (apt)         what Debian has
//!         demo    ├── tools (rustup, pip, …) what it does not have
//!         test ───┼── cross (aarch64 …)      the boards' binaries
//!         bench   ├── fuzz                   libFuzzer on what strangers write
//!         cross   ├── bench                  broker, field bus and buffer beside others, measured
//!         sbom    ├── sbom                   what the gateway's binary is made of
//!         fuzz    └── steps                  what is said about it: start, duration, summary
//! ```
//! Invariant: nothing is installed before it has been listed, and nothing at all with `--no-install`. Shell.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks on its terminal"
)]

mod packages;
mod tools;

mod command;
mod steps;

mod bench;
mod cross;
mod fuzz;
mod sbom;
mod test;

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};

use crate::command::{cargo, run, target_dir};
use crate::packages::{BUILD, CROSS, Consent, FUZZ, TEST};

/// The project's own commands. What one of them needs and this machine lacks is listed, then installed.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
    /// Install nothing: stop, and print the command that would
    #[arg(long, global = true)]
    no_install: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the other commands need, so that they can run offline later
    Setup,
    /// Build the gateway and show the whole appliance on loopback: `gateway demo ARGS`
    Demo {
        /// For `gateway demo`, for example `-- --for 30s`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Run every check and test, or one of them
    Test {
        /// Only this one
        check: Option<test::Check>,
        /// Only the tests whose name contains this (for `unit` and `promises`)
        name: Option<String>,
    },
    /// List the components of the gateway's binary: CycloneDX, JSON, for `gateway release pack --sbom`
    Sbom {
        /// The board's target
        #[arg(long, default_value = "aarch64-unknown-linux-gnu")]
        target: String,
        /// Where the list goes
        out: std::path::PathBuf,
    },
    /// Fuzz what reads bytes of strangers, with libFuzzer
    Fuzz {
        /// A file of broker-lite/fuzz/targets; all of them if left out
        target: Option<String>,
        /// How long each target runs, such as 30s, 10m or 2h
        #[arg(long = "for", default_value = "10m")]
        time: fuzz::Seconds,
    },
    /// Kill the broker, and the gateway with its upstream, under load, round after round, and count what was promised
    Kill {
        /// Only this one
        what: Option<test::Killed>,
        /// How many times
        #[arg(long, default_value_t = 300)]
        rounds: u32,
        /// What the gateway's kills are drawn from; a failure prints its own
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Measure beside others' programs, and write the figures to docs/benchmarks
    Bench {
        #[command(subcommand)]
        what: Measured,
    },
    /// Build the boards' binaries with Debian's cross compiler and start each under QEMU
    Cross {
        /// A target of cross.toml, by its triple or the triple's first word; all that Debian can build if left out
        #[arg(long)]
        target: Option<String>,
        /// Cargo profile
        #[arg(long, default_value = "release")]
        profile: String,
    },
}

#[derive(Subcommand)]
enum Measured {
    /// How much of a serial line's ceiling the gateway uses
    Line(bench::line::Options),
    /// broker-lite beside Mosquitto and rumqttd
    Broker(bench::Options),
    /// The gateway's field bus beside pymodbus, mbpoll and the ThingsBoard gateway
    Fieldbus(bench::fieldbus::Options),
    /// The gateway's buffer beside Mosquitto's bridge and the ThingsBoard gateway's storage
    Store(bench::store::Options),
    /// How long the TPM takes, over swtpm
    Trust(bench::trust::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let consent = if arguments.no_install {
        Consent::Refused
    } else {
        Consent::Given
    };
    let outcome = match arguments.task {
        None => Arguments::command()
            .print_help()
            .context("cannot print the help"),
        Some(Task::Setup) => setup(consent),
        Some(Task::Demo { args }) => demo(&args, consent),
        Some(Task::Test { check, name }) => test::all_or_one(check, name.as_deref(), consent),
        Some(Task::Sbom { target, out }) => sbom::write(&target, &out),
        Some(Task::Fuzz { target, time }) => fuzz::long(target.as_deref(), time, consent),
        Some(Task::Kill { what, rounds, seed }) => test::kill(what, rounds, seed, consent),
        Some(Task::Bench {
            what: Measured::Line(options),
        }) => bench::line::line(&options, consent),
        Some(Task::Bench {
            what: Measured::Broker(options),
        }) => bench::broker(&options, consent),
        Some(Task::Bench {
            what: Measured::Fieldbus(options),
        }) => bench::fieldbus::fieldbus(&options, consent),
        Some(Task::Bench {
            what: Measured::Store(options),
        }) => bench::store::store(&options, consent),
        Some(Task::Bench {
            what: Measured::Trust(options),
        }) => bench::trust::trust(&options, consent),
        Some(Task::Cross { target, profile }) => {
            cross::build_and_start(target.as_deref(), &profile, consent)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn setup(consent: Consent) -> Result<()> {
    packages::need(&[BUILD, TEST, CROSS, FUZZ], consent)?;
    tools::rust_components(consent)?;
    tools::cargo_deny(consent)?;
    tools::cargo_fuzz(consent)?;
    tools::python(consent)?;
    run(cargo("fetch").arg("--locked"))?;
    run(cargo("fetch").args(["--locked", "--manifest-path", "broker-lite/fuzz/Cargo.toml"]))?;
    println!("everything is there: cargo xtask demo, cargo xtask test");
    Ok(())
}

/// Ends in `gateway demo` itself, so that Ctrl-C and the exit code are the gateway's own.
fn demo(args: &[String], consent: Consent) -> Result<()> {
    packages::need(&[BUILD], consent)?;
    run(cargo("build").args(["--locked", "--profile", "demo", "--package", "gateway"]))?;
    let gateway = target_dir().join("demo/gateway");
    let error = std::process::Command::new(&gateway)
        .arg("demo")
        .args(args)
        .exec();
    Err(error).with_context(|| format!("cannot start {}", gateway.display()))
}
