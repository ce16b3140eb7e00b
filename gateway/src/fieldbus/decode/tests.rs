//! Vectors per type, order and key; the way back is told in `writes`.

mod writes;

use crate::config::{Access, Byte, Clamp};

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

/// Raw registers of every type and what is published of them.
const VECTORS: &[(PointType, &[u16], &str)] = &[
    (PointType::Bool, &[0], "false"),
    (PointType::Bool, &[0x0100], "true"),
    (PointType::U8, &[0xab00], "0"),
    (PointType::U8, &[0xabff], "255"),
    (PointType::I8, &[0x00ff], "-1"),
    (PointType::I8, &[0xff7f], "127"),
    (PointType::I8, &[0x0080], "-128"),
    (PointType::U16, &[0xffff], "65535"),
    (PointType::U16, &[0x0001], "1"),
    (PointType::I16, &[0xffff], "-1"),
    (PointType::I16, &[0x8000], "-32768"),
    (PointType::I16, &[0x7fff], "32767"),
    (PointType::U24, &[0x00ff, 0xffff], "16777215"),
    (PointType::U24, &[0x5501, 0x0002], "65538"),
    (PointType::I24, &[0x00ff, 0xffff], "-1"),
    (PointType::I24, &[0x0080, 0x0000], "-8388608"),
    (PointType::I24, &[0xff7f, 0xffff], "8388607"),
    (PointType::U32, &[0x0001, 0x0002], "65538"),
    (PointType::U32, &[0xffff, 0xffff], "4294967295"),
    (PointType::I32, &[0xffff, 0xfffe], "-2"),
    (PointType::I32, &[0x8000, 0x0000], "-2147483648"),
    (PointType::U48, &[0x0001, 0x0000, 0x0000], "4294967296"),
    (PointType::U48, &[0xffff; 3], "281474976710655"),
    (PointType::I48, &[0xffff, 0xffff, 0xfffd], "-3"),
    (PointType::I48, &[0x8000, 0, 0], "-140737488355328"),
    (PointType::U64, &[0xffff; 4], "18446744073709551615"),
    (PointType::U64, &[0, 0, 0, 7], "7"),
    (PointType::I64, &[0x8000, 0, 0, 0], "-9223372036854775808"),
    (PointType::I64, &[0xffff; 4], "-1"),
    (PointType::F16, &[0x3c00], "1"),
    (PointType::F16, &[0x2e66], "0.1"),
    (PointType::F16, &[0xfbff], "-65500"),
    (PointType::F16, &[0x0001], "0.00000006"),
    (PointType::F32, &[0x4367, 0x6666], "231.4"),
    (PointType::F32, &[0xc2c8, 0x0000], "-100"),
    (PointType::F32, &[0x0000, 0x0000], "0"),
    (
        PointType::F64,
        &[0x4009, 0x21fb, 0x5444, 0x2d18],
        "3.141592653589793",
    ),
    (PointType::F64, &[0x406c, 0xeccc, 0xcccc, 0xcccd], "231.4"),
    (PointType::Bcd8, &[0xff42], "42"),
    (PointType::Bcd16, &[0x1234], "1234"),
    (PointType::Bcd16, &[0x0009], "9"),
    (PointType::Bcd24, &[0xff12, 0x3456], "123456"),
    (PointType::Bcd32, &[0x9876, 0x5432], "98765432"),
    (PointType::Bcd48, &[0x0000, 0x0001, 0x0000], "10000"),
    (PointType::Bcd64, &[0x9999; 4], "9999999999999999"),
];

#[test]
fn every_type_decodes_its_vectors() {
    for (kind, words, printed) in VECTORS {
        check(&point(*kind), words, printed);
    }
}

#[test]
fn every_vector_is_written_as_it_was_read() {
    for (kind, words, printed) in VECTORS {
        let codec = Codec::of(&point(*kind));
        let json = serde_json::from_str(printed).expect("a number");
        let read = match codec.encode(&json) {
            Ok(Encoded::Registers(words)) => codec.decode(&words),
            Ok(Encoded::Mask { and, or }) => codec.decode(&[words[0] & and | or & !and]),
            other => panic!("{kind:?} {printed}: {other:?}"),
        };
        let read = read.map(|value| value.to_string());
        assert_eq!(read.as_deref(), Ok(*printed), "{kind:?}");
    }
}

/// The bytes 1 to 8, or as many as there are, sent in the order that the name says.
fn sent(order: &str) -> Vec<u16> {
    let number = |letter: u8| u16::from(letter - b'A' + 1);
    let word = |pair: &[u8]| number(pair[0]) << 8 | number(pair[1]);
    order.as_bytes().chunks_exact(2).map(word).collect()
}

#[test]
fn every_order_finds_the_same_number() {
    for (kind, number, orders) in [
        (
            PointType::U32,
            "16909060",
            &["ABCD", "CDAB", "BADC", "DCBA"][..],
        ),
        (
            PointType::U48,
            "1108152157446",
            &["ABCDEF", "EFCDAB", "BADCFE", "FEDCBA", "CDABEF", "CDEFAB"],
        ),
        (
            PointType::U64,
            "72623859790382856",
            &[
                "ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA", "EFGHABCD", "CDABGHEF", "DCBAHGFE",
            ],
        ),
        (PointType::U16, "258", &["AB", "BA"]),
        (PointType::U24, "131844", &["ABCD", "CDAB", "BADC", "DCBA"]),
    ] {
        for order in orders {
            let ordered = Point {
                order: order.parse().expect("an order"),
                ..point(kind)
            };
            check(&ordered, &sent(order), number);
        }
    }
}

#[test]
fn the_names_of_two_registers_hold_for_every_length() {
    for (pattern, six, eight) in [
        ("ABCD", "ABCDEF", "ABCDEFGH"),
        ("CDAB", "EFCDAB", "GHEFCDAB"),
        ("BADC", "BADCFE", "BADCFEHG"),
        ("DCBA", "FEDCBA", "HGFEDCBA"),
    ] {
        let ordered = |kind| Point {
            order: pattern.parse().expect("an order"),
            ..point(kind)
        };
        check(&ordered(PointType::U48), &sent(six), "1108152157446");
        check(&ordered(PointType::U64), &sent(eight), "72623859790382856");
    }
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
