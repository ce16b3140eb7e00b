//! `gateway update check` and `install`: has the service look for a release and take it. Shell.
//!
//! Invariant: the service does it, so that nobody downloads beside it; ending this command ends nothing.

use anyhow::{Context, anyhow};

use super::super::{ConfigPath, Exit, Failure, load, print, runtime};
use crate::{control::Answers, update::agent::Word};

/// Arguments of `update install`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InstallArgs {
    #[command(flatten)]
    config: ConfigPath,
    /// Restart into it at once; otherwise the next `install --restart`, or the configured window, does
    #[arg(long)]
    restart: bool,
}

/// Asks the repository.
pub(super) fn check(config: &ConfigPath) -> Result<(), Failure> {
    follow(config, "update check")
}

/// Downloads and installs.
pub(super) fn install(args: &InstallArgs) -> Result<(), Failure> {
    let question = match args.restart {
        true => "update install restart",
        false => "update install",
    };
    follow(&args.config, question)
}

/// Prints word by word what the service says of it.
fn follow(config: &ConfigPath, question: &str) -> Result<(), Failure> {
    let socket = load(config)?.value.gateway.control;
    let unreachable = |error: anyhow::Error| Failure::new(Exit::Unreachable, error);
    runtime()?.block_on(async {
        let asked = Answers::ask(&socket, question).await.with_context(|| {
            format!(
                "cannot ask the service at {}; is gateway.service running?",
                socket.display()
            )
        });
        let mut answers = asked.map_err(unreachable)?;
        loop {
            let value = answers.next().await.context("the service went away");
            let value = value
                .map_err(unreachable)?
                .ok_or_else(|| unreachable(anyhow!("the service said nothing of how it ended")))?;
            let word: Word =
                serde_json::from_value(value).context("the service's answer is not understood")?;
            match word {
                Word::Progress(text) => print(&format!("{text}\n"))?,
                Word::Done(text) => return Ok(print(&format!("{text}\n"))?),
                Word::Failed { why, security } => {
                    let exit = if security {
                        Exit::Refused
                    } else {
                        Exit::Failed
                    };
                    return Err(Failure::new(exit, anyhow!(why)));
                }
            }
        }
    })
}
