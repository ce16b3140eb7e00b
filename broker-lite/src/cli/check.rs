//! `broker-lite check`: everything that is wrong with a configuration, at once. Shell.

use std::{path::PathBuf, process::ExitCode};

use crate::file;

/// Arguments of `check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The configuration file
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/broker-lite/broker-lite.toml"
    )]
    config: PathBuf,
}

/// Prints the problems; exit code 2 where one of them is an error.
pub(crate) fn run(args: &Args) -> ExitCode {
    match file::load(&args.config) {
        Err(problems) => super::fail(super::CONFIGURATION, &problems.to_string()),
        Ok(loaded) => {
            let warnings: String = loaded
                .warnings
                .iter()
                .map(|warning| format!("{warning}\n"))
                .collect();
            let broker = &loaded.value.broker;
            super::print(&format!(
                "{warnings}{}: no errors; {} listeners, {} access rules, {} users\n",
                args.config.display(),
                broker.listeners.len(),
                broker.access.len(),
                broker.users.len()
            ))
        }
    }
}
