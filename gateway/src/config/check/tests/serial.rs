//! Serial instruments that cannot be read as they are configured.

use super::check;

fn line(rest: &str) -> String {
    format!("[[serial]]\nname = \"s\"\nport = \"/dev/ttyUSB1\"\n{rest}\n")
}

/// A line with a decoder that fits everything.
fn raw(rest: &str) -> String {
    line(&format!("decode = {{ raw = \"x\" }}\n{rest}"))
}

#[test]
fn a_serial_line_has_one_decoder_and_at_most_one_framing() {
    check(&line("decode = {}"), &["decode names no decoder"]);
    check(
        &line("decode = { nmea = [], raw = \"x\" }"),
        &["decode names 2 decoders"],
    );
    check(
        &line("decode = { nmea = [\"GGA\", \"GGB\"] }"),
        &["\"GGB\" is not a known NMEA 0183 sentence type"],
    );
    check(
        &line("decode = { regex = \"([0-9]+)\" }"),
        &["names no value"],
    );
    check(
        &raw("[[serial.point]]\nname = \"x\"\nheartbeat = \"1m\""),
        &["warning: the point is published at every poll anyway"],
    );
    check(
        &raw("frame = { length = 3, prefix = {} }"),
        &["frame names 2 framings"],
    );
}

#[test]
fn a_frame_holds_more_than_its_start() {
    check(
        &raw("frame = { start = \"\\x02\", delimiter = \"\\x03\" }"),
        &[],
    );
    check(
        &raw("frame = { start = \"ab\", length = 2 }"),
        &["a frame of 2 bytes is no longer than its start"],
    );
    check(
        &raw("frame = { start = \"ab\", prefix = { at = 1 } }"),
        &["the count at byte 1 stands within the start of 2 bytes"],
    );
    check(
        &raw("frame = { start = \"\u{20ac}\", length = 2 }"),
        &["a character beyond \\xFF is not one byte"],
    );
}

#[test]
fn a_checksum_is_one_of_the_catalogue_and_stands_where_it_can() {
    check(&raw("checksum = \"crc-16/ibm-3740\""), &[]);
    check(
        &raw(
            "checksum = { kind = \"xor\", form = \"hex\", place = \"after-delimiter\", skip = 1 }",
        ),
        &[],
    );
    check(&raw("checksum = \"crc-16/ccitt\""), &["crc-16/"]);
    check(
        &raw("frame = { length = 4 }\nchecksum = { kind = \"xor\", place = \"after-delimiter\" }"),
        &["the frame has no delimiter that the checksum could follow"],
    );
}

#[test]
fn a_request_may_bring_its_own_decoder_and_then_the_line_needs_none() {
    let request = "[[serial.request]]\nsend = \"W\\r\"\ndecode = { raw = \"x\" }";
    check(&line(request), &[]);
    let other = "[[serial.request]]\nsend = \"T\\r\"";
    check(
        &line(&format!("{request}\n{other}")),
        &["decode names no decoder"],
    );
    check(
        &line("[[serial.request]]\nsend = \"W\"\ndecode = {}"),
        &["6:10: decode names no decoder"],
    );
}

#[test]
fn what_is_sent_means_something() {
    check(&raw("init = [\"{\"]"), &["a brace stands alone"]);
    check(
        &raw("[[serial.request]]\nsend = \"W{value}\""),
        &["a request has no {value}"],
    );
    check(
        &raw("[[serial.request]]\nsend = \"W{weight}\""),
        &["{weight} is none of {value}"],
    );
    check(
        &raw("[[serial.request]]\nsend = \"W{checksum}\""),
        &["{checksum} is sent, and the line has none"],
    );
    check(
        &raw("pause = \"2s\"\n[[serial.request]]\nsend = \"W\""),
        &["warning: the line pauses for 2s after each answer"],
    );
}

#[test]
fn a_writable_point_says_what_is_sent_and_what_confirms_it() {
    let point = |rest: &str| raw(&format!("[[serial.point]]\nname = \"x\"\n{rest}"));
    check(
        &point("access = \"read-write\"\nwrite = \"S {value:.1}\\r\"\nconfirm = \"^OK\"\nmin = 0"),
        &[],
    );
    check(
        &point("access = \"read-write\""),
        &["does not say what a command sends"],
    );
    check(
        &point("access = \"read-write\"\nwrite = \"S\""),
        &["warning: without confirm no command is known to be executed"],
    );
    let back = "access = \"read-write\"\nread_back = true\nwrite = ";
    let asked = |point: &str| raw(&format!("[[serial.request]]\nsend = \"W\"\n{point}"));
    let named = |rest: &str| format!("[[serial.point]]\nname = \"x\"\n{rest}");
    check(&asked(&named(&format!("{back}\"S{{value}}\""))), &[]);
    check(
        &asked(&named(&format!("{back}\"S\"\nconfirm = \"OK\""))),
        &[
            "the point has both confirm and read_back",
            "a button has no value that could be read back",
        ],
    );
    check(
        &point(&format!("{back}\"S{{value}}\"")),
        &["read_back asks a request, and the line has none"],
    );
    check(
        &raw("unasked = true\n"),
        &["warning: an instrument without requests speaks unasked anyway"],
    );
    check(
        &point("write = \"S\""),
        &["warning: point \"x\" says what commands do"],
    );
    check(
        &point("access = \"read-write\"\nwrite = \"S\"\nconfirm = \"OK\"\nmin = 2\nmax = 1"),
        &["min 2 is above max 1"],
    );
    check(&point("scale = 0"), &["a scale of 0"]);
}
