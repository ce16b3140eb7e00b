//! What `gateway check` says about the TPM. Shell.
//!
//! Invariant: nothing is changed in the TPM.

use settings::{Document, Problem};
use tpm::Tpm;

use crate::{
    appliance::trusted,
    config::{Config, KeyPlace},
};

const PROVISION: &str = "run gateway tpm status, then gateway tpm provision";

/// What is wrong with the TPM: errors where `require_tpm` stands or the link signs with it, else
/// warnings.
pub(super) fn findings(config: &Config, document: &Document) -> Vec<Problem> {
    let Some(table) = &config.tpm else {
        return Vec::new();
    };
    let link = config.upstream.as_ref();
    let is_needed =
        table.require_tpm || link.is_some_and(|link| link.identity == Some(KeyPlace::Tpm));
    let finding = |what: String, remedy: &str| match is_needed {
        true => document.error("tpm", what, remedy),
        false => document.warning("tpm", what, remedy),
    };
    let looked = trusted::approval_key(table).and_then(|key| {
        let mut tpm = Tpm::open(&trusted::address(table)?)?;
        Ok(tpm.report(&table.directory, key.as_ref())?)
    });
    match looked {
        Ok(report) => report
            .problems
            .into_iter()
            .map(|problem| finding(problem, PROVISION))
            .collect(),
        Err(error) => vec![finding(
            format!("{error:#}"),
            "what needs the TPM's keys waits until it answers",
        )],
    }
}
