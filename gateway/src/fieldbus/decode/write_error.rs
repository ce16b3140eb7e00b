//! Why a value cannot be written, as the sender of the command reads it. A value.
//!
//! Invariant: each says what was given and what could be written instead.

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
    /// Beyond the point's floating-point type.
    #[error("{0} is larger than the registers can hold")]
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
    /// No value has this name.
    #[error("{given} is not among {known}")]
    UnknownName {
        /// As it came.
        given: String,
        /// The names that there are.
        known: String,
    },
    /// The number is the one by which the device says that it has none.
    #[error("{0} is what the device says when it has no value")]
    NoValue(String),
    /// A part of several registers, which no request writes alone.
    #[error("the point is a part of several registers, which cannot be written alone")]
    PartOfSeveral,
    /// More digits than any register has, or a scale that cannot be undone.
    #[error("{0} cannot be turned into what the device takes exactly")]
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
