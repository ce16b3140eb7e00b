//! What registers mean, guessed from a reading that is known, such as from the device's display.
//! A core.
//!
//! Every type, order and usual scale is tried at every address. What fits is ranked by how well it
//! fits and by how little has to be assumed for it; each assumption has a cost in the tables below.
//!
//! Invariant: what is proposed decodes, by the configuration's own rules, to each known reading
//! within the tolerance.

use std::cmp::Ordering;

use serde::Serialize;
use serde_json::{Map, json};

use crate::{
    config::{Deadband, Point, PointType, WordOrder},
    fieldbus::{decode::Codec, register::Register, transaction::Span},
};

/// Most guesses given; beyond, the reading says too little.
pub(crate) const GUESSES_MAX: usize = 200;

/// Types with what it costs to assume one.
const KINDS: [(PointType, f64); 18] = [
    (PointType::F32, 0.0),
    (PointType::U16, 0.0),
    (PointType::I16, 0.2),
    (PointType::U32, 0.3),
    (PointType::I32, 0.4),
    (PointType::F64, 0.7),
    (PointType::U64, 0.8),
    (PointType::I64, 0.9),
    (PointType::U48, 2.0),
    (PointType::I48, 2.1),
    (PointType::U24, 2.2),
    (PointType::I24, 2.3),
    (PointType::Bcd16, 2.0),
    (PointType::Bcd32, 2.0),
    (PointType::Bcd48, 2.2),
    (PointType::Bcd64, 2.2),
    (PointType::F16, 2.5),
    (PointType::Bcd24, 2.8),
];
/// Orders with their cost; the last two are of four registers alone.
const ORDERS: [(&str, f64); 6] = [
    ("ABCD", 0.0),
    ("CDAB", 0.5),
    ("BADC", 1.5),
    ("DCBA", 1.5),
    ("CDABGHEF", 2.5),
    ("EFGHABCD", 2.5),
];
/// Factors with their cost, for integers.
const INTEGER_SCALES: [(f64, f64); 8] = [
    (1.0, 0.0),
    (0.1, 0.3),
    (0.01, 0.4),
    (0.001, 0.6),
    (10.0, 1.0),
    (0.0001, 1.5),
    (100.0, 1.6),
    (1000.0, 1.6),
];
/// The same for floating-point numbers: they seldom have one, and then it makes kilo of a unit.
const FLOAT_SCALES: [(f64, f64); 5] = [
    (1.0, 0.0),
    (0.001, 1.0),
    (1000.0, 1.0),
    (0.1, 2.0),
    (0.01, 2.0),
];
/// Cost of a reading that is met, but not to its last digit; up to twice that at the tolerance.
const INEXACT: f64 = 0.5;
/// Cost of the address before or after: many manuals count from one.
const NEXT_DOOR: f64 = 0.6;
/// Cost of an address further away, and of each step beyond the second.
const FURTHER: f64 = 1.0;
const PER_STEP: f64 = 0.02;
/// Cost of a raw number below ten, and below a hundred: such fit by chance.
const SMALL: f64 = 1.5;
const SMALLISH: f64 = 0.5;

/// A known reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Known {
    /// The number.
    pub(crate) value: f64,
    /// Half a step of its last digit: 0.05 for 231.4.
    pub(crate) half_step: f64,
}

/// Registers that were read while a reading was known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// The first register.
    pub(crate) start: Register,
    /// The registers.
    pub(crate) words: Vec<u16>,
    /// The reading.
    pub(crate) known: Known,
}

/// A way of reading the registers that gives the known readings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Guess {
    /// Where the value stands.
    #[serde(serialize_with = "text")]
    pub(crate) register: Register,
    /// Its type's word.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// Its order.
    pub(crate) order: String,
    /// Its factor.
    pub(crate) scale: f64,
    /// What the registers say so, for each sample.
    pub(crate) values: Vec<String>,
    /// How much has to be assumed; 0 is nothing at all.
    pub(crate) cost: f64,
    /// What has to be assumed, in words.
    pub(crate) because: String,
    /// The point for the configuration.
    pub(crate) config: String,
}

fn text<S: serde::Serializer>(register: &Register, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(register)
}

/// Why a text is no known reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KnownError {
    /// Not a number.
    #[error("{0:?} is no number; write it as the display shows it, such as 231.4")]
    NotANumber(String),
    /// Nothing can be learned from it.
    #[error("a reading of 0 fits every register that is 0: take one while it is something else")]
    Zero,
}

impl std::str::FromStr for Known {
    type Err = KnownError;

