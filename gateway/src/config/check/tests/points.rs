//! What the keys of a point may mean together.

use super::{check, point};

/// Points with these lines have exactly one problem each, of which this is a part.
fn refused(cases: &[(&str, &str)]) {
    for (lines, problem) in cases {
        check(&point(lines), &[problem]);
    }
}

#[test]
fn every_key_of_a_point_is_read() {
    check(
        &point(concat!(
            "register = \"holding:1\"\ntype = \"i48\"\norder = \"EFCDAB\"\nscale = 0.1\noffset = -40\n",
            "clamp = { min = 0, max = 100 }\nround = 1\nnot_available = [0x7fffffffffff, -1]\n",
            "deadband = \"2%\"\nheartbeat = \"5m\"\naccess = \"read-write\"\nmin = 0\nmax = 9"
        )),
        &[],
    );
    check(
        &point("register = \"input:1\"\ntype = \"u8\"\nbyte = \"high\"\ndeadband = 1"),
        &[],
    );
    check(
        &point("register = \"input:1\"\nbits = \"4..7\"\nvalues = { 0 = \"off\", -1 = \"x\" }"),
        &[],
    );
    check(
        &point("register = \"coil:1\"\nvalues = { 0 = \"off\", 1 = \"on\" }\nreport = \"change\""),
        &[],
    );
    check(
        &point("register = \"input:1\"\ntype = \"u32\"\nflags = { 0 = \"run\", 31 = \"x\" }"),
        &[],
    );
    check(
        &point(
            "register = \"input:1\"\ntype = \"f64\"\norder = \"GHEFCDAB\"\nnot_available = [-999.9]",
        ),
        &[],
    );
    check(
        &point(
            "register = \"input:1\"\ntype = \"string\"\nlength = 8\norder = \"BADC\"\ntrim = \"both\"",
        ),
        &[],
    );
}

#[test]
fn what_is_no_order_or_part_is_refused() {
    refused(&[
        (
            "register = \"input:1\"\ntype = \"u32\"\norder = \"ACBD\"",
            "order = \"ACBD\" is not a byte order: the two bytes of a register stand together",
        ),
        (
            "register = \"input:1\"\ntype = \"f32\"\norder = \"GHEFCDAB\"",
            "GHEFCDAB orders the bytes of 4 registers, but f32 takes 2",
        ),
        (
            "register = \"input:1\"\nbits = \"7..4\"",
            "bits = \"7..4\" is not a bit range: the lower bit stands first",
        ),
        (
            "register = \"input:1\"\nbits = \"4..16\"",
            "u16 has no bit 16",
        ),
        (
            "register = \"input:1\"\nbit = 3\nbits = \"4..7\"",
            "both bit and bits",
        ),
        (
            "register = \"input:1\"\nbyte = \"high\"",
            "u16 is not one byte of a register",
        ),
        (
            "register = \"holding:1\"\ntype = \"u32\"\nbit = 3\naccess = \"read-write\"",
            "bits of u32 cannot be written alone",
        ),
        (
            "register = \"coil:1\"\nbit = 3",
            "bit 3 of bool is not defined",
        ),
    ]);
}

#[test]
fn what_a_number_cannot_mean_is_refused() {
    refused(&[
        (
            "register = \"input:1\"\nvalues = { on = \"1\" }",
            "\"on\" is no whole number",
        ),
        (
            "register = \"input:1\"\nvalues = { 1 = \"on\" }\nscale = 2",
            "scale needs a number, not one that has names",
        ),
        (
            "register = \"input:1\"\nvalues = { 70000 = \"on\" }",
            "a value of 16 bits is never 70000",
        ),
        (
            "register = \"holding:1\"\nvalues = { 1 = \"on\", 2 = \"on\" }\naccess = \"read-write\"",
            "\"on\" is the name of 1 and of 2; a command could mean either",
        ),
        (
            "register = \"input:1\"\nflags = { 16 = \"x\" }",
            "a value of 16 bits has no bit 16",
        ),
        (
            "register = \"input:1\"\ntype = \"f32\"\nflags = { 1 = \"x\" }",
            "flags name the bits of an unsigned integer, not of f32",
        ),
        (
            "register = \"input:1\"\nnot_available = [65536]",
            "a value of 16 bits is never 65536",
        ),
        (
            "register = \"input:1\"\nclamp = { min = 2, max = 1 }",
            "min 2 is above max 1",
        ),
        (
            "register = \"input:1\"\ntrim = \"both\"",
            "trim cuts texts, not a u16",
        ),
    ]);
}

#[test]
fn reporting_that_contradicts_itself_is_told() {
    refused(&[
        (
            "register = \"input:1\"\ndeadband = \"2\"",
            "deadband = \"2\" is not a percentage: write a share such as \"2%\"",
        ),
        ("register = \"input:1\"\ndeadband = -1", "deadband is -1"),
        (
            "register = \"input:1\"\ndeadband = 1\nreport = \"poll\"",
            "published at every poll, and has a deadband",
        ),
        (
            "register = \"input:1\"\nheartbeat = \"1m\"",
            "warning: the point is published at every poll anyway",
        ),
        (
            "register = \"input:1\"\nreport = \"change\"\ninterval = \"2m\"\nheartbeat = \"1m\"",
            "warning: a heartbeat of 1m is beaten only every 2m",
        ),
    ]);
}
