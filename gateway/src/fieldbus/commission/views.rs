//! What registers would be under each type and order: for eyes that know what to look for. A core.
//!
//! Invariant: a type that the registers cannot be is left out rather than shown wrong.

use serde::Serialize;
use serde_json::json;

use crate::{
    config::{Point, PointType, WordOrder},
    fieldbus::decode::Codec,
    reading::Value,
};

/// Types shown, by their length.
const KINDS: [PointType; 15] = [
    PointType::U16,
    PointType::I16,
    PointType::F16,
    PointType::Bcd16,
    PointType::U32,
    PointType::I32,
    PointType::F32,
    PointType::Bcd32,
    PointType::U48,
    PointType::I48,
    PointType::U64,
    PointType::I64,
    PointType::F64,
    PointType::Bcd64,
    PointType::String,
];
/// Orders shown.
pub(crate) const ORDERS: [WordOrder; 4] = [
    WordOrder::ABCD,
    WordOrder::CDAB,
    WordOrder::BADC,
    WordOrder::DCBA,
];
/// Floats beyond these sizes are what something else looks like as a float.
const FLOAT_MIN: f64 = 1e-9;
const FLOAT_MAX: f64 = 1e12;

/// One type of the registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct View {
    /// The type's word.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// Registers that it takes.
    pub(crate) registers: u16,
    /// What they say in each of [`ORDERS`]; absent where they say nothing, or the same as in an
    /// order before.
    pub(crate) values: [Option<String>; 4],
}

/// What `words` would be, from the first on; types that are longer are left out.
pub(crate) fn views(words: &[u16]) -> Vec<View> {
    let view = |kind: PointType| view(kind, words);
    KINDS.into_iter().filter_map(view).collect()
}

fn view(kind: PointType, words: &[u16]) -> Option<View> {
    let length = u16::try_from(words.len()).unwrap_or(u16::MAX);
    let registers = kind.registers().unwrap_or(length);
    let words = words.get(..usize::from(registers))?;
    let mut values = ORDERS.map(|order| value(kind, order, registers, words));
    for index in (1..values.len()).rev() {
        if values[..index].contains(&values[index]) {
            values[index] = None;
        }
    }
    values.iter().any(Option::is_some).then_some(View {
        kind: kind.word(),
        registers,
        values,
    })
}

fn value(kind: PointType, order: WordOrder, registers: u16, words: &[u16]) -> Option<String> {
    let mut point: Point =
        serde_json::from_value(json!({ "name": "view", "register": "holding:0" })).ok()?;
    point.kind = Some(kind);
    point.order = order;
    point.length = Some(registers);
    match Codec::of(&point).decode(words).ok()? {
        Value::Text(text) => {
            let printable =
                !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
            printable.then(|| format!("{text:?}"))
        }
        float @ (Value::F32(_) | Value::F64(_)) => {
            let size = float.as_f64()?.abs();
            let likely = size == 0.0 || (FLOAT_MIN..FLOAT_MAX).contains(&size);
            likely.then(|| float.to_string())
        }
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[u16], kind: &str) -> Option<[Option<String>; 4]> {
        let view = views(words).into_iter().find(|view| view.kind == kind)?;
        Some(view.values)
    }

    #[test]
    fn each_type_is_shown_in_the_orders_that_make_a_difference() {
        let words = [0x4367, 0x6666];
        let [abcd, cdab, badc, dcba] = shown(&words, "f32").unwrap();
        assert_eq!(abcd.as_deref(), Some("231.4"));
        assert!(cdab.is_none(), "2.7e23 is no reading: {cdab:?}");
        assert!(badc.is_none() && dcba.is_none(), "{badc:?} {dcba:?}");
        let [first, second, third, fourth] = shown(&words, "u16").unwrap();
        assert_eq!(
            (first.as_deref(), third.as_deref()),
            (Some("17255"), Some("26435"))
        );
        assert!(second.is_none() && fourth.is_none());
    }

    #[test]
    fn what_the_registers_cannot_be_is_left_out() {
        assert_eq!(shown(&[0x4367], "u32"), None);
        assert_eq!(shown(&[0xffff], "bcd16"), None);
        assert_eq!(shown(&[0x0001], "string"), None);
        let text = shown(&[0x4142, 0x4344], "string").unwrap();
        assert_eq!(text[0].as_deref(), Some("\"ABCD\""));
    }
}
