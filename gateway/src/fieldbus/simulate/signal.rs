//! Values that move as a plant's do. A core.
//!
//! Invariant: a value depends on its point, the seed and the time alone, and never leaves the
//! range that the point can show.

use std::f64::consts::TAU;

use serde_json::{Value as Json, json};

use crate::{
    config::{Form, Point, PointType},
    fieldbus::decode::Codec,
};

/// What a quantity usually is: its unit, a value, and by how much it swings around that. Where the
/// swing is zero, it counts up from the value.
const USUAL: [(&str, f64, f64); 36] = [
    ("V", 230.0, 3.0),
    ("mV", 850.0, 40.0),
    ("kV", 20.0, 0.2),
    ("A", 12.0, 4.0),
    ("mA", 12.0, 4.0),
    ("Hz", 50.0, 0.02),
    ("W", 2_760.0, 900.0),
    ("kW", 27.6, 9.0),
    ("VA", 2_900.0, 900.0),
    ("kVA", 29.0, 9.0),
    ("var", 400.0, 150.0),
    ("kvar", 4.0, 1.5),
    ("Wh", 4_711_000.0, 0.0),
    ("kWh", 4_711.0, 0.0),
    ("varh", 311_000.0, 0.0),
    ("kvarh", 311.0, 0.0),
    ("m³", 812.0, 0.0),
    ("h", 1_200.0, 0.0),
    ("s", 4_320.0, 0.0),
    ("°C", 21.5, 1.5),
    ("°F", 71.0, 3.0),
    ("K", 294.0, 1.5),
    ("%", 55.0, 5.0),
    ("ppm", 620.0, 80.0),
    ("µg/m³", 9.0, 4.0),
    ("lx", 480.0, 120.0),
    ("bar", 4.2, 0.3),
    ("hPa", 1_013.0, 2.0),
    ("Pa", 120.0, 15.0),
    ("m/s", 6.5, 2.0),
    ("m³/h", 18.0, 3.0),
    ("l/min", 24.0, 4.0),
    ("rpm", 1_450.0, 20.0),
    ("kg", 742.0, 12.0),
    ("m", 2.4, 0.4),
    ("°", 225.0, 25.0),
];

/// What is not in the list.
const UNUSUAL: (f64, f64) = (50.0, 10.0);
/// Per second of what counts up.
const COUNTING: f64 = 0.77;
/// How long a switch, a named state or a set of flags stays as it is.
const STATE_S: f64 = 10.0;

/// How a point's value moves.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Signal {
    /// Around a middle.
    Wave {
        middle: f64,
        swing: f64,
        period_s: f64,
    },
    /// Up from a start, and from there again beyond the most.
    Count { start: f64, most: f64 },
    /// From one state to the next.
    States(Vec<Json>),
}

impl Signal {
    /// How this point moves; `seed` tells equal points apart.
    pub(super) fn of(point: &Point, codec: &Codec, seed: u64) -> Signal {
        if !point.values.is_empty() {
            let names = point.values.0.values();
            return Signal::States(names.map(|name| json!(name)).collect());
        }
        if !point.flags.is_empty() {
            let one = point.flags.0.values().map(|name| json!([name]));
            return Signal::States(std::iter::once(json!([])).chain(one).collect());
        }
        let is_bit = point.bit.is_some() || point.register.table.is_bits();
        match point.kind().form() {
            _ if is_bit => Signal::States(vec![json!(false), json!(true)]),
            Form::Bool => Signal::States(vec![json!(false), json!(true)]),
            Form::Text => Signal::States(vec![Json::String(text(point))]),
            Form::Bytes => Signal::States(vec![Json::String(bytes(point))]),
            Form::Unsigned | Form::Signed | Form::Bcd | Form::Float => {
                number(point, codec.span(), seed)
            }
        }
    }

