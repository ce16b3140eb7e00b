//! What a bus' keys say about its wire, and which of them belong to another kind of wire. Values.

use crate::config::{Bus, Echo, Framing, Rs485};

use super::Findings;

/// Checks `rs485`, `echo` and `tls` of a bus.
pub(super) fn check(bus: &Bus, path: &str, findings: &mut Findings<'_>) {
    if let Some(rs485) = &bus.rs485 {
        check_rs485(
            rs485,
            bus.port.is_some(),
            &format!("{path}.rs485"),
            findings,
        );
    }
    if bus.echo != Echo::Auto && bus.port.is_none() && bus.framing != Some(Framing::Rtu) {
        findings.error(
            &format!("{path}.echo"),
            "only a serial line echoes; Modbus TCP numbers its answers",
            "remove it",
        );
    }
    if bus.tls.is_none() {
        return;
    }
    if bus.port.is_some() {
        findings.error(
            &format!("{path}.tls"),
            "TLS needs a connection; a serial line has none",
            "write tcp = \"HOST:802\" instead of port",
        );
    }
    if bus.framing == Some(Framing::Rtu) {
        findings.error(
            &format!("{path}.framing"),
            "Modbus/TCP Security carries MBAP frames, not RTU frames",
            "remove framing, or tls",
        );
    }
}

/// Checks the direction of a transceiver; `on_port`: there is a serial port.
pub(super) fn check_rs485(rs485: &Rs485, on_port: bool, path: &str, findings: &mut Findings<'_>) {
    if !on_port {
        findings.error(
            path,
            "rs485 turns the transceiver of a serial port; a connection has none",
            "remove it",
        );
    }
    for (key, delay) in [
        ("delay_before_send", rs485.delay_before_send),
        ("delay_after_send", rs485.delay_after_send),
    ] {
        let delay = delay.as_duration();
        if delay.subsec_nanos() % 1_000_000 != 0 {
            findings.error(
                &format!("{path}.{key}"),
                "the kernel knows whole milliseconds only",
                "write 0s, 1ms, 2ms, …",
            );
        }
    }
}
