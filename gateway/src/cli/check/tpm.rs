//! What `gateway check` says about the TPM. Shell.
//!
//! Invariant: nothing is changed in the TPM.

use broker_lite::preflight;
use settings::{Document, Problem};
use tpm::Tpm;

use crate::{
    appliance::trusted,
    config::{Config, KeyPlace, Upstream},
    identity::{self, IdentityError, TpmIdentity},
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

/// The certificate of the TPM's key, where that is who the gateway is to the upstream.
pub(super) fn identity(config: &Config, upstream: &Upstream, document: &Document) -> Vec<Problem> {
    let path = match upstream.certificate {
        Some(_) => "upstream.certificate",
        None => "identity.directory",
    };
    let file = identity::certificate_of_tpm(upstream, &config.identity);
    if !file.exists() {
        let what = format!(
            "there is no certificate of the TPM's key in {} yet",
            file.display()
        );
        let remedy = "run gateway identity csr, have it signed, then gateway identity enrol";
        return vec![document.error(path, what, remedy)];
    }
    let mut findings = Vec::new();
    if upstream.certificate.is_none() {
        findings.extend(preflight::certificate(&file, path, document));
    }
    // That the TPM does not answer is said of [tpm].
    findings.extend(usable(config, upstream).err().and_then(|error| {
        let is_away = error.downcast_ref().is_some_and(is_of_tpm);
        (!is_away).then(|| document.error(path, format!("{error:#}"), ""))
    }));
    findings
}

/// Whether certificate and key belong together.
fn usable(config: &Config, upstream: &Upstream) -> anyhow::Result<()> {
    let Some(table) = &config.tpm else {
        return Ok(());
    };
    let key = tpm::DeviceKey::start(trusted::address(table)?, table.directory.clone())?;
    TpmIdentity::new(upstream, &config.identity, key).certified()?;
    Ok(())
}

fn is_of_tpm(error: &IdentityError) -> bool {
    matches!(error, IdentityError::Tpm(_))
}
