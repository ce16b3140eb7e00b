//! Numbers as an instrument writes them, kept digit for digit.
//!
//! Invariant: what is read prints as the same number; `12.50` never becomes `12.499999`. Core.

use crate::fieldbus::decimal::Decimal;
use crate::reading::Value;

/// Reads an integer, a decimal number or one with an exponent; `None` for anything else, and for
/// integers beyond 64 bits, which are names rather than measurements.
pub(crate) fn as_written(text: &str) -> Option<Value> {
    let text = text.trim();
    match text.parse::<Decimal>() {
        Ok(number) => Some(number.value()).filter(fits),
        Err(_) if text.contains(['e', 'E']) => floating(text),
        Err(_) => None,
    }
}

fn fits(value: &Value) -> bool {
    match value {
        Value::Integer(number) => i64::try_from(*number).is_ok() || u64::try_from(*number).is_ok(),
        _ => true,
    }
}

/// `1.5e200`; the words that the standard library reads too, `inf` and `nan`, are no numbers here.
fn floating(text: &str) -> Option<Value> {
    let plain = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let number: f64 = text.parse().ok().filter(|_| text.bytes().all(plain))?;
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
            ("1e40", "10000000000000000000000000000000000000000"),
            ("0.1234567890123456789", "0.1234567890123456789"),
        ] {
            assert_eq!(printed(text).as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_number_stays_text() {
        for text in [
            "", "-", ".", "nan", "inf", "12,5", "1 2", "0x10", "--1", "1e999", "one",
        ] {
            assert_eq!(as_written(text), None, "{text:?}");
        }
        assert_eq!(as_written("99999999999999999999"), None, "beyond 64 bits");
    }
}
