//! `gateway bus …`: what a technician does at a bus before and after the service runs. Shell.
//!
//! Invariant: while the service runs it keeps its buses; what is asked here takes its turn among
//! the polls.

mod forget;
mod guess;
mod read;
mod scan;
mod target;
mod trace;
mod value;
mod write;

use clap::Subcommand;

use super::{ConfigPath, Exit, Failure, load, print, runtime};

/// The commands at a bus.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Look for units, and for the line settings where they are not known
    Scan(scan::Args),
    /// Read registers or bits, and show what they say
    Read(read::Args),
    /// Write registers or bits, and read them back
    Write(write::Args),
    /// Find type, order, scale and address of a reading that is known
    Guess(guess::Args),
    /// Show the frames on a bus, or keep them in a file for Wireshark
    Trace(trace::Args),
    /// Forget what a device has taught, and learn it anew
    Forget(forget::Args),
}

/// Runs the command.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let runtime = runtime()?;
    match command {
        Command::Scan(args) => runtime.block_on(scan::run(args)),
        Command::Read(args) => runtime.block_on(read::run(args)),
        Command::Write(args) => runtime.block_on(write::run(args)),
        Command::Guess(args) => runtime.block_on(guess::run(args)),
        Command::Trace(args) => runtime.block_on(trace::run(args)),
        Command::Forget(args) => runtime.block_on(forget::run(args)),
    }
}

/// Wrong usage, said in one sentence.
fn usage(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, anyhow::anyhow!("{what}"))
}

/// A line for the person at the terminal, beside what is printed for programs.
#[expect(clippy::print_stderr, reason = "notes stand beside the output")]
fn note(text: impl std::fmt::Display) {
    eprintln!("{text}");
}
