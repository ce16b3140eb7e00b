//! What one key of a profile says about another. Values: a profile in, problems out.
//!
//! Invariant: a profile that passes can be used by any device that overrides nothing.

use settings::{Document, Problem};

use super::{Example, Profile, complete::matches, words};
use crate::{
    config::{
        Device,
        check::{Findings, did_you_mean, point, requests},
    },
    fieldbus::register::Register,
};

/// Everything wrong between the keys of `profile`, which was read from `document`.
pub(in crate::config) fn check(profile: &Profile, document: &Document) -> Vec<Problem> {
    let mut findings = Findings::new(document);
    let names = profile.names().enumerate();
    findings.unique(
        "point",
        names.map(|(index, name)| (format!("point[{index}].name"), name)),
    );
    for (index, pattern) in profile.default.iter().enumerate() {
        if !profile.names().any(|name| matches(pattern, name)) {
            findings.error(
                &format!("default[{index}]"),
                format!("no point is called {pattern:?}"),
                did_you_mean(pattern, profile.names()),
            );
        }
    }
    match profile.as_device(&profile.model) {
        Ok(device) => {
            let places = 0..device.points.len();
            let places: Vec<String> = places.map(|index| format!("point[{index}]")).collect();
            for (path, point) in places.iter().zip(&device.points) {
                point::check(point, &device, path, &mut findings);
            }
            requests::check(&device, "device", &places, &mut findings);
            for (index, example) in profile.examples.iter().enumerate() {
                check_example(
                    example,
                    &device,
                    &format!("example[{index}]"),
                    &mut findings,
                );
            }
        }
        Err((path, why)) => findings.error(&path, why, ""),
    }
    findings.problems
}

fn check_example(example: &Example, device: &Device, path: &str, findings: &mut Findings<'_>) {
    let Register { table, address } = example.at;
    let Some(words) = words(&example.hex, table.is_bits()) else {
        findings.error(
            &format!("{path}.hex"),
            format!(
                "{:?} are not {}",
                example.hex,
                if table.is_bits() { "bits" } else { "registers" }
            ),
            "write four hexadecimal digits for each register, or 0 and 1 for bits",
        );
        return;
    };
    let end = usize::from(address) + words.len();
    for name in example.values.keys() {
        let at = format!("{path}.values.{name}");
        let names = device.points.iter().map(|point| point.name.as_str());
        let Some(point) = device.points.iter().find(|point| point.name == *name) else {
            findings.error(
                &at,
                format!("no point is called {name:?}"),
                did_you_mean(name, names),
            );
            continue;
        };
        let first = usize::from(point.register.address);
        let last = first + usize::from(point.elements());
        if point.register.table != table || first < usize::from(address) || last > end {
            findings.error(
                &at,
                format!(
                    "point {name:?} at {} is not among these registers",
                    point.register
                ),
                "write one example for each read",
            );
        }
    }
}
