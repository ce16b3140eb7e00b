//! Registers and bits become values, and values to be written become registers. A core.
//!
//! Invariant: integers keep every digit through scale and offset, and what [`Codec::encode`]
//! gives decodes to the value that was asked for.

mod encode;

use crate::{
    config::{Point, PointType, WordOrder},
    reading::Value,
};

use super::{decimal::Decimal, register::Table};

pub(crate) use encode::{Encoded, WriteError};

/// Bytes of the longest number.
const NUMBER_BYTES: usize = 8;

/// How one point is read and written; made once from its configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Codec {
    table: Table,
    kind: PointType,
    order: WordOrder,
    registers: u16,
    bit: Option<u8>,
    scaling: Option<Scaling>,
    min: Option<f64>,
    max: Option<f64>,
}

/// `value = raw × scale + offset`, as it stands in the configuration and exactly where it can be.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scaling {
    scale: f64,
    offset: f64,
    exact: Option<(Decimal, Decimal)>,
}

/// Why an answer holds no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadValue {
    /// Not a number, or infinite.
    #[error("the device gave no number (NaN or infinite)")]
    NoNumber,
    /// Fewer registers than the point takes.
    #[error("the answer is shorter than the value")]
    Short,
}

impl Codec {
    /// The codec of a configured point.
    pub(crate) fn of(point: &Point) -> Codec {
        let kind = point.kind();
        Codec {
            table: point.register.table,
            kind,
            order: point.order,
            registers: elements(point),
            bit: point.bit,
            scaling: Scaling::of(point.scale, point.offset),
            min: point.min,
            max: point.max,
        }
    }

    /// Coils, discrete inputs or registers that the point takes.
    pub(crate) fn elements(&self) -> u16 {
        self.registers
    }

    /// The value in exactly the point's registers.
    pub(crate) fn decode(&self, words: &[u16]) -> Result<Value, BadValue> {
        let Some(words) = words.get(..usize::from(self.registers)) else {
            return Err(BadValue::Short);
        };
        let bytes = to_big_endian(words, self.order);
        if let Some(bit) = self.bit {
            return Ok(Value::Bool(unsigned(&bytes) >> bit & 1 == 1));
        }
        match self.kind {
            PointType::Bool => Ok(Value::Bool(unsigned(&bytes) != 0)),
            PointType::U16 | PointType::U32 | PointType::U64 => {
                Ok(self.scaled_integer(i128::from(unsigned(&bytes))))
            }
            PointType::I16 | PointType::I32 | PointType::I64 => {
                Ok(self.scaled_integer(i128::from(signed(&bytes))))
            }
            PointType::F32 => self.scaled_f32(f32::from_bits(low_half(unsigned(&bytes)))),
            PointType::F64 => self.scaled_f64(f64::from_bits(unsigned(&bytes))),
            PointType::String => Ok(Value::Text(text(&bytes))),
            PointType::Raw => Ok(Value::Raw(bytes)),
        }
    }

    fn scaled_integer(&self, raw: i128) -> Value {
        let Some(scaling) = self.scaling else {
            return Value::Integer(raw);
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "only where no decimal holds the result"
        )]
        let nearest = Value::F64(raw as f64 * scaling.scale + scaling.offset);
        scaling.apply(Decimal::integer(raw)).unwrap_or(nearest)
    }

    fn scaled_f32(&self, raw: f32) -> Result<Value, BadValue> {
        if !raw.is_finite() {
            return Err(BadValue::NoNumber);
        }
        let Some(scaling) = self.scaling else {
            return Ok(Value::F32(raw));
        };
        let exact = Decimal::shortest_f32(raw).and_then(|raw| scaling.apply(raw));
        exact.map_or_else(|| scaling.apply_f64(f64::from(raw)), Ok)
    }

    fn scaled_f64(&self, raw: f64) -> Result<Value, BadValue> {
        if !raw.is_finite() {
            return Err(BadValue::NoNumber);
        }
        let Some(scaling) = self.scaling else {
            return Ok(Value::F64(raw));
        };
        let exact = Decimal::shortest(raw).and_then(|raw| scaling.apply(raw));
        exact.map_or_else(|| scaling.apply_f64(raw), Ok)
    }
}

impl Scaling {
    fn of(scale: Option<f64>, offset: Option<f64>) -> Option<Scaling> {
        if scale.is_none() && offset.is_none() {
            return None;
        }
        let (scale, offset) = (scale.unwrap_or(1.0), offset.unwrap_or(0.0));
        Some(Scaling {
            scale,
            offset,
            exact: Decimal::shortest(scale).zip(Decimal::shortest(offset)),
        })
    }

    fn apply(&self, raw: Decimal) -> Option<Value> {
        let (scale, offset) = self.exact?;
        Some(raw.times(scale)?.plus(offset)?.value())
    }

    fn apply_f64(&self, raw: f64) -> Result<Value, BadValue> {
        let value = raw * self.scale + self.offset;
        if value.is_finite() {
            Ok(Value::F64(value))
        } else {
            Err(BadValue::NoNumber)
        }
    }
}

/// Coils, discrete inputs or registers that a configured point takes; at least one.
pub(crate) fn elements(point: &Point) -> u16 {
    if point.register.table.is_bits() || point.bit.is_some() {
        return 1;
    }
    let length = point.kind().registers().or(point.length);
    length.unwrap_or(1).max(1)
}

fn to_big_endian(words: &[u16], order: WordOrder) -> Vec<u8> {
    let (words_swapped, bytes_swapped) = swaps(order);
    let bytes = |word: &u16| match bytes_swapped {
        false => word.to_be_bytes(),
        true => word.to_le_bytes(),
    };
    match words_swapped {
        false => words.iter().flat_map(bytes).collect(),
        true => words.iter().rev().flat_map(bytes).collect(),
    }
}

/// Whether words, and bytes within words, stand against the Modbus order.
fn swaps(order: WordOrder) -> (bool, bool) {
    match order {
        WordOrder::Abcd => (false, false),
        WordOrder::Cdab => (true, false),
        WordOrder::Badc => (false, true),
        WordOrder::Dcba => (true, true),
    }
}

/// The number in at most eight big-endian bytes.
fn unsigned(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(NUMBER_BYTES)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len().clamp(1, NUMBER_BYTES);
    (unsigned(bytes) << unused).cast_signed() >> unused
}

fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default()
}

/// UTF-8 where it is, else Latin-1, which old instruments send for their degree signs.
fn text(bytes: &[u8]) -> String {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    text.trim_end_matches(['\0', ' ']).to_owned()
}

#[cfg(test)]
mod tests;
