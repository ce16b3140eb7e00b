//! What is sent to an instrument: fixed characters, the value of a command, a checksum. A value.
//!
//! ```text
//!  "\x02SP {value:+07.2}\x03{checksum}"     [+] sign always, [0] zeros instead of blanks,
//!                                            [7] least width, [.2] decimals
//! ```
//!
//! Invariant: a command's text brings no control character onto the line.

use crate::{
    config::Characters,
    fieldbus::{decimal::Decimal, serial::checksum::Check},
    reading::Value,
};

/// Widest field that a number is filled up to.
const MAX_WIDTH: usize = 32;

/// Most decimals of a number.
const MAX_DECIMALS: u8 = 15;

/// Longest text of a command in characters.
const MAX_TEXT_CHARS: usize = 256;

/// Characters to be sent, with places for what is not known yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Characters(Vec<u8>),
    Value(Format),
    Checksum,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Format {
    sign: bool,
    zeros: bool,
    width: usize,
    decimals: Option<u8>,
}

impl Template {
    /// Reads what the configuration says; the error is a reason for the operator.
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut fixed = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            fixed += before;
            if let Some(after) = brace.strip_prefix("{{") {
                fixed.push('{');
                rest = after;
            } else if let Some(after) = brace.strip_prefix("}}") {
                fixed.push('}');
                rest = after;
            } else {
                let (part, after) = place(brace)?;
                parts.push(characters(&std::mem::take(&mut fixed))?);
                parts.push(part);
                rest = after;
            }
        }
        fixed += rest;
        parts.push(characters(&fixed)?);
        Ok(Template { parts })
    }

    /// Whether it has a place for a value.
    pub(crate) fn takes_value(&self) -> bool {
        let is_value = |part: &Part| matches!(part, Part::Value(_));
        self.parts.iter().any(is_value)
    }

    /// Whether it has a place for a checksum.
    pub(crate) fn takes_checksum(&self) -> bool {
        self.parts.contains(&Part::Checksum)
    }

    /// The bytes to be sent; the error says why they cannot be.
    pub(crate) fn render(
        &self,
        value: Option<&Value>,
        check: Option<Check>,
    ) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            match part {
                Part::Characters(fixed) => bytes.extend_from_slice(fixed),
                Part::Value(format) => {
                    let value = value.ok_or("there is no value to be sent")?;
                    bytes.extend(written(value, *format)?);
                }
                Part::Checksum => {
                    let digits = check.and_then(|check| check.digits(&bytes));
                    bytes.extend(digits.ok_or("nothing stands before the checksum")?);
                }
            }
        }
        Ok(bytes)
    }
}

/// What a brace opens, and what follows it.
fn place(brace: &str) -> Result<(Part, &str), String> {
    let inner = brace
        .strip_prefix('{')
        .and_then(|rest| rest.split_once('}'));
    let (inner, rest) = inner.ok_or("a brace stands alone; write it twice to send one")?;
    let part = match inner.split_once(':') {
        None if inner == "value" => Part::Value(Format::default()),
        None if inner == "checksum" => Part::Checksum,
        Some(("value", format)) => Part::Value(Format::parse(format)?),
        _ => {
            return Err(format!(
                "{{{inner}}} is none of {{value}}, {{value:08.2}}, {{checksum}}; braces to be sent are written twice"
            ));
        }
    };
    Ok((part, rest))
}

fn characters(text: &str) -> Result<Part, String> {
    let Characters(bytes) = text.parse()?;
    Ok(Part::Characters(bytes))
}

impl Format {
    fn parse(text: &str) -> Result<Format, String> {
        let wrong = || {
            format!(
                "{{value:{text}}}: write sign, zeros, width and decimals, such as {{value:+08.2}}"
            )
        };
        let unsigned = text.strip_prefix('+');
        let rest = unsigned.unwrap_or(text);
        let (width, decimals) = match rest.split_once('.') {
            Some((width, decimals)) => (width, Some(decimals)),
            None => (rest, None),
        };
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(width) || !decimals.is_none_or(all_digits) {
            return Err(wrong());
        }
        let decimals = decimals.map(str::parse::<u8>).transpose();
        let decimals = decimals.map_err(|_| wrong())?;
        let number: usize = match width {
            "" => 0,
            digits => digits.parse().map_err(|_| wrong())?,
        };
        if number > MAX_WIDTH || decimals.is_some_and(|decimals| decimals > MAX_DECIMALS) {
            return Err(format!(
                "{{value:{text}}}: a number has at most {MAX_WIDTH} places, {MAX_DECIMALS} of them decimals"
            ));
        }
        Ok(Format {
            sign: unsigned.is_some(),
            zeros: width.starts_with('0'),
            width: number,
            decimals,
        })
    }
}

