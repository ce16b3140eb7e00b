//! The `[identity]` table of `gateway.toml`: the device's key and its certificate. Values.
//!
//! Invariant: it counts only where `[upstream] identity` says so.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// The `[identity]` table.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Where keys and certificates are kept, for the gateway's user alone.
    pub directory: PathBuf,
    /// Common name asked for; by default the gateway's id.
    #[schemars(length(min = 1, max = 64))]
    pub name: Option<String>,
}

impl Default for Identity {
    fn default() -> Self {
        Identity {
            directory: "/var/lib/gateway/identity".into(),
            name: None,
        }
    }
}
