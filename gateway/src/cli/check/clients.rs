//! What `gateway check` says about local clients and the authority that certifies them. Shell.
//!
//! Invariant: nothing is made; what is not there yet is made by the service when it starts.

use settings::{Document, Problem};

use crate::{
    clients::{self, Office, Registry},
    config::{Config, KeyPlace},
    name,
};

/// Clients that are named; the rest is counted.
const NAMED_MAX: usize = 5;

/// The office as it stands on disk.
pub(super) fn office(config: &Config) -> Office {
    Office::new(&config.clients, &name::gateway_id(&config.gateway), None)
}

/// The broker's configuration as it would be served. Listeners whose files the service makes when
/// it starts are looked at without TLS.
pub(super) fn served(
    config: &Config,
    office: &Office,
    known: &Registry,
) -> broker_lite::config::Config {
    let mut served = clients::served(&config.broker, office, known);
    let is_made = !known.generations.is_empty();
    for (listener, written) in served.listeners.iter_mut().zip(&config.broker.listeners) {
        let asks = written
            .tls
            .as_ref()
            .is_some_and(|tls| clients::is_own(&tls.certificate) || clients::trusts_own(tls));
        if asks && !is_made {
            listener.tls = None;
        }
    }
    served
}

/// Where the key is, and whose certificates end soon.
pub(super) fn findings(config: &Config, document: &Document) -> Vec<Problem> {
    let path = "clients.directory";
    let listing = match office(config).look() {
        Ok(known) => clients::shown(&known),
        Err(error) => return vec![document.error(path, clients::told(&error), "")],
    };
    let mut findings = Vec::new();
    let is_used = clients::wanted(config).authority || !listing.authority.is_empty();
    let in_file = match listing.authority.last() {
        Some(newest) => newest.key == KeyPlace::File,
        None => config.tpm.is_none(),
    };
    if is_used && in_file {
        findings.push(document.warning(
            path,
            "the key of the authority for local clients is a file, and whoever copies it makes clients",
            "configure [tpm] before the authority is made, where there is a TPM",
        ));
    }
    let soon: Vec<&str> = listing
        .clients
        .iter()
        .filter(|client| client.ends_soon)
        .map(|client| client.name.as_str())
        .collect();
    if !soon.is_empty() {
        let more = match soon.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = soon[..soon.len().min(NAMED_MAX)].join(", ");
        findings.push(document.warning(
            path,
            format!("certificates that end soon or have ended: {named}{more}"),
            "run gateway client rotate NAME, or revoke those that are gone",
        ));
    }
    findings
}
