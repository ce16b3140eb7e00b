//! `gateway buffer`: asks the running service what waits, pauses or resumes forwarding, carries away what waits, and decides about dead letters. Shell.

mod dead;
mod export;

use anyhow::{Context, anyhow};
use clap::Subcommand;

use crate::appliance::buffer_stats::{self, BufferStats};

use super::{ConfigPath, Failure, ask, load, print};

/// Arguments of `buffer`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what waits, by priority, and what the upstream will never take
    Stats(Asking),
    /// Send nothing more upstream until resumed or restarted; messages wait, commands still come in
    Pause(Asking),
    /// Send again what waits
    Resume(Asking),
    /// Write what waits as JSON lines or CSV, beside the service or from a copy of its file; nothing is deleted
    Export(export::Args),
    /// Dead letters: list them, send them again, drop them
    #[command(subcommand)]
    Dead(dead::Command),
}

#[derive(Debug, clap::Args)]
struct Asking {
    #[command(flatten)]
    config: ConfigPath,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Does what is asked for, and shows the buffer after it.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (question, asking) = match &args.action {
        Action::Stats(asking) => ("buffer", asking),
        Action::Pause(asking) => ("buffer pause", asking),
        Action::Resume(asking) => ("buffer resume", asking),
        Action::Export(args) => return export::run(args),
        Action::Dead(command) => return dead::run(command),
    };
    let socket = load(&asking.config)?.value.gateway.control;
    let answer = ask(&socket, question)?;
    if let Some(error) = answer.get("error").and_then(|error| error.as_str()) {
        return Err(anyhow!("the service refused: {error}").into());
    }
    if asking.json {
        return Ok(print(&format!("{answer}\n"))?);
    }
    let stats: BufferStats = serde_json::from_value(answer)
        .context("the service's answer is not understood; is it of another version?")?;
    Ok(print(&buffer_stats::render(&stats))?)
}
