//! What a device gives can be written back as it was published, whatever its type and order.

use proptest::prelude::*;

use super::*;

/// Every order of so many registers.
fn orders(registers: u16) -> Vec<WordOrder> {
    let letters: Vec<char> = "ABCDEFGH"
        .chars()
        .take(2 * usize::from(registers))
        .collect();
    let mut texts: Vec<String> = vec![String::new()];
    for _ in 0..registers {
        let longer = |text: &String| {
            let free = letters.chunks(2).filter(|pair| !text.contains(pair[0]));
            free.map(|pair| format!("{text}{}{}", pair[0], pair[1]))
                .collect::<Vec<_>>()
        };
        texts = texts.iter().flat_map(longer).collect();
    }
    let swapped = |text: &String| {
        let pairs = text.as_bytes().chunks(2);
        pairs
            .flat_map(|pair| [char::from(pair[1]), char::from(pair[0])])
            .collect::<String>()
    };
    let both = texts.iter().flat_map(|text| [text.clone(), swapped(text)]);
    let patterns = ["ABCD", "CDAB", "BADC", "DCBA"].map(str::to_owned);
    both.chain(patterns)
        .map(|text| text.parse().expect("an order"))
        .collect()
}

const TYPES: [PointType; 24] = [
    PointType::Bool,
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
    PointType::F16,
    PointType::F32,
    PointType::F64,
    PointType::Bcd8,
    PointType::Bcd16,
    PointType::Bcd24,
    PointType::Bcd32,
    PointType::Bcd48,
    PointType::Bcd64,
    PointType::String,
    PointType::Raw,
];

/// A point of one of the types that `wanted` names, in an order that its registers have.
fn any_point(wanted: fn(PointType) -> bool) -> impl Strategy<Value = Point> {
    let types: Vec<PointType> = TYPES.into_iter().filter(|kind| wanted(*kind)).collect();
    let parts = (
        prop::sample::select(types),
        1u16..=4,
        any::<prop::sample::Index>(),
    );
    parts.prop_map(|(kind, length, order)| {
        let registers = kind.registers().unwrap_or(length);
        let orders = orders(registers);
        Point {
            order: orders[order.index(orders.len())],
            length: kind.registers().is_none().then_some(length),
            ..point(kind)
        }
    })
}

/// Scales whose products and sums with 64 bits a decimal holds.
fn any_scaling() -> impl Strategy<Value = (Option<f64>, Option<f64>)> {
    let scale = prop::sample::select(vec![
        None,
        Some(0.1),
        Some(0.001),
        Some(0.25),
        Some(3.6),
        Some(-10.0),
        Some(1e-6),
    ]);
    let offset = prop::sample::select(vec![None, Some(-40.0), Some(0.05), Some(-273.15)]);
    (scale, offset)
}

/// What is read, published, sent back as a command, written and read again.
fn round_trip(point: &Point, words: &[u16]) -> Option<(Value, Value)> {
    let codec = Codec::of(point);
    let words = words.get(..usize::from(codec.elements()))?;
    let value = codec.decode(words).ok()?;
    let written = codec.encode(&as_command(&value)).expect("it was read");
    let again = codec.decode(&after(words, &written)).expect("a value");
    Some((value, again))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_value_of_any_type_and_order_is_written_back_as_it_was_published(
        words in any::<[u16; 4]>(),
        point in any_point(|_| true),
    ) {
        if let Some((value, again)) = round_trip(&point, &words) {
            prop_assert_eq!(value, again);
        }
    }

    #[test]
    fn a_scaled_integer_is_written_back_to_the_last_digit(
        words in any::<[u16; 4]>(),
        point in any_point(|kind| kind.form().is_integer()),
        (scale, offset) in any_scaling(),
    ) {
        let point = Point { scale, offset, ..point };
        let bits = point.kind().bits();
        if let Some((value, again)) = round_trip(&point, &words) {
            prop_assert_eq!(&value, &again);
            // Nothing else stands in registers that the value fills.
            let codec = Codec::of(&point);
            if bits == Some(16 * codec.elements()) {
                let own = &words[..usize::from(codec.elements())];
                let written = codec.encode(&as_command(&value)).expect("it was read");
                prop_assert_eq!(after(own, &written), own);
            }
        }
    }
}
