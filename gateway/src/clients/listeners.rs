//! The broker's configuration with what clients were added, and with the authority's files where a
//! listener says `own`. Driver: asks this machine for its names.
//!
//! Invariant: what the file says counts as it stands; clients only add to it.

use std::{net::IpAddr, path::Path};

use broker_lite::config::{Config as Broker, ListenerTls};
use nix::ifaddrs::getifaddrs;

use super::{
    Office, Registry, Wanted,
    directory::{ANCHORS, LISTS, PASSWORDS, SERVER, SERVER_KEY},
};
use crate::config::{Config, OWN};

/// Addresses of this machine that a certificate bears.
const ADDRESSES_MAX: usize = 32;

/// What the listeners of `config` need of the authority.
pub(crate) fn wanted(config: &Config) -> Wanted {
    let tables = || {
        config
            .broker
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref())
    };
    let serves = tables().any(|tls| is_own(&tls.certificate));
    let trusts = tables().any(trusts_own);
    Wanted {
        server_names: serves.then(|| server_names(config)),
        authority: serves || trusts,
    }
}

/// Whether clients are trusted whom the gateway's own authority has certified.
pub(crate) fn trusts_own(tls: &ListenerTls) -> bool {
    tls.client_ca.as_deref().is_some_and(is_own)
}

/// Whether the path stands for what the authority makes.
pub(crate) fn is_own(path: &Path) -> bool {
    path == Path::new(OWN)
}

/// `broker` as it is served: with the clients' rules, and the office's files.
pub(crate) fn served(broker: &Broker, office: &Office, registry: &Registry) -> Broker {
    let mut served = broker.clone();
    served.access.extend(registry.rules());
    served.kept_passwords = registry.has_passwords().then(|| office.file(PASSWORDS));
    for tls in served
        .listeners
        .iter_mut()
        .filter_map(|listener| listener.tls.as_mut())
    {
        if is_own(&tls.certificate) {
            tls.certificate = office.file(SERVER);
        }
        if is_own(&tls.key) {
            tls.key = office.file(SERVER_KEY);
        }
        if trusts_own(tls) {
            tls.client_ca = Some(office.file(ANCHORS));
            tls.crl.push(office.file(LISTS));
        }
    }
    served
}

/// Every name and address by which clients may reach this machine.
fn server_names(config: &Config) -> Vec<String> {
    let mut names = config.clients.server_names.clone();
    if let Ok(host) = nix::unistd::gethostname()
        && let Ok(host) = host.into_string()
    {
        names.push(format!("{host}.local"));
        names.push(host);
    }
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.extend(addresses().iter().map(IpAddr::to_string));
    names.sort_unstable();
    names.dedup();
    names
}

/// IPv4 alone: those of IPv6 change by the day, and are configured where they are used.
fn addresses() -> Vec<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        Some(IpAddr::V4(address.as_sockaddr_in()?.ip()))
    });
    addresses.take(ADDRESSES_MAX).collect()
}
