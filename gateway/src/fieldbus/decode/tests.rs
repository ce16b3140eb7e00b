//! Vectors per type and order, and the round trip of writes.

use proptest::prelude::*;
use serde_json::json;

use crate::config::Access;

use super::*;

fn point(kind: PointType) -> Point {
    Point {
        name: "p".to_owned(),
        register: "holding:0".parse().expect("a register"),
        kind: Some(kind),
        order: WordOrder::Abcd,
        length: None,
        bit: None,
        scale: None,
        offset: None,
        unit: None,
        interval: None,
        deadband: None,
        access: Access::ReadWrite,
        min: None,
        max: None,
    }
}

fn check(point: &Point, words: &[u16], printed: &str) {
    let value = Codec::of(point).decode(words);
    let text = value.as_ref().map(ToString::to_string);
    assert_eq!(text.as_deref(), Ok(printed), "{point:?} of {words:04x?}");
}

#[test]
fn every_type_decodes_its_vectors() {
    for (kind, words, printed) in [
        (PointType::Bool, &[0u16][..], "false"),
        (PointType::Bool, &[0x0100], "true"),
        (PointType::U16, &[0xffff], "65535"),
        (PointType::I16, &[0xffff], "-1"),
        (PointType::I16, &[0x8000], "-32768"),
        (PointType::U32, &[0x0001, 0x0002], "65538"),
        (PointType::U32, &[0xffff, 0xffff], "4294967295"),
        (PointType::I32, &[0xffff, 0xfffe], "-2"),
        (PointType::U64, &[0xffff; 4], "18446744073709551615"),
        (PointType::U64, &[0, 0, 0, 7], "7"),
        (PointType::I64, &[0x8000, 0, 0, 0], "-9223372036854775808"),
        (PointType::F32, &[0x4367, 0x6666], "231.4"),
        (PointType::F32, &[0xc2c8, 0x0000], "-100"),
        (
            PointType::F64,
            &[0x4009, 0x21fb, 0x5444, 0x2d18],
            "3.141592653589793",
        ),
    ] {
        check(&point(kind), words, printed);
    }
}

