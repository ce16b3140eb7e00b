//! Checks a file's tree against the schema of its types and collects every problem.
//!
//! Invariant: the check only reports; it neither changes the tree nor stops at a problem.
//! Layer: value.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::document::{Document, Entry, Node, Value, join};
use crate::format::Formats;
use crate::problem::{Problem, Severity};
use crate::shape::{Shape, one_of, with_article};
use crate::units::{Period, Size};

/// How alike two keys must be for one to be taken for the other (Jaro-Winkler, 0 to 1): a slip of
/// one or two letters passes, another word does not.
const NEAR: f64 = 0.85;

/// One walk over a file.
pub(crate) struct Check<'c> {
    /// The schema of the whole file.
    pub(crate) schema: &'c Json,
    pub(crate) formats: &'c Formats,
    pub(crate) document: &'c Document,
}

/// Where the walk stands.
pub(crate) struct Place<'p> {
    /// As in [`Problem::path`].
    pub(crate) path: String,
    /// The key, with its index inside an array: `publish[0]`.
    pub(crate) name: String,
    /// The tables around it, innermost first.
    pub(crate) scope: Option<&'p Scope<'p>>,
}

/// A table around the place, with the keys its type has.
pub(crate) struct Scope<'p> {
    node: &'p Node,
    known: &'p BTreeSet<&'p str>,
    outer: Option<&'p Scope<'p>>,
}

impl<'p> Place<'p> {
    /// The place of a key in the table that stands here.
    pub(crate) fn inside(&self, key: &str) -> Self {
        Self {
            path: join(&self.path, key),
            name: key.to_owned(),
            scope: self.scope,
        }
    }
}

