//! Where log events go: the journal, a terminal, or JSON lines. Shell.
//!
//! Invariant: logs go to the journal or to standard error, never to standard output.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt,
};

/// How log events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// The journal when systemd started the process, else text.
    #[default]
    Auto,
    /// Fields and message to journald.
    Journal,
    /// Lines for people, coloured on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

/// Sends log events of `level` and above where `format` says, for the whole process.
///
/// `level` is a filter such as `info` or `info,gateway::fieldbus=debug`.
///
/// # Errors
/// The filter cannot be parsed, the journal cannot be reached, or logging was set up before.
pub fn init(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(level)
        .map_err(|error| {
            anyhow::anyhow!("log level {level:?}: {error}; write for example info or debug")
        })?;
    tracing_subscriber::registry()
        .with(layer(format)?.with_filter(filter))
        .try_init()?;
    Ok(())
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn layer(format: LogFormat) -> anyhow::Result<BoxedLayer> {
    Ok(match format {
        LogFormat::Auto if started_by_systemd() => layer(LogFormat::Journal)?,
        LogFormat::Auto => layer(LogFormat::Text)?,
        LogFormat::Journal => Box::new(
            tracing_journald::layer()
                .map_err(|error| anyhow::anyhow!("cannot reach journald: {error}; use --log text"))?
                .with_field_prefix(None)
                .with_syslog_identifier("gateway".to_owned()),
        ),
        LogFormat::Text => Box::new(
            tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .with_ansi(io::stderr().is_terminal()),
        ),
        LogFormat::Json => Box::new(
            tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(io::stderr),
        ),
    })
}

/// systemd names the journal's socket to what it starts (systemd.exec, `$JOURNAL_STREAM`).
fn started_by_systemd() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}
