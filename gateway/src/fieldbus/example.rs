//! Runs the examples of a profile: their registers through the decoder that polls use. A core.
//!
//! Invariant: an example holds only if every value prints exactly as it says.

use std::fmt;

use crate::{
    config::{Device, Point, profile::Example},
    fieldbus::decode::Codec,
};

/// What an example gives for an answer without a value.
const NO_VALUE: &str = "no value";

/// A point that decodes to something else than its example says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The point's name.
    pub(crate) point: String,
    /// What the example says.
    pub(crate) expected: String,
    /// What its registers decode to.
    pub(crate) found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch {
            point,
            expected,
            found,
        } = self;
        write!(f, "{point:?} decodes to {found:?}, not to {expected:?}")
    }
}

/// The points of `device` that an example of its profile does not fit.
pub(crate) fn mismatches(example: &Example, device: &Device) -> Vec<Mismatch> {
    let words = example.words();
    let mismatch = |(name, expected): (&String, &String)| {
        let point = device.points.iter().find(|point| point.name == *name);
        let found = point.map_or_else(String::new, |point| printed(point, example, &words));
        (found != *expected).then(|| Mismatch {
            point: name.clone(),
            expected: expected.clone(),
            found,
        })
    };
    example.values.iter().filter_map(mismatch).collect()
}

/// The point's value among the registers of the example, with its unit.
fn printed(point: &Point, example: &Example, words: &[u16]) -> String {
    let at = point.register.address.saturating_sub(example.at.address);
    let words = words.get(usize::from(at)..).unwrap_or_default();
    let codec = Codec::of(point);
    let value = if point.register.table.is_bits() {
        words.first().map(|bit| codec.decode_bit(*bit != 0))
    } else {
        codec.decode(words).ok()
    };
    match (value, &point.unit) {
        (None, _) => NO_VALUE.to_owned(),
        (Some(value), Some(unit)) => format!("{value} {unit}"),
        (Some(value), None) => value.to_string(),
    }
}