impl Check<'_> {
    /// Every problem of the file against the schema.
    pub(crate) fn file(&self) -> Vec<Problem> {
        let top = Place {
            path: String::new(),
            name: String::new(),
            scope: None,
        };
        let mut out = Vec::new();
        let shape = Shape::of(self.schema, self.schema);
        self.value(&shape, self.document.root(), &top, &mut out);
        out
    }

    pub(crate) fn value(
        &self,
        shape: &Shape<'_>,
        node: &Node,
        place: &Place<'_>,
        out: &mut Vec<Problem>,
    ) {
        if !shape.accepts_kind(node) {
            out.push(self.wrong_type(shape, node, place));
            return;
        }
        let values = shape.values();
        if !values.is_empty() {
            out.extend(self.not_among(&values, node, place));
            return;
        }
        match &node.value {
            Value::String(text) => self.string(shape, text, node, place, out),
            Value::Integer(Some(integer)) => self.number(shape, *integer as f64, node, place, out),
            Value::Integer(None) => {
                out.push(self.error(node, place, format!("{} is too large", place.name), ""));
            }
            Value::Float(float) => self.number(shape, *float, node, place, out),
            Value::Array(items) => self.array(shape, items, node, place, out),
            Value::Table(entries) => self.table(shape, entries, node, place, out),
            Value::Boolean(_) | Value::DateTime => {}
        }
        for choices in &shape.groups {
            self.choose(choices, node, place, out);
        }
    }

    pub(crate) fn error(
        &self,
        node: &Node,
        place: &Place<'_>,
        what: String,
        remedy: impl Into<String>,
    ) -> Problem {
        let location = self.document.locate(node.span.start);
        self.document
            .problem(location, &place.path, what, remedy, Severity::Error)
    }

    // --- one value ---

    fn wrong_type(&self, shape: &Shape<'_>, node: &Node, place: &Place<'_>) -> Problem {
        let what = format!(
            "{} is {}, must be {}",
            place.name,
            node.kind(),
            shape.noun()
        );
        let remedy = example(shape, place).unwrap_or_else(|| self.retype(shape, node));
        self.error(node, place, what, remedy)
    }

    /// How the value at hand becomes one of the wanted type.
    fn retype(&self, shape: &Shape<'_>, node: &Node) -> String {
        let wants = |name: &str| shape.types().contains(&name);
        let header = self.document.source(node);
        match &node.value {
            Value::String(text)
                if (wants("integer") && text.parse::<i64>().is_ok())
                    || (wants("number") && text.parse::<f64>().is_ok())
                    || (wants("boolean") && text.parse::<bool>().is_ok()) =>
            {
                format!("leave out the quotes: {text}")
            }
            Value::Table(_) if wants("array") && self.document.has_header(node) => {
                format!("write [{header}] in place of {header}")
            }
            Value::Array(items)
                if wants("object") && items.iter().any(|item| self.document.has_header(item)) =>
            {
                let single = header.trim_start_matches('[').trim_end_matches(']');
                format!("write [{single}], once, in place of {header}")
            }
            Value::Array(_) | Value::Table(_) => String::new(),
            _ if wants("array") => "put it in square brackets: [ … ]".to_owned(),
            _ if wants("string") => "put it in quotes".to_owned(),
            _ => String::new(),
        }
    }

    pub(crate) fn not_among(
        &self,
        values: &[&Json],
        node: &Node,
        place: &Place<'_>,
    ) -> Option<Problem> {
        let written = match &node.value {
            Value::String(text) => Json::from(text.as_str()),
            Value::Integer(integer) => Json::from(integer.and_then(|i| i64::try_from(i).ok())),
            Value::Boolean(boolean) => Json::from(*boolean),
            _ => Json::Null,
        };
        if values.contains(&&written) {
            return None;
        }
        let names = values.iter().filter_map(|value| value.as_str());
        let remedy = written
            .as_str()
            .and_then(|text| nearest(text, names))
            .map(|near| format!("did you mean {near:?}?"))
            .unwrap_or_default();
        let what = format!("{} is {written}, must be {}", place.name, one_of(values));
        Some(self.error(node, place, what, remedy))
    }

    fn string(
        &self,
        shape: &Shape<'_>,
        text: &str,
        node: &Node,
        place: &Place<'_>,
        out: &mut Vec<Problem>,
    ) {
        let length = text.chars().count();
        let faults = [
            length_fault(shape, ["minLength", "maxLength"], length, "character"),
            pattern_fault(shape, text),
            self.format_fault(shape, text),
        ];
        for fault in faults.into_iter().flatten() {
            let remedy = example(shape, place).unwrap_or_default();
            let what = format!("{} = {text:?} {fault}", place.name);
            out.push(self.error(node, place, what, remedy));
        }
        if let Some(demand) = measure_fault(shape, text) {
            let what = format!("{} is {text:?}, must be {demand}", place.name);
            out.push(self.error(node, place, what, ""));
        }
    }

    fn format_fault(&self, shape: &Shape<'_>, text: &str) -> Option<String> {
        let format = shape.text("format")?;
        let reason = self.formats.check(format, text).err()?;
        Some(format!("is not {}: {reason}", with_article(format)))
    }

    fn number(
        &self,
        shape: &Shape<'_>,
        number: f64,
        node: &Node,
        place: &Place<'_>,
        out: &mut Vec<Problem>,
    ) {
        if !number.is_finite() {
            let what = format!("{} is {number}, must be a finite number", place.name);
            out.push(self.error(node, place, what, ""));
        } else if let Some(demand) = range_fault(shape, number) {
            let what = format!("{} is {number}, must be {demand}", place.name);
            out.push(self.error(node, place, what, ""));
        }
    }

    fn array(
        &self,
        shape: &Shape<'_>,
        items: &[Node],
        node: &Node,
        place: &Place<'_>,
        out: &mut Vec<Problem>,
    ) {
        if let Some(fault) = length_fault(shape, ["minItems", "maxItems"], items.len(), "entry") {
            out.push(self.error(node, place, format!("{} {fault}", place.name), ""));
        }
        for (index, item) in items.iter().enumerate() {
            let inner = Place {
                path: format!("{}[{index}]", place.path),
                name: format!("{}[{index}]", place.name),
                scope: place.scope,
            };
            for schema in shape.all("items") {
                self.value(&Shape::of(self.schema, schema), item, &inner, out);
            }
        }
    }

    // --- tables ---

    fn table(
        &self,
        shape: &Shape<'_>,
        entries: &[Entry],
        node: &Node,
        place: &Place<'_>,
        out: &mut Vec<Problem>,
    ) {
        let known = shape.known_keys();
        let scope = Scope {
            node,
            known: &known,
            outer: place.scope,
        };
        let mut meant = BTreeSet::new();
        for entry in entries {
            let inner = Place {
                path: join(&place.path, &entry.key),
                name: entry.key.clone(),
                scope: Some(&scope),
            };
            for schema in shape.property(&entry.key) {
                let shape = Shape::of(self.schema, schema);
                out.extend(self.deprecated(&shape, entry, &inner));
                self.value(&shape, &entry.node, &inner, out);
            }
            if shape.is_closed() && !known.contains(entry.key.as_str()) {
                meant.extend(nearest(&entry.key, known.iter().copied()));
                out.push(self.unknown_key(entry, node, place, &known));
            }
        }
        let has = |key: &str| node.entry(key).is_some() || meant.contains(key);
        for key in shape.required().filter(|key| !has(key)) {
            out.push(self.missing_key(shape, key, node, place));
        }
    }

    fn deprecated(&self, shape: &Shape<'_>, entry: &Entry, place: &Place<'_>) -> Option<Problem> {
        if !shape
            .all("deprecated")
            .any(|value| *value == Json::Bool(true))
        {
            return None;
        }
        let location = self.document.locate(entry.key_span.start);
        let what = format!("{} is deprecated", place.name);
        let remedy = shape.text("x-remedy").unwrap_or_default();
        let severity = Severity::Warning;
        Some(
            self.document
                .problem(location, &place.path, what, remedy, severity),
        )
    }

    fn missing_key(&self, shape: &Shape<'_>, key: &str, node: &Node, place: &Place<'_>) -> Problem {
        let wanted = shape.property(key).into_iter().next();
        let wanted = wanted.map(|schema| Shape::of(self.schema, schema));
        let inner = place.inside(key);
        let remedy = wanted.map_or_else(String::new, |wanted| {
            let noun = wanted.noun();
            example(&wanted, &inner).unwrap_or_else(|| format!("add {key} = …, {noun}"))
        });
        let what = format!("{} lacks the key {key:?}", self.label(node, place));
        self.error(node, &inner, what, remedy)
    }

    fn unknown_key(
        &self,
        entry: &Entry,
        node: &Node,
        place: &Place<'_>,
        known: &BTreeSet<&str>,
    ) -> Problem {
        let key = &entry.key;
        let remedy = self.swallowed(key, node, place).unwrap_or_else(|| {
            match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None if known.is_empty() => "this table has no keys".to_owned(),
                None => {
                    let known: Vec<&str> = known.iter().copied().collect();
                    format!("it may have {}", known.join(", "))
                }
            }
        });
        let location = self.document.locate(entry.key_span.start);
        let what = format!("unknown key {key:?} in {}", self.label(node, place));
        let path = join(&place.path, key);
        self.document
            .problem(location, &path, what, remedy, Severity::Error)
    }

    /// For a key that a table around this one has: TOML gives every key to the header above it, so
    /// a key written below a nested header went into the wrong table.
    fn swallowed(&self, key: &str, node: &Node, place: &Place<'_>) -> Option<String> {
        if !self.document.has_header(node) {
            return None;
        }
        let mut scope = place.scope;
        while let Some(table) = scope {
            if table.known.contains(key) {
                let (header, line) = self.first_header_in(table.node)?;
                let owner = match self.document.has_header(table.node) {
                    true => self.document.source(table.node),
                    false => "the top of the file",
                };
                return Some(format!(
                    "{key:?} belongs to {owner}: move it above the first {header} (line {line}), \
                     for TOML gives a key to the nearest header above it"
                ));
            }
            scope = table.outer;
        }
        None
    }

    /// The first header of a table inside this one, and its line.
    fn first_header_in(&self, node: &Node) -> Option<(&str, usize)> {
        let Value::Table(entries) = &node.value else {
            return None;
        };
        entries
            .iter()
            .flat_map(|entry| match &entry.node.value {
                Value::Array(items) => &items[..],
                _ => std::slice::from_ref(&entry.node),
            })
            .filter(|inner| self.document.has_header(inner))
            .min_by_key(|inner| inner.span.start)
            .map(|inner| {
                (
                    self.document.source(inner),
                    self.document.locate(inner.span.start).line,
                )
            })
    }

    /// What a message calls this table.
    pub(crate) fn label(&self, node: &Node, place: &Place<'_>) -> String {
        if place.path.is_empty() {
            "the top of the file".to_owned()
        } else if self.document.has_header(node) {
            self.document.source(node).to_owned()
        } else {
            format!("table {:?}", place.name)
        }
    }
}

