//! What registers become, key by key. The tables of `vectors` hold every type in every order, `writes`
//! the way back, `round_trip` both.

mod round_trip;
mod vectors;
mod writes;

use crate::{
    config::{Access, Byte, Clamp},
    payload,
};

use super::*;

fn point(kind: PointType) -> Point {
    Point {
        access: Access::ReadWrite,
        ..Point::example("holding:0", Some(kind))
    }
}

fn check(point: &Point, words: &[u16], printed: &str) {
    let value = Codec::of(point).decode(words);
    let text = value.as_ref().map(ToString::to_string);
    assert_eq!(text.as_deref(), Ok(printed), "{point:?} of {words:04x?}");
}

fn names(pairs: &[(i64, &str)]) -> Names {
    let owned = |(number, name): &(i64, &str)| (*number, (*name).to_owned());
    Names(pairs.iter().map(owned).collect())
}

/// The registers after a write.
fn after(before: &[u16], encoded: &Encoded) -> Vec<u16> {
    match encoded {
        Encoded::Registers(words) => words.clone(),
        Encoded::Mask { and, or } => vec![before[0] & and | or & !and],
        Encoded::Coil(on) => vec![u16::from(*on)],
    }
}

/// A value as a command brings it that quotes what was published.
fn as_command(value: &Value) -> serde_json::Value {
    let published = match value {
        Value::Text(_) | Value::Raw(_) => serde_json::Value::from(value.to_string()).to_string(),
        Value::Flags(names) => serde_json::Value::from(names.as_slice()).to_string(),
        number => number.to_string(),
    };
    payload::as_written(published.as_bytes()).expect("JSON")
}

#[test]
fn scale_and_offset_keep_every_digit() {
    let scaled = |kind, scale, offset| Point {
        scale,
        offset,
        ..point(kind)
    };
    let tenths = scaled(PointType::U16, Some(0.1), None);
    check(&tenths, &[2314], "231.4");
    check(&tenths, &[2310], "231");
    let kelvin = scaled(PointType::I16, Some(0.01), Some(-273.15));
    check(&kelvin, &[29_815], "25");
    check(&kelvin, &[29_816], "25.01");
    let energy = scaled(PointType::U64, Some(0.001), None);
    check(&energy, &[0xffff; 4], "18446744073709551.615");
    let thousands = scaled(PointType::U32, Some(1000.0), None);
    check(&thousands, &[0, 5], "5000");
    let milli = scaled(PointType::F32, Some(0.001), None);
    check(&milli, &[0x4367, 0x6666], "0.2314");
}

#[test]
fn a_scale_that_no_decimal_holds_still_gives_a_number() {
    let tiny = Point {
        scale: Some(1e-200),
        ..point(PointType::U16)
    };
    assert_eq!(Codec::of(&tiny).decode(&[3]), Ok(Value::F64(3e-200)));
}

#[test]
fn bits_are_counted_from_the_least_significant() {
    let bit = |bit, kind, order| Point {
        bit: Some(bit),
        order,
        ..point(kind)
    };
    let of_u16 = |number, order| bit(number, PointType::U16, order);
    check(&of_u16(0, WordOrder::ABCD), &[0x0001], "true");
    check(&of_u16(15, WordOrder::ABCD), &[0x8000], "true");
    check(&of_u16(15, WordOrder::ABCD), &[0x7fff], "false");
    check(&of_u16(0, WordOrder::BADC), &[0x0100], "true");
    let high = bit(31, PointType::U32, WordOrder::CDAB);
    check(&high, &[0x0000, 0x8000], "true");
    check(
        &bit(63, PointType::U64, WordOrder::ABCD),
        &[0x7fff, 1, 1, 1],
        "false",
    );
}

#[test]
fn a_range_of_bits_is_a_number_of_its_own() {
    let bits = |bits: &str, kind| Point {
        bits: Some(bits.parse().expect("a range")),
        ..point(kind)
    };
    check(&bits("4..7", PointType::U16), &[0x12a4], "10");
    check(&bits("4..7", PointType::I16), &[0x12a4], "-6");
    check(&bits("0..15", PointType::U16), &[0xffff], "65535");
    check(&bits("8..15", PointType::Bcd16), &[0x4299], "42");
    check(&bits("12..19", PointType::U32), &[0x000a, 0xb000], "171");
    check(
        &bits("0..63", PointType::U64),
        &[0xffff; 4],
        "18446744073709551615",
    );
    let scaled = Point {
        scale: Some(0.5),
        ..bits("0..3", PointType::U16)
    };
    check(&scaled, &[0xfff5], "2.5");
}

#[test]
fn a_byte_is_the_low_or_the_high_half_of_its_register() {
    let byte = |byte, kind| Point {
        byte: Some(byte),
        ..point(kind)
    };
    check(&byte(Byte::High, PointType::U8), &[0xfe01], "254");
    check(&byte(Byte::High, PointType::I8), &[0xfe01], "-2");
    check(&byte(Byte::High, PointType::Bcd8), &[0x5901], "59");
    check(&byte(Byte::Low, PointType::U8), &[0xfe01], "1");
}

