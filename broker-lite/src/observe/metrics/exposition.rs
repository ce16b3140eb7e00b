//! The letters of OpenMetrics 1.0: families, samples, escapes. Values.
//!
//! Invariant: each family is described once, before its samples, and nothing follows the end.

use std::fmt::Write;

/// What the text is, for the Content-Type header.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text under way: families, each with its samples.
#[derive(Debug, Default)]
pub struct Exposition(String);

/// One family of series.
#[derive(Debug, Clone, Copy)]
pub struct Family<'a> {
    /// Ends with the unit, if there is one.
    name: &'a str,
    kind: &'a str,
    unit: Option<&'a str>,
    help: &'a str,
}

/// A total since the start; `name` goes without the `_total` of its samples.
pub fn counter<'a>(name: &'a str, help: &'a str) -> Family<'a> {
    family(name, "counter", help)
}

/// A value that goes up and down.
pub fn gauge<'a>(name: &'a str, help: &'a str) -> Family<'a> {
    family(name, "gauge", help)
}

pub(super) fn family<'a>(name: &'a str, kind: &'a str, help: &'a str) -> Family<'a> {
    let units = ["seconds", "bytes"];
    let unit = units.into_iter().find(|unit| name.ends_with(*unit));
    Family {
        name,
        kind,
        unit,
        help,
    }
}

/// Names and values that tell the samples of a family apart.
type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    /// Begins a family: its samples must follow, before another one begins.
    pub(super) fn open(&mut self, family: Family<'_>) {
        let Family {
            name,
            kind,
            unit,
            help,
        } = family;
        self.line(&format!("# TYPE {name} {kind}"));
        if let Some(unit) = unit {
            self.line(&format!("# UNIT {name} {unit}"));
        }
        self.line(&format!("# HELP {name} {}", escaped(help)));
    }

    /// One sample of the family that was begun last.
    pub(super) fn sample(&mut self, family: Family<'_>, labels: Labels<'_>, value: f64) {
        let suffix = match family.kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        self.line(&format!("{}{suffix}{labels} {value}", family.name));
    }

    /// A family of one sample.
    pub fn single(&mut self, family: Family<'_>, value: f64) {
        self.open(family);
        self.sample(family, &[], value);
    }

    /// The whole text, its end mark included.
    pub fn end(mut self) -> String {
        self.0.push_str("# EOF\n");
        self.0
    }

    fn line(&mut self, line: &str) {
        let _infallible = writeln!(self.0, "{line}");
    }
}

/// Label values and help texts escape the same three characters.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
