//! The configuration file of the broker as a program of its own: the broker's table, and how it is
//! watched. Values, and the one call that reads them.
//!
//! Invariant: what the gateway calls `[broker]` stands here at the top, key by key the same.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use broker_lite::config::{self, AccessRule, Config, Listener, Log, Metrics};
use schemars::JsonSchema;
use serde::Deserialize;
use settings::{Checks, Document, Formats, LoadError, Loaded, Problem};

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
// serde cannot refuse unknown keys beside a flattened table; the schema, which checks the file, can.
#[schemars(extend("additionalProperties" = false))]
pub(crate) struct File {
    #[serde(flatten)]
    pub(crate) broker: Config,
    /// A Unix socket at which `broker-lite status` asks. Default: /run/broker-lite/control.sock.
    pub(crate) control: Option<PathBuf>,
    /// OpenMetrics over HTTP; absent: none.
    pub(crate) metrics: Option<Metrics>,
    /// What is logged, and where. A change takes effect at the next start.
    pub(crate) log: Log,
}

impl File {
    pub(crate) fn control(&self) -> &Path {
        let default = || Path::new("/run/broker-lite/control.sock");
        self.control.as_deref().unwrap_or_else(default)
    }

    /// Anonymous clients on loopback, who may do everything.
    pub(crate) fn bare(port: u16) -> File {
        let listener = Listener {
            anonymous: Some(true),
            ..Listener::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        File {
            broker: Config {
                listeners: vec![listener],
                access: vec![AccessRule::everything()],
                ..Config::default()
            },
            ..File::default()
        }
    }
}

/// Reads a file, or every problem in it.
pub(crate) fn load(path: &Path) -> Result<Loaded<File>, LoadError> {
    let checks = Checks {
        formats: Formats::default(),
        across,
    };
    settings::load(path, &checks)
}

fn across(file: &mut File, document: &Document) -> Vec<Problem> {
    let mut problems = config::check(&file.broker, document, "");
    let metrics = file.metrics.as_ref();
    problems.extend(metrics.and_then(|metrics| metrics.check(document, "metrics")));
    problems
}

/// The file's JSON Schema.
pub(crate) fn schema() -> serde_json::Value {
    settings::schema::<File>("broker-lite")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_table_stands_at_the_top_and_unknown_keys_are_refused() {
        let checks = Checks {
            formats: Formats::default(),
            across,
        };
        let text = "sys_interval = \"1s\"\ncontrol = \"/run/x\"\n[metrics]\naddress = \"127.0.0.1:9883\"\n";
        let loaded = settings::parse("file", text, &checks).expect("a good file");
        assert!(loaded.value.broker.sys_interval.is_some() && loaded.value.metrics.is_some());
        let problems = settings::parse("file", "contrl = \"x\"\n", &checks).expect_err("unknown");
        assert!(
            problems.to_string().contains("did you mean \"control\""),
            "{problems}"
        );
    }
}
