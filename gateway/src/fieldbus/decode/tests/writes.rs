//! The way back: what is written, what is refused, and the round trip.

use proptest::prelude::*;
use serde_json::json;

use crate::config::BitRange;

use super::*;

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
        "1e+39 is larger than the registers can hold"
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
        order: WordOrder::DCBA,
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
    assert_eq!(written(&bit, json!(true)), mask(0x0008, 0x0008));
    let swapped = Point {
        order: WordOrder::BADC,
        ..bit
    };
    assert_eq!(written(&swapped, json!(true)), mask(0x0800, 0x0800));
}

/// The bits `own` are written as `or`; the others are kept.
fn mask(own: u16, or: u16) -> Result<Encoded, WriteError> {
    Ok(Encoded::Mask { and: !own, or })
}

#[test]
fn a_part_of_a_register_leaves_the_rest_as_it_is() {
    let written = |point: &Point, value| Codec::of(point).encode(&value);
    let bits = Point {
        bits: "4..7".parse().ok(),
        ..point(PointType::U16)
    };
    assert_eq!(written(&bits, json!(10)), mask(0x00f0, 0x00a0));
    assert_eq!(
        written(&bits, json!(16)).expect_err("refused").to_string(),
        "16 is outside what the register can hold, 0 to 15"
    );
    let high = Point {
        byte: Some(Byte::High),
        ..point(PointType::I8)
    };
    assert_eq!(written(&high, json!(-2)), mask(0xff00, 0xfe00));
    let of_two = Point {
        bits: "4..7".parse().ok(),
        ..point(PointType::U32)
    };
    assert_eq!(written(&of_two, json!(1)), Err(WriteError::PartOfSeveral));
}

#[test]
fn names_are_written_as_their_numbers() {
    let written = |point: &Point, value| Codec::of(point).encode(&value);
    let mode = Point {
        values: names(&[(0, "off"), (3, "auto")]),
        ..point(PointType::U16)
    };
    let three = Ok(Encoded::Registers(vec![3]));
    assert_eq!(written(&mode, json!("auto")), three);
    assert_eq!(written(&mode, json!(3)), three);
    assert_eq!(
        written(&mode, json!("on"))
            .expect_err("refused")
            .to_string(),
        "\"on\" is not among off, auto"
    );
    let door = Point {
        register: "coil:3".parse().expect("a register"),
        values: names(&[(0, "closed"), (1, "open")]),
        ..point(PointType::Bool)
    };
    assert_eq!(written(&door, json!("open")), Ok(Encoded::Coil(true)));
    let flags = Point {
        flags: names(&[(0, "run"), (3, "reset")]),
        ..point(PointType::U16)
    };
    assert_eq!(written(&flags, json!(["reset"])), mask(0x0009, 0x0008));
    assert_eq!(written(&flags, json!([])), mask(0x0009, 0x0000));
    assert_eq!(
        written(&flags, json!(["stop"]))
            .expect_err("refused")
            .to_string(),
        "\"stop\" is not among run, reset"
    );
}

#[test]
fn odd_widths_are_written_in_whole_registers() {
    let written = |kind, value| Codec::of(&point(kind)).encode(&value);
    let registers = |words: &[u16]| Ok(Encoded::Registers(words.to_vec()));
    assert_eq!(written(PointType::U24, json!(65_538)), registers(&[1, 2]));
    assert_eq!(
        written(PointType::I24, json!(-1)),
        registers(&[0xffff, 0xffff])
    );
    assert_eq!(
        written(PointType::I48, json!(-3)),
        registers(&[0xffff, 0xffff, 0xfffd])
    );
    assert_eq!(
        written(PointType::Bcd32, json!(98_765_432)),
        registers(&[0x9876, 0x5432])
    );
    assert_eq!(written(PointType::F16, json!(0.1)), registers(&[0x2e66]));
    for (kind, value, range) in [
        (PointType::Bcd16, json!(10_000), "0 to 9999"),
        (PointType::U24, json!(16_777_216), "0 to 16777215"),
        (PointType::I8, json!(128), "-128 to 127"),
    ] {
        let error = written(kind, value).expect_err("refused").to_string();
        assert!(error.ends_with(range), "{error}");
    }
    assert!(matches!(
        written(PointType::F16, json!(70_000)),
        Err(WriteError::TooLarge(_))
    ));
}

fn any_order() -> impl Strategy<Value = WordOrder> {
    prop::sample::select(vec![
        WordOrder::ABCD,
        WordOrder::CDAB,
        WordOrder::BADC,
        WordOrder::DCBA,
    ])
}

fn any_integer() -> impl Strategy<Value = PointType> {
    prop::sample::select(vec![
        PointType::U8,
        PointType::I8,
        PointType::U16,
        PointType::I16,
        PointType::U24,
        PointType::I24,
        PointType::U32,
        PointType::I32,
        PointType::U48,
        PointType::I48,
        PointType::U64,
        PointType::I64,
    ])
}

fn any_bcd() -> impl Strategy<Value = PointType> {
    prop::sample::select(vec![
        PointType::Bcd8,
        PointType::Bcd16,
        PointType::Bcd24,
        PointType::Bcd32,
        PointType::Bcd48,
        PointType::Bcd64,
    ])
}

proptest! {
    #[test]
    fn decimal_digits_that_were_written_are_read(
        number in 0..10_000_000_000_000_000u64,
        kind in any_bcd(),
        order in any_order(),
    ) {
        let digits = u32::from(kind.bits().unwrap_or(4) / 4);
        let number = number % 10u64.pow(digits);
        let codec = Codec::of(&Point { order, ..point(kind) });
        let written = codec.encode(&json!(number)).expect("it has as many digits");
        prop_assert_eq!(
            codec.decode(&after(&[0], &written)),
            Ok(Value::Integer(i128::from(number)))
        );
    }

    #[test]
    fn a_range_of_bits_that_is_written_is_read_and_its_neighbours_stay(
        before: u16,
        number: u16,
        low in 0u8..16,
        more in 0u8..16,
        order in any_order(),
    ) {
        let bits = BitRange { low, high: (low + more).min(15) };
        let codec = Codec::of(&Point { bits: Some(bits), order, ..point(PointType::U16) });
        let number = u64::from(number) & ((1 << (bits.high - bits.low + 1)) - 1);
        let written = codec.encode(&json!(number)).expect("it fits");
        let now = after(&[before], &written);
        prop_assert_eq!(codec.decode(&now), Ok(Value::Integer(i128::from(number))));
        let back = codec.decode(&[before]).expect("a number").to_string();
        let json: serde_json::Value = serde_json::from_str(&back).expect("a number");
        let restored = codec.encode(&json).expect("it was there");
        prop_assert_eq!(after(&now, &restored), vec![before]);
    }

    #[test]
    fn no_registers_make_the_decoder_panic(
        words in prop::collection::vec(any::<u16>(), 0..5),
        kind in prop_oneof![any_integer(), any_bcd(), Just(PointType::F16), Just(PointType::F64)],
        order in any_order(),
        round in prop::option::of(0u8..16),
        scale in prop::option::of(any::<f64>()),
    ) {
        let codec = Codec::of(&Point { order, round, scale, ..point(kind) });
        let short = words.len() < usize::from(codec.elements());
        prop_assert_eq!(codec.decode(&words) == Err(BadValue::Short), short);
    }
}
