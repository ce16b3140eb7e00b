//! What of the field stands open to others. Values.

use std::net::IpAddr;

use crate::config::{Bus, url};

use super::Findings;

/// The first bytes of addresses behind a carrier's translation (RFC 6598, 100.64.0.0/10).
const SHARED: (u8, std::ops::RangeInclusive<u8>) = (100, 64..=127);

/// Warns of a commissioning door left open, and of a bus that crosses the internet in the clear.
pub(super) fn check(bus: &Bus, path: &str, findings: &mut Findings<'_>) {
    let name = &bus.name;
    if bus.raw_requests {
        findings.warn(
            &format!("{path}.raw_requests"),
            format!(
                "bus {name:?} is open for commissioning: who may publish to modbus/{name}/request \
                 writes every register, past access, min and max"
            ),
            "remove raw_requests when it is commissioned",
        );
    }
    let host = bus.tcp.as_deref().map(url::split_port);
    if let Some(Ok((host, _))) = host
        && bus.tls.is_none()
        && host.parse().is_ok_and(is_public)
    {
        findings.warn(
            &format!("{path}.tcp"),
            format!(
                "{host} is an address of the internet, and without tls whoever is on the way reads \
                 and writes the devices"
            ),
            "write tls where the device speaks Modbus/TCP Security, else its address in a VPN",
        );
    }
}

/// Whether packets to it leave the site.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == SHARED.0 && SHARED.1.contains(&second);
            let near = v4.is_private() || v4.is_loopback() || v4.is_link_local();
            !(shared || near || v4.is_documentation() || v4.is_unspecified())
        }
        IpAddr::V6(v6) => {
            let near = v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local();
            !(near || v6.is_unspecified())
        }
    }
}
