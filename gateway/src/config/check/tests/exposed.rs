//! What is said of a field bus that others can reach.

use super::check;

fn network(keys: &str) -> String {
    format!("[[bus]]\nname = \"b\"\n{keys}\n")
}

#[test]
fn a_door_left_open_for_commissioning_is_told() {
    check(
        &network("tcp = \"10.0.0.5\"\nraw_requests = true"),
        &[
            "gateway.toml:4:16: warning: bus \"b\" is open for commissioning: who may publish to modbus/b/request writes",
        ],
    );
}

#[test]
fn a_bus_over_the_internet_in_the_clear_is_told() {
    for public in [
        "8.8.8.8",
        "8.8.8.8:1502",
        "[2a00:1450::1]:502",
        "100.128.0.1",
    ] {
        let said = "3:7: warning: ";
        check(&network(&format!("tcp = \"{public}\"")), &[said]);
    }
    let tls = "tls = { ca = \"ca.pem\", certificate = \"us.pem\", key = \"us.key\" }";
    check(&network(&format!("tcp = \"8.8.8.8\"\n{tls}")), &[]);
    for near in [
        "192.168.1.9",
        "172.16.0.1:502",
        "127.0.0.1",
        "100.64.0.1",
        "[fd00::1]:502",
        "plc",
    ] {
        check(&network(&format!("tcp = \"{near}\"")), &[]);
    }
}
