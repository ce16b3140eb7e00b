//! Registers and bits become values, and values to be written become registers. A core.
//!
//! ```text
//!  registers ──order──▶ bytes ──field──▶ raw number ──names, flags──▶ text, list
//!                         │                   └──scale, offset──clamp──round──▶ number
//!                         └──▶ text, bytes
//! ```
//!
//! Invariant: integers keep every digit through scale and offset, and what [`Codec::encode`]
//! gives decodes to the value that was asked for.

mod encode;
mod field;
mod half;
mod scaling;
mod text;
mod write_error;

use crate::{
    config::{Form, Names, Point, PointType, Sentinel, Trim, WordOrder},
    reading::Value,
};

use crate::fieldbus::{decimal::Decimal, register::Table};

pub(crate) use encode::Encoded;
use field::Field;
use scaling::{Finish, Scaling};
pub(crate) use write_error::WriteError;

/// Bytes of the longest number.
const NUMBER_BYTES: usize = 8;

/// How one point is read and written; made once from its configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Codec {
    table: Table,
    form: Form,
    order: WordOrder,
    registers: u16,
    field: Field,
    meaning: Meaning,
    not_available: Vec<Sentinel>,
    scaling: Option<Scaling>,
    finish: Finish,
    trim: Trim,
    min: Option<f64>,
    max: Option<f64>,
}

/// What a raw number stands for.
#[derive(Debug, Clone, PartialEq)]
enum Meaning {
    /// Itself, scaled.
    Number,
    /// What it is called; itself where it has no name.
    Named(Names),
    /// The names of the bits that are set.
    Flags(Names),
}

/// Why an answer holds no value.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub(crate) enum BadValue {
    /// Not a number, or infinite.
    #[error("the device gave no number (NaN or infinite)")]
    NoNumber,
    /// A half byte above nine.
    #[error("the device gave a digit above 9 in a BCD number")]
    NotDecimal,
    /// An integer by which the device says so, as its bits.
    #[error("the device says that it has no value ({0:#X})")]
    NotAvailable(u64),
    /// A floating-point number by which the device says so.
    #[error("the device says that it has no value ({0})")]
    NotAvailableFloat(f64),
    /// Fewer registers than the point takes.
    #[error("the answer is shorter than the value")]
    Short,
}

impl Codec {
    /// The codec of a configured point.
    pub(crate) fn of(point: &Point) -> Codec {
        let form = point.kind().form();
        Codec {
            table: point.register.table,
            form: if point.bit.is_some() {
                Form::Bool
            } else {
                form
            },
            order: point.order,
            registers: point.elements(),
            field: Field::of(point),
            meaning: Meaning::of(point),
            not_available: point.not_available.clone(),
            scaling: Scaling::of(point.scale, point.offset),
            finish: Finish::of(point),
            trim: point.trim,
            min: point.min,
            max: point.max,
        }
    }

    /// Coils, discrete inputs or registers that the point takes.
    pub(crate) fn elements(&self) -> u16 {
        self.registers
    }

    /// The value of a coil or a discrete input.
    pub(crate) fn decode_bit(&self, bit: bool) -> Value {
        self.meaning.of_bit(bit)
    }

    /// The value in exactly the point's registers, as it is published.
    pub(crate) fn decode(&self, words: &[u16]) -> Result<Value, BadValue> {
        self.read_back(words).map(|value| self.finish.apply(value))
    }

    /// The same before limits and rounding, which would hide that a write was not taken.
    pub(crate) fn read_back(&self, words: &[u16]) -> Result<Value, BadValue> {
        let Some(words) = words.get(..usize::from(self.registers)) else {
            return Err(BadValue::Short);
        };
        let bytes = self.order.to_big_endian(words);
        match self.form {
            Form::Text => Ok(Value::Text(text::decode(&bytes, self.trim))),
            Form::Bytes => Ok(Value::Raw(bytes)),
            Form::Float => self.float(&bytes),
            Form::Bool => Ok(self.meaning.of_bit(self.bits(&bytes)? != 0)),
            Form::Unsigned | Form::Signed | Form::Bcd => self.integer(self.bits(&bytes)?),
        }
    }

    /// The point's own bits, unless they say that there is no value.
    fn bits(&self, bytes: &[u8]) -> Result<u64, BadValue> {
        let bits = self.field.take(unsigned(bytes));
        let absent = |sentinel: &Sentinel| match sentinel {
            Sentinel::Integer(number) => self.field.cut(number.cast_unsigned()) == bits,
            Sentinel::Float(_) => false,
        };
        if self.not_available.iter().any(absent) {
            return Err(BadValue::NotAvailable(bits));
        }
        Ok(bits)
    }

