//! What is checked of `[tpm]` in the file alone. Value.

use super::{
    super::{Config, KeyPlace},
    Findings,
};

pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    let Some(tpm) = &config.tpm else {
        let link = config.upstream.as_ref();
        if link.is_some_and(|link| link.identity == Some(KeyPlace::Tpm)) {
            findings.error(
                "upstream.identity",
                "the link's key is in the TPM, but there is no [tpm]",
                "add [tpm], then run gateway tpm provision",
            );
        }
        return;
    };
    if let Err(wrong) = tpm.device.parse::<tpm::Address>() {
        findings.error("tpm.device", wrong, "");
    }
}
