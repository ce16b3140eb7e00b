//! What is checked of `[tpm]` in the file alone. Value.

use super::{super::Config, Findings};

pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    let Some(tpm) = &config.tpm else { return };
    if let Err(wrong) = tpm.device.parse::<tpm::Address>() {
        findings.error("tpm.device", wrong, "");
    }
}
