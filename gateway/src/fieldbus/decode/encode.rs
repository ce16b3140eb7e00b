//! The way back: a value from a command becomes what is written to the device. A core.
//!
//! Invariant: what cannot be written exactly as asked is refused, never rounded; floating-point
//! registers take the nearest number they have.

use serde_json::Value as Json;

use crate::config::PointType;

use super::{super::decimal::Decimal, Codec, swaps};

/// What a write sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Encoded {
    /// A coil (function code 5).
    Coil(bool),
    /// Registers (function code 6 for one, 16 for more).
    Registers(Vec<u16>),
    /// One bit of a register, by masks (function code 22).
    Mask {
        /// Bits to keep.
        and: u16,
        /// Bits to set among those not kept.
        or: u16,
    },
}

/// Why a value cannot be written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum WriteError {
    /// The value's kind is another one.
    #[error("{given} is not {wanted}")]
    Kind {
        /// As it came.
        given: String,
        /// What it has to be.
        wanted: &'static str,
    },
    /// Below `min`.
    #[error("{value} is below the least permitted value {min}")]
    BelowMin {
        /// As it came.
        value: String,
        /// The point's key.
        min: f64,
    },
    /// Above `max`.
    #[error("{value} is above the greatest permitted value {max}")]
    AboveMax {
        /// As it came.
        value: String,
        /// The point's key.
        max: f64,
    },
    /// The type has no such number.
    #[error("{value} is outside what the register can hold, {least} to {greatest}")]
    OutsideType {
        /// As it came.
        value: String,
        /// In the point's unit; the greater of the two where the scale is negative.
        least: String,
        /// In the point's unit.
        greatest: String,
    },
    /// Beyond single precision.
    #[error("{0} is larger than a single-precision register can hold")]
    TooLarge(String),
    /// Between two steps of the scale.
    #[error("{value} lies between two steps of the register; write {below} or {above}")]
    BetweenSteps {
        /// As it came.
        value: String,
        /// The step below.
        below: String,
        /// The step above.
        above: String,
    },
    /// More digits than any register has, or a scale that cannot be undone.
    #[error("{0} cannot be turned into a register value exactly")]
    NotExact(String),
    /// Text or bytes of another length.
    #[error("{given} bytes do not fit: the point takes {wanted}")]
    Length {
        /// Bytes that came.
        given: usize,
        /// Bytes that fit, in words.
        wanted: String,
    },
}

impl Codec {
    /// What has to be written so that the point reads as `value`, given in the point's unit.
    pub(crate) fn encode(&self, value: &Json) -> Result<Encoded, WriteError> {
        if self.table.is_bits() {
            return boolean(value).map(Encoded::Coil);
        }
        if let Some(bit) = self.bit {
            return boolean(value).map(|set| self.mask(bit, set));
        }
        let bytes = match self.kind {
            PointType::Bool => u16::from(boolean(value)?).to_be_bytes().to_vec(),
            PointType::String => self.text_bytes(value)?,
            PointType::Raw => self.raw_bytes(value)?,
            PointType::F32 | PointType::F64 => {
                let (text, size) = self.number(value)?;
                self.float_bytes(text, size)?
            }
            _ => self.integer_bytes(self.number(value)?.0)?,
        };
        Ok(Encoded::Registers(self.words(&bytes)))
    }

    fn mask(&self, bit: u8, set: bool) -> Encoded {
        let (_, bytes_swapped) = swaps(self.order);
        let bit = if bytes_swapped { bit ^ 8 } else { bit };
        let mask = 1u16.checked_shl(u32::from(bit)).unwrap_or(0);
        Encoded::Mask {
            and: !mask,
            or: if set { mask } else { 0 },
        }
    }

    /// The number as text, which is exact, and its size, which is within `min` and `max`.
    fn number(&self, value: &Json) -> Result<(String, f64), WriteError> {
        let Json::Number(number) = value else {
            return Err(kind(value, "a number"));
        };
        let value = number.to_string();
        let size = number.as_f64().unwrap_or(f64::NAN);
        match (self.min, self.max) {
            (Some(min), _) if size < min => Err(WriteError::BelowMin { value, min }),
            (_, Some(max)) if size > max => Err(WriteError::AboveMax { value, max }),
            _ => Ok((value, size)),
        }
    }

    fn integer_bytes(&self, value: String) -> Result<Vec<u8>, WriteError> {
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
        let (least, greatest) = integer_range(self.kind);
        if raw < least || raw > greatest {
            return Err(WriteError::OutsideType {
                value,
                least: self.print(least),
                greatest: self.print(greatest),
            });
        }
        let width = 2 * usize::from(self.registers);
        let bytes = raw.to_be_bytes();
        Ok(bytes[bytes.len() - width.min(bytes.len())..].to_vec())
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
        self.scaled_integer(raw).to_string()
    }

    fn float_bytes(&self, value: String, size: f64) -> Result<Vec<u8>, WriteError> {
        let raw = match self.scaling {
            None => size,
            Some(scaling) => (size - scaling.offset) / scaling.scale,
        };
        if !raw.is_finite() {
            return Err(WriteError::NotExact(value));
        }
        if self.kind == PointType::F64 {
            return Ok(raw.to_be_bytes().to_vec());
        }
        #[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is wanted")]
        let single = raw as f32;
        if single.is_finite() {
            Ok(single.to_be_bytes().to_vec())
        } else {
            Err(WriteError::TooLarge(value))
        }
    }

    fn text_bytes(&self, value: &Json) -> Result<Vec<u8>, WriteError> {
        let Json::String(text) = value else {
            return Err(kind(value, "a text"));
        };
        let room = 2 * usize::from(self.registers);
        if text.len() > room {
            return Err(WriteError::Length {
                given: text.len(),
                wanted: format!("at most {room}"),
            });
        }
        let mut bytes = text.clone().into_bytes();
        bytes.resize(room, 0);
        Ok(bytes)
    }

    fn raw_bytes(&self, value: &Json) -> Result<Vec<u8>, WriteError> {
        let bytes = value.as_str().and_then(hexadecimal);
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

    fn words(&self, bytes: &[u8]) -> Vec<u16> {
        let (words_swapped, bytes_swapped) = swaps(self.order);
        let word = |pair: &[u8]| match (pair, bytes_swapped) {
            ([high, low], false) => u16::from_be_bytes([*high, *low]),
            ([high, low], true) => u16::from_le_bytes([*high, *low]),
            _ => 0,
        };
        let mut words: Vec<u16> = bytes.chunks(2).map(word).collect();
        if words_swapped {
            words.reverse();
        }
        words
    }
}

fn boolean(value: &Json) -> Result<bool, WriteError> {
    match value {
        Json::Bool(bit) => Ok(*bit),
        Json::Number(number) if number.as_u64() == Some(0) => Ok(false),
        Json::Number(number) if number.as_u64() == Some(1) => Ok(true),
        _ => Err(kind(value, "true or false")),
    }
}

fn kind(value: &Json, wanted: &'static str) -> WriteError {
    WriteError::Kind {
        given: value.to_string(),
        wanted,
    }
}

fn integer_range(kind: PointType) -> (i128, i128) {
    match kind {
        PointType::I16 => (i16::MIN.into(), i16::MAX.into()),
        PointType::U32 => (0, u32::MAX.into()),
        PointType::I32 => (i32::MIN.into(), i32::MAX.into()),
        PointType::U64 => (0, u64::MAX.into()),
        PointType::I64 => (i64::MIN.into(), i64::MAX.into()),
        _ => (0, u16::MAX.into()),
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let pair = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}
