//! A `[[device.point]]` of `gateway.toml`: where a value stands and how it is read. Values.
//!
//! Invariant: a point's register is zero-based and its length follows from its type.

use schemars::JsonSchema;
use serde::Deserialize;
use settings::Period;

use crate::fieldbus::register::Register;

use super::WordOrder;

mod kind;
mod words;

pub(crate) use kind::Form;
pub use kind::PointType;
pub(crate) use words::Sentinel;
pub use words::{BitRange, Deadband, Names};

/// A `[[device.point]]`: one value in a device.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Its name in topics.
    #[schemars(extend("format" = "name"))]
    pub name: String,
    /// `coil:N`, `discrete:N`, `input:N` or `holding:N`, zero-based.
    pub register: Register,
    /// How the registers are read; by default `bool` for coils and discrete inputs, else `u16`.
    #[serde(rename = "type")]
    pub kind: Option<PointType>,
    /// Order in which the bytes of a value arrive; `ABCD` is big-endian.
    #[serde(default)]
    pub order: WordOrder,
    /// Registers of a `string` or `raw` value.
    #[schemars(range(min = 1, max = 125))]
    pub length: Option<u16>,
    /// Which byte of its register an 8-bit value is; by default the low one.
    pub byte: Option<Byte>,
    /// The one bit that is the value; 0 is the least significant.
    #[schemars(range(min = 0, max = 63))]
    pub bit: Option<u8>,
    /// The bits that are the value, both ends included: `"4..7"`.
    pub bits: Option<BitRange>,
    /// What is cut off a text; by default NUL and blanks at its end.
    #[serde(default)]
    pub trim: Trim,
    /// Factor applied to the raw number.
    pub scale: Option<f64>,
    /// Added after the factor.
    pub offset: Option<f64>,
    /// Limits that a value beyond them is published as.
    pub clamp: Option<Clamp>,
    /// Decimals that a value is rounded to.
    #[schemars(range(min = 0, max = 15))]
    pub round: Option<u8>,
    /// Names of raw numbers, such as `{ 0 = "off", 1 = "on" }`; others stay numbers.
    #[serde(default)]
    pub values: Names,
    /// Names of single bits, such as `{ 0 = "running", 3 = "fault" }`; those set are published as
    /// a list.
    #[serde(default)]
    pub flags: Names,
    /// Raw numbers by which the device says that it has no value, such as `[0x7FFF]`.
    #[serde(default)]
    #[schemars(with = "Vec<f64>")]
    pub not_available: Vec<Sentinel>,
    /// Unit of the value after scale and offset, as printed in messages.
    pub unit: Option<String>,
    /// Read at another interval than the device.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "7d"))]
    pub interval: Option<Period>,
    /// When a value is published; by default at every poll, with a deadband on change.
    pub report: Option<Report>,
    /// Publish only when the value has moved by more than this since the last message: a number,
    /// or a share of the last value such as `"2%"`. Of values around zero a share is next to
    /// nothing: `{ percent = 2, at_least = 0.1 }`.
    pub deadband: Option<Deadband>,
    /// Publish at least so often, changed or not.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "7d"))]
    pub heartbeat: Option<Period>,
    /// Whether commands may write it. Only coils and holding registers can be written.
    #[serde(default)]
    pub access: Access,
    /// Least value that a command may write.
    pub min: Option<f64>,
    /// Greatest value that a command may write.
    pub max: Option<f64>,
}

impl Point {
    /// The type as written, or the register table's default.
    pub fn kind(&self) -> PointType {
        self.kind.unwrap_or(if self.register.table.is_bits() {
            PointType::Bool
        } else {
            PointType::U16
        })
    }

    /// Coils, discrete inputs or registers that it takes; at least one.
    pub(crate) fn elements(&self) -> u16 {
        if self.register.table.is_bits() {
            return 1;
        }
        let length = self.kind().registers().or(self.length);
        length.unwrap_or(1).max(1)
    }

    /// By how much a value has to move to be published; `None`: every poll is.
    pub fn publishes_on(&self) -> Option<Deadband> {
        deadband(self.report, self.deadband)
    }
}

/// By how much a value has to move to be published, from both keys that say so.
pub(super) fn deadband(report: Option<Report>, deadband: Option<Deadband>) -> Option<Deadband> {
    let change = report == Some(Report::Change);
    deadband.or(change.then_some(Deadband::Absolute(0.0)))
}

/// What may be done with a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// It is polled.
    #[default]
    Read,
    /// It is polled, and commands write it.
    ReadWrite,
}

/// When a value is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// Whenever it is read.
    Poll,
    /// When it differs from what was last published.
    Change,
}

/// One half of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Byte {
    /// Bits 8 to 15.
    High,
    /// Bits 0 to 7.
    Low,
}

/// What is cut off a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trim {
    /// NUL and blanks at the end.
    #[default]
    End,
    /// NUL and blanks at both ends.
    Both,
    /// The first NUL and all that follows it, as in C.
    Nul,
    /// Nothing.
    None,
}

/// Limits of a published value.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Clamp {
    /// What is below is published as this.
    pub min: Option<f64>,
    /// What is above is published as this.
    pub max: Option<f64>,
}

#[cfg(test)]
impl Point {
    /// A point `p` with one key beside its place; `null` for what is left out.
    pub(crate) fn example(register: &str, kind: Option<PointType>) -> Point {
        Point {
            kind,
            ..serde_json::from_value(serde_json::json!({ "name": "p", "register": register }))
                .expect("a point")
        }
    }
}