/// The key or value most like the one written, if any is near enough.
pub(crate) fn nearest<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let lower = written.to_lowercase();
    known
        .map(|key| (strsim::jaro_winkler(&lower, &key.to_lowercase()), key))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

/// The types' own advice (`x-remedy`), or their first example.
fn example(shape: &Shape<'_>, place: &Place<'_>) -> Option<String> {
    if let Some(advice) = shape.text("x-remedy") {
        return Some(advice.to_owned());
    }
    let example = shape.all("examples").find_map(|examples| examples.get(0))?;
    if place.name.ends_with(']') {
        return Some(format!("write for example {example}"));
    }
    Some(format!("write for example {} = {example}", place.name))
}

fn length_fault(
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

fn pattern_fault(shape: &Shape<'_>, text: &str) -> Option<String> {
    let pattern = shape.text("pattern")?;
    let regex = regex_lite::Regex::new(pattern);
    debug_assert!(regex.is_ok(), "a pattern of our own types: {pattern}");
    let matches = regex.is_ok_and(|regex| regex.is_match(text));
    (!matches).then(|| format!("does not match {pattern}"))
}

/// Bounds of a duration or size, given in the schema as texts `x-minimum` and `x-maximum`.
fn measure_fault(shape: &Shape<'_>, text: &str) -> Option<String> {
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
fn range_fault(shape: &Shape<'_>, number: f64) -> Option<String> {
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
