//! Addresses in a Modbus device: `input:0`, `holding:40`, `coil:3`, `discrete:7`. A value.
//!
//! Invariant: addresses are zero-based, as they stand in the frame.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::transaction::Span;

/// The four tables of a Modbus device (application protocol 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// Single bits, read and written (function codes 1, 5, 15).
    Coil,
    /// Single bits, read only (2).
    Discrete,
    /// 16-bit registers, read only (4).
    Input,
    /// 16-bit registers, read and written (3, 6, 16).
    Holding,
}

impl Table {
    /// Whether its elements are single bits.
    pub fn is_bits(self) -> bool {
        matches!(self, Table::Coil | Table::Discrete)
    }

    /// Whether a client may write it.
    pub fn is_writable(self) -> bool {
        matches!(self, Table::Coil | Table::Holding)
    }

    /// The word in configuration, logs and commands.
    pub fn word(self) -> &'static str {
        match self {
            Table::Coil => "coil",
            Table::Discrete => "discrete",
            Table::Input => "input",
            Table::Holding => "holding",
        }
    }
}

/// One address in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", extend("format" = "register"))]
pub struct Register {
    /// Which table.
    pub table: Table,
    /// Zero-based address.
    pub address: u16,
}

/// Why a text is no register.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// No colon, or another table.
    #[error("{0:?} names no register; write coil:N, discrete:N, input:N or holding:N")]
    Table(String),
    /// Not a number from 0 to 65535.
    #[error("{0:?} is no register address; write a zero-based number from 0 to 65535")]
    Address(String),
}

impl FromStr for Register {
    type Err = RegisterError;

    fn from_str(text: &str) -> Result<Register, RegisterError> {
        let table_error = || RegisterError::Table(text.to_owned());
        let (table, address) = text.split_once(':').ok_or_else(table_error)?;
        let table = match table {
            "coil" => Table::Coil,
            "discrete" => Table::Discrete,
            "input" => Table::Input,
            "holding" => Table::Holding,
            _ => return Err(table_error()),
        };
        let address = address
            .parse()
            .map_err(|_| RegisterError::Address(address.to_owned()))?;
        Ok(Register { table, address })
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.table.word(), self.address)
    }
}

impl Serialize for Register {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Register {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Neighbouring addresses of one table; written `"input:0..17"`, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", extend("format" = "register-range", "examples" = ["input:0..17"]))]
pub struct RegisterRange {
    first: Register,
    last: u16,
}

/// The one register.
impl From<Register> for RegisterRange {
    fn from(register: Register) -> RegisterRange {
        RegisterRange {
            first: register,
            last: register.address,
        }
    }
}

/// Why a text is no range of registers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// What stands before the dots is no register.
    #[error(transparent)]
    First(#[from] RegisterError),
    /// No last address, or one before the first.
    #[error(
        "{0:?} is no range of registers; write the first and the last, such as \"input:0..17\""
    )]
    Last(String),
}

impl RegisterRange {
    /// The range with the register that follows it; `None` when it does not follow.
    pub(crate) fn with(self, next: Register) -> Option<RegisterRange> {
        let follows =
            next.table == self.first.table && self.last.checked_add(1) == Some(next.address);
        follows.then_some(RegisterRange {
            last: next.address,
            ..self
        })
    }

    /// Each of its registers.
    pub(crate) fn registers(self) -> impl Iterator<Item = Register> {
        let table = self.first.table;
        (self.first.address..=self.last).map(move |address| Register { table, address })
    }

    /// The elements from the first to the last.
    pub(crate) fn span(self) -> Span {
        Span {
            table: self.first.table,
            start: self.first.address,
            count: (self.last - self.first.address).saturating_add(1),
        }
    }
}

impl FromStr for RegisterRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<RegisterRange, RangeError> {
        let no_last = || RangeError::Last(text.to_owned());
        let (first, last) = text.split_once("..").ok_or_else(no_last)?;
        let first: Register = first.parse()?;
        let last = last.parse().ok().filter(|last| *last >= first.address);
        let last = last.ok_or_else(no_last)?;
        Ok(RegisterRange { first, last })
    }
}

impl fmt::Display for RegisterRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.last)
    }
}

impl Serialize for RegisterRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RegisterRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_read_as_they_print() {
        for text in ["coil:0", "discrete:7", "input:65535", "holding:40"] {
            assert_eq!(
                text.parse::<Register>()
                    .map(|register| register.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn a_text_that_is_no_register_is_told_what_to_write() {
        let refused = |text: &str| text.parse::<Register>().expect_err("refused").to_string();
        assert!(refused("40001").contains("holding:N"));
        assert!(refused("input:65536").contains("0 to 65535"));
    }

    #[test]
    fn a_range_holds_both_its_ends() {
        let range: RegisterRange = "input:10..17".parse().expect("a range");
        assert_eq!(range.to_string(), "input:10..17");
        assert_eq!((range.span().start, range.span().count), (10, 8));
        for text in ["input:10", "input:10..9", "input:10..x", "10..12"] {
            assert!(text.parse::<RegisterRange>().is_err(), "{text}");
        }
    }
}
