//! `gateway demo`. Shell.

use anyhow::anyhow;
use settings::Period;

use crate::{demo, logging};

use super::{Exit, Failure, Logging, runtime};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End by itself after this long, such as 30s; otherwise Ctrl-C stops it
    #[arg(long = "for", value_name = "TIME")]
    length: Option<Period>,
    /// Port of the local broker on 127.0.0.1; by default a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[command(flatten)]
    logging: Logging,
}

/// Shows the demonstration; fails when a reading was lost.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    // Log lines would tear the screen; whoever asks for them gets them.
    if args.logging.level != "info" {
        logging::init(args.logging.format, &args.logging.level)?;
    }
    let options = demo::Options { length: args.length.map(Period::as_duration), port: args.port };
    let runtime = runtime()?;
    let summary = runtime.block_on(demo::run(options))?;
    if summary.lost > 0 || summary.taken == 0 {
        return Err(Failure::new(
            Exit::Failed,
            anyhow!("{} of {} readings did not arrive", summary.lost, summary.taken),
        ));
    }
    Ok(())
}
