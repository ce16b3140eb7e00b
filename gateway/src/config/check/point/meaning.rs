//! Keys that say what a point's number means: scale, names, limits. Values.
//!
//! Invariant: a key that needs a number stands only where the value is one.

use crate::config::{Access, Form, Names, Sentinel, Trim, check::Findings};

use super::Spot;

/// Checks everything that turns bits into what is published.
pub(super) fn check(spot: &Spot<'_>, findings: &mut Findings<'_>) {
    check_numeric_keys(spot, findings);
    check_names(spot, findings);
    check_not_available(spot, findings);
    if spot.point.trim != Trim::End && spot.form != Form::Text {
        findings.error(
            &spot.at("trim"),
            format!("trim cuts texts, not a {}", spot.word()),
            "remove it",
        );
    }
}

fn check_numeric_keys(spot: &Spot<'_>, findings: &mut Findings<'_>) {
    let point = spot.point;
    let named = !point.values.is_empty() || !point.flags.is_empty();
    for (key, given) in [
        ("scale", point.scale.is_some()),
        ("offset", point.offset.is_some()),
        ("clamp", point.clamp.is_some()),
        ("round", point.round.is_some()),
        ("deadband", point.deadband.is_some()),
        ("min", point.min.is_some() && !named),
        ("max", point.max.is_some() && !named),
    ] {
        if given && (named || !spot.form.is_number()) {
            let what = match (named, spot.form) {
                (true, _) => "one that has names",
                (false, Form::Bool) => "a bool",
                (false, _) => spot.word(),
            };
            findings.error(
                &spot.at(key),
                format!("{key} needs a number, not {what}"),
                "remove it",
            );
        }
    }
    if point.scale == Some(0.0) {
        findings.error(
            &spot.at("scale"),
            "scale 0 makes every value the same",
            "write the factor, such as 0.1",
        );
    }
    if let Some(clamp) = point.clamp
        && let (Some(min), Some(max)) = (clamp.min, clamp.max)
        && min > max
    {
        findings.error(
            &spot.at("clamp"),
            format!("min {min} is above max {max}"),
            "exchange them",
        );
    }
}

fn check_names(spot: &Spot<'_>, findings: &mut Findings<'_>) {
    let point = spot.point;
    if !point.values.is_empty() && !point.flags.is_empty() {
        findings.error(
            &spot.at("flags"),
            "the point has both values and flags",
            "values name numbers, flags name single bits; keep one",
        );
    }
    if !point.values.is_empty() && !spot.form.is_integer() && spot.form != Form::Bool {
        findings.error(
            &spot.at("values"),
            format!("values name whole numbers, not a {}", spot.word()),
            "remove them",
        );
    }
    if !point.flags.is_empty() && spot.form != Form::Unsigned {
        findings.error(
            &spot.at("flags"),
            format!(
                "flags name the bits of an unsigned integer, not of {}",
                spot.word()
            ),
            "write type = \"u16\"",
        );
    }
    let width = width(spot);
    for number in point.values.0.keys() {
        if !fits(*number, width) {
            findings.error(
                &spot.at("values"),
                format!("a value of {width} bits is never {number}"),
                "check the number",
            );
        }
    }
    for bit in point.flags.0.keys() {
        if !(0..i64::from(width)).contains(bit) {
            findings.error(
                &spot.at("flags"),
                format!("a value of {width} bits has no bit {bit}"),
                "bits are counted from 0, the least significant",
            );
        }
    }
    check_unique(spot, "values", &point.values, findings);
    check_unique(spot, "flags", &point.flags, findings);
}

/// A command names what it writes, so a name must stand for one number.
fn check_unique(spot: &Spot<'_>, key: &str, names: &Names, findings: &mut Findings<'_>) {
    if spot.point.access != Access::ReadWrite {
        return;
    }
    let mut seen: Vec<(&str, i64)> = Vec::with_capacity(names.0.len());
    for (number, name) in &names.0 {
        if let Some((_, other)) = seen.iter().find(|(known, _)| known == name) {
            findings.error(
                &spot.at(key),
                format!(
                    "{name:?} is the name of {other} and of {number}; a command could mean either"
                ),
                "give each its own name",
            );
        }
        seen.push((name, *number));
    }
}

fn check_not_available(spot: &Spot<'_>, findings: &mut Findings<'_>) {
    let given = &spot.point.not_available;
    if !given.is_empty() && !spot.form.is_number() {
        findings.error(
            &spot.at("not_available"),
            format!(
                "not_available lists numbers, which a {} is not",
                spot.word()
            ),
            "remove it",
        );
        return;
    }
    if !spot.form.is_integer() {
        return;
    }
    let width = width(spot);
    for sentinel in given {
        match sentinel {
            Sentinel::Integer(number) if fits(*number, width) => {}
            Sentinel::Integer(number) => findings.error(
                &spot.at("not_available"),
                format!("a value of {width} bits is never {number}"),
                "write the raw number of the registers, before scale and offset",
            ),
            Sentinel::Float(number) => findings.error(
                &spot.at("not_available"),
                format!("{number} is no whole number"),
                "write the raw number of the registers, before scale and offset",
            ),
        }
    }
}

/// Bits of the point's own number.
fn width(spot: &Spot<'_>) -> u16 {
    match spot.point.bits {
        _ if spot.form == Form::Bool => 1,
        Some(bits) => u16::from(bits.high - bits.low) + 1,
        None => spot.kind.bits().unwrap_or(64),
    }
}

/// Whether so many bits can hold the number, signed or not.
fn fits(number: i64, width: u16) -> bool {
    let number = i128::from(number);
    let half = 1i128 << (width.clamp(1, 64) - 1);
    (-half..2 * half).contains(&number)
}