    /// The number now; `None` where it moves between states.
    pub(super) fn number(&self, seconds: f64) -> Option<f64> {
        match *self {
            Signal::Wave {
                middle,
                swing,
                period_s,
            } => Some(middle + swing * (seconds * TAU / period_s).sin()),
            Signal::Count { start, most } => {
                let counted = seconds * COUNTING;
                let room = (most - start).max(f64::MIN_POSITIVE);
                Some(start + counted % room)
            }
            Signal::States(_) => None,
        }
    }

    /// The state now; `None` where it is a number.
    pub(super) fn state(&self, seconds: f64) -> Option<&Json> {
        let Signal::States(states) = self else {
            return None;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of ten seconds each"
        )]
        let turn = (seconds / STATE_S) as usize;
        states.get(turn % states.len().max(1))
    }
}

/// A number as its unit usually has it, within what the point can show.
fn number(point: &Point, (least, most): (f64, f64), seed: u64) -> Signal {
    let least = [point.clamp.and_then(|clamp| clamp.min), point.min]
        .into_iter()
        .flatten()
        .fold(least, f64::max);
    let most = [point.clamp.and_then(|clamp| clamp.max), point.max]
        .into_iter()
        .flatten()
        .fold(most, f64::min);
    let unit = point.unit.as_deref().unwrap_or("");
    let usual = USUAL.iter().find(|(known, ..)| *known == unit);
    let (middle, swing) = usual.map_or(UNUSUAL, |(_, middle, swing)| (*middle, *swing));
    let fits = middle - swing > least && middle + swing < most;
    let (middle, swing) = if fits {
        (middle, swing)
    } else {
        (least + 0.6 * (most - least), 0.1 * (most - least))
    };
    if swing == 0.0 {
        return Signal::Count {
            start: middle,
            most,
        };
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let period_s = 20.0 + (seed % 40) as f64;
    Signal::Wave {
        middle,
        swing,
        period_s,
    }
}

/// A text as long as the point's registers take.
fn text(point: &Point) -> String {
    let room = 2 * usize::from(point.length.unwrap_or(1));
    let full = format!("SIM-{}", point.name);
    full.chars().filter(char::is_ascii).take(room).collect()
}

/// Bytes 00 01 02 …
fn bytes(point: &Point) -> String {
    let registers = match point.kind() {
        PointType::Raw => point.length.unwrap_or(1),
        kind => kind.registers().unwrap_or(1),
    };
    (0..2 * registers)
        .map(|byte| format!("{:02x}", byte & 0xff))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(kind: PointType, unit: &str, scale: Option<f64>) -> (Signal, Codec) {
        let point = Point {
            unit: Some(unit.to_owned()),
            scale,
            ..Point::example("input:0", Some(kind))
        };
        let codec = Codec::of(&point);
        (Signal::of(&point, &codec, 3), codec)
    }

    #[test]
    fn a_number_is_what_its_unit_usually_is_and_moves() {
        let (volts, _) = signal(PointType::F32, "V", None);
        let seen: Vec<f64> = (0..60)
            .filter_map(|second| volts.number(f64::from(second)))
            .collect();
        assert!(seen.iter().all(|volts| (226.0..234.0).contains(volts)));
        assert!(seen[0] < seen[5]);
        let (energy, _) = signal(PointType::U32, "kWh", Some(0.01));
        assert!(energy.number(10.0) > energy.number(0.0));
        assert_eq!(energy.number(0.0), Some(4_711.0));
    }

    #[test]
    fn a_number_that_its_type_cannot_show_is_one_that_it_can() {
        for (kind, unit, scale) in [
            (PointType::U8, "V", None),
            (PointType::I8, "W", Some(0.1)),
            (PointType::U16, "Wh", None),
            (PointType::Bcd8, "%", Some(0.1)),
            (PointType::U16, "hPa", Some(0.001)),
            (PointType::I16, "°C", Some(-0.1)),
        ] {
            let (signal, codec) = signal(kind, unit, scale);
            let (least, most) = codec.span();
            for second in 0..120 {
                let value = signal.number(f64::from(second)).expect("a number");
                assert!(least < value && value < most, "{kind:?} {unit}: {value}");
            }
        }
    }
}
