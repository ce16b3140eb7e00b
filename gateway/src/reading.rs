//! A reading: one value of one point at one moment. A value.
//!
//! Invariant: a reading bears the moment of its own request's answer, not of its publication.

use std::{fmt, sync::Arc, time::Instant};

use jiff::Timestamp;
use serde::Serialize;

/// One value that a sensor gave, or why it gave none.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The device's name in the configuration.
    pub device: Arc<str>,
    /// The point's name in the configuration.
    pub point: Arc<str>,
    /// What was measured; `None` with a quality that says why.
    pub value: Option<Value>,
    /// Unit of the value, as configured.
    pub unit: Option<Arc<str>>,
    /// When the answer arrived.
    pub stamp: Stamp,
    /// Whether the value can be relied on.
    pub quality: Quality,
    /// Why it is not good.
    pub reason: Option<Arc<str>>,
}

/// A measured value in the width it was measured with, so that it prints as it was meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A coil, a contact, a flag.
    Bool(bool),
    /// An integer of any width up to 64 bits, signed or not.
    Integer(i128),
    /// An integer scaled by a power of ten or a short decimal factor, kept exactly:
    /// `mantissa × 10^-decimals`.
    Decimal {
        /// The digits.
        mantissa: i128,
        /// How many of them stand after the point.
        decimals: u8,
    },
    /// Single precision; prints the shortest digits that read back the same.
    F32(f32),
    /// Double precision; prints the shortest digits that read back the same.
    F64(f64),
    /// Text.
    Text(String),
    /// Names of what is set, published as a list.
    Flags(Vec<String>),
    /// Bytes, published in hexadecimal.
    Raw(Vec<u8>),
}

/// Whether a value can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quality {
    /// As the device gave it, in time.
    Good,
    /// The last known one; newer ones are missing.
    Stale,
    /// The device answered that it has none, or what it gave cannot be read.
    Bad,
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stamp {
    /// Wall clock, UTC.
    pub wall: Timestamp,
    /// The same moment on the clock that never jumps.
    pub monotonic: Instant,
    /// What the wall clock was worth then.
    pub clock: ClockState,
}

/// What the wall clock is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockState {
    /// Disciplined by a time service, as the kernel tells (adjtimex without STA_UNSYNC).
    Synced,
    /// Running free.
    Unsynced,
}

impl Quality {
    /// The word in messages.
    pub fn word(self) -> &'static str {
        match self {
            Quality::Good => "good",
            Quality::Stale => "stale",
            Quality::Bad => "bad",
        }
    }
}

impl Value {
    /// The value as a number, for deadbands and ranges; texts, lists and bytes have none.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::Bool(bit) => Some(f64::from(u8::from(bit))),
            #[expect(clippy::cast_precision_loss, reason = "deadbands need no 54th bit")]
            Value::Integer(number) => Some(number as f64),
            #[expect(clippy::cast_precision_loss, reason = "deadbands need no 54th bit")]
            Value::Decimal { mantissa, decimals } => {
                Some(mantissa as f64 / 10f64.powi(i32::from(decimals)))
            }
            Value::F32(number) => Some(f64::from(number)),
            Value::F64(number) => Some(number),
            Value::Text(_) | Value::Flags(_) | Value::Raw(_) => None,
        }
    }
}

/// Prints as a technician would write it: `231.4`, never `231.39999389648438`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(bit) => write!(f, "{bit}"),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Decimal { mantissa, decimals } => write_decimal(f, *mantissa, *decimals),
            Value::F32(number) => write!(f, "{number}"),
            Value::F64(number) => write!(f, "{number}"),
            Value::Text(text) => f.write_str(text),
            Value::Flags(names) => f.write_str(&names.join(", ")),
            Value::Raw(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

fn write_decimal(f: &mut fmt::Formatter<'_>, mantissa: i128, decimals: u8) -> fmt::Result {
    let digits = format!(
        "{:0width$}",
        mantissa.unsigned_abs(),
        width = usize::from(decimals) + 1
    );
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
    let fraction = fraction.trim_end_matches('0');
    let sign = if mantissa < 0 { "-" } else { "" };
    if fraction.is_empty() {
        write!(f, "{sign}{whole}")
    } else {
        write!(f, "{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_a_technician_writes_them() {
        let printed = |value: Value| value.to_string();
        assert_eq!(printed(Value::F32(231.4)), "231.4");
        assert_eq!(
            printed(Value::Decimal {
                mantissa: 2314,
                decimals: 1
            }),
            "231.4"
        );
        assert_eq!(
            printed(Value::Decimal {
                mantissa: -5,
                decimals: 2
            }),
            "-0.05"
        );
        assert_eq!(
            printed(Value::Decimal {
                mantissa: 5000,
                decimals: 3
            }),
            "5"
        );
        assert_eq!(
            printed(Value::Integer(i128::from(u64::MAX))),
            "18446744073709551615"
        );
        assert_eq!(printed(Value::Raw(vec![0x0a, 0xff])), "0aff");
    }
}
