//! The broker as a program of its own: its command line.
//!
//! Shell. Invariant: an error is printed once, with its chain; exit code 2 means the
//! configuration, 4 that no broker answers, 1 anything else.

mod cli;

mod file;

mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// A small, durable, secured MQTT 3.1.1 and 5.0 broker.
#[derive(Parser)]
#[command(
    version,
    group = clap::ArgGroup::new("what").required(true),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = AFTER_HELP
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Serve as this configuration file says; SIGHUP reads it again
    #[arg(short, long, value_name = "FILE", group = "what")]
    config: Option<PathBuf>,
    /// Serve anonymous clients on this port of the loopback, without a configuration
    #[arg(short, long, value_name = "PORT", group = "what")]
    port: Option<u16>,
}

const AFTER_HELP: &str = "\
To try it:      broker-lite --port 1883, then mosquitto_sub -t '#' -v
To see it work: broker-lite status --config FILE
To watch it:    mosquitto_sub -t '$SYS/#' -v, or [metrics] address = \"127.0.0.1:9883\" and
                curl http://127.0.0.1:9883/metrics
Signals: SIGHUP reads the configuration again and disconnects only whom it no longer allows;
SIGTERM and SIGINT stop in order. What is logged is explained in docs/audit.md.";

#[derive(Subcommand)]
enum Command {
    /// Say everything that is wrong with a configuration file, and change nothing
    Check(cli::check::Args),
    /// Show a running broker: its clients with their rates and queues, what it refused, its store
    Status(cli::status::Args),
    /// Make and change password files
    #[command(subcommand)]
    Passwd(cli::passwd::Passwd),
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Check(args)) => cli::check::run(&args),
        Some(Command::Status(args)) => cli::status::run(&args),
        Some(Command::Passwd(command)) => cli::passwd::main(&command),
        Some(Command::Schema) => cli::print(&format!("{:#}\n", file::schema())),
        None => serve::main(arguments.config, arguments.port.unwrap_or(1883)),
    }
}
