//! Small values of a point that have a writing of their own: `"4..7"`, `"2%"`, names of numbers.
//!
//! Invariant: what is held was written in its form. Values.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// Neighbouring bits, 0 the least significant; written `"4..7"`, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", extend("format" = "bit-range", "examples" = ["4..7"]))]
pub struct BitRange {
    /// The lowest bit.
    pub low: u8,
    /// The highest bit, at most 63.
    pub high: u8,
}

impl FromStr for BitRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<BitRange, &'static str> {
        let ends = text.split_once("..");
        let (low, high) = ends.ok_or("write the lowest and the highest bit, such as \"4..7\"")?;
        let bit = |text: &str| text.parse().ok().filter(|bit| *bit < 64);
        let (low, high) = bit(low).zip(bit(high)).ok_or("bits are 0 to 63")?;
        if low > high {
            return Err("the lower bit stands first");
        }
        Ok(BitRange { low, high })
    }
}

impl fmt::Display for BitRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.low, self.high)
    }
}

impl<'de> Deserialize<'de> for BitRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// How far a value may move without being published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Deadband {
    /// In the value's unit.
    Absolute(f64),
    /// A share of the value last published.
    Share {
        /// In hundredths of it.
        percent: f64,
        /// In the value's unit: near zero, where a share is next to nothing, this counts.
        at_least: f64,
    },
}

impl Deadband {
    /// A share without a floor.
    pub const fn percent(percent: f64) -> Deadband {
        Deadband::Share {
            percent,
            at_least: 0.0,
        }
    }
}

/// Reads `2%`.
impl FromStr for Deadband {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Deadband, &'static str> {
        let number = text.strip_suffix('%').map(str::trim_end);
        let number = number.and_then(|number| number.parse::<f64>().ok());
        match number.filter(|number| number.is_finite() && *number >= 0.0) {
            Some(percent) => Ok(Deadband::percent(percent)),
            None => Err("write a share such as \"2%\", or a number without quotes"),
        }
    }
}

impl<'de> Deserialize<'de> for Deadband {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, deny_unknown_fields)]
        enum Written {
            Number(f64),
            Text(String),
            Share { percent: f64, at_least: f64 },
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Deadband::Absolute(number)),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
            Written::Share { percent, at_least } => Ok(Deadband::Share { percent, at_least }),
        }
    }
}

impl JsonSchema for Deadband {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Deadband".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "number", "minimum": 0 },
            { "type": "string", "format": "percentage", "examples": ["2%"] },
            {
                "type": "object",
                "properties": {
                    "percent": { "type": "number", "minimum": 0, "description": "Share of the value last published." },
                    "at_least": { "type": "number", "minimum": 0, "description": "Less is never published, in the value's unit." },
                },
                "required": ["percent", "at_least"],
                "additionalProperties": false,
            },
        ] })
    }
}

/// Names by number: of raw values, or of bits.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema)]
#[schemars(with = "BTreeMap<String, String>")]
pub struct Names(pub BTreeMap<i64, String>);

impl Names {
    /// Whether none is given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = BTreeMap::<String, String>::deserialize(deserializer)?;
        let mut names = BTreeMap::new();
        for (key, name) in written {
            let number = number(&key)
                .ok_or_else(|| de::Error::custom(format!("{key:?} is no whole number")))?;
            if names.insert(number, name).is_some() {
                return Err(de::Error::custom(format!("{number} has two names")));
            }
        }
        Ok(Names(names))
    }
}

/// As TOML writes whole numbers, hexadecimal included.
fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A raw number by which a device says that it has no value.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Sentinel {
    /// Of an integer type, by its bits: 0x8000 and -32768 are the same 16.
    Integer(i64),
    /// Of a floating-point type.
    Float(f64),
}

impl Sentinel {
    /// The nearest float.
    #[expect(clippy::cast_precision_loss, reason = "the nearest float is meant")]
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Sentinel::Integer(number) => number as f64,
            Sentinel::Float(number) => number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_bits_names_both_ends() {
        assert_eq!("4..7".parse(), Ok(BitRange { low: 4, high: 7 }));
        assert_eq!("0..63".parse(), Ok(BitRange { low: 0, high: 63 }));
        for text in ["4", "7..4", "4..64", "4..=7", "", "..", "a..b"] {
            assert!(text.parse::<BitRange>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_share_is_written_with_its_sign() {
        let share = |percent, at_least| Deadband::Share { percent, at_least };
        assert_eq!("2%".parse(), Ok(share(2.0, 0.0)));
        assert_eq!("0.5 %".parse(), Ok(share(0.5, 0.0)));
        let read = |json: &str| serde_json::from_str::<Deadband>(json).ok();
        let floored = read(r#"{"percent":2,"at_least":0.1}"#);
        assert_eq!(floored, Some(share(2.0, 0.1)));
        assert_eq!(read(r#"{"percent":2,"least":0.1}"#), None);
        for text in ["2", "%", "-1%", "nan%", "2%%"] {
            assert!(text.parse::<Deadband>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_stand_by_whole_numbers() {
        let names = |json: &str| serde_json::from_str::<Names>(json);
        let read = names(r#"{"0":"off","-1":"fault","0x10":"far"}"#).expect("names");
        let numbers: Vec<i64> = read.0.into_keys().collect();
        assert_eq!(numbers, [-1, 0, 16]);
        assert!(names(r#"{"on":"1"}"#).is_err());
        assert!(names(r#"{"16":"a","0x10":"b"}"#).is_err());
    }
}
