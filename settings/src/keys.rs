//! Keys that a table should not have, should have had, or should no longer have.
//!
//! Invariant: a key that stands in the wrong table is told its right place, if a table around it
//! has such a key. Layer: value.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::check::{Check, Place, echo, example};
use crate::document::{Entry, Node, Value, join};
use crate::nearest::nearest;
use crate::problem::{Problem, Severity};
use crate::shape::Shape;

impl Check<'_> {
    pub(crate) fn deprecated(
        &self,
        shape: &Shape<'_>,
        entry: &Entry,
        place: &Place<'_>,
    ) -> Option<Problem> {
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

    pub(crate) fn missing_key(
        &self,
        shape: &Shape<'_>,
        key: &str,
        node: &Node,
        place: &Place<'_>,
    ) -> Problem {
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

    pub(crate) fn unknown_key(
        &self,
        entry: &Entry,
        node: &Node,
        place: &Place<'_>,
        known: &BTreeSet<&str>,
    ) -> Problem {
        let key = &entry.key;
        let remedy = self.swallowed(entry, node, place).unwrap_or_else(|| {
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
        let what = format!("unknown key {} in {}", echo(key), self.label(node, place));
        let path = join(&place.path, key);
        self.document
            .problem(location, &path, what, remedy, Severity::Error)
    }

    /// For a key that a table around this one has: TOML gives every key to the header above it, so
    /// a key written below a nested header went into the wrong table.
    fn swallowed(&self, entry: &Entry, node: &Node, place: &Place<'_>) -> Option<String> {
        if !self.document.has_header(node) {
            return None;
        }
        let mut scopes = std::iter::successors(place.scope, |scope| scope.outer);
        let owner = scopes.find(|scope| self.would_take(scope.shape, entry))?;
        let (header, line) = self.first_header_in(owner.node)?;
        let owner = match self.document.has_header(owner.node) {
            true => self.document.source(owner.node),
            false => "the top of the file",
        };
        Some(format!(
            "{:?} belongs to {owner}: move it above the first {header} (line {line}), \
             for TOML gives a key to the nearest header above it",
            entry.key
        ))
    }

    /// Whether a table of this shape has such a key, for such a value.
    fn would_take(&self, shape: &Shape<'_>, entry: &Entry) -> bool {
        let key = entry.key.as_str();
        let fits = |schema: &Json| Shape::of(self.schema, schema).accepts_kind(&entry.node);
        shape.known_keys().contains(key) && shape.property(key).into_iter().all(fits)
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
}