#[test]
fn a_number_that_has_a_name_is_published_by_it() {
    let named = |kind, pairs: &[(i64, &str)]| Point {
        values: names(pairs),
        ..point(kind)
    };
    let mode = named(PointType::U16, &[(0, "off"), (1, "on")]);
    check(&mode, &[1], "on");
    check(&mode, &[7], "7");
    assert_eq!(Codec::of(&mode).decode(&[7]), Ok(Value::Integer(7)));
    check(&named(PointType::I16, &[(-1, "fault")]), &[0xffff], "fault");
    let door = Point {
        register: "coil:0".parse().expect("a register"),
        ..named(PointType::Bool, &[(0, "closed"), (1, "open")])
    };
    assert_eq!(
        Codec::of(&door).decode_bit(true),
        Value::Text("open".to_owned())
    );
    let part = Point {
        bits: "4..5".parse().ok(),
        ..named(PointType::U16, &[(2, "auto")])
    };
    check(&part, &[0xffef], "auto");
}

#[test]
fn flags_are_the_names_of_the_bits_that_are_set() {
    let status = Point {
        flags: names(&[(0, "running"), (3, "fault"), (31, "door")]),
        ..point(PointType::U32)
    };
    let decoded = |words: &[u16]| Codec::of(&status).decode(words);
    let list = |names: &[&str]| {
        Ok(Value::Flags(
            names.iter().map(ToString::to_string).collect(),
        ))
    };
    assert_eq!(
        decoded(&[0x8000, 0x0009]),
        list(&["running", "fault", "door"])
    );
    assert_eq!(
        decoded(&[0x0000, 0xfff6]),
        list(&[]),
        "unnamed bits are left out"
    );
}

#[test]
fn a_number_that_stands_for_no_value_is_none() {
    let absent = |kind, list: &[Sentinel]| Point {
        not_available: list.to_vec(),
        ..point(kind)
    };
    let reason = |point: &Point, words: &[u16]| {
        let bad = Codec::of(point).decode(words).expect_err("no value");
        bad.to_string()
    };
    let signed = absent(
        PointType::I16,
        &[Sentinel::Integer(0x8000), Sentinel::Integer(0x7fff)],
    );
    assert_eq!(
        reason(&signed, &[0x8000]),
        "the device says that it has no value (0x8000)"
    );
    assert_eq!(
        reason(&signed, &[0x7fff]),
        "the device says that it has no value (0x7FFF)"
    );
    check(&signed, &[0x7ffe], "32766");
    let all_ones = Sentinel::Integer(-1);
    for (kind, words) in [
        (PointType::U8, &[0x12ffu16][..]),
        (PointType::U24, &[0x12ff, 0xffff]),
        (PointType::U32, &[0xffff; 2]),
        (PointType::U64, &[0xffff; 4]),
        (PointType::Bcd32, &[0xffff; 2]),
    ] {
        let bad = Codec::of(&absent(kind, &[all_ones])).decode(words);
        assert!(matches!(bad, Err(BadValue::NotAvailable(_))), "{kind:?}");
    }
    let float = absent(
        PointType::F32,
        &[Sentinel::Float(-999.9), Sentinel::Integer(-1000)],
    );
    assert_eq!(
        reason(&float, &[0xc479, 0xf99a]),
        "the device says that it has no value (-999.9)"
    );
    assert_eq!(
        reason(&float, &[0xc47a, 0x0000]),
        "the device says that it has no value (-1000)"
    );
    check(&float, &[0xc479, 0xf999], "-999.89996");
}

#[test]
fn values_are_kept_within_limits_and_rounded() {
    let clamped = Point {
        scale: Some(0.1),
        clamp: Some(Clamp {
            min: Some(0.0),
            max: Some(100.5),
        }),
        ..point(PointType::I16)
    };
    check(&clamped, &[0xfff0], "0");
    check(&clamped, &[1_006], "100.5");
    check(&clamped, &[999], "99.9");
    let rounded = |kind, round| Point {
        round: Some(round),
        ..point(kind)
    };
    check(&rounded(PointType::F32, 1), &[0x4367, 0x7333], "231.5");
    check(&rounded(PointType::F32, 0), &[0x4367, 0x6666], "231");
    check(&rounded(PointType::U16, 2), &[5], "5");
    let exact = Point {
        scale: Some(0.001),
        ..rounded(PointType::U64, 1)
    };
    check(&exact, &[0xffff; 4], "18446744073709551.6");
}

#[test]
fn texts_lose_their_padding_and_nothing_else() {
    let text = |order| Point {
        length: Some(3),
        order,
        ..point(PointType::String)
    };
    check(&text(WordOrder::ABCD), &[0x5344, 0x4d20, 0x0000], "SDM");
    check(&text(WordOrder::BADC), &[0x4453, 0x204d, 0x2000], "SDM");
    check(&text(WordOrder::ABCD), &[0x32b0, 0x4300, 0x0000], "2°C");
    let raw = Point {
        length: Some(2),
        ..point(PointType::Raw)
    };
    check(&raw, &[0x0aff, 0x0000], "0aff0000");
}

#[test]
fn what_is_no_number_is_bad() {
    let bad = |kind, words: &[u16]| Codec::of(&point(kind)).decode(words);
    assert_eq!(bad(PointType::F32, &[0x7fc0, 0]), Err(BadValue::NoNumber));
    assert_eq!(bad(PointType::F32, &[0xff80, 0]), Err(BadValue::NoNumber));
    assert_eq!(
        bad(PointType::F64, &[0x7ff0, 0, 0, 0]),
        Err(BadValue::NoNumber)
    );
    assert_eq!(bad(PointType::F16, &[0x7e00]), Err(BadValue::NoNumber));
    assert_eq!(bad(PointType::F16, &[0x7c00]), Err(BadValue::NoNumber));
    assert_eq!(bad(PointType::Bcd16, &[0x12a4]), Err(BadValue::NotDecimal));
    assert_eq!(bad(PointType::U32, &[1]), Err(BadValue::Short));
}