    fn integer(&self, bits: u64) -> Result<Value, BadValue> {
        let raw = match self.form {
            Form::Signed => i128::from(self.field.signed(bits)),
            Form::Bcd => i128::from(field::from_bcd(bits).ok_or(BadValue::NotDecimal)?),
            _ => i128::from(bits),
        };
        match &self.meaning {
            Meaning::Named(names) => Ok(name_of(names, raw)
                .map_or(Value::Integer(raw), |name| Value::Text(name.to_owned()))),
            Meaning::Flags(names) => Ok(Value::Flags(set_names(names, bits))),
            Meaning::Number => Ok(self.scaled(raw)),
        }
    }

    fn scaled(&self, raw: i128) -> Value {
        match self.scaling {
            None => Value::Integer(raw),
            Some(scaling) => scaling.integer(raw),
        }
    }

    /// A float in registers is the shortest decimal that reads back as it; scaling starts there. A
    /// zero is taken for the positive one, which prints without a sign.
    fn float(&self, bytes: &[u8]) -> Result<Value, BadValue> {
        let bits = unsigned(bytes);
        let (raw, shortest) = match bytes.len() {
            2 => {
                let raw = half::to_f64(low_16(bits)) + 0.0;
                (Value::F64(raw), half::shortest(low_16(bits)))
            }
            4 => {
                let raw = f32::from_bits(low_32(bits)) + 0.0;
                (Value::F32(raw), Decimal::shortest_f32(raw))
            }
            _ => {
                let raw = f64::from_bits(bits) + 0.0;
                (Value::F64(raw), Decimal::shortest(raw))
            }
        };
        let size = raw.as_f64().unwrap_or(f64::NAN);
        if !size.is_finite() {
            return Err(BadValue::NoNumber);
        }
        self.check_available(size, bytes.len())?;
        let value = match (self.scaling, shortest) {
            (Some(scaling), shortest) => scaling.float(size, shortest),
            (None, Some(shortest)) if bytes.len() == 2 => Some(shortest.value()),
            (None, _) => Some(raw),
        };
        value.ok_or(BadValue::NoNumber)
    }

    /// A device means the nearest number that it has.
    fn check_available(&self, size: f64, bytes: usize) -> Result<(), BadValue> {
        let absent = |number: &f64| {
            #[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is meant")]
            let meant = match bytes {
                2 => half::from_f64(*number).map(half::to_f64),
                4 => Some(f64::from(*number as f32)),
                _ => Some(*number),
            };
            meant == Some(size)
        };
        let mut listed = self.not_available.iter().map(|listed| listed.as_f64());
        listed
            .find(absent)
            .map_or(Ok(()), |number| Err(BadValue::NotAvailableFloat(number)))
    }
}

impl Meaning {
    fn of(point: &Point) -> Meaning {
        if !point.values.is_empty() {
            Meaning::Named(point.values.clone())
        } else if !point.flags.is_empty() {
            Meaning::Flags(point.flags.clone())
        } else {
            Meaning::Number
        }
    }

    fn of_bit(&self, bit: bool) -> Value {
        match self {
            Meaning::Named(names) => {
                let name = name_of(names, i128::from(bit));
                name.map_or(Value::Bool(bit), |name| Value::Text(name.to_owned()))
            }
            Meaning::Number | Meaning::Flags(_) => Value::Bool(bit),
        }
    }
}

fn name_of(names: &Names, raw: i128) -> Option<&str> {
    let number = i64::try_from(raw).ok()?;
    names.0.get(&number).map(String::as_str)
}

fn set_names(names: &Names, bits: u64) -> Vec<String> {
    let set = |(bit, _): &(&i64, &String)| bits & field::one(**bit) != 0;
    let named = names.0.iter().filter(set);
    named.map(|(_, name)| name.clone()).collect()
}

/// The number in at most eight big-endian bytes.
fn unsigned(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(NUMBER_BYTES)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn low_32(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default()
}

fn low_16(number: u64) -> u16 {
    u16::try_from(number & u64::from(u16::MAX)).unwrap_or_default()
}

/// Bits of the type in its registers, where it is not all of them.
fn own_bits(kind: PointType) -> Option<u16> {
    kind.bits().filter(|bits| !bits.is_multiple_of(16))
}

#[cfg(test)]
mod tests;