    fn from_str(text: &str) -> Result<Known, KnownError> {
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        let value = number.ok_or_else(|| KnownError::NotANumber(text.to_owned()))?;
        if value == 0.0 {
            return Err(KnownError::Zero);
        }
        let decimals = text
            .split_once('.')
            .map_or(0, |(_, fraction)| fraction.len());
        let decimals = i32::try_from(decimals).unwrap_or(i32::MAX);
        Ok(Known {
            value,
            half_step: 0.5 * 0.1f64.powi(decimals),
        })
    }
}

impl Known {
    /// How far off a number is: 0 to the last digit, 1 at the tolerance; `None` beyond.
    fn distance(self, number: f64, tolerance: Deadband) -> Option<f64> {
        let off = (number - self.value).abs();
        // A rounded display and binary fractions: a hair more than half a step still fits.
        if off <= self.half_step * (1.0 + 1e-6) {
            return Some(0.0);
        }
        let allowed = match tolerance {
            Deadband::Absolute(size) => size,
            Deadband::Share { percent, at_least } => {
                at_least.max(self.value.abs() * percent / 100.0)
            }
        };
        (off <= allowed).then(|| off / allowed)
    }
}

/// Everything that fits all samples, the most plausible first. `near` is where the manual says
/// that the value stands.
pub(crate) fn guess(samples: &[Sample], near: Option<u16>, tolerance: Deadband) -> Vec<Guess> {
    let mut found = Vec::new();
    for way in ways() {
        for address in addresses(samples, way.elements) {
            if let Some(guess) = way.fit(samples, address, near, tolerance) {
                found.push(guess);
            }
        }
    }
    found.sort_by(|a: &Guess, b| {
        let cost = a.cost.partial_cmp(&b.cost).unwrap_or(Ordering::Equal);
        cost.then(a.register.cmp(&b.register))
    });
    let mut listed: Vec<Guess> = Vec::new();
    for guess in found {
        if listed.len() == GUESSES_MAX {
            break;
        }
        if !listed.iter().any(|other| other.says_the_same_as(&guess)) {
            listed.push(guess);
        }
    }
    listed
}

/// Addresses at which a value of so many registers stands in every sample.
fn addresses(samples: &[Sample], elements: u16) -> impl Iterator<Item = u16> {
    let first = samples
        .iter()
        .map(|sample| sample.start.address)
        .max()
        .unwrap_or(1);
    let ends = samples.iter().map(|sample| {
        let span = Span {
            table: sample.start.table,
            start: sample.start.address,
            count: u16::try_from(sample.words.len()).unwrap_or(0),
        };
        span.end()
    });
    let end = ends
        .min()
        .and_then(|end| (end + 1).checked_sub(u32::from(elements)));
    let starts = u32::from(first)..end.unwrap_or(0);
    starts.filter_map(|start| u16::try_from(start).ok())
}

/// A type in an order with a factor.
struct Way {
    kind: PointType,
    order: &'static str,
    scale: f64,
    codec: Codec,
    /// The same without its factor.
    plain: Codec,
    elements: u16,
    cost: f64,
}

fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for (kind, kind_cost) in KINDS {
        let elements = kind.registers().unwrap_or(1);
        for (order, order_cost) in ORDERS {
            if !tells_apart(order, elements) {
                continue;
            }
            let scales: &[(f64, f64)] = match kind {
                PointType::F16 | PointType::F32 | PointType::F64 => &FLOAT_SCALES,
                _ => &INTEGER_SCALES,
            };
            for (scale, scale_cost) in scales {
                let cost = kind_cost + order_cost + scale_cost;
                ways.extend(Way::new(kind, order, *scale, cost));
            }
        }
    }
    ways
}

/// Whether an order of so many registers is another than those before it in the table.
fn tells_apart(order: &str, elements: u16) -> bool {
    match order {
        "ABCD" | "BADC" => true,
        "CDAB" | "DCBA" => elements > 1,
        _ => elements == 4,
    }
}

impl Way {
    fn new(kind: PointType, order: &'static str, scale: f64, cost: f64) -> Option<Way> {
        let codec = |scale: Option<f64>| {
            let mut point: Point =
                serde_json::from_value(json!({ "name": "guess", "register": "holding:0" })).ok()?;
            point.kind = Some(kind);
            point.order = order.parse::<WordOrder>().ok()?;
            point.scale = scale;
            Some(Codec::of(&point))
        };
        Some(Way {
            kind,
            order,
            scale,
            codec: codec((scale != 1.0).then_some(scale))?,
            plain: codec(None)?,
            elements: kind.registers()?,
            cost,
        })
    }

