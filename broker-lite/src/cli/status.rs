//! `broker-lite status`: asks a running broker and shows its answer. Shell.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use broker_lite::{observe::control, observe::report::Report};

use crate::file;

/// Pause between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `status`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The configuration file, which names the control socket
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/broker-lite/broker-lite.toml"
    )]
    config: PathBuf,
    /// The control socket itself, instead of the configuration
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Show it again every second
    #[arg(long)]
    watch: bool,
}

/// Shows the broker once, or until interrupted.
pub(crate) fn run(args: &Args) -> ExitCode {
    let socket = match &args.socket {
        Some(socket) => socket.clone(),
        None => match file::load(&args.config) {
            Ok(loaded) => loaded.value.control().to_owned(),
            Err(problems) => return super::fail(super::CONFIGURATION, &problems.to_string()),
        },
    };
    loop {
        let answer = match control::ask(&socket, "status") {
            Ok(answer) => answer,
            Err(error) => {
                let why = format!(
                    "cannot ask the broker at {}: {error}; does it run, and may this user write to the socket?",
                    socket.display()
                );
                return super::fail(super::UNREACHABLE, &why);
            }
        };
        let text = if args.json {
            format!("{answer}\n")
        } else {
            match serde_json::from_value::<Report>(answer) {
                Ok(report) => report.text(),
                Err(error) => {
                    let why = format!(
                        "the broker's answer is not understood ({error}); is it of another version?"
                    );
                    return super::fail(1, &why);
                }
            }
        };
        let clear = if args.watch && std::io::stdout().is_terminal() {
            "\x1b[2J\x1b[H"
        } else {
            ""
        };
        let printed = super::print(&format!("{clear}{text}"));
        if !args.watch || printed != ExitCode::SUCCESS {
            return printed;
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}
