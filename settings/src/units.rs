//! Durations and sizes as people write them: `"250ms"`, `"512MiB"`.
//!
//! Invariant: what a value prints is read back as the same value. Layer: value.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Microseconds of the longest period: a century, so that adding one to a clock cannot overflow.
const MAX_PERIOD_US: u64 = 36_525 * 86_400_000_000;

/// Units of a period with their length in microseconds, longest first.
const PERIOD_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Units of a size with their length in bytes; the binary ones first, which wins a tie.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Why a text is no period or size, as a clause that follows the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// A length of time in whole microseconds, at most a century; written `"250ms"`, `"30s"`, `"5m"`,
/// `"2h"`, `"7d"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

impl Period {
    /// Of so many microseconds. Panics above a century, which only a constant of ours can be.
    pub const fn from_micros(micros: u64) -> Self {
        assert!(micros <= MAX_PERIOD_US, "a period is at most a century");
        Self(Duration::from_micros(micros))
    }

    /// Of so many milliseconds. Panics above a century.
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_micros(millis.saturating_mul(1_000))
    }

    /// Of so many seconds. Panics above a century.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    /// As the standard library's type.
    pub const fn as_duration(self) -> Duration {
        self.0
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.0
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let micros = parse(text, PERIOD_UNITS, "us, ms, s, m, h, d")?;
        if micros > MAX_PERIOD_US {
            return Err(UnitError("it is longer than a century (36525d)".to_owned()));
        }
        Ok(Self::from_micros(micros))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = u64::try_from(self.0.as_micros()).unwrap_or(MAX_PERIOD_US);
        if micros == 0 {
            return f.pad("0s");
        }
        f.pad(&shortest(micros, PERIOD_UNITS))
    }
}

/// A number of bytes; written `"512MiB"`, `"16KiB"`, `"2GiB"` or, in powers of ten, `"64kB"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// Of so many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Of so many KiB (1,024 bytes); the largest size where that overflows.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib.saturating_mul(1 << 10))
    }

    /// Of so many MiB; the largest size where that overflows.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// Of so many GiB; the largest size where that overflows.
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib.saturating_mul(1 << 30))
    }

    /// In bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// In bytes, for lengths in memory; the largest length where this machine's are shorter.
    pub fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, SIZE_UNITS, "B, KiB, MiB, GiB, TiB, kB, MB, GB, TB").map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0B");
        }
        f.pad(&shortest(self.0, SIZE_UNITS))
    }
}

/// The shortest text that names `amount` (above zero) exactly; of equals, the first unit's.
fn shortest(amount: u64, units: &[(&str, u64)]) -> String {
    units
        .iter()
        .filter(|(_, length)| amount.is_multiple_of(*length))
        .map(|(unit, length)| format!("{}{unit}", amount / length))
        .min_by_key(String::len)
        .unwrap_or_else(|| amount.to_string())
}

/// Reads a whole number and its unit, and answers in the smallest unit.
fn parse(text: &str, units: &[(&str, u64)], names: &str) -> Result<u64, UnitError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(UnitError("it must begin with a whole number".to_owned()));
    }
    let too_large = || UnitError("the number is too large".to_owned());
    let amount: u64 = digits.parse().map_err(|_| too_large())?;
    let Some((_, length)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(unknown_unit(digits, unit, units, names));
    };
    amount.checked_mul(*length).ok_or_else(too_large)
}

fn unknown_unit(digits: &str, unit: &str, units: &[(&str, u64)], names: &str) -> UnitError {
    let meant = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))
        .map(|(name, _)| format!(" (write \"{digits}{name}\")"))
        .unwrap_or_default();
    UnitError(match unit {
        "" => format!("the unit is missing, one of {names}"),
        _ if unit.starts_with(['.', ',']) => {
            "it must be a whole number; take the next smaller unit".to_owned()
        }
        _ if unit.starts_with(char::is_whitespace) => {
            format!("number and unit must stand together{meant}")
        }
        _ => format!("{unit:?} is not a unit, which are {names}{meant}"),
    })
}

/// Text form, reading and schema of a unit type: all three by way of its `FromStr` and `Display`.
macro_rules! as_text {
    ($type:ident, $format:literal, $examples:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|reason| {
                    de::Error::custom(format!("{text:?} is not a {}: {reason}", $format))
                })
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "examples": $examples })
            }
        }
    };
}

