//! How a broker is watched: its log and its metrics. Values.
//!
//! Invariant: nothing is served off loopback unless the configuration says so.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use settings::{Document, Problem};

/// The `[metrics]` table: OpenMetrics over HTTP, at `/metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// `ADDRESS:PORT` to listen on. Whoever gets there can read names and addresses of clients.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub address: SocketAddr,
}

impl Metrics {
    /// What is worth a word about a table at `path`.
    pub fn check(&self, document: &Document, path: &str) -> Option<Problem> {
        (!self.address.ip().is_loopback()).then(|| {
            document.warning(
                &format!("{path}.address"),
                format!(
                    "metrics are readable by everyone who reaches {}",
                    self.address
                ),
                "listen on 127.0.0.1, or let a firewall choose who may read them",
            )
        })
    }
}

/// The `[log]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Least level written, or a filter such as `info,broker_lite::session=warn`.
    pub level: String,
    /// Where entries go.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

/// How log entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// The journal when systemd started the process, else text.
    #[default]
    Auto,
    /// Fields and message to journald.
    #[serde(alias = "journald")]
    Journal,
    /// Lines for people, coloured on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}
