//! What is said of keys that do not fit a bus' wire.

use super::{LINE, check};

const NETWORK: &str = "[[bus]]\nname = \"b\"\ntcp = \"10.0.0.5\"\n";
const TLS: &str = "tls = { ca = \"ca.pem\", certificate = \"us.pem\", key = \"us.key\" }\n";

#[test]
fn a_line_takes_what_belongs_to_lines_and_a_connection_what_belongs_to_connections() {
    let line = format!("{LINE}echo = \"on\"\nrs485 = {{ delay_before_send = \"1ms\" }}\n");
    check(&line, &[]);
    check(&format!("{NETWORK}{TLS}pipeline = 4\n"), &[]);
    check(&format!("{NETWORK}framing = \"rtu\"\necho = \"on\"\n"), &[]);
}

#[test]
fn what_belongs_to_another_wire_is_said_to() {
    check(
        &format!("{NETWORK}echo = \"off\"\nrs485 = {{}}\n"),
        &[
            "4:8: only a serial line echoes",
            "5:9: rs485 turns the transceiver of a serial port",
        ],
    );
    check(
        &format!("{LINE}{TLS}"),
        &["4:7: TLS needs a connection; a serial line has none; write tcp = \"HOST:802\""],
    );
    check(
        &format!("{NETWORK}framing = \"rtu\"\n{TLS}"),
        &["4:11: Modbus/TCP Security carries MBAP frames"],
    );
}

#[test]
fn delays_that_the_kernel_cannot_keep_are_refused() {
    check(
        &format!("{LINE}rs485 = {{ delay_after_send = \"1500us\" }}\n"),
        &["4:30: the kernel knows whole milliseconds only"],
    );
}

#[test]
fn the_port_of_a_connection_is_502_or_802_with_tls() {
    let address = |text: &str| {
        let loaded = crate::config::parse("gateway.toml", text).expect("a configuration");
        loaded.value.buses[0].address()
    };
    assert_eq!(address(NETWORK).as_deref(), Some("10.0.0.5:502"));
    let secure = format!("{NETWORK}{TLS}");
    assert_eq!(address(&secure).as_deref(), Some("10.0.0.5:802"));
    let own = NETWORK.replace("10.0.0.5", "[::1]:1502");
    assert_eq!(address(&own).as_deref(), Some("[::1]:1502"));
    assert_eq!(address(LINE), None);
}
