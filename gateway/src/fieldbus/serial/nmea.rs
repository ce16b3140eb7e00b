//! NMEA 0183: sentences of navigation and weather instruments into named points.
//!
//! This file verifies a sentence and reads fields; `sentences` says what stands in which.
//!
//! Invariant: a sentence whose checksum does not fit yields nothing, and an instrument that has
//! once sent a checksum must always send one, for a sentence that was cut short lacks it. Core.

mod sentences;

use std::borrow::Cow;

use self::sentences::{Field, Form, Read, SENTENCES, Sentence};
use crate::fieldbus::number;
use crate::reading::Value;

/// One value in a frame, under the name that the frame gives it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found<'a> {
    /// The point.
    pub(crate) name: Cow<'a, str>,
    /// Its value.
    pub(crate) value: Value,
    /// Its unit, where the protocol says.
    pub(crate) unit: Option<&'static str>,
}

/// A reader of sentences.
#[derive(Debug)]
pub(crate) struct Nmea {
    wanted: Vec<String>,
    checksum_seen: bool,
}

impl Nmea {
    /// Takes the wanted sentence types, every known one if none is named; the error lists them.
    pub(crate) fn new(wanted: &[String]) -> Result<Nmea, String> {
        for kind in wanted {
            if !SENTENCES.iter().any(|sentence| sentence.kind == kind) {
                let known: Vec<_> = SENTENCES.iter().map(|sentence| sentence.kind).collect();
                return Err(format!(
                    "{kind:?} is not a known NMEA 0183 sentence type; known are {}",
                    known.join(", ")
                ));
            }
        }
        Ok(Nmea {
            wanted: wanted.to_vec(),
            checksum_seen: false,
        })
    }

    /// Decodes one line. `None`: a sentence that is well formed but not wanted or not known. The
    /// error is what was expected.
    pub(crate) fn decode<'a>(&mut self, line: &'a str) -> Result<Option<Vec<Found<'a>>>, String> {
        let fields = self.open(line)?;
        let Some(sentence) = self.wanted_sentence(&fields) else {
            return Ok(None);
        };
        match sentence.read {
            Read::Table { valid, points } => {
                if valid.is_some_and(|at| fields.at(at) != "A") {
                    return Ok(Some(Vec::new()));
                }
                fields.points(points).map(Some)
            }
            Read::Own(read) => read(&fields).map(Some),
        }
    }

    /// Finds the sentence in the line and verifies its checksum (NMEA 0183, 5.3).
    fn open<'a>(&mut self, line: &'a str) -> Result<Fields<'a>, String> {
        let start = line.rfind(['$', '!']);
        let sentence = start.and_then(|at| line.get(at + 1..));
        let sentence = sentence.ok_or("a sentence that begins with $ or !")?;
        let body = match sentence.trim_end().split_once('*') {
            Some((body, checksum)) => {
                let expected = body.bytes().fold(0, |xor, byte| xor ^ byte);
                if u8::from_str_radix(checksum, 16) != Ok(expected) {
                    return Err(format!("checksum *{expected:02X}"));
                }
                self.checksum_seen = true;
                body
            }
            None if self.checksum_seen => {
                return Err("a checksum, as this instrument's earlier sentences had".to_owned());
            }
            None => sentence.trim_end(),
        };
        let fields: Vec<_> = body.split(',').collect();
        Ok(Fields { fields })
    }

    fn wanted_sentence(&self, fields: &Fields) -> Option<&'static Sentence> {
        let kind = fields.kind()?;
        if !self.wanted.is_empty() && !self.wanted.iter().any(|wanted| wanted == kind) {
            return None;
        }
        SENTENCES.iter().find(|sentence| sentence.kind == kind)
    }
}

/// A sentence cut at its commas; field 0 is talker and type.
struct Fields<'a> {
    fields: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    /// The type after a talker of two letters; proprietary sentences (`P…`) have none.
    fn kind(&self) -> Option<&'a str> {
        let address = self.at(0);
        if address.starts_with('P') || address.len() != 5 {
            return None;
        }
        address.get(2..)
    }

    /// A field, empty when the instrument left it out.
    fn at(&self, at: usize) -> &'a str {
        self.fields.get(at).copied().unwrap_or("").trim()
    }

    fn points<'b>(&self, points: &[Field]) -> Result<Vec<Found<'b>>, String> {
        let mut found = Vec::with_capacity(points.len());
        for field in points {
            let (at, name, unit) = (field.at, field.name, field.unit);
            let value = match field.form {
                Form::Number => self.number(at)?,
                Form::Signed => self.signed(at)?,
                Form::Position { degrees, limit } => self.position(at, degrees, limit)?,
            };
            found.extend(value.map(|value| Found {
                name: Cow::Borrowed(name),
                value,
                unit: (!unit.is_empty()).then_some(unit),
            }));
        }
        Ok(found)
    }

    fn number(&self, at: usize) -> Result<Option<Value>, String> {
        let text = self.at(at);
        if text.is_empty() {
            return Ok(None);
        }
        let value = number::as_written(text);
        value.map(Some).ok_or(format!("a number in field {at}"))
    }

    /// A number whose sign is a letter in the next field: west is negative.
    fn signed(&self, at: usize) -> Result<Option<Value>, String> {
        let value = self.number(at)?;
        Ok(match (value, self.at(at + 1)) {
            (Some(value), "W" | "S") => Some(negated(value)),
            (value, _) => value,
        })
    }

    /// `ddmm.mmm` and a hemisphere in the next field, as degrees with seven decimals (1 cm).
    fn position(&self, at: usize, digits: usize, limit: i128) -> Result<Option<Value>, String> {
        let (text, hemisphere) = (self.at(at), self.at(at + 1));
        if text.is_empty() {
            return Ok(None);
        }
        let expected = || format!("degrees and minutes up to {limit}° in field {at}");
        let split = text.get(..digits).zip(text.get(digits..));
        let (degrees, minutes) = split.ok_or_else(expected)?;
        let degrees: u16 = degrees.parse().map_err(|_| expected())?;
        let (minutes, scale) = match number::as_written(minutes) {
            Some(Value::Integer(minutes)) => (minutes, 1),
            Some(Value::Decimal { mantissa, decimals }) if decimals <= MAX_MINUTE_DECIMALS => {
                (mantissa, 10_i128.pow(u32::from(decimals)))
            }
            _ => return Err(expected()),
        };
        if !(0..60 * scale).contains(&minutes) {
            return Err(expected());
        }
        let total = i128::from(degrees) * 60 * scale + minutes;
        let mantissa = (total * 10_i128.pow(7) * 2 / (60 * scale) + 1) / 2;
        if mantissa > limit * 10_i128.pow(7) {
            return Err(expected());
        }
        let value = Value::Decimal {
            mantissa,
            decimals: 7,
        };
        match hemisphere {
            "N" | "E" => Ok(Some(value)),
            "S" | "W" => Ok(Some(negated(value))),
            _ => Err(format!("a hemisphere in field {}", at + 1)),
        }
    }
}

/// Most decimals of minutes that are read: 10 are a tenth of a micrometre.
const MAX_MINUTE_DECIMALS: u8 = 10;

fn negated(value: Value) -> Value {
    match value {
        Value::Integer(number) => Value::Integer(-number),
        Value::Decimal { mantissa, decimals } => Value::Decimal {
            mantissa: -mantissa,
            decimals,
        },
        Value::F64(number) => Value::F64(-number),
        other => other,
    }
}

#[cfg(test)]
mod tests;
