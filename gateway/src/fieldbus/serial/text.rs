//! How a frame of a serial line becomes named values: pattern, columns, JSON, NMEA 0183, raw.
//!
//! Invariant: every name that leaves here can stand in a topic, and a line invents at most
//! [`MAX_NAMES`] of them. Core.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use regex_lite::Regex;

use crate::fieldbus::{
    number,
    serial::{
        nmea::{Found, Nmea},
        shape::Shape,
    },
};
use crate::{
    config::{CsvDecode, Decode, SerialPoint},
    reading::Value,
};

/// Most names that one line may bring, so that noise with good syntax does not fill the broker.
const MAX_NAMES: usize = 256;

/// Longest name in characters.
const MAX_NAME_CHARS: usize = 64;

/// Characters of a frame that an error shows.
const SHOWN_CHARS: usize = 80;

/// One value of a frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decoded {
    /// The point.
    pub(crate) name: Arc<str>,
    /// Its value, numbers as they were written.
    pub(crate) value: Value,
    /// As configured, else as the protocol says.
    pub(crate) unit: Option<Arc<str>>,
}

/// A frame that is not what the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got \"{frame}\"")]
pub(crate) struct DecodeError {
    expected: String,
    frame: String,
}

/// What a good frame brought.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Values; none when the instrument left every field empty.
    Values(Vec<Decoded>),
    /// A sentence that nobody asked for.
    Ignored,
}

/// The one decoder of a line.
#[derive(Debug)]
pub(crate) struct Decoder {
    rule: Rule,
    names: Names,
}

#[derive(Debug)]
enum Rule {
    Nmea(Nmea),
    Regex { regex: Regex, groups: Vec<String> },
    Csv(CsvDecode),
    Json(Vec<String>),
    Raw(String),
}

impl Decoder {
    /// Builds what `decode` asks for; the error is a reason for the operator.
    pub(crate) fn new(decode: &Decode, points: &[SerialPoint]) -> Result<Decoder, String> {
        Ok(Decoder {
            rule: Rule::new(decode)?,
            names: Names::new(points),
        })
    }

    /// Decodes one frame.
    pub(crate) fn decode(&mut self, frame: &[u8]) -> Result<Outcome, DecodeError> {
        let text = String::from_utf8_lossy(frame);
        let Decoder { rule, names } = self;
        let named = rule
            .find(frame, &text, names)
            .and_then(|found| match found {
                Some(found) => names.name_all(found).map(Outcome::Values),
                None => Ok(Outcome::Ignored),
            });
        named.map_err(|expected| DecodeError {
            expected,
            frame: shown(frame),
        })
    }
}

impl Rule {
    fn new(decode: &Decode) -> Result<Rule, String> {
        if let Some(wanted) = &decode.nmea {
            return Nmea::new(wanted).map(Rule::Nmea);
        }
        if let Some(pattern) = &decode.regex {
            return regex(pattern);
        }
        if let Some(csv) = &decode.csv {
            if csv.columns.iter().all(String::is_empty) {
                return Err("csv.columns names no column".to_owned());
            }
            return Ok(Rule::Csv(csv.clone()));
        }
        if let Some(keys) = &decode.json {
            return Ok(Rule::Json(keys.clone()));
        }
        if let Some(name) = &decode.raw {
            return Ok(Rule::Raw(name.clone()));
        }
        Err("decode names no decoder; write one of nmea, regex, csv, json, raw".to_owned())
    }

    /// The frame's values; `None` for a sentence to ignore. The error is what was expected.
    fn find<'a>(
        &'a mut self,
        frame: &[u8],
        text: &'a str,
        names: &Names,
    ) -> Result<Option<Vec<Found<'a>>>, String> {
        match self {
            Rule::Nmea(nmea) => nmea.decode(text),
            Rule::Regex { regex, groups } => matched(regex, groups, text, names).map(Some),
            Rule::Csv(csv) => columns(csv, text, names).map(Some),
            Rule::Json(keys) => members(keys, text).map(Some),
            Rule::Raw(name) => Ok(Some(vec![found(name, Value::Raw(frame.to_vec()))])),
        }
    }
}

