//! The identity and what its renewal needs. Values.

use crate::config::{Config, Renew};

use super::Findings;

/// Checks `[identity]`.
pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    let identity = &config.identity;
    let lacks = match identity.renew {
        Renew::Off => None,
        Renew::Est => identity
            .est
            .is_none()
            .then_some("[identity.est] with url and ca"),
        Renew::Command => identity
            .command
            .is_none()
            .then_some("[identity.command] with program"),
    };
    if let Some(table) = lacks {
        findings.error(
            "identity.renew",
            "it says not how",
            format!("write {table}"),
        );
    }
    if let Some(est) = &identity.est {
        if est.user.is_some() != est.password.is_some() {
            findings.error(
                "identity.est",
                "user and password belong together",
                "write both, or neither",
            );
        }
        if est.certificate.is_some() != est.key.is_some() {
            findings.error(
                "identity.est",
                "certificate and key belong together",
                "write both, or neither",
            );
        }
    }
    if identity.retry > identity.retry_max {
        findings.error(
            "identity.retry",
            format!(
                "retry {} is above retry_max {}",
                identity.retry, identity.retry_max
            ),
            "the pause grows from retry to retry_max",
        );
    }
    let used = config.upstream.as_ref().and_then(|link| link.identity);
    if identity.renew != Renew::Off && used.is_none() {
        findings.warn(
            "identity.renew",
            "the identity is renewed and used by nothing",
            "write identity = \"file\" or \"tpm\" in [upstream], or leave renew out",
        );
    }
}
