//! Checks a file's tree against the schema of its types and collects every problem.
//!
//! Invariant: the check only reports; it neither changes the tree nor stops at a problem.
//! Layer: value.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::bounds::{length_fault, measure_fault, pattern_fault, range_fault};
use crate::document::{Document, Entry, Node, Value, join};
use crate::format::Formats;
use crate::nearest::nearest;
use crate::problem::{Problem, Severity};
use crate::shape::{Shape, one_of, with_article};

/// Problems after which the walk ends; far more than are shown, yet few enough that a file made of
/// nothing else is refused within seconds.
pub(crate) const MAX_FOUND: usize = 1_000;

/// Characters of a text that a message repeats; enough to find it by, in a line's length.
const MAX_ECHO: usize = 60;

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

/// A table around the place, with what its type allows.
pub(crate) struct Scope<'p> {
    pub(crate) node: &'p Node,
    pub(crate) shape: &'p Shape<'p>,
    pub(crate) outer: Option<&'p Scope<'p>>,
}

impl Place<'_> {
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
        let source = self.document.source(node);
        match &node.value {
            Value::String(text)
                if (wants("integer") && text.parse::<i64>().is_ok())
                    || (wants("number") && text.parse::<f64>().is_ok())
                    || (wants("boolean") && text.parse::<bool>().is_ok()) =>
            {
                format!("leave out the quotes: {text}")
            }
            Value::Table(_) if wants("array") && self.document.has_header(node) => {
                format!("write [{source}] in place of {source}")
            }
            Value::Array(items)
                if wants("object") && items.iter().any(|item| self.document.has_header(item)) =>
            {
                let single = source.trim_start_matches('[').trim_end_matches(']');
                format!("write [{single}], once, in place of {source}")
            }
            Value::Array(_) | Value::Table(_) => String::new(),
            _ if shape.values().contains(&&Json::from(source)) => {
                format!("put it in quotes: {source:?}")
            }
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
        let text = written.as_str();
        let remedy = text
            .and_then(|text| nearest(text, values.iter().filter_map(|value| value.as_str())))
            .map(|near| format!("did you mean {near:?}?"))
            .unwrap_or_default();
        let written = text.map_or_else(|| written.to_string(), echo);
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
            let what = format!("{} = {} {fault}", place.name, echo(text));
            out.push(self.error(node, place, what, remedy));
        }
        if let Some(demand) = measure_fault(shape, text) {
            let what = format!("{} is {}, must be {demand}", place.name, echo(text));
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
            if out.len() > MAX_FOUND {
                return;
            }
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
            shape,
            outer: place.scope,
        };
        let mut meant = BTreeSet::new();
        for entry in entries {
            if out.len() > MAX_FOUND {
                return;
            }
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

    /// What a message calls this table.
    pub(crate) fn label(&self, node: &Node, place: &Place<'_>) -> String {
        if place.path.is_empty() {
            "the file".to_owned()
        } else if self.document.has_header(node) {
            self.document.source(node).to_owned()
        } else {
            format!("table {:?}", place.name)
        }
    }
}

/// A text from the file as a message shows it: in quotes, and not at any length.
pub(crate) fn echo(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHO) {
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
        None => format!("{text:?}"),
    }
}

/// The types' own advice (`x-remedy`), or their first example.
pub(crate) fn example(shape: &Shape<'_>, place: &Place<'_>) -> Option<String> {
    if let Some(advice) = shape.text("x-remedy") {
        return Some(advice.to_owned());
    }
    let example = shape.all("examples").find_map(|examples| examples.get(0))?;
    if place.name.ends_with(']') {
        return Some(format!("write for example {example}"));
    }
    Some(format!("write for example {} = {example}", place.name))
}
