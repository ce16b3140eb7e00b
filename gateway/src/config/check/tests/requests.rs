//! What a device allows in one request, and points that do not fit it.

use super::{LINE, check};

fn device(keys: &str, registers: &[&str]) -> String {
    let mut text = format!("{LINE}[[device]]\nname = \"d\"\nbus = \"b\"\nunit = 1\n{keys}\n");
    for (index, register) in registers.iter().enumerate() {
        text += &format!("[[device.point]]\nname = \"p{index}\"\nregister = \"{register}\"\n");
    }
    text
}

#[test]
fn a_range_longer_than_the_devices_limit_is_refused_where_it_stands() {
    let keys = "max_registers = 16\nread_together = [\"input:0..16\"]";
    check(
        &device(keys, &["input:0"]),
        &[
            "gateway.toml:9:18: input:0..16 takes a request of 17, but device \"d\" answers 16 at most",
        ],
    );
}

#[test]
fn ranges_that_overlap_or_cut_a_point_or_read_nothing_are_told() {
    let keys = "read_together = [\"input:0..9\"]\nread_alone = [\"input:9..12\"]";
    check(
        &device(keys, &["input:0", "input:10"]),
        &["input:9..12 and input:0..9 have registers in common"],
    );
    let keys = "read_alone = [\"input:0..9\"]";
    let text = device(keys, &["input:0", "input:9"]) + "type = \"f32\"\n";
    check(
        &text,
        &["point \"p1\" stands at input registers 9-10, which is only partly in input:0..9"],
    );
    check(
        &device(keys, &["holding:0"]),
        &["no point of device \"d\" stands in input:0..9"],
    );
    check(
        &device("read_alone = [\"input:9..0\"]", &["input:0"]),
        &["\"input:9..0\" is no range of registers"],
    );
}

#[test]
fn a_coil_that_cannot_be_reached_from_zero_is_refused() {
    let keys = "bits_from_zero = true\nmax_bits = 16";
    check(
        &device(keys, &["coil:15", "coil:16"]),
        &["point \"p1\" takes a request of 17 from address 0, but device \"d\" answers 16 at most"],
    );
}
