//! The `[tpm]` table. Value.
//!
//! Invariant: without the table nothing touches a TPM.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// The device's TPM 2.0.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tpm {
    /// Where it is: the kernel's resource manager, or a simulator as `unix:/path/to/socket` or `tcp:host:port`.
    pub device: String,
    /// Directory of the files beside it: the names of its keys, and values that it has sealed.
    pub directory: PathBuf,
    /// The vendor's root-approval key, a P-256 public key in PEM. Without it only keys are provisioned, no trust anchors.
    pub approval_key: Option<PathBuf>,
    /// Do not start without a TPM that was provisioned and answers.
    pub require_tpm: bool,
}

impl Default for Tpm {
    fn default() -> Self {
        Tpm {
            device: tpm::RESOURCE_MANAGER.to_owned(),
            directory: "/var/lib/gateway/tpm".into(),
            approval_key: None,
            require_tpm: false,
        }
    }
}