    fn fit(
        &self,
        samples: &[Sample],
        at: u16,
        near: Option<u16>,
        tolerance: Deadband,
    ) -> Option<Guess> {
        let mut values = Vec::new();
        let mut worst = 0f64;
        let mut raw = f64::MAX;
        for sample in samples {
            let from = usize::from(at - sample.start.address);
            let words = sample.words.get(from..from + usize::from(self.elements))?;
            let value = self.codec.decode(words).ok()?;
            worst = worst.max(sample.known.distance(value.as_f64()?, tolerance)?);
            raw = raw.min(self.plain.decode(words).ok()?.as_f64()?.abs());
            values.push(value.to_string());
        }
        let costs = [
            (self.cost, self.assumed()),
            inexact(worst),
            distance(at, near),
            small(raw),
        ];
        let register = Register {
            table: samples.first()?.start.table,
            address: at,
        };
        let said: Vec<String> = costs
            .iter()
            .map(|(_, why)| why.clone())
            .filter(|why| !why.is_empty())
            .collect();
        Some(Guess {
            register,
            kind: self.kind.word(),
            order: self.order.to_owned(),
            scale: self.scale,
            values,
            cost: costs.iter().map(|(cost, _)| cost).sum(),
            because: said.join(", "),
            config: self.config(register),
        })
    }

    fn assumed(&self) -> String {
        let order = (self.order != "ABCD").then(|| format!("order {}", self.order));
        let scale = (self.scale != 1.0).then(|| format!("× {}", self.scale));
        let parts: Vec<String> = order.into_iter().chain(scale).collect();
        parts.join(", ")
    }

    /// The point as the configuration writes it.
    fn config(&self, register: Register) -> String {
        let mut keys = Map::new();
        keys.insert("name".to_owned(), json!("reading"));
        keys.insert("register".to_owned(), json!(register.to_string()));
        keys.insert("type".to_owned(), json!(self.kind.word()));
        if self.order != "ABCD" {
            keys.insert("order".to_owned(), json!(self.order));
        }
        if self.scale != 1.0 {
            keys.insert("scale".to_owned(), json!(self.scale));
        }
        let order = ["name", "register", "type", "order", "scale"];
        let written = order
            .iter()
            .filter_map(|key| Some(format!("{key} = {}", keys.get(*key)?)));
        format!("{{ {} }}", written.collect::<Vec<_>>().join(", "))
    }
}

impl Guess {
    /// A signed type beside the unsigned one of equal width: for what was seen they are the same.
    fn says_the_same_as(&self, other: &Guess) -> bool {
        let width = |guess: &Guess| guess.kind.trim_start_matches(['u', 'i']).to_owned();
        let integer = |guess: &Guess| guess.kind.starts_with(['u', 'i']);
        integer(self)
            && integer(other)
            && width(self) == width(other)
            && (self.register, &self.order, self.scale)
                == (other.register, &other.order, other.scale)
    }
}

fn inexact(worst: f64) -> (f64, String) {
    if worst == 0.0 {
        return (0.0, String::new());
    }
    (INEXACT * (1.0 + worst), "within the tolerance".to_owned())
}

fn distance(address: u16, near: Option<u16>) -> (f64, String) {
    let steps = near.map_or(0, |near| i32::from(address) - i32::from(near));
    match steps.unsigned_abs() {
        0 => (0.0, String::new()),
        1 => (NEXT_DOOR, format!("address {steps:+}")),
        far => (
            FURTHER + PER_STEP * f64::from(far - 2),
            format!("address {steps:+}"),
        ),
    }
}

