//! The types that registers are read as. Values.
//!
//! Invariant: one line of one table says all that is known of a type.

use schemars::JsonSchema;
use serde::Deserialize;

/// How registers are read as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PointType {
    /// One bit, or a register that is not zero.
    Bool,
    /// Unsigned 8 bits: one byte of a register.
    U8,
    /// Signed 8 bits: one byte of a register.
    I8,
    /// Unsigned 16 bits.
    U16,
    /// Signed 16 bits.
    I16,
    /// Unsigned 24 bits, the low ones of two registers.
    U24,
    /// Signed 24 bits, the low ones of two registers.
    I24,
    /// Unsigned 32 bits in two registers.
    U32,
    /// Signed 32 bits in two registers.
    I32,
    /// Unsigned 48 bits in three registers.
    U48,
    /// Signed 48 bits in three registers.
    I48,
    /// Unsigned 64 bits in four registers.
    U64,
    /// Signed 64 bits in four registers.
    I64,
    /// IEEE 754 half precision in one register.
    F16,
    /// IEEE 754 single precision in two registers.
    F32,
    /// IEEE 754 double precision in four registers.
    F64,
    /// Two decimal digits in one byte of a register.
    Bcd8,
    /// Four decimal digits.
    Bcd16,
    /// Six decimal digits, the low ones of two registers.
    Bcd24,
    /// Eight decimal digits in two registers.
    Bcd32,
    /// Twelve decimal digits in three registers.
    Bcd48,
    /// Sixteen decimal digits in four registers.
    Bcd64,
    /// Text, two characters a register.
    String,
    /// Bytes, published in hexadecimal.
    Raw,
}

/// What the bits of a type mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Bool,
    Unsigned,
    Signed,
    Bcd,
    Float,
    Text,
    Bytes,
}

impl PointType {
    /// The word in the configuration, what the bits mean, and how many there are; none where the
    /// configuration's `length` says.
    fn facts(self) -> (&'static str, Form, Option<u16>) {
        match self {
            PointType::Bool => ("bool", Form::Bool, Some(16)),
            PointType::U8 => ("u8", Form::Unsigned, Some(8)),
            PointType::I8 => ("i8", Form::Signed, Some(8)),
            PointType::U16 => ("u16", Form::Unsigned, Some(16)),
            PointType::I16 => ("i16", Form::Signed, Some(16)),
            PointType::U24 => ("u24", Form::Unsigned, Some(24)),
            PointType::I24 => ("i24", Form::Signed, Some(24)),
            PointType::U32 => ("u32", Form::Unsigned, Some(32)),
            PointType::I32 => ("i32", Form::Signed, Some(32)),
            PointType::U48 => ("u48", Form::Unsigned, Some(48)),
            PointType::I48 => ("i48", Form::Signed, Some(48)),
            PointType::U64 => ("u64", Form::Unsigned, Some(64)),
            PointType::I64 => ("i64", Form::Signed, Some(64)),
            PointType::F16 => ("f16", Form::Float, Some(16)),
            PointType::F32 => ("f32", Form::Float, Some(32)),
            PointType::F64 => ("f64", Form::Float, Some(64)),
            PointType::Bcd8 => ("bcd8", Form::Bcd, Some(8)),
            PointType::Bcd16 => ("bcd16", Form::Bcd, Some(16)),
            PointType::Bcd24 => ("bcd24", Form::Bcd, Some(24)),
            PointType::Bcd32 => ("bcd32", Form::Bcd, Some(32)),
            PointType::Bcd48 => ("bcd48", Form::Bcd, Some(48)),
            PointType::Bcd64 => ("bcd64", Form::Bcd, Some(64)),
            PointType::String => ("string", Form::Text, None),
            PointType::Raw => ("raw", Form::Bytes, None),
        }
    }

    /// The word in the configuration.
    pub fn word(self) -> &'static str {
        self.facts().0
    }

    /// What the bits mean.
    pub(crate) fn form(self) -> Form {
        self.facts().1
    }

    /// Bits of one value; `None` where the configuration's `length` says.
    pub fn bits(self) -> Option<u16> {
        self.facts().2
    }

    /// Registers that one value takes; `None` where the configuration's `length` says.
    pub fn registers(self) -> Option<u16> {
        self.bits().map(|bits| bits.div_ceil(16))
    }
}

impl Form {
    /// Whether scale, offset and deadbands mean something.
    pub(crate) fn is_number(self) -> bool {
        self.is_integer() || self == Form::Float
    }

    /// Whether the value is a whole number.
    pub(crate) fn is_integer(self) -> bool {
        matches!(self, Form::Unsigned | Form::Signed | Form::Bcd)
    }
}
