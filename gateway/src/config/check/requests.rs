//! What a device allows in one request, and whether its points can be read so. Values.
//!
//! Invariant: what passes can be planned: every point and every range fits into one request.

use crate::{
    config::{Device, Point},
    fieldbus::{poll::plan::span, register::RegisterRange, transaction::Span},
};

use super::Findings;

/// Checks the ranges of a device at `path` that are read as one, and its coils that begin at 0;
/// its points stand at `places`.
pub(in crate::config) fn check(
    device: &Device,
    path: &str,
    places: &[String],
    findings: &mut Findings<'_>,
) {
    let listed = |key: &str, ranges: &[RegisterRange]| {
        let range =
            |(index, range): (usize, &RegisterRange)| (format!("{path}.{key}[{index}]"), *range);
        ranges.iter().enumerate().map(range).collect::<Vec<_>>()
    };
    let together = listed("read_together", &device.read_together);
    let alone = listed("read_alone", &device.read_alone);
    let ranges = [together, alone].concat();
    for (index, (at, range)) in ranges.iter().enumerate() {
        check_range(device, at, *range, findings);
        let before = ranges[..index].iter().map(|(_, before)| *before);
        let overlaps = |other: &RegisterRange| overlap(other.span(), range.span());
        if let Some(other) = before.into_iter().find(overlaps) {
            findings.error(
                at,
                format!("{range} and {other} have registers in common"),
                "a register is read by one request: make them one range, or end one before the other",
            );
        }
    }
    for (place, point) in places.iter().zip(&device.points) {
        let at = format!("{place}.register");
        check_point(device, point, &at, &ranges, findings);
    }
}

fn check_range(device: &Device, at: &str, range: RegisterRange, findings: &mut Findings<'_>) {
    check_length(device, at, &range.to_string(), range.span(), findings);
    let within = |point: &Point| range.span().contains(span(point));
    // A profile's range may hold none of the points that were chosen.
    let is_written = findings.document.has(at);
    if is_written && !device.points.iter().any(within) {
        findings.warn(
            at,
            format!("no point of device {:?} stands in {range}", device.name),
            "it is not read; remove it, or look for a mistake in its addresses",
        );
    }
}

fn check_point(
    device: &Device,
    point: &Point,
    at: &str,
    ranges: &[(String, RegisterRange)],
    findings: &mut Findings<'_>,
) {
    let place = span(point);
    let mut ranges = ranges.iter().map(|(_, range)| *range);
    let cut = |range: &RegisterRange| overlap(range.span(), place) && !range.span().contains(place);
    if let Some(range) = ranges.find(cut) {
        findings.error(
            at,
            format!(
                "point {:?} stands at {place}, which is only partly in {range}",
                point.name
            ),
            "a point is never split: let the range hold all of it, or nothing",
        );
    }
    if device.bits_from_zero && place.table.is_bits() {
        let what = format!("point {:?}", point.name);
        check_length(device, at, &what, place, findings);
    }
}

fn check_length(device: &Device, at: &str, what: &str, span: Span, findings: &mut Findings<'_>) {
    let bits = span.table.is_bits();
    let (most, key) = match bits {
        true => (device.max_bits, "max_bits"),
        false => (device.max_registers, "max_registers"),
    };
    let from_zero = bits && device.bits_from_zero;
    let length = if from_zero {
        span.end()
    } else {
        u32::from(span.count)
    };
    if length > u32::from(most) {
        let reads = if from_zero { " from address 0" } else { "" };
        findings.error(
            at,
            format!(
                "{what} takes a request of {length}{reads}, but device {:?} answers {most} at most",
                device.name
            ),
            format!("make it shorter, or raise {key}, if the device allows it"),
        );
    }
}

fn overlap(one: Span, other: Span) -> bool {
    one.table == other.table
        && u32::from(one.start) < other.end()
        && u32::from(other.start) < one.end()
}
