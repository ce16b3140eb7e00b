//! Every problem between keys, each with a part of what is said of it.

mod exposed;
mod payloads;
mod points;
mod requests;
mod serial;
mod update;
mod wire;

use crate::config::parse;

/// Asserts that `text` has exactly the problems `expected`, each a part of its line.
fn check(text: &str, expected: &[&str]) {
    let found = match parse("gateway.toml", text) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(problems) => problems.to_string(),
    };
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{found}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
}

const LINE: &str = "[[bus]]\nname = \"b\"\nport = \"/dev/ttyUSB0\"\n";

fn point(lines: &str) -> String {
    format!(
        "{LINE}[[device]]\nname = \"d\"\nbus = \"b\"\nunit = 1\n[[device.point]]\nname = \"p\"\n{lines}\n"
    )
}

#[test]
fn an_empty_file_is_a_gateway_without_devices() {
    check("", &[]);
}

#[test]
fn a_device_on_an_unknown_bus_is_told_the_nearest_name() {
    let text = "[[bus]]\nname = \"rs485-0\"\nport = \"/dev/ttyUSB0\"\n[[device]]\nname = \"m\"\nbus = \"rs485-1\"\nunit = 1\n\
                [[device.point]]\nname = \"p\"\nregister = \"input:0\"\n";
    check(
        text,
        &[
            "gateway.toml:6:7: device \"m\" is on bus \"rs485-1\", which is not in this file; did you mean \"rs485-0\"?",
        ],
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = "[[broker.listener]]\naddress = \"127.0.0.1:1883\"\n[[broker.listener]]\naddress = \"0.0.0.0:1883\"\n\
                [[bus]]\nname = \"b\"\n\
                [[device]]\nname = \"d\"\nbus = \"c\"\nunit = 0\n[[device.point]]\nname = \"p\"\nregister = \"input:0\"\nlength = 4\ntype = \"f32\"\n";
    check(
        text,
        &[
            "4:11: warning: 0.0.0.0:1883 is served without TLS",
            "4:11: listeners 127.0.0.1:1883 and 0.0.0.0:1883 overlap",
            "5:1: bus \"b\" has neither port nor tcp",
            "9:7: device \"d\" is on bus \"c\"",
            "14:10: device \"d\" reads 4 registers as f32, which takes 2",
        ],
    );
}

#[test]
fn a_drain_or_a_budget_that_cannot_work_is_told() {
    let upstream = "[[forward]]\nfilter = \"#\"\n[upstream]\nurl = \"mqtt://127.0.0.1:1883\"\n";
    let with = |lines: &str| format!("{upstream}{lines}");
    check(
        &with("in_flight = 10\n[upstream.drain]\nshare = 5\nwindows_hold = \"all-but-high\"\n"),
        &[
            "5 % of in_flight = 10 is less than one message",
            "there are no windows to hold anything for",
        ],
    );
    check(
        &with(
            "keep_alive = \"5m\"\n[upstream.budget]\nper_day = \"100KiB\"\nper_month = \"99KiB\"\n",
        ),
        &[
            "100KiB is less than the largest message, which takes 256KiB",
            "99KiB for a month is less than 100KiB for a day",
            "99KiB is less than the largest message",
            "keep_alive = 5m alone costs 1357056 bytes of 99KiB",
        ],
    );
    check(
        &with("[upstream.drain]\nmessages_per_second = 0\n"),
        &["6:23:"],
    );
    check(
        &with("[upstream.drain]\nwindows = [\"05:00-05:00\"]\n"),
        &["it closes when it opens"],
    );
    check(
        &with(
            "[upstream.budget]\nper_day = \"20MiB\"\n[upstream.drain]\nwindows = [\"01:00-05:00\"]\n",
        ),
        &[],
    );
}

#[test]
fn registers_that_cannot_be_are_refused() {
    check(
        &point("register = \"input:65535\"\ntype = \"f32\""),
        &["f32 at input:65535 ends beyond register 65535"],
    );
    check(
        &point("register = \"coil:1\"\ntype = \"u16\""),
        &["coil:1 is a single bit"],
    );
    check(
        &point("register = \"input:1\"\ntype = \"string\""),
        &["string needs a length"],
    );
    check(
        &point("register = \"holding:1\"\ntype = \"f32\"\nbit = 3"),
        &["bit 3 of f32"],
    );
    check(
        &point("register = \"input:1\"\naccess = \"read-write\""),
        &["input:1 cannot be written"],
    );
    check(
        &point("register = \"holding:1\"\nmin = 5\nmax = 2\naccess = \"read-write\""),
        &["min 5 is above max 2"],
    );
}

#[test]
fn a_unit_must_be_one_that_a_serial_line_can_address() {
    let text = point("register = \"input:1\"").replace("unit = 1", "unit = 248");
    check(&text, &["unit 248 cannot be addressed on a serial line"]);
}

#[test]
fn two_names_that_are_the_same_are_found() {
    let text = format!(
        "{}{}",
        point("register = \"input:1\""),
        "[[serial]]\nname = \"d\"\nport = \"/dev/ttyUSB1\"\ndecode = { nmea = [] }\n"
    );
    check(&text, &["device \"d\" stands twice, first in line 5"]);
}

#[test]
fn one_port_belongs_to_one_bus() {
    let text = format!("{LINE}[[bus]]\nname = \"c\"\nport = \"/dev/ttyUSB0\"\n");
    check(&text, &["port /dev/ttyUSB0 stands twice, first in line 3"]);
}

#[test]
fn an_upstream_needs_all_of_its_credentials() {
    check(
        "[upstream]\nurl = \"mqtts://h:8883\"\n[[forward]]\nfilter = \"#\"\n",
        &["no trust anchors"],
    );
    check(
        "[upstream]\nurl = \"mqtt://cloud.example\"\n[[forward]]\nfilter = \"#\"\n",
        &["without TLS"],
    );
    check(
        "[upstream]\nurl = \"mqtts://h:8883\"\nca = \"ca.pem\"\nkey = \"k.pem\"\n[[forward]]\nfilter = \"#\"\n",
        &["a key without its certificate"],
    );
}

#[test]
fn rules_are_of_use() {
    check(
        "[[forward]]\nfilter = \"#\"\n",
        &["warning: messages are forwarded, but there is no [upstream]"],
    );
    let rule = |topic: &str| {
        format!(
            "[upstream]\nurl = \"mqtt://127.0.0.1\"\n[[forward]]\nfilter = \"telemetry/#\"\ntopic = \"{topic}\"\n"
        )
    };
    check(
        &rule("{gateway}/all"),
        &["warning: all topics of \"telemetry/#\" become one"],
    );
    check(&rule("{site}/{topic}"), &["{site} is not known"]);
    check(&rule("a/+/{topic}"), &["no topic"]);
}

#[test]
fn each_upstream_of_a_list_is_checked() {
    let upstream = |url: &str| {
        format!("[upstream]\nca = \"/etc/ca.pem\"\nurl = {url}\n[[forward]]\nfilter = \"#\"\n")
    };
    check(&upstream(r#"["mqtts://a", "mqtts://b:8884"]"#), &[]);
    check(
        &upstream(r#"["mqtts://a", "mqtt://b"]"#),
        &["b would be reached without TLS"],
    );
    check(
        &upstream(r#"["mqtts://a", "http://b"]"#),
        &["gateway.toml:3:"],
    );
    check(&upstream("[]"), &["gateway.toml:3:"]);
    check(&upstream(r#""http://a""#), &["must begin with mqtts://"]);
}

#[test]
fn a_link_signs_with_the_tpm_or_with_a_key_in_a_file_never_both() {
    let link = |more: &str| {
        format!(
            "[upstream]\nurl = \"mqtts://h:8883\"\nca = \"ca.pem\"\nidentity = \"tpm\"\n{more}\n[[forward]]\nfilter = \"#\"\n"
        )
    };
    let with_tpm = |more: &str| link(more) + "[tpm]\n";
    check(&with_tpm(""), &[]);
    check(
        &with_tpm("certificate = \"gw.pem\""),
        &["the identity would be another one"],
    );
    let both = with_tpm("key = \"gw.key\"");
    check(&both, &["the link cannot sign with the TPM and with a key"]);
    check(
        &link(""),
        &["the link's key is in the TPM, but there is no [tpm]"],
    );
    let renewed =
        with_tpm("") + "[identity]\nrenew = \"command\"\ncommand = { program = [\"sign\"] }\n";
    check(&renewed, &[]);
}
