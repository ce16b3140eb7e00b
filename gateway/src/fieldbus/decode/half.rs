//! IEEE 754 half precision, which the language does not have yet. A value.
//!
//! Invariant: every finite half is exactly a double, and comes back from it.

use super::Decimal;

/// Sign bit.
const SIGN: u16 = 0x8000;
/// Exponent of infinities and of what is no number.
const EXPONENT: u16 = 0x7c00;
/// Bits of the fraction.
const FRACTION_BITS: u16 = 10;
/// Digits within which two halves always differ.
const DIGITS: usize = 5;
/// The least exponent of a number with a leading one.
const LEAST_EXPONENT: i32 = -14;

/// The number; infinite or NaN where it is none.
pub(super) fn to_f64(half: u16) -> f64 {
    let fraction = f64::from(half & 0x03ff);
    let exponent = i32::from((half & EXPONENT) >> FRACTION_BITS);
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction > 0.0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (fraction + 1024.0) * 2f64.powi(exponent - 25),
    };
    if half & SIGN == 0 { size } else { -size }
}

/// The nearest half, the even one of two; `None` beyond the largest.
pub(super) fn from_f64(number: f64) -> Option<u16> {
    let size = number.abs();
    let biased = i32::try_from(size.to_bits() >> 52).ok()?;
    let exponent = (biased - 1023).max(LEAST_EXPONENT);
    if exponent > 15 {
        return None;
    }
    let steps = (size / 2f64.powi(exponent - i32::from(FRACTION_BITS))).round_ties_even();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number of at most 2048"
    )]
    let steps = steps as u16;
    let above = u16::try_from(exponent - LEAST_EXPONENT).ok()?;
    let bits = (above << FRACTION_BITS) + steps;
    let sign = if number.is_sign_negative() { SIGN } else { 0 };
    (bits < EXPONENT).then_some(sign | bits)
}

/// The decimal with the fewest digits that reads back as the same half.
pub(super) fn shortest(half: u16) -> Option<Decimal> {
    let number = to_f64(half);
    let texts = (0..DIGITS).map(|digits| format!("{number:.digits$e}"));
    let same = |text: &String| text.parse().ok().and_then(from_f64) == Some(half);
    texts.filter(same).find_map(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_halves_are_the_numbers_of_the_standard() {
        for (half, number) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 2f64.powi(-14)),
            (0x0001, 2f64.powi(-24)),
            (0x3555, 0.333_251_953_125),
        ] {
            assert_eq!(to_f64(half), number, "{half:04x}");
        }
        assert!(to_f64(0x7e00).is_nan());
        assert_eq!(to_f64(0xfc00), f64::NEG_INFINITY);
    }

    #[test]
    fn every_finite_half_comes_back_from_its_double_and_from_its_digits() {
        for half in 0..=u16::MAX {
            if half & EXPONENT == EXPONENT {
                assert_eq!(from_f64(to_f64(half)), None, "{half:04x}");
                continue;
            }
            assert_eq!(from_f64(to_f64(half)), Some(half), "{half:04x}");
            // Minus zero has the digits of zero.
            let digits = shortest(half).map(|decimal| decimal.value().to_string());
            let read = digits
                .and_then(|digits| digits.parse().ok())
                .and_then(from_f64);
            assert_eq!(
                read,
                Some(if half == SIGN { 0 } else { half }),
                "{half:04x}"
            );
        }
    }

    #[test]
    fn the_nearest_half_is_taken() {
        assert_eq!(from_f64(0.1), Some(0x2e66));
        assert_eq!(from_f64(2049.0), Some(0x6800), "half-way, to the even one");
        assert_eq!(from_f64(65519.0), Some(0x7bff));
        assert_eq!(from_f64(65520.0), None);
        assert_eq!(from_f64(1e-9), Some(0));
    }
}
