//! `gateway bus forget`: what a device has taught is learned anew. Shell.
//!
//! Invariant: while the service runs it keeps its file; otherwise only that device's part goes.

use anyhow::anyhow;

use crate::fieldbus::lessons::LessonsFile;

use super::{
    ConfigPath, Exit, Failure, load, print,
    target::{asked, is_absent},
    usage,
};

/// Arguments of `bus forget`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
      gateway bus forget meter-1\n\
      What a device has taught: addresses that it refuses, function codes that it does not know,\n\
      points that are asked rarely, how long it takes to answer.")]
pub(in crate::cli) struct Args {
    /// A device of the configuration
    #[arg(value_name = "DEVICE")]
    device: String,
    #[command(flatten)]
    config: ConfigPath,
}

/// Forgets, through the running service or in the file.
pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let config = load(&args.config)?.value;
    let device = &args.device;
    if !config.devices.iter().any(|one| one.name == *device) {
        return Err(usage(format!(
            "{} has no device {device:?}",
            args.config.path.display()
        )));
    }
    let socket = &config.gateway.control;
    match asked(socket, &format!("forget {device}")).await {
        Ok(answer) => match answer["error"].as_str() {
            None => Ok(print(&format!("{device}: forgotten\n"))?),
            Some(error) => Err(Failure::new(
                Exit::Failed,
                anyhow!("the service at {} says: {error}", socket.display()),
            )),
        },
        Err(error) if is_absent(&error) => {
            let mut file = LessonsFile::open(&config.lessons());
            let mut memories = file.memories().clone();
            let taught = memories.remove(device).is_some();
            file.write(memories)
                .map_err(|error| Failure::new(Exit::Failed, anyhow!(error)))?;
            let said = if taught {
                "forgotten"
            } else {
                "it had taught nothing"
            };
            Ok(print(&format!("{device}: {said}\n"))?)
        }
        Err(error) => {
            let failure =
                anyhow!(error).context(format!("cannot ask the service at {}", socket.display()));
            Err(Failure::new(Exit::Unreachable, failure))
        }
    }
}