fn regex(pattern: &str) -> Result<Rule, String> {
    let regex = Regex::new(pattern).map_err(|error| format!("pattern {pattern:?}: {error}"))?;
    let groups: Vec<_> = regex.capture_names().flatten().map(str::to_owned).collect();
    if groups.is_empty() {
        return Err(format!(
            "pattern {pattern:?} has no named group; write (?P<name>…) around what is the value"
        ));
    }
    Ok(Rule::Regex { regex, groups })
}

fn matched<'a>(
    regex: &Regex,
    groups: &'a [String],
    text: &'a str,
    names: &Names,
) -> Result<Vec<Found<'a>>, String> {
    let captures = regex
        .captures(text)
        .ok_or_else(|| format!("a match of {:?}", regex.as_str()))?;
    let value = |group: &'a String| {
        let text = captures.name(group)?.as_str();
        Some(found(group, names.shape(group).read(text)?))
    };
    Ok(groups.iter().filter_map(value).collect())
}

fn columns<'a>(csv: &'a CsvDecode, text: &'a str, names: &Names) -> Result<Vec<Found<'a>>, String> {
    let cells: Vec<_> = text.split(csv.separator).collect();
    if cells.len() < csv.columns.len() {
        return Err(format!(
            "{} columns separated by {:?}, and there are {}",
            csv.columns.len(),
            csv.separator,
            cells.len()
        ));
    }
    let named = csv
        .columns
        .iter()
        .zip(cells)
        .filter(|(name, _)| !name.is_empty());
    let value = |(name, cell): (&'a String, &str)| {
        let value = names.shape(name).read(unquoted(cell))?;
        Some(found(name, value))
    };
    Ok(named.filter_map(value).collect())
}

fn unquoted(cell: &str) -> &str {
    let cell = cell.trim();
    let inner = cell
        .strip_prefix('"')
        .and_then(|cell| cell.strip_suffix('"'));
    inner.unwrap_or(cell)
}

fn members<'a>(keys: &'a [String], text: &'a str) -> Result<Vec<Found<'a>>, String> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|_| "a JSON object".to_owned())?;
    if keys.is_empty() {
        let all = object.into_iter();
        return Ok(all
            .filter_map(|(key, member)| Some(found_as(Cow::Owned(key), scalar(member)?)))
            .collect());
    }
    let known = |key: &'a String| Some(found(key, scalar(object.get(key)?.clone())?));
    let values: Vec<_> = keys.iter().filter_map(known).collect();
    if values.is_empty() {
        return Err(format!("a JSON object with {}", keys.join(", ")));
    }
    Ok(values)
}

/// Booleans, numbers and texts are values; `null`, arrays and objects are not.
fn scalar(member: serde_json::Value) -> Option<Value> {
    match member {
        serde_json::Value::Bool(bit) => Some(Value::Bool(bit)),
        serde_json::Value::Number(number) => number::as_written(&number.to_string()),
        serde_json::Value::String(text) => Some(Value::Text(text)),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            None
        }
    }
}

fn found(name: &str, value: Value) -> Found<'_> {
    found_as(Cow::Borrowed(name), value)
}

