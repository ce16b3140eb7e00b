//! Local clients' certificates, and listeners that use them. Values.

use std::path::Path;

use broker_lite::config::{CertificateName, Listener};

use crate::config::{Config, OWN};

use super::Findings;

/// Parts of the authority's life that a client's certificate may have.
const LIVES: u32 = 5;

/// Checks `[clients]` and every listener that says `own`.
pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    let clients = &config.clients;
    if clients.certificate_life.as_duration() > clients.ca_life.as_duration() / LIVES {
        findings.error(
            "clients.certificate_life",
            format!(
                "certificates of {} do not end before their authority of {} has a successor",
                clients.certificate_life, clients.ca_life
            ),
            "write at most a fifth of ca_life",
        );
    }
    for (index, name) in clients.server_names.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:*".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            findings.error(
                &format!("clients.server_names[{index}]"),
                format!("{name:?} is no host name and no address"),
                "write it as clients do, such as gateway.plant or 192.168.1.10",
            );
        }
    }
    for (index, listener) in config.broker.listeners.iter().enumerate() {
        own_listener(listener, &format!("broker.listener[{index}]"), findings);
    }
}

fn own_listener(listener: &Listener, path: &str, findings: &mut Findings<'_>) {
    let Some(tls) = &listener.tls else { return };
    let own = Path::new(OWN);
    if (tls.certificate == own) != (tls.key == own) {
        findings.error(
            &format!("{path}.tls"),
            "the gateway's own certificate has a key of its own",
            "write \"own\" for both certificate and key, or for neither",
        );
    }
    if tls.client_ca.as_deref() == Some(own) && listener.certificate_name == CertificateName::Uri {
        findings.error(
            &format!("{path}.certificate_name"),
            "certificates of the gateway's own authority have a common name and no URI",
            "remove certificate_name, or name another client_ca",
        );
    }
}
