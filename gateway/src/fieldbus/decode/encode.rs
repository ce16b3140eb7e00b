//! The way back: a value from a command becomes what is written to the device. A core.
//!
//! Invariant: what cannot be written exactly as asked is refused, never rounded; floating-point
//! registers take the nearest number they have.

mod nearest;

use serde_json::Value as Json;

use crate::config::{Form, Names};

use super::{super::decimal::Decimal, Codec, Meaning, WriteError, field, half, text};

/// What a write sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Encoded {
    /// A coil (function code 5; 15 among others).
    Coil(bool),
    /// Registers (function code 6 for one, 16 for more).
    Registers(Vec<u16>),
    /// Bits of a register, by masks (function code 22).
    Mask {
        /// Bits to keep.
        and: u16,
        /// Bits to set among those not kept.
        or: u16,
    },
}

impl Codec {
    /// What has to be written so that the point reads as `value`, given in the point's unit.
    pub(crate) fn encode(&self, value: &Json) -> Result<Encoded, WriteError> {
        if self.table.is_bits() {
            return Ok(Encoded::Coil(self.boolean(value)?));
        }
        let bytes = match self.form {
            Form::Text => self.text_bytes(value)?,
            Form::Bytes => self.raw_bytes(value)?,
            Form::Float => {
                let (text, size) = self.number(value)?;
                self.float_bytes(text, size)?
            }
            Form::Bool => return self.bits_written(i128::from(self.boolean(value)?)),
            Form::Unsigned | Form::Signed | Form::Bcd => return self.integer_written(value),
        };
        Ok(Encoded::Registers(self.order.to_registers(&bytes)))
    }

    fn integer_written(&self, value: &Json) -> Result<Encoded, WriteError> {
        match (&self.meaning, value) {
            (Meaning::Flags(names), _) => self.flags_written(names, value),
            (Meaning::Named(names), Json::String(name)) => {
                self.bits_written(self.raw_bits(number_of(names, name)?))
            }
            _ => {
                let raw = self.raw(self.number(value)?.0)?;
                self.bits_written(self.raw_bits(raw))
            }
        }
    }

    /// Writes the named bits alone.
    fn flags_written(&self, names: &Names, value: &Json) -> Result<Encoded, WriteError> {
        let Json::Array(given) = value else {
            return Err(kind(value, "a list of names"));
        };
        let bits = |all: u64, number: i64| all | field::one(number);
        let named = names.0.keys().copied().fold(0, bits);
        let mut set = 0;
        for one in given {
            let name = one.as_str().ok_or_else(|| kind(one, "a name"))?;
            let number = number_of(names, name)?;
            set = bits(set, i64::try_from(number).unwrap_or(-1));
        }
        self.mask(named, set)
    }

    /// The bits of a raw number: two's complement, or decimal digits.
    fn raw_bits(&self, raw: i128) -> i128 {
        match (self.form, u64::try_from(raw)) {
            (Form::Bcd, Ok(number)) => i128::from(field::to_bcd(number)),
            _ => raw,
        }
    }

    /// A raw number, put where the point stands in its registers.
    fn bits_written(&self, raw: i128) -> Result<Encoded, WriteError> {
        let bytes = raw.to_be_bytes();
        if self.field.shared {
            let low = bytes.last_chunk().map_or(0, |low| u64::from_be_bytes(*low));
            return self.mask(u64::MAX, low);
        }
        let width = 2 * usize::from(self.registers);
        let bytes = &bytes[bytes.len() - width.min(bytes.len())..];
        Ok(Encoded::Registers(self.order.to_registers(bytes)))
    }

    /// Writes those of the field's bits that `own` names.
    fn mask(&self, own: u64, bits: u64) -> Result<Encoded, WriteError> {
        if self.registers != 1 {
            return Err(WriteError::PartOfSeveral);
        }
        let in_order = |bits: u64| {
            let word = super::low_16(self.field.place(bits));
            if self.order.swaps_bytes() {
                word.swap_bytes()
            } else {
                word
            }
        };
        Ok(Encoded::Mask {
            and: !in_order(own),
            or: in_order(bits),
        })
    }

    fn boolean(&self, value: &Json) -> Result<bool, WriteError> {
        match (value, &self.meaning) {
            (Json::Bool(bit), _) => Ok(*bit),
            (Json::Number(number), _) if number.as_u64() == Some(0) => Ok(false),
            (Json::Number(number), _) if number.as_u64() == Some(1) => Ok(true),
            (Json::String(name), Meaning::Named(names)) => Ok(number_of(names, name)? != 0),
            _ => Err(kind(value, "true or false")),
        }
    }