fn found_as(name: Cow<'_, str>, value: Value) -> Found<'_> {
    Found {
        name,
        value,
        unit: None,
    }
}

/// Names that a line has used, with their units; each is allocated once.
#[derive(Debug)]
struct Names {
    known: HashMap<String, Name>,
}

#[derive(Debug, Clone)]
struct Name {
    name: Arc<str>,
    /// The configured unit, which overrides the protocol's.
    unit: Option<Arc<str>>,
    shape: Shape,
}

impl Names {
    fn new(points: &[SerialPoint]) -> Names {
        let name = |point: &SerialPoint| {
            let name = Name {
                name: Arc::from(as_level(&point.name)),
                unit: point.unit.as_deref().map(Arc::from),
                shape: Shape::of(point),
            };
            (point.name.clone(), name)
        };
        Names {
            known: points.iter().map(name).collect(),
        }
    }

    /// How a word is read that the decoder finds under this name.
    fn shape(&self, found: &str) -> Shape {
        self.known
            .get(found)
            .map_or_else(Shape::default, |name| name.shape)
    }

    fn name_all(&mut self, found: Vec<Found>) -> Result<Vec<Decoded>, String> {
        found.into_iter().map(|point| self.name(point)).collect()
    }

    fn name(&mut self, found: Found) -> Result<Decoded, String> {
        let name = match self.known.get(found.name.as_ref()) {
            Some(name) => name.clone(),
            None => self.learn(found.name.as_ref())?,
        };
        let value = name.shape.finish(found.value);
        Ok(Decoded {
            value: value.map_err(|expected| format!("{}: {expected}", name.name))?,
            name: name.name,
            unit: name.unit.or_else(|| found.unit.map(Arc::from)),
        })
    }

    fn learn(&mut self, written: &str) -> Result<Name, String> {
        if self.known.len() >= MAX_NAMES {
            return Err(format!("no more than {MAX_NAMES} different names"));
        }
        let level = as_level(written);
        let configured = self.known.get(&level).cloned();
        let name = configured.unwrap_or(Name {
            name: Arc::from(level),
            unit: None,
            shape: Shape::default(),
        });
        self.known.insert(written.to_owned(), name.clone());
        Ok(name)
    }
}

/// A name as one topic level; what the configuration refuses in names becomes `-`.
fn as_level(name: &str) -> String {
    let fits = |c: char| !("/+#$\"\\".contains(c) || c.is_control() || c.is_whitespace());
    let level: String = name
        .trim()
        .chars()
        .take(MAX_NAME_CHARS)
        .map(|c| if fits(c) { c } else { '-' })
        .collect();
    if level.is_empty() {
        "-".to_owned()
    } else {
        level
    }
}

/// The beginning of a frame, in printable characters.
fn shown(frame: &[u8]) -> String {
    let mut text: String = frame
        .iter()
        .flat_map(|byte| byte.escape_ascii())
        .take(SHOWN_CHARS + 1)
        .map(char::from)
        .collect();
    if text.len() > SHOWN_CHARS {
        text.truncate(SHOWN_CHARS - 1);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(decode: Decode) -> Decoder {
        Decoder::new(&decode, &[]).unwrap()
    }

    fn with_regex(pattern: &str) -> Decode {
        Decode {
            regex: Some(pattern.to_owned()),
            ..Decode::default()
        }
    }

    fn with_json(keys: &[&str]) -> Decode {
        Decode {
            json: Some(keys.iter().map(|key| (*key).to_owned()).collect()),
            ..Decode::default()
        }
    }

    fn printed(decoder: &mut Decoder, frame: &str) -> Vec<String> {
        let Outcome::Values(values) = decoder.decode(frame.as_bytes()).unwrap() else {
            return vec!["ignored".to_owned()];
        };
        let print = |point: &Decoded| {
            let unit = point.unit.as_deref().unwrap_or("");
            format!("{}={} {unit}", point.name, point.value)
                .trim_end()
                .to_owned()
        };
        values.iter().map(print).collect()
    }

    #[test]
    fn named_groups_of_a_pattern_are_the_values() {
        let mut decoder = decoder(with_regex(r"^(?P<state>ST|US),\s*(?P<weight>[-0-9.]+) kg"));
        assert_eq!(
            printed(&mut decoder, "ST,  12.50 kg"),
            ["state=ST", "weight=12.5"]
        );
    }

    #[test]
    fn a_frame_that_does_not_match_is_shown_beside_the_pattern() {
        let mut decoder = decoder(with_regex("(?P<weight>[0-9]+) kg"));
        let error = decoder.decode(b"over\x07load").unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a match of \"(?P<weight>[0-9]+) kg\", got \"over\\x07load\""
        );
    }

    #[test]
    fn an_error_shows_at_most_eighty_characters_of_a_frame() {
        let text = shown(&[0xff; 4096]);
        assert_eq!(text.chars().count(), SHOWN_CHARS);
        assert!(text.ends_with('…'));
        assert_eq!(shown(&[b'a'; 80]), "a".repeat(80));
    }

    #[test]
    fn columns_are_named_in_order_and_empty_ones_skipped() {
        let mut decoder = decoder(Decode {
            csv: Some(CsvDecode {
                separator: ';',
                columns: ["temperature", "", "state", "spare"]
                    .map(str::to_owned)
                    .to_vec(),
            }),
            ..Decode::default()
        });
        assert_eq!(
            printed(&mut decoder, "21.50; x ;\"on\";;more"),
            ["temperature=21.5", "state=on"]
        );
        let error = decoder.decode(b"21.50;x").unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected 4 columns separated by ';', and there are 2, got \"21.50;x\""
        );
    }

    #[test]
    fn json_members_keep_their_types() {
        let mut decoder = decoder(with_json(&[]));
        let mut values = printed(
            &mut decoder,
            r#"{"t":21.50,"n":18446744073709551615,"on":true,"s":"ok","none":null,"list":[1]}"#,
        );
        values.sort();
        assert_eq!(
            values,
            ["n=18446744073709551615", "on=true", "s=ok", "t=21.5"]
        );
    }

    #[test]
    fn only_the_named_json_keys_are_taken_and_one_must_be_there() {
        let mut decoder = decoder(with_json(&["t", "h"]));
        assert_eq!(printed(&mut decoder, r#"{"t":1,"x":2}"#), ["t=1"]);
        let error = decoder.decode(br#"{"x":2}"#).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("expected a JSON object with t, h, got")
        );
        assert!(decoder.decode(b"[1]").is_err());
    }

    #[test]
    fn a_raw_frame_is_one_value_in_hexadecimal() {
        let mut decoder = decoder(Decode {
            raw: Some("frame".to_owned()),
            ..Decode::default()
        });
        assert_eq!(decoder.decode(&[0x0a, 0xff]).map(|_| ()), Ok(()));
        assert_eq!(printed(&mut decoder, "\n~"), ["frame=0a7e"]);
    }

    #[test]
    fn a_configured_unit_overrides_the_sentence() {
        let decode = Decode {
            nmea: Some(Vec::new()),
            ..Decode::default()
        };
        let point = serde_json::json!([{ "name": "water-temperature", "unit": "degC" }]);
        let points: Vec<SerialPoint> = serde_json::from_value(point).unwrap();
        let mut decoder = Decoder::new(&decode, &points).unwrap();
        assert_eq!(
            printed(&mut decoder, "$INMTW,17.9,C*1B"),
            ["water-temperature=17.9 degC"]
        );
        assert_eq!(
            printed(&mut decoder, "$GPHDT,274.07,T*03"),
            ["heading-true=274.07 °"]
        );
        assert_eq!(printed(&mut decoder, "$GPGSV,1,1,0*49"), ["ignored"]);
    }

    #[test]
    fn names_from_the_wire_become_one_topic_level() {
        let mut decoder = decoder(with_json(&[]));
        assert_eq!(
            printed(&mut decoder, r#"{"a/b+#\u0000°C":1}"#),
            ["a-b---°C=1"]
        );
        assert_eq!(printed(&mut decoder, r#"{"":1}"#), ["-=1"]);
    }

    #[test]
    fn a_line_cannot_invent_names_without_end() {
        let mut decoder = decoder(with_json(&[]));
        for number in 0..MAX_NAMES {
            assert_eq!(
                printed(&mut decoder, &format!(r#"{{"k{number}":1}}"#)).len(),
                1
            );
        }
        assert!(decoder.decode(br#"{"one-more":1}"#).is_err());
        assert_eq!(printed(&mut decoder, r#"{"k0":2}"#), ["k0=2"]);
    }

    #[test]
    fn a_decoder_that_cannot_be_built_says_why() {
        let reason = |decode| Decoder::new(&decode, &[]).unwrap_err();
        assert_eq!(
            reason(Decode::default()),
            "decode names no decoder; write one of nmea, regex, csv, json, raw"
        );
        assert!(reason(with_regex("(")).starts_with("pattern \"(\": "));
        assert!(reason(with_regex("[0-9]+")).contains("no named group"));
    }

    proptest::proptest! {
        #[test]
        fn no_frame_makes_a_decoder_panic(frame: Vec<u8>, fields in "[$!A-Z0-9,.*-]{0,60}") {
            let nmea = Decode { nmea: Some(Vec::new()), ..Decode::default() };
            for decode in [nmea, with_json(&[]), with_regex("(?P<all>.*)")] {
                let mut decoder = decoder(decode);
                for frame in [&frame, fields.as_bytes(), format!("$GPGGA,{fields}").as_bytes()] {
                    if let Err(error) = decoder.decode(frame) {
                        proptest::prop_assert!(error.frame.chars().count() <= SHOWN_CHARS);
                    }
                }
            }
        }
    }
}
