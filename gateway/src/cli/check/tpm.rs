//! What `gateway check` says about the TPM. Shell.
//!
//! Invariant: nothing is changed in the TPM.

use settings::{Document, Problem};
use tpm::Tpm;

use crate::{appliance::trusted, config::Config};

const PROVISION: &str = "run gateway tpm status, then gateway tpm provision";

/// What is wrong with the TPM: errors where `require_tpm` stands, else warnings.
pub(super) fn findings(config: &Config, document: &Document) -> Vec<Problem> {
    let Some(table) = &config.tpm else {
        return Vec::new();
    };
    let finding = |what: String, remedy: &str| match table.require_tpm {
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
