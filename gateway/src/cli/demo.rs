//! `gateway demo`. Shell.

use anyhow::anyhow;
use settings::Period;

use crate::{
    demo,
    logging::{self, LogFormat},
};

use super::{Exit, Failure, runtime};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End by itself after this long, such as 30s; otherwise Ctrl-C stops it
    #[arg(long = "for", value_name = "TIME")]
    length: Option<Period>,
    /// Port of the local broker on 127.0.0.1; by default a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Also log, at this level or filter; log lines tear the screen
    #[arg(long = "log-level", value_name = "FILTER")]
    log_level: Option<String>,
}

/// Shows the demonstration; fails when a reading was lost.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(level) = &args.log_level {
        logging::init("gateway", LogFormat::Text, level)?;
    }
    let options = demo::Options {
        length: args.length.map(Period::as_duration),
        port: args.port,
    };
    let runtime = runtime()?;
    let summary = runtime.block_on(demo::run(options))?;
    if summary.taken == 0 {
        let why = anyhow!("it ended before the first reading was taken");
        return Err(Failure::new(Exit::Failed, why));
    }
    if summary.lost > 0 {
        return Err(Failure::new(
            Exit::Failed,
            anyhow!(
                "{} of {} readings did not arrive",
                summary.lost,
                summary.taken
            ),
        ));
    }
    Ok(())
}
