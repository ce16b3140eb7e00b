//! The command line. Shell: reads arguments, calls the parts, prints, and ends with a code.
//!
//! Invariant: a final error is printed here and nowhere else, once, with its whole chain.

mod buffer;
mod bus;
mod check;
mod client;
mod consent;
mod demo;
mod failure;
mod identity;
mod plan;
mod profile;
mod progress;
mod release;
mod run;
mod simulate;
mod status;
mod tpm;
mod update;
mod updater;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use crate::{config, control, logging::LogFormat};
use failure::{Exit, Failure};

/// Sensors on wires to MQTT, buffered, forwarded over mutual TLS.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service: broker, buses, buffer and upstream link
    Run(run::Args),
    /// Show the whole appliance at work on loopback, with simulated devices
    Demo(demo::Args),
    /// Simulate devices, with faults on demand, to try a configuration at the desk
    Simulate(simulate::Args),
    /// Validate the configuration and what it needs of this machine
    Check(check::Args),
    /// Show the requests that go over each bus, and what they cost
    Plan(plan::Args),
    /// List, show and check descriptions of devices
    Profile(profile::Args),
    /// Commission a bus: scan, read, write, guess, trace
    #[command(subcommand)]
    Bus(Box<bus::Command>),
    /// Show what works, what does not, and since when
    Status(status::Args),
    /// Show what waits for the upstream, and pause or resume forwarding
    Buffer(buffer::Args),
    /// Add, list, rotate and revoke clients of the local broker
    #[command(subcommand)]
    Client(client::Command),
    /// The gateway's own key and its certificate for the upstream
    #[command(subcommand)]
    Identity(identity::Command),
    /// Provision the TPM, show what stands in it, and approve what it may take
    #[command(subcommand)]
    Tpm(tpm::Command),
    /// For vendors: make, sign, publish and check releases
    #[command(subcommand)]
    Release(Box<release::Command>),
    /// Releases of this system: how they stand, and which one stays
    #[command(subcommand)]
    Update(update::Command),
    /// Run the root process that installs, commits and rolls back releases
    Updater(updater::Args),
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Print a completion script for a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
}

/// Where the configuration is; the same for every command that reads it.
#[derive(Debug, clap::Args)]
struct ConfigPath {
    /// The configuration file
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        default_value = "/etc/gateway/gateway.toml"
    )]
    path: PathBuf,
}

/// How the process logs; the same for every command that runs the service.
#[derive(Debug, clap::Args)]
struct Logging {
    /// Where log events go
    #[arg(long = "log", value_enum, default_value_t, value_name = "FORMAT")]
    format: LogFormat,
    /// Least level logged, or a filter such as info,gateway::fieldbus=debug
    #[arg(long = "log-level", default_value = "info", value_name = "FILTER")]
    level: String,
}

/// Runs the command given to this process.
pub fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.print(),
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Bus(command) => bus::run(&command),
        Command::Status(args) => status::run(&args),
        Command::Buffer(args) => buffer::run(&args),
        Command::Client(command) => client::run(&command),
        Command::Identity(command) => identity::run(&command),
        Command::Tpm(command) => tpm::run(&command),
        Command::Release(command) => release::run(&command),
        Command::Update(command) => update::run(&command),
        Command::Updater(args) => updater::run(&args),
        Command::Schema => Ok(print(&format!("{:#}\n", config::schema()))?),
        Command::Completions { shell } => Ok(print(&completions(shell))?),
    }
}

fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gateway", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes to standard output; a reader that went away is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// The configuration in `path`, or every problem in it.
fn load(path: &ConfigPath) -> Result<config::Loaded, Failure> {
    config::load(&path.path)
        .map_err(|problems| Failure::new(Exit::Usage, anyhow::anyhow!("{problems}")))
}

/// What the running service answers on its control socket.
fn ask(socket: &Path, question: &str) -> Result<serde_json::Value, Failure> {
    control::ask(socket, question)
        .with_context(|| {
            format!(
                "cannot ask the service at {}; is gateway.service running?",
                socket.display()
            )
        })
        .map_err(|error| Failure::new(Exit::Unreachable, error))
}

/// A runtime for the service: two workers carry a plant, and leave an SBC's other cores alone.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