as_text!(Period, "duration", ["30s", "250ms", "5m"]);
as_text!(Size, "size", ["512MiB", "16KiB", "2GiB"]);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn period_error(text: &str) -> String {
        text.parse::<Period>()
            .map_or_else(|e| e.to_string(), |p| format!("read as {p}"))
    }

    fn size_error(text: &str) -> String {
        text.parse::<Size>()
            .map_or_else(|e| e.to_string(), |s| format!("read as {s}"))
    }

    #[test]
    fn a_period_is_read_in_every_unit() {
        for (text, micros) in [
            ("750us", 750),
            ("250ms", 250_000),
            ("30s", 30_000_000),
            ("5m", 300_000_000),
            ("2h", 7_200_000_000),
            ("7d", 604_800_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Period::from_micros(micros)));
        }
    }

    #[test]
    fn a_period_prints_its_shortest_exact_form() {
        assert_eq!(Period::from_millis(1_500).to_string(), "1500ms");
        assert_eq!(Period::from_secs(90).to_string(), "90s");
        assert_eq!(Period::from_secs(3_600).to_string(), "1h");
        assert_eq!(Period::default().to_string(), "0s");
    }

    #[test]
    fn a_size_is_read_in_powers_of_two_and_of_ten() {
        assert_eq!("16KiB".parse(), Ok(Size::from_kib(16)));
        assert_eq!("512MiB".parse(), Ok(Size::from_mib(512)));
        assert_eq!("2GiB".parse(), Ok(Size::from_gib(2)));
        assert_eq!("64kB".parse(), Ok(Size::from_bytes(64_000)));
        assert_eq!("0B".parse(), Ok(Size::default()));
    }

    #[test]
    fn a_size_prints_its_shortest_exact_form() {
        assert_eq!(Size::from_bytes(1 << 20).to_string(), "1MiB");
        assert_eq!(Size::from_bytes(64_000).to_string(), "64kB");
        assert_eq!(Size::from_bytes(1_500).to_string(), "1500B");
        assert_eq!(Size::default().to_string(), "0B");
    }

    #[test]
    fn an_unreadable_period_says_why_and_what_to_write() {
        assert_eq!(
            period_error("30"),
            "the unit is missing, one of us, ms, s, m, h, d"
        );
        assert_eq!(
            period_error("30 s"),
            "number and unit must stand together (write \"30s\")"
        );
        assert_eq!(
            period_error("1.5s"),
            "it must be a whole number; take the next smaller unit"
        );
        assert_eq!(
            period_error("30S"),
            "\"S\" is not a unit, which are us, ms, s, m, h, d (write \"30s\")"
        );
        assert_eq!(period_error(""), "it must begin with a whole number");
        assert_eq!(period_error("-3s"), "it must begin with a whole number");
        assert_eq!(
            period_error("99999d"),
            "it is longer than a century (36525d)"
        );
    }

    #[test]
    fn an_unreadable_size_says_why_and_what_to_write() {
        assert_eq!(
            size_error("512mib"),
            "\"mib\" is not a unit, which are B, KiB, MiB, GiB, TiB, kB, MB, GB, TB \
             (write \"512MiB\")"
        );
        assert_eq!(size_error("99999999TiB"), "the number is too large");
        assert_eq!(
            size_error("99999999999999999999B"),
            "the number is too large"
        );
    }

    proptest! {
        #[test]
        fn what_a_period_prints_is_read_back_as_the_same(micros in 0..=MAX_PERIOD_US) {
            let period = Period::from_micros(micros);
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }

        #[test]
        fn what_a_round_period_prints_is_read_back_as_the_same(
            amount in 0..400_u64,
            unit in 0..PERIOD_UNITS.len(),
        ) {
            let period = Period::from_micros(amount * PERIOD_UNITS[unit].1);
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }

        #[test]
        fn what_a_size_prints_is_read_back_as_the_same(bytes: u64, shift in 0..50_u32) {
            let size = Size::from_bytes(bytes >> shift << shift);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC*") {
            prop_assert!(text.parse::<Period>().is_ok() == (period_error(&text).starts_with("read")));
            prop_assert!(text.parse::<Size>().is_ok() == (size_error(&text).starts_with("read")));
        }
    }
}
