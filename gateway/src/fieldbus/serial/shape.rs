//! What a word of a frame is, and what is made of it: a number or text, scaled, rounded. A value.
//!
//! Invariant: the result is exact wherever a decimal holds it, and text stays as it came.

use crate::{
    config::{SerialPoint, TextType},
    fieldbus::{decimal::Decimal, number},
    reading::Value,
};

/// Most decimals that are tried for a number that is to be sent.
const MAX_DECIMALS: u8 = 15;

/// A point's type and scaling.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Shape {
    kind: Option<TextType>,
    scale: Option<f64>,
    offset: Option<f64>,
    round: Option<u8>,
}

impl Shape {
    /// As configured.
    pub(crate) fn of(point: &SerialPoint) -> Shape {
        Shape {
            kind: point.kind,
            scale: point.scale,
            offset: point.offset,
            round: point.round,
        }
    }

    /// A word as it is written; nothing for an empty field.
    pub(crate) fn read(self, text: &str) -> Option<Value> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let number = match self.kind {
            Some(TextType::String) => None,
            Some(TextType::Number) => number::as_written(&plain(text)),
            None => number::as_written(text),
        };
        Some(number.unwrap_or_else(|| Value::Text(text.to_owned())))
    }

    /// The value that is published; the error is what was expected.
    pub(crate) fn finish(self, value: Value) -> Result<Value, String> {
        if self.kind == Some(TextType::Number) && value.as_f64().is_none() {
            return Err(format!("a number instead of \"{value}\""));
        }
        let scaled = match (self.scale, self.offset) {
            (None, None) => value,
            (scale, offset) => scaled(value, scale.unwrap_or(1.0), offset.unwrap_or(0.0))?,
        };
        let exact = self.round.zip(Decimal::of(&scaled));
        Ok(exact.map_or(scaled, |(decimals, exact)| exact.rounded(decimals).value()))
    }

    /// The number that is to be sent so that `value` is published; `None` where none is exact.
    pub(crate) fn undo(self, value: &Value) -> Option<Value> {
        if self.scale.is_none() && self.offset.is_none() {
            return Some(value.clone());
        }
        let offset = Decimal::shortest(self.offset.unwrap_or(0.0))?;
        let scale = Decimal::shortest(self.scale.unwrap_or(1.0))?;
        let above = Decimal::of(value)?.minus(offset)?;
        (0..=MAX_DECIMALS).find_map(|decimals| {
            let unit: Decimal = format!("1e-{decimals}").parse().ok()?;
            let (steps, exact) = above.steps_of(scale.times(unit)?)?;
            let raw = Decimal::integer(steps).times(unit)?;
            exact.then(|| raw.value())
        })
    }
}

/// `+  12,5` as `+12.5`: balances right-align a number behind its sign.
fn plain(text: &str) -> String {
    let visible = text.chars().filter(|c| !c.is_whitespace());
    visible.map(|c| if c == ',' { '.' } else { c }).collect()
}

fn scaled(value: Value, scale: f64, offset: f64) -> Result<Value, String> {
    let exact = || {
        let product = Decimal::of(&value)?.times(Decimal::shortest(scale)?)?;
        product.plus(Decimal::shortest(offset)?)
    };
    if let Some(exact) = exact() {
        return Ok(exact.value());
    }
    let number = match &value {
        Value::Bool(_) => None,
        other => other.as_f64(),
    };
    let number = number.ok_or_else(|| format!("a number to be scaled instead of \"{value}\""))?;
    let number = number * scale + offset;
    let finite = number.is_finite().then_some(Value::F64(number));
    finite.ok_or_else(|| format!("a number that can be scaled instead of \"{value}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(keys: serde_json::Value) -> Shape {
        let mut point = serde_json::json!({ "name": "p" });
        for (key, value) in keys.as_object().expect("keys") {
            point[key] = value.clone();
        }
        Shape::of(&serde_json::from_value(point).expect("a point"))
    }

    fn published(keys: serde_json::Value, text: &str) -> Result<String, String> {
        let shape = shape(keys);
        let value = shape.read(text).expect("a value");
        shape.finish(value).map(|value| value.to_string())
    }

    #[test]
    fn a_word_is_what_its_type_says() {
        for (keys, text, expected) in [
            (serde_json::json!({}), "007", "7"),
            (serde_json::json!({ "type": "string" }), "007", "007"),
            (serde_json::json!({ "type": "number" }), "+   12,50", "12.5"),
            (serde_json::json!({}), "+ 12", "+ 12"),
            (serde_json::json!({ "scale": 0.1 }), "125", "12.5"),
            (
                serde_json::json!({ "scale": 1.8, "offset": 32 }),
                "21.5",
                "70.7",
            ),
            (
                serde_json::json!({ "scale": 0.001, "round": 1 }),
                "12349",
                "12.3",
            ),
        ] {
            assert_eq!(published(keys, text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn text_where_a_number_is_expected_is_an_error() {
        let error = published(serde_json::json!({ "type": "number" }), "OL");
        assert_eq!(error, Err("a number instead of \"OL\"".to_owned()));
        assert!(published(serde_json::json!({ "scale": 2 }), "OL").is_err());
        assert!(published(serde_json::json!({ "scale": 1e300 }), "1e200").is_err());
    }

    #[test]
    fn what_is_sent_undoes_the_scaling_exactly_or_not_at_all() {
        let undone = |keys, text: &str| {
            let value = number::as_written(text).expect("a number");
            shape(keys).undo(&value).map(|value| value.to_string())
        };
        let tenths = serde_json::json!({ "scale": 0.1 });
        assert_eq!(undone(tenths, "12.5").as_deref(), Some("125"));
        let fahrenheit = serde_json::json!({ "scale": 1.8, "offset": 32 });
        assert_eq!(undone(fahrenheit, "70.7").as_deref(), Some("21.5"));
        assert_eq!(undone(serde_json::json!({ "scale": 3 }), "1"), None);
        assert_eq!(undone(serde_json::json!({}), "1").as_deref(), Some("1"));
    }
}
