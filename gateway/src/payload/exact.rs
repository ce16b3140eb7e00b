//! JSON with every digit of its numbers. A value.
//!
//! Invariant: a number that a double would round becomes a text of the same digits, which a point
//! takes for the number.

use std::collections::HashMap;

use serde_json::{Map, Number, Value, value::RawValue};

use crate::fieldbus::decimal::Decimal;

/// Objects within objects that are looked into: a command's members, and those of a structure.
const DEPTH: u32 = 2;

/// Reads JSON; numbers that a double does not hold to the last digit become texts.
///
/// # Errors
/// The text is no JSON.
pub(crate) fn as_written(json: &[u8]) -> Result<Value, serde_json::Error> {
    value(serde_json::from_slice(json)?, DEPTH)
}

fn value(raw: &RawValue, depth: u32) -> Result<Value, serde_json::Error> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') if depth > 0 => {
            let members: HashMap<String, &RawValue> = serde_json::from_str(text)?;
            let member = |(name, raw): (String, &RawValue)| Ok((name, value(raw, depth - 1)?));
            let members: Result<Map<_, _>, _> = members.into_iter().map(member).collect();
            members.map(Value::Object)
        }
        Some(b'0'..=b'9' | b'-') => number(text),
        _ => serde_json::from_str(text),
    }
}

/// The nearest double, which the JSON library misses by a digit at times; a text where that has
/// other digits.
fn number(text: &str) -> Result<Value, serde_json::Error> {
    let number: Number = serde_json::from_str(text)?;
    if !number.is_f64() {
        return Ok(Value::Number(number));
    }
    let nearest = text.parse().ok().and_then(Number::from_f64);
    let number = nearest.unwrap_or(number);
    let digits: Option<Decimal> = number.to_string().parse().ok();
    Ok(if digits == text.parse().ok() {
        Value::Number(number)
    } else {
        Value::from(text)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: &str) -> Value {
        as_written(json.as_bytes()).expect("JSON")
    }

    #[test]
    fn numbers_that_a_double_would_round_keep_their_digits_as_texts() {
        for (json, value) in [
            ("12.5", json!(12.5)),
            (" -7 ", json!(-7)),
            ("18446744073709551615", json!(u64::MAX)),
            ("18446744073709551616", json!("18446744073709551616")),
            ("18446744073709551.615", json!("18446744073709551.615")),
            ("9007199254740993.5", json!("9007199254740993.5")),
            ("900719925474099.3", json!("900719925474099.3")),
            (
                "-2.0941667494754522e-125",
                json!(f64::from_bits(0xa60c_5a0a_7534_14cc)),
            ),
            ("1e300", json!(1e300)),
            ("\"on\"", json!("on")),
            ("[1, \"a\"]", json!([1, "a"])),
            (
                r#"{"value":{"a":9007199254740993.5,"b":true},"id":3}"#,
                json!({ "value": { "a": "9007199254740993.5", "b": true }, "id": 3 }),
            ),
        ] {
            assert_eq!(read(json), value, "{json}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_however_deep() {
        for json in [
            "",
            "12,5",
            "{\"a\":}",
            "{\"a\":1",
            "nan",
            "01",
            "{\"a\":{\"b\":01}}",
        ] {
            assert!(as_written(json.as_bytes()).is_err(), "{json:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(as_written(deep.as_bytes()).is_err());
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(
            as_written(deep.as_bytes()).is_err(),
            "deeper than any command"
        );
    }
}