fn small(raw: f64) -> (f64, String) {
    let cost = match raw {
        raw if raw < 10.0 => SMALL,
        raw if raw < 100.0 => SMALLISH,
        _ => return (0.0, String::new()),
    };
    (cost, "a small number fits by chance".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERCENT: Deadband = Deadband::percent(1.0);

    fn sample(start: &str, words: &[u16], known: &str) -> Sample {
        Sample {
            start: start.parse().unwrap(),
            words: words.to_vec(),
            known: known.parse().unwrap(),
        }
    }

    fn best(words: &[u16], known: &str) -> String {
        let guesses = guess(&[sample("input:0", words, known)], Some(0), PERCENT);
        guesses
            .first()
            .map(|best| best.config.clone())
            .unwrap_or_default()
    }

    #[test]
    fn the_usual_encodings_of_a_display_are_the_first_guess() {
        // 231.4 is 0x43676666 as f32, 2314 is 0x090a, 23140 is 0x5a64.
        for (words, known, expected) in [
            (
                &[0x4367, 0x6666][..],
                "231.4",
                r#"register = "input:0", type = "f32" }"#,
            ),
            (
                &[0x6666, 0x4367],
                "231.4",
                r#"type = "f32", order = "CDAB" }"#,
            ),
            (
                &[0x6743, 0x6666],
                "231.4",
                r#"type = "f32", order = "BADC" }"#,
            ),
            (
                &[0x6666, 0x6743],
                "231.4",
                r#"type = "f32", order = "DCBA" }"#,
            ),
            (&[0x090a], "231.4", r#"type = "u16", scale = 0.1 }"#),
            (&[0x5a64], "231.4", r#"type = "u16", scale = 0.01 }"#),
            (
                &[0x0a09],
                "231.4",
                r#"type = "u16", order = "BADC", scale = 0.1 }"#,
            ),
            (&[0xfff6], "-10", r#"type = "i16" }"#),
            (&[0x0001, 0x86a0], "100000", r#"type = "u32" }"#),
            (
                &[0x86a0, 0x0001],
                "100000",
                r#"type = "u32", order = "CDAB" }"#,
            ),
            (
                &[0xffff, 0xfb2e],
                "-123.4",
                r#"type = "i32", scale = 0.1 }"#,
            ),
            (
                &[0x4367, 0x6666],
                "0.2314",
                r#"type = "f32", scale = 0.001 }"#,
            ),
            (&[0x2314], "231.4", r#"type = "bcd16", scale = 0.1 }"#),
            (
                &[0x405e, 0xdd2f, 0x1a9f, 0xbe77],
                "123.456",
                r#"type = "f64" }"#,
            ),
        ] {
            let best = best(words, known);
            assert!(best.ends_with(expected), "{words:04x?} as {known}: {best}");
        }
    }

    #[test]
    fn a_manual_that_counts_from_one_is_found_out() {
        let registers = sample("input:0", &[7, 0x4367, 0x6666, 9], "231.4");
        let guesses = guess(&[registers], Some(2), PERCENT);
        assert_eq!(guesses[0].register.to_string(), "input:1");
        assert_eq!(guesses[0].because, "address -1");
    }

    #[test]
    fn a_second_reading_rules_out_what_fitted_by_chance() {
        let first = sample("input:0", &[2314, 0x4367, 0x6666], "231.4");
        let both = guess(std::slice::from_ref(&first), None, PERCENT);
        let stands = |guesses: &[Guess], at: &str| {
            guesses.iter().any(|guess| guess.register.to_string() == at)
        };
        assert!(stands(&both, "input:0") && stands(&both, "input:1"));
        let second = sample("input:0", &[2314, 0x42c8, 0], "100.0");
        let one = guess(&[first, second], None, PERCENT);
        assert!(one.iter().all(|guess| guess.kind == "f32"), "{one:#?}");
        assert_eq!(one[0].register.to_string(), "input:1");
        assert_eq!(one[0].values, ["231.4", "100"]);
    }

    #[test]
    fn a_reading_that_moved_a_little_fits_within_the_tolerance_alone() {
        // 0x4366_0000 is 230.
        let fits = |tolerance| {
            !guess(&[sample("input:0", &[0x4366, 0], "231.4")], None, tolerance).is_empty()
        };
        assert!(fits(PERCENT));
        assert!(fits(Deadband::Absolute(2.0)));
        assert!(!fits(Deadband::percent(0.1)));
    }

    #[test]
    fn signed_and_unsigned_are_proposed_once() {
        let guesses = guess(&[sample("input:0", &[2314], "2314")], None, PERCENT);
        let kinds: Vec<_> = guesses.iter().map(|guess| guess.kind).collect();
        assert_eq!(kinds, ["u16"]);
    }

    #[test]
    fn what_teaches_nothing_is_refused() {
        assert_eq!("0.0".parse::<Known>(), Err(KnownError::Zero));
        assert!("231,4".parse::<Known>().is_err());
        assert!("nan".parse::<Known>().is_err());
    }

    #[test]
    fn every_proposal_is_a_point_that_the_configuration_takes() {
        let words = [
            0x4367, 0x6666, 0x090a, 0x2314, 0x405e, 0xdd2f, 0x1a9f, 0xbe77,
        ];
        for known in ["231.4", "2314", "123.456", "0.2314"] {
            for guess in guess(
                &[sample("input:0", &words, known)],
                None,
                Deadband::percent(50.0),
            ) {
                let text = format!(
                    "[[bus]]\nname = \"b\"\ntcp = \"h:502\"\n[[device]]\nname = \"d\"\nbus = \"b\"\n\
                     unit = 1\npoint = [{}]\n",
                    guess.config
                );
                let parsed = crate::config::parse("guess", &text);
                assert!(parsed.is_ok(), "{}: {:?}", guess.config, parsed.err());
            }
        }
    }
}
