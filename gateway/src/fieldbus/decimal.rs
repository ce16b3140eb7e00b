//! Exact decimal arithmetic for scale and offset. A value.
//!
//! Invariant: an operation gives the exact result or `None`; it never rounds.

use std::str::FromStr;

use crate::reading::Value;

/// Most digits after the point that are kept; beyond, the caller falls back to floating point.
const MAX_DECIMALS: u8 = 30;

/// `mantissa × 10^-decimals`, without trailing zeros after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal {
    mantissa: i128,
    decimals: u8,
}

/// Why a text or a number is no exact decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotExact;

impl Decimal {
    /// A whole number.
    pub(crate) fn integer(number: i128) -> Decimal {
        Decimal {
            mantissa: number,
            decimals: 0,
        }
    }

    /// The number that the shortest text of `number` names: 0.1 is one tenth.
    pub(crate) fn shortest(number: f64) -> Option<Decimal> {
        number.to_string().parse().ok()
    }

    /// As [`Decimal::shortest`], for single precision: `231.4f32` is 231.4.
    pub(crate) fn shortest_f32(number: f32) -> Option<Decimal> {
        number.to_string().parse().ok()
    }

    /// The product, where it fits.
    pub(crate) fn times(self, other: Decimal) -> Option<Decimal> {
        let mantissa = self.mantissa.checked_mul(other.mantissa)?;
        Decimal::normal(
            mantissa,
            u16::from(self.decimals) + u16::from(other.decimals),
        )
    }

    /// The sum, where it fits.
    pub(crate) fn plus(self, other: Decimal) -> Option<Decimal> {
        let decimals = self.decimals.max(other.decimals);
        let sum = self
            .mantissa_at(decimals)?
            .checked_add(other.mantissa_at(decimals)?)?;
        Decimal::normal(sum, u16::from(decimals))
    }

    /// The difference, where it fits.
    pub(crate) fn minus(self, other: Decimal) -> Option<Decimal> {
        let negated = Decimal {
            mantissa: other.mantissa.checked_neg()?,
            ..other
        };
        self.plus(negated)
    }

    /// The whole number that times `step` is `self`, and whether it is exact; otherwise the one
    /// below. `None` where it does not fit or `step` is zero.
    pub(crate) fn steps_of(self, step: Decimal) -> Option<(i128, bool)> {
        let decimals = self.decimals.max(step.decimals);
        let whole = self.mantissa_at(decimals)?;
        let part = step.mantissa_at(decimals)?;
        let steps = whole.checked_div_euclid(part)?;
        Some((steps, whole.checked_rem_euclid(part)? == 0))
    }

    /// The number that a reading prints as; `None` for what is no number, and where it does not
    /// fit.
    pub(crate) fn of(value: &Value) -> Option<Decimal> {
        match *value {
            Value::Integer(number) => Some(Decimal::integer(number)),
            Value::Decimal { mantissa, decimals } => Decimal::normal(mantissa, decimals.into()),
            Value::F32(number) => Decimal::shortest_f32(number),
            Value::F64(number) => Decimal::shortest(number),
            Value::Bool(_) | Value::Text(_) | Value::Flags(_) | Value::Raw(_) => None,
        }
    }

    /// With at most so many digits after the point, half away from zero.
    pub(crate) fn rounded(self, decimals: u8) -> Decimal {
        let Some(excess) = self.decimals.checked_sub(decimals) else {
            return self;
        };
        let Some(unit) = 10i128.checked_pow(u32::from(excess)) else {
            return self;
        };
        let half = self.mantissa % unit * 2;
        let away = if half.abs() >= unit { half.signum() } else { 0 };
        let mantissa = self.mantissa / unit + away;
        Decimal::normal(mantissa, u16::from(decimals)).unwrap_or(self)
    }

    /// As a reading's value: an integer where nothing stands after the point.
    pub(crate) fn value(self) -> Value {
        match self.decimals {
            0 => Value::Integer(self.mantissa),
            decimals => Value::Decimal {
                mantissa: self.mantissa,
                decimals,
            },
        }
    }

    fn normal(mut mantissa: i128, mut decimals: u16) -> Option<Decimal> {
        while decimals > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            decimals -= 1;
        }
        let decimals = u8::try_from(decimals).ok()?;
        (decimals <= MAX_DECIMALS).then_some(Decimal { mantissa, decimals })
    }

    fn mantissa_at(self, decimals: u8) -> Option<i128> {
        let power = 10i128.checked_pow(u32::from(decimals.checked_sub(self.decimals)?))?;
        self.mantissa.checked_mul(power)
    }
}

impl FromStr for Decimal {
    type Err = NotExact;

    /// Reads `-12.50` and `1.5e-7`.
    fn from_str(text: &str) -> Result<Decimal, NotExact> {
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i16>().map_err(|_| NotExact)?),
            None => (text, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotExact);
        }
        let fraction = fraction.trim_end_matches('0');
        let mantissa: i128 = format!("{whole}{fraction}").parse().map_err(|_| NotExact)?;
        let fraction_digits = i16::try_from(fraction.len()).map_err(|_| NotExact)?;
        let decimals = fraction_digits.checked_sub(exponent).ok_or(NotExact)?;
        if let Ok(decimals) = u16::try_from(decimals) {
            return Decimal::normal(mantissa, decimals).ok_or(NotExact);
        }
        let power = 10i128.checked_pow(u32::from(decimals.unsigned_abs()));
        power
            .and_then(|power| mantissa.checked_mul(power))
            .map(Decimal::integer)
            .ok_or(NotExact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().expect("a decimal")
    }

    #[test]
    fn texts_and_floats_are_the_decimals_that_a_technician_reads() {
        for (text, printed) in [
            ("0.1", "0.1"),
            ("-12.50", "-12.5"),
            ("1.5e-7", "0.00000015"),
            ("2E3", "2000"),
            ("-0.001", "-0.001"),
        ] {
            assert_eq!(decimal(text).value().to_string(), printed);
        }
        assert_eq!(Decimal::shortest(0.1), Some(decimal("0.1")));
        assert_eq!(Decimal::shortest_f32(231.4), Some(decimal("231.4")));
        assert_eq!(Decimal::shortest(f64::NAN), None);
        assert_eq!("1.-5".parse::<Decimal>(), Err(NotExact));
    }

    #[test]
    fn what_does_not_fit_is_refused_rather_than_rounded() {
        assert_eq!(decimal("1e30").times(decimal("1e30")), None);
        assert_eq!(decimal("1e-20").times(decimal("1e-20")), None);
        assert_eq!(Decimal::shortest(1e300), None);
    }

    #[test]
    fn rounding_goes_half_away_from_zero() {
        for (text, decimals, printed) in [
            ("231.45", 1, "231.5"),
            ("-231.45", 1, "-231.5"),
            ("231.449", 1, "231.4"),
            ("0.5", 0, "1"),
            ("-0.4", 0, "0"),
            ("99.96", 1, "100"),
            ("7", 2, "7"),
        ] {
            let rounded = decimal(text).rounded(decimals);
            assert_eq!(rounded.value().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn steps_are_counted_exactly() {
        assert_eq!(
            decimal("231.4").steps_of(decimal("0.1")),
            Some((2314, true))
        );
        assert_eq!(
            decimal("231.45").steps_of(decimal("0.1")),
            Some((2314, false))
        );
        assert_eq!(decimal("-1").steps_of(decimal("0.3")), Some((-4, false)));
        assert_eq!(decimal("1").steps_of(decimal("0")), None);
    }
}