fn written(value: &Value, format: Format) -> Result<Vec<u8>, String> {
    match value {
        Value::Text(text) => self::text(text),
        Value::Bool(bit) => digits(Decimal::integer(i128::from(*bit)), format),
        number => match Decimal::of(number) {
            Some(exact) => digits(exact, format),
            None => Err(format!("{number} cannot be written as a decimal number")),
        },
    }
}

/// Text as it is: nothing in it may begin another command.
fn text(text: &str) -> Result<Vec<u8>, String> {
    if text.chars().count() > MAX_TEXT_CHARS {
        return Err(format!(
            "the text is longer than {MAX_TEXT_CHARS} characters"
        ));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control()) {
        return Err(format!(
            "{bad:?} in the text would be taken for control of the line"
        ));
    }
    let Characters(bytes) = text.parse()?;
    Ok(bytes)
}

fn digits(number: Decimal, format: Format) -> Result<Vec<u8>, String> {
    let given = number.value().to_string();
    let (negative, plain) = match given.strip_prefix('-') {
        Some(plain) => (true, plain),
        None => (false, given.as_str()),
    };
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let places = format.decimals.map_or(fraction.len(), usize::from);
    if fraction.len() > places {
        return Err(format!("{given} has more than {places} decimals"));
    }
    let point = if places == 0 { "" } else { "." };
    let body = format!("{whole}{point}{fraction:0<places$}");
    let sign = match (negative, format.sign) {
        (true, _) => "-",
        (false, true) => "+",
        (false, false) => "",
    };
    let width = format.width;
    let text = if format.zeros {
        let left = width.saturating_sub(sign.len());
        format!("{sign}{body:0>left$}")
    } else {
        format!("{:>width$}", format!("{sign}{body}"))
    };
    if width > 0 && text.len() > width {
        return Err(format!("{given} takes more than {width} places"));
    }
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(template: &str, value: &Value) -> Result<String, String> {
        let bytes = Template::parse(template)?.render(Some(value), None)?;
        Ok(bytes.iter().copied().map(char::from).collect())
    }

    fn number(text: &str) -> Value {
        crate::fieldbus::number::as_written(text).expect("a number")
    }

    #[test]
    fn a_number_is_written_with_its_width_and_decimals() {
        for (template, value, expected) in [
            ("SP {value}\r\n", "12.50", "SP 12.5\r\n"),
            ("{value:.2}", "12.5", "12.50"),
            ("{value:08.2}", "12.5", "00012.50"),
            ("{value:08.2}", "-12.5", "-0012.50"),
            ("{value:+07.1}", "3", "+0003.0"),
            ("[{value:6}]", "42", "[    42]"),
            ("{value:.0}", "7", "7"),
            ("{{{value}}}", "-1", "{-1}"),
        ] {
            assert_eq!(sent(template, &number(value)).as_deref(), Ok(expected));
        }
        assert_eq!(sent("{value}", &Value::Bool(true)).as_deref(), Ok("1"));
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused_rather_than_changed() {
        for (template, value, reason) in [
            ("{value:.1}", "12.55", "12.55 has more than 1 decimals"),
            ("{value:04.1}", "123.4", "123.4 takes more than 4 places"),
            ("{value:.0}", "0.5", "0.5 has more than 0 decimals"),
        ] {
            assert_eq!(sent(template, &number(value)), Err(reason.to_owned()));
        }
    }

    #[test]
    fn text_cannot_smuggle_in_a_second_command() {
        let text = |text: &str| sent("D {value}\r\n", &Value::Text(text.to_owned()));
        assert_eq!(text("ready \u{b0}").as_deref(), Ok("D ready \u{b0}\r\n"));
        assert!(text("x\r\nRESET").is_err());
        assert!(text("\u{2}").is_err());
        assert!(text("\u{20ac}").is_err());
        assert!(text(&"x".repeat(MAX_TEXT_CHARS + 1)).is_err());
    }

    #[test]
    fn a_checksum_covers_what_stands_before_it() {
        let check = serde_json::json!({ "kind": "xor", "skip": 1 });
        let check = Check::new(serde_json::from_value(check).expect("a checksum"));
        let template = Template::parse("\x02W1\x03{checksum}\r").expect("a template");
        let bytes = template.render(None, Some(check));
        assert_eq!(bytes.as_deref(), Ok(&b"\x02W1\x03\x65\r"[..]));
    }

    #[test]
    fn a_template_that_means_nothing_is_refused() {
        for (template, part) in [
            ("{", "stands alone"),
            ("a}", "stands alone"),
            ("{weight}", "{weight} is none of"),
            ("{value:x}", "{value:+08.2}"),
            ("{value:99}", "at most 32 places"),
            ("{value:.99}", "15 of them decimals"),
            ("\u{20ac}", "not one byte"),
        ] {
            let error = Template::parse(template).expect_err(template);
            assert!(error.contains(part), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_template_and_no_text_make_it_panic(template: String, text: String) {
            if let Ok(template) = Template::parse(&template) {
                let _any = template.render(Some(&Value::Text(text)), None);
            }
        }
    }
}