#[test]
fn every_order_finds_the_same_number() {
    for (order, two, four) in [
        (
            WordOrder::Abcd,
            [0x0102, 0x0304],
            [0x0102, 0x0304, 0x0506, 0x0708],
        ),
        (
            WordOrder::Cdab,
            [0x0304, 0x0102],
            [0x0708, 0x0506, 0x0304, 0x0102],
        ),
        (
            WordOrder::Badc,
            [0x0201, 0x0403],
            [0x0201, 0x0403, 0x0605, 0x0807],
        ),
        (
            WordOrder::Dcba,
            [0x0403, 0x0201],
            [0x0807, 0x0605, 0x0403, 0x0201],
        ),
    ] {
        let ordered = |kind| Point {
            order,
            ..point(kind)
        };
        check(&ordered(PointType::U32), &two, "16909060");
        check(&ordered(PointType::U64), &four, "72623859790382856");
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
    let bit = |bit, order| Point {
        bit: Some(bit),
        order,
        ..point(PointType::U16)
    };
    check(&bit(0, WordOrder::Abcd), &[0x0001], "true");
    check(&bit(15, WordOrder::Abcd), &[0x8000], "true");
    check(&bit(15, WordOrder::Abcd), &[0x7fff], "false");
    check(&bit(0, WordOrder::Badc), &[0x0100], "true");
}

#[test]
fn texts_lose_their_padding_and_nothing_else() {
    let text = |order| Point {
        length: Some(3),
        order,
        ..point(PointType::String)
    };
    check(&text(WordOrder::Abcd), &[0x5344, 0x4d20, 0x0000], "SDM");
    check(&text(WordOrder::Badc), &[0x4453, 0x204d, 0x2000], "SDM");
    check(&text(WordOrder::Abcd), &[0x32b0, 0x4300, 0x0000], "2°C");
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
    assert_eq!(bad(PointType::U32, &[1]), Err(BadValue::Short));
}

#[test]
fn a_write_that_cannot_be_exact_says_what_can_be_written() {
    let tenths = Point {
        scale: Some(0.1),
        min: Some(0.0),
        max: Some(6_000.0),
        ..point(PointType::U16)
    };
    let refused = |point: &Point, value| {
        let error = Codec::of(point).encode(&value).expect_err("refused");
        error.to_string()
    };
    assert_eq!(
        refused(&tenths, json!(231.45)),
        "231.45 lies between two steps of the register; write 231.4 or 231.5"
    );
    assert_eq!(
        refused(&tenths, json!(-1)),
        "-1 is below the least permitted value 0"
    );
    assert_eq!(
        refused(&tenths, json!(6001)),
        "6001 is above the greatest permitted value 6000"
    );
    assert_eq!(
        refused(&point(PointType::I16), json!(40_000)),
        "40000 is outside what the register can hold, -32768 to 32767"
    );
    assert_eq!(refused(&tenths, json!("on")), "\"on\" is not a number");
    assert_eq!(
        refused(&point(PointType::F32), json!(1e39)),
        "1e+39 is larger than a single-precision register can hold"
    );
    let text = Point {
        length: Some(1),
        ..point(PointType::String)
    };
    assert_eq!(
        refused(&text, json!("abc")),
        "3 bytes do not fit: the point takes at most 2"
    );
}

#[test]
fn writes_go_out_as_the_device_reads_them() {
    let written = |point: &Point, value| Codec::of(point).encode(&value);
    let registers = |words: &[u16]| Ok(Encoded::Registers(words.to_vec()));
    let tenths = Point {
        scale: Some(0.1),
        ..point(PointType::U16)
    };
    assert_eq!(written(&tenths, json!(231.4)), registers(&[2314]));
    assert_eq!(
        written(&point(PointType::F32), json!(231.4)),
        registers(&[0x4367, 0x6666])
    );
    let little = Point {
        order: WordOrder::Dcba,
        ..point(PointType::U32)
    };
    assert_eq!(
        written(&little, json!(16_909_060)),
        registers(&[0x0403, 0x0201])
    );
    let coil = Point {
        register: "coil:3".parse().expect("a register"),
        kind: None,
        ..point(PointType::Bool)
    };
    assert_eq!(written(&coil, json!(true)), Ok(Encoded::Coil(true)));
    assert_eq!(written(&coil, json!(0)), Ok(Encoded::Coil(false)));
    let bit = Point {
        bit: Some(3),
        ..point(PointType::U16)
    };
    let set = Encoded::Mask {
        and: 0xfff7,
        or: 0x0008,
    };
    assert_eq!(written(&bit, json!(true)), Ok(set));
}

fn any_order() -> impl Strategy<Value = WordOrder> {
    prop_oneof![
        Just(WordOrder::Abcd),
        Just(WordOrder::Cdab),
        Just(WordOrder::Badc),
        Just(WordOrder::Dcba)
    ]
}

fn any_integer() -> impl Strategy<Value = PointType> {
    prop_oneof![
        Just(PointType::U16),
        Just(PointType::I16),
        Just(PointType::U32),
        Just(PointType::I32),
        Just(PointType::U64),
        Just(PointType::I64)
    ]
}

proptest! {
    #[test]
    fn a_value_that_was_read_can_be_written_back(
        words in any::<[u16; 4]>(),
        kind in any_integer(),
        order in any_order(),
        scale in prop_oneof![Just(None), Just(Some(0.1)), Just(Some(0.25)), Just(Some(-10.0))],
        offset in prop_oneof![Just(None), Just(Some(-40.0)), Just(Some(0.05))],
    ) {
        let point = Point { order, scale, offset, ..point(kind) };
        let codec = Codec::of(&point);
        let words = &words[..usize::from(codec.elements())];
        let value = codec.decode(words).expect("integers are always numbers").to_string();
        let json: serde_json::Value = serde_json::from_str(&value).expect("a number");
        // JSON numbers beyond 2^53 with a fraction are rounded by the reader, not by us.
        let as_read = json.to_string();
        prop_assume!(as_read == value);
        prop_assert_eq!(codec.encode(&json), Ok(Encoded::Registers(words.to_vec())));
    }

    #[test]
    fn a_float_that_was_read_can_be_written_back(bits in any::<u32>(), order in any_order()) {
        prop_assume!(f32::from_bits(bits).is_finite());
        let point = Point { order, ..point(PointType::F32) };
        let codec = Codec::of(&point);
        let Ok(Encoded::Registers(words)) = codec.encode(&json!(f32::from_bits(bits))) else {
            return Err(TestCaseError::fail("refused"));
        };
        prop_assert_eq!(codec.decode(&words), Ok(Value::F32(f32::from_bits(bits))));
    }
}
