//! `gateway update`: how releases stand, and a person's word on the one on trial. Shell.
//!
//! Invariant: slots are read and changed by the updater alone; this asks it.

mod download;

use std::path::Path;

use anyhow::{Context, anyhow};
use clap::Subcommand;
use nix::unistd::{User, getuid};
use serde_json::json;
use update::protocol::{Ask, Reply, socket};

use crate::{
    appliance::release_status::ReleaseStatus,
    config::{self, Config},
};

use super::{ConfigPath, Exit, Failure, ask, load, print};

/// What is asked for.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the slots, what is in them, and what a release on trial waits for
    Status(StatusArgs),
    /// Ask the repository which release it offers
    Check(ConfigPath),
    /// Download what the offered release lacks here, and have it written to the other slot
    Install(download::InstallArgs),
    /// Let the release on trial stay, without waiting for its health
    Commit(ConfigPath),
    /// Give up the release on trial: the one before it is started again
    Rollback(RollBackArgs),
    /// Tell that the machine is about to be restarted on purpose: it costs a release on trial no start
    #[command(hide = true)]
    BeforeRestart(ConfigPath),
}

/// Arguments of `update status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    config: ConfigPath,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `update rollback`.
#[derive(Debug, clap::Args)]
pub(super) struct RollBackArgs {
    #[command(flatten)]
    config: ConfigPath,
    /// Why, for whoever asks later
    #[arg(long)]
    reason: Option<String>,
}

/// Does what is asked for.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Status(args) => status(args),
        Command::Check(path) => download::check(path),
        Command::Install(args) => download::install(args),
        Command::Commit(path) => {
            order(&table(path)?.1.socket, Ask::Commit {})?;
            Ok(print("The running release stays.\n")?)
        }
        Command::Rollback(args) => {
            let reason = match &args.reason {
                Some(reason) => format!("by hand, by {}: {reason}", who()),
                None => format!("by hand, by {}", who()),
            };
            order(&table(&args.config)?.1.socket, Ask::RollBack { reason })?;
            Ok(print(
                "The release is given up; the machine restarts into the one before.\n",
            )?)
        }
        Command::BeforeRestart(path) => order(&table(path)?.1.socket, Ask::BeforeRestart {}),
    }
}

/// The updater knows the slots, and the service what a trial waits for; whoever of them may not be asked by
/// this user is left out.
fn status(args: &StatusArgs) -> Result<(), Failure> {
    let (config, table) = table(&args.config)?;
    let service = ask(&config.gateway.control, "update");
    let known = service
        .as_ref()
        .ok()
        .and_then(|answer| serde_json::from_value(answer.clone()).ok());
    let mut status: ReleaseStatus = known.unwrap_or_default();
    match socket::ask(&table.socket, Ask::Status {}) {
        Ok(Reply::Status(updater)) => {
            status.updater = Some(*updater);
            status.unreachable = None;
        }
        Ok(other) => status.unreachable = Some(format!("the updater answers {other:?}")),
        Err(error) => status.unreachable = Some(error.to_string()),
    }
    if args.json {
        print(&format!("{:#}\n", json!(status)))?;
    } else if status.updater.is_some() {
        print(&status.text())?;
    }
    match (&status.updater, status.unreachable) {
        (None, Some(why)) => Err(Failure::new(Exit::Unreachable, anyhow!(why))),
        _ => Ok(()),
    }
}

/// Has the updater do something.
fn order(socket: &Path, ask: Ask) -> Result<(), Failure> {
    match socket::ask(socket, ask) {
        Ok(Reply::Done {}) => Ok(()),
        Ok(Reply::Refused { why, security }) => {
            let exit = if security {
                Exit::Refused
            } else {
                Exit::Failed
            };
            Err(Failure::new(exit, anyhow!(why)))
        }
        Ok(other) => Err(anyhow!("the updater's answer is not understood: {other:?}").into()),
        Err(error) if error.is_unreachable() => Err(Failure::new(Exit::Unreachable, error.into())),
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}

fn table(path: &ConfigPath) -> Result<(Config, config::Update), Failure> {
    let config = load(path)?.value;
    let table = config.update.clone().with_context(|| {
        format!(
            "{} has no [update]: there are no slots to look at; see docs/updates.md",
            path.path.display()
        )
    });
    let table = table.map_err(|error| Failure::new(Exit::Usage, error))?;
    Ok((config, table))
}

fn who() -> String {
    let user = User::from_uid(getuid()).ok().flatten();
    user.map_or_else(|| format!("user {}", getuid()), |user| user.name)
}
