//! Data types of metrics: which one a point has, and how a published value is written in it.
//!
//! Invariant: a value is never rounded or cut to fit; one that does not fit is told, and its metric is declared
//! anew with a type that does. Layer: core.

use serde_json::Value as Json;

use super::wire::Value;
use crate::config::{Form, Names, Point};

/// Data types of the specification, section 6.4.16, that points and messages need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataType {
    Int8 = 1,
    Int16 = 2,
    Int32 = 3,
    Int64 = 4,
    UInt8 = 5,
    UInt16 = 6,
    UInt32 = 7,
    UInt64 = 8,
    Float = 9,
    Double = 10,
    Boolean = 11,
    String = 12,
    Bytes = 17,
}

impl DataType {
    /// The number in payloads.
    pub(crate) fn code(self) -> u32 {
        self as u32
    }

    /// The type of that number, where it is one of these.
    pub(crate) fn from_code(code: u32) -> Option<DataType> {
        use DataType::{
            Boolean, Bytes, Double, Float, Int8, Int16, Int32, Int64, String, UInt8, UInt16,
            UInt32, UInt64,
        };
        let all = [
            Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float, Double, Boolean,
            String, Bytes,
        ];
        all.into_iter().find(|datatype| datatype.code() == code)
    }

    /// Of what a point publishes.
    pub(crate) fn of(point: &Point) -> DataType {
        let named = |names: &Names| !names.is_empty();
        if named(&point.values) || named(&point.flags) {
            return DataType::String;
        }
        if point.bit.is_some() {
            return DataType::Boolean;
        }
        let kind = point.kind();
        let scaled = point.scale.is_some() || point.offset.is_some();
        let bits = match point.bits {
            Some(range) => u16::from(range.high - range.low) + 1,
            None => kind.bits().unwrap_or(64),
        };
        match kind.form() {
            Form::Bool => DataType::Boolean,
            Form::Text | Form::Bytes => DataType::String,
            Form::Float if bits <= 32 && !scaled => DataType::Float,
            Form::Float => DataType::Double,
            Form::Unsigned | Form::Signed | Form::Bcd if scaled => DataType::Double,
            Form::Signed => match bits {
                ..=8 => DataType::Int8,
                9..=16 => DataType::Int16,
                17..=32 => DataType::Int32,
                _ => DataType::Int64,
            },
            Form::Unsigned | Form::Bcd => match bits {
                ..=8 => DataType::UInt8,
                9..=16 => DataType::UInt16,
                17..=32 => DataType::UInt32,
                _ => DataType::UInt64,
            },
        }
    }

    /// Of a value that no configuration describes.
    pub(crate) fn fitting(value: &Published) -> DataType {
        match value {
            Published::Json(Json::Bool(_)) => DataType::Boolean,
            Published::Json(Json::Number(_)) => DataType::Double,
            Published::Json(_) => DataType::String,
            Published::Bytes(_) => DataType::Bytes,
        }
    }

    /// The next type that takes more.
    pub(crate) fn wider(self, value: &Published) -> DataType {
        match (self, value) {
            (_, Published::Bytes(_)) | (DataType::String | DataType::Bytes, _) => DataType::Bytes,
            (DataType::Double | DataType::Boolean, _) => DataType::String,
            (_, Published::Json(Json::Number(_))) => DataType::Double,
            (_, Published::Json(_)) => DataType::String,
        }
    }

    /// The value in this type; `None` if it does not fit.
    pub(crate) fn write(self, value: &Published) -> Option<Value> {
        let json = match (self, value) {
            (DataType::Bytes, Published::Bytes(bytes)) => return Some(Value::Bytes(bytes.clone())),
            (_, Published::Bytes(_)) => return None,
            (DataType::Bytes, Published::Json(json)) => {
                return Some(Value::Bytes(text(json).into_bytes()));
            }
            (DataType::String, Published::Json(json)) => return Some(Value::String(text(json))),
            (_, Published::Json(json)) => json,
        };
        let signed = || json.as_i64();
        // Two's complement, as the specification wants it.
        let int = |number: i32| Value::Int(number.cast_unsigned());
        Some(match self {
            DataType::Int8 => int(i8::try_from(signed()?).ok()?.into()),
            DataType::Int16 => int(i16::try_from(signed()?).ok()?.into()),
            DataType::Int32 => int(i32::try_from(signed()?).ok()?),
            DataType::Int64 => Value::Long(signed()?.cast_unsigned()),
            DataType::UInt8 => Value::Int(u8::try_from(json.as_u64()?).ok()?.into()),
            DataType::UInt16 => Value::Int(u16::try_from(json.as_u64()?).ok()?.into()),
            DataType::UInt32 => Value::Int(u32::try_from(json.as_u64()?).ok()?),
            DataType::UInt64 => Value::Long(json.as_u64()?),
            DataType::Float => Value::Float(single(json)?),
            DataType::Double => Value::Double(json.as_f64()?),
            DataType::Boolean => Value::Boolean(json.as_bool()?),
            DataType::String | DataType::Bytes => return None,
        })
    }

    /// A commanded value as the local command path reads it; `None` where the field does not hold this type.
    pub(crate) fn read(self, value: Value) -> Option<Json> {
        let integer = |bits: u32| bits.cast_signed();
        Some(match (self, value) {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "two's complement in a wider field"
            )]
            (DataType::Int8, Value::Int(bits)) => (bits as u8).cast_signed().into(),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "two's complement in a wider field"
            )]
            (DataType::Int16, Value::Int(bits)) => (bits as u16).cast_signed().into(),
            (DataType::Int32, Value::Int(bits)) => integer(bits).into(),
            (DataType::UInt8 | DataType::UInt16 | DataType::UInt32, Value::Int(number)) => {
                number.into()
            }
            (DataType::Int64, Value::Long(bits)) => bits.cast_signed().into(),
            (DataType::UInt64, Value::Long(number)) => number.into(),
            (_, value) => return plain(value),
        })
    }
}

/// What was published: JSON, or bytes that are none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Published {
    Json(Json),
    Bytes(Vec<u8>),
}

/// The value in its field, where its type is not needed to read it.
fn plain(value: Value) -> Option<Json> {
    Some(match value {
        Value::Int(number) => number.into(),
        Value::Long(number) => number.into(),
        // By its shortest digits: 0.1 is meant, not 0.10000000149.
        Value::Float(number) => number.to_string().parse::<f64>().ok()?.into(),
        Value::Double(number) => number.into(),
        Value::Boolean(bit) => bit.into(),
        Value::String(text) => text.into(),
        Value::Bytes(bytes) => String::from_utf8(bytes).ok()?.into(),
    })
}

/// A number that a single holds with all its published digits; those come from one.
fn single(json: &Json) -> Option<f32> {
    let double = json.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the nearest single, compared below"
    )]
    let single = double as f32;
    let same = single.is_finite() && single.to_string().parse::<f64>() == Ok(double);
    same.then_some(single)
}

/// A text as it is; anything else as JSON.
fn text(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}
