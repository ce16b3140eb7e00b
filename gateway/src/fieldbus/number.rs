//! Numbers as an instrument writes them, kept digit for digit.
//!
//! Invariant: what is read prints as the same number; `12.50` never becomes `12.499999`. Core.

use crate::reading::Value;

/// Most digits of a decimal number: what 128 bits hold with room for a sign.
const MAX_DIGITS: usize = 30;

/// Reads an integer, a decimal number or one with an exponent; `None` for anything else, and for
/// integers beyond 64 bits, which are names rather than measurements.
pub(crate) fn as_written(text: &str) -> Option<Value> {
    let text = text.trim();
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if !is_digits(whole) || !is_digits(fraction) {
        return with_exponent(text);
    }
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    let magnitude: i128 = digits.parse().ok()?;
    let mantissa = if text.starts_with('-') {
        -magnitude
    } else {
        magnitude
    };
    if fraction.is_empty() {
        let fits = i64::try_from(mantissa).is_ok() || u64::try_from(mantissa).is_ok();
        return fits.then_some(Value::Integer(mantissa));
    }
    let decimals = u8::try_from(fraction.len()).ok()?;
    Some(Value::Decimal { mantissa, decimals })
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `1.5e-3`; the words `inf` and `nan`, which the standard library reads too, are no numbers here.
fn with_exponent(text: &str) -> Option<Value> {
    let plain = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    if !text.bytes().all(plain) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    number.is_finite().then_some(Value::F64(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> Option<String> {
        as_written(text).map(|value| value.to_string())
    }

    #[test]
    fn a_number_prints_as_the_instrument_meant_it() {
        for (text, expected) in [
            ("12.50", "12.5"),
            ("+007", "7"),
            ("-0.05", "-0.05"),
            (".5", "0.5"),
            ("5.", "5"),
            (" 42 ", "42"),
            ("18446744073709551615", "18446744073709551615"),
            ("1.5e-3", "0.0015"),
            ("0.1234567890123456789", "0.1234567890123456789"),
        ] {
            assert_eq!(printed(text).as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_number_stays_text() {
        for text in [
            "", "-", ".", "nan", "inf", "12,5", "1 2", "0x10", "--1", "1e999",
        ] {
            assert_eq!(as_written(text), None, "{text:?}");
        }
        assert_eq!(as_written("99999999999999999999"), None, "beyond 64 bits");
    }
}
