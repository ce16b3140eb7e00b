//! What one look at the plant shows, as far as a release's health goes. Values.
//!
//! Invariant: counters only rise while the process runs.

use std::collections::BTreeMap;

/// One look at the plant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Each device and instrument that is configured, by its name.
    pub(crate) devices: BTreeMap<String, Polls>,
    /// Why the broker does not deliver; `None`: it does.
    pub(crate) broker: Option<String>,
    /// Why nothing can be kept on disk; `None`: it can.
    pub(crate) buffer: Option<String>,
    /// Whether the TPM answers; `None`: none is configured.
    pub(crate) tpm: Option<bool>,
    /// Whether the link to the upstream is up; `None`: none is configured.
    pub(crate) upstream: Option<bool>,
    /// Network interfaces of this machine, and whether each has a carrier.
    pub(crate) interfaces: BTreeMap<String, bool>,
}

/// How a device is polled, or heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Polls {
    /// Whether it answers.
    pub(crate) online: bool,
    /// Answers with values since the process started.
    pub(crate) good: u64,
}

impl Polls {
    /// Whether it answers, and has given a value.
    pub(crate) fn is_good(self) -> bool {
        self.online && self.good > 0
    }
}
