//! Where log events go: the journal, a terminal, or JSON lines. Shell.
//!
//! Invariant: logs go to the journal or to standard error, never to standard output.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    Layer, Registry, field::MakeExt, filter::Targets, fmt::format::debug_fn, layer::SubscriberExt,
    util::SubscriberInitExt,
};

pub use crate::config::LogFormat;

/// For the journal; on a terminal the kind's name says the same and is shorter.
const MESSAGE_ID: &str = "message_id";

/// Sends log events of `level` and above where `format` says, for the whole process, which the
/// journal knows by `name`.
///
/// `level` is a filter such as `info` or `info,gateway::fieldbus=debug`.
///
/// # Errors
/// The filter cannot be parsed, the journal cannot be reached, or logging was set up before.
pub fn init(name: &str, format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter: Targets = level.parse().map_err(|error| {
        anyhow::anyhow!("log level {level:?}: {error}; write for example info or debug")
    })?;
    tracing_subscriber::registry()
        .with(layer(name, format)?.with_filter(filter))
        .try_init()?;
    Ok(())
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn layer(name: &str, format: LogFormat) -> anyhow::Result<BoxedLayer> {
    Ok(match format {
        LogFormat::Auto if started_by_systemd() => layer(name, LogFormat::Journal)?,
        LogFormat::Auto => layer(name, LogFormat::Text)?,
        LogFormat::Journal => Box::new(
            tracing_journald::layer()
                .map_err(|error| {
                    anyhow::anyhow!("cannot reach journald: {error}; log as text instead")
                })?
                .with_field_prefix(None)
                .with_syslog_identifier(name.to_owned()),
        ),
        LogFormat::Text => Box::new(
            tracing_subscriber::fmt::layer()
                .fmt_fields(
                    debug_fn(|writer, field, value| match field.name() {
                        MESSAGE_ID => Ok(()),
                        "message" => write!(writer, "{value:?}"),
                        name => write!(writer, " {name}={value:?}"),
                    })
                    .delimited(""),
                )
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
