//! Bounds that a schema sets to one value: lengths, ranges, patterns.
//!
//! Invariant: each answers what is wrong as a clause, or `None` when the value keeps to the bound.
//! Layer: value.

use crate::shape::Shape;
use crate::units::{Period, Size};

pub(crate) fn length_fault(
    shape: &Shape<'_>,
    [min, max]: [&str; 2],
    length: usize,
    unit: &str,
) -> Option<String> {
    let units = match unit {
        "entry" => "entries",
        _ => "characters",
    };
    let (min, max) = (shape.largest(min), shape.smallest(max));
    if let Some(min) = min.filter(|min| (length as f64) < *min) {
        let unit = if min == 1.0 { unit } else { units };
        return Some(format!(
            "has {length} {units}, must have at least {min} {unit}"
        ));
    }
    let max = max.filter(|max| length as f64 > *max)?;
    let unit = if max == 1.0 { unit } else { units };
    Some(format!(
        "has {length} {units}, must have at most {max} {unit}"
    ))
}

pub(crate) fn pattern_fault(shape: &Shape<'_>, text: &str) -> Option<String> {
    let pattern = shape.text("pattern")?;
    let regex = regex_lite::Regex::new(pattern);
    debug_assert!(regex.is_ok(), "a pattern of our own types: {pattern}");
    let matches = regex.is_ok_and(|regex| regex.is_match(text));
    (!matches).then(|| format!("does not match {pattern}"))
}

/// Bounds of a duration or size, given in the schema as texts `x-minimum` and `x-maximum`.
pub(crate) fn measure_fault(shape: &Shape<'_>, text: &str) -> Option<String> {
    let measure = |text: &str| match shape.text("format") {
        Some("duration") => text
            .parse::<Period>()
            .ok()
            .map(|p| p.as_duration().as_micros()),
        Some("size") => text.parse::<Size>().ok().map(|s| u128::from(s.as_bytes())),
        _ => None,
    };
    let written = measure(text)?;
    let (min, max) = (shape.text("x-minimum"), shape.text("x-maximum"));
    let low = min.is_some_and(|min| measure(min).is_some_and(|min| written < min));
    let high = max.is_some_and(|max| measure(max).is_some_and(|max| written > max));
    (low || high).then(|| between(min, max))
}

/// What a number must be, if it is not.
pub(crate) fn range_fault(shape: &Shape<'_>, number: f64) -> Option<String> {
    let (type_min, type_max) = type_range(shape.text("format").unwrap_or_default());
    let min = shape
        .largest("minimum")
        .into_iter()
        .chain(type_min)
        .reduce(f64::max);
    let max = shape
        .smallest("maximum")
        .into_iter()
        .chain(type_max)
        .reduce(f64::min);
    let above = shape.largest("exclusiveMinimum");
    let below = shape.smallest("exclusiveMaximum");
    if min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max) {
        return Some(between(min, max));
    }
    if let Some(above) = above.filter(|above| number <= *above) {
        return Some(format!("above {above}"));
    }
    let below = below.filter(|below| number >= *below)?;
    Some(format!("below {below}"))
}

/// The range of Rust's integers that the schema names without a range.
fn type_range(format: &str) -> (Option<f64>, Option<f64>) {
    match format {
        "int32" => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        "uint32" => (Some(0.0), Some(f64::from(u32::MAX))),
        _ => (None, None),
    }
}

fn between<T: std::fmt::Display>(min: Option<T>, max: Option<T>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!("between {min} and {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => String::new(),
    }
}
