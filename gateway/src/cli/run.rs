//! `gateway run`. Shell.

use crate::{logging, service};

use super::{ConfigPath, Failure, Logging, load, runtime};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigPath,
    #[command(flatten)]
    logging: Logging,
}

/// Serves until it is told to stop.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let loaded = load(&args.config)?;
    logging::init("gateway", args.logging.format, &args.logging.level)?;
    for warning in loaded.warnings.iter() {
        tracing::warn!("{warning}");
    }
    let runtime = runtime()?;
    let served = runtime.block_on(service::serve(loaded.value, &args.config.path));
    // What still hangs in a name lookup must not hold up the stop.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(served?)
}