    /// The number as text, which is exact, and its size, which is within `min` and `max`.
    fn number(&self, value: &Json) -> Result<(String, f64), WriteError> {
        let (value, size) = match value {
            Json::Number(number) => (number.to_string(), number.as_f64().unwrap_or(f64::NAN)),
            // So come numbers with more digits than a double keeps.
            Json::String(text) => {
                let size = size_of(text).ok_or_else(|| kind(value, "a number"))?;
                (text.clone(), size)
            }
            _ => return Err(kind(value, "a number")),
        };
        match (self.min, self.max) {
            (Some(min), _) if size < min => Err(WriteError::BelowMin { value, min }),
            (_, Some(max)) if size > max => Err(WriteError::AboveMax { value, max }),
            _ => Ok((value, size)),
        }
    }

    /// The raw number that decodes to `value`.
    fn raw(&self, value: String) -> Result<i128, WriteError> {
        let Some((raw, exact)) = self.steps(&value) else {
            return Err(WriteError::NotExact(value));
        };
        if !exact {
            return Err(WriteError::BetweenSteps {
                value,
                below: self.print(raw),
                above: self.print(raw + 1),
            });
        }
        let (least, greatest) = self.range();
        if raw < least || raw > greatest {
            return Err(WriteError::OutsideType {
                value,
                least: self.print(least),
                greatest: self.print(greatest),
            });
        }
        Ok(raw)
    }

    /// The least and the greatest raw number of the point's bits.
    fn range(&self) -> (i128, i128) {
        let width = u32::from(self.field.width());
        match self.form {
            Form::Signed => (-(1 << (width - 1)), (1 << (width - 1)) - 1),
            Form::Bcd => (0, 10i128.pow(width / 4) - 1),
            _ => (0, (1 << width) - 1),
        }
    }

    /// The raw number that decodes to `value`, or the one below and `false`.
    fn steps(&self, value: &str) -> Option<(i128, bool)> {
        let value: Decimal = value.parse().ok()?;
        let (scale, offset) = match self.scaling {
            None => (Decimal::integer(1), Decimal::integer(0)),
            Some(scaling) => scaling.exact?,
        };
        value.minus(offset)?.steps_of(scale)
    }

    fn print(&self, raw: i128) -> String {
        self.scaled(raw).to_string()
    }

    fn float_bytes(&self, value: String, size: f64) -> Result<Vec<u8>, WriteError> {
        let raw = match self.scaling {
            None => size,
            Some(scaling) => scaling.undone(size, value.parse().ok()),
        };
        if !raw.is_finite() {
            return Err(WriteError::NotExact(value));
        }
        #[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is wanted")]
        let single = raw as f32;
        match self.registers {
            1 => half::from_f64(raw).map(|half| half.to_be_bytes().to_vec()),
            2 => single.is_finite().then(|| single.to_be_bytes().to_vec()),
            _ => Some(raw.to_be_bytes().to_vec()),
        }
        .ok_or(WriteError::TooLarge(value))
    }

    fn text_bytes(&self, value: &Json) -> Result<Vec<u8>, WriteError> {
        let Json::String(text) = value else {
            return Err(kind(value, "a text"));
        };
        let room = 2 * usize::from(self.registers);
        let mut bytes = text::encode(text, room).ok_or_else(|| WriteError::Length {
            given: text.len(),
            wanted: format!("at most {room}"),
        })?;
        bytes.resize(room, 0);
        Ok(bytes)
    }

    fn raw_bytes(&self, value: &Json) -> Result<Vec<u8>, WriteError> {
        let bytes = value.as_str().and_then(text::from_hexadecimal);
        let bytes = bytes.ok_or_else(|| kind(value, "a text of hexadecimal digits"))?;
        let room = 2 * usize::from(self.registers);
        if bytes.len() != room {
            return Err(WriteError::Length {
                given: bytes.len(),
                wanted: format!("exactly {room}"),
            });
        }
        Ok(bytes)
    }
}

fn number_of(names: &Names, name: &str) -> Result<i128, WriteError> {
    let found = names.0.iter().find(|(_, known)| *known == name);
    found
        .map(|(number, _)| i128::from(*number))
        .ok_or_else(|| WriteError::UnknownName {
            given: format!("{name:?}"),
            known: names.0.values().cloned().collect::<Vec<_>>().join(", "),
        })
}

/// The size of a number written as a text; the words that the standard library reads too, `inf` and
/// `nan`, are none.
fn size_of(text: &str) -> Option<f64> {
    let plain = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    text.parse().ok().filter(|_| text.bytes().all(plain))
}

fn kind(value: &Json, wanted: &'static str) -> WriteError {
    WriteError::Kind {
        given: value.to_string(),
        wanted,
    }
}
