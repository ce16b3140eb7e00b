//! `gateway status`: asks the running service and shows its answer. Shell.

use std::{io::IsTerminal, time::Duration};

use anyhow::Context;

use crate::appliance::status_text;

use super::{ConfigPath, Failure, ask, load, print};

/// Pause between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigPath,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Show it again every second
    #[arg(long)]
    watch: bool,
}

/// Shows the state of the service once, or until interrupted.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let socket = load(&args.config)?.value.gateway.control;
    loop {
        let answer = ask(&socket, "status")?;
        let text = if args.json {
            format!("{answer}\n")
        } else {
            status_text::render(
                &serde_json::from_value(answer)
                    .context("the service's answer is not understood; is it of another version?")?,
            )
        };
        if args.watch && std::io::stdout().is_terminal() {
            print("\x1b[2J\x1b[H")?;
        }
        print(&text)?;
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}
