//! A configuration file's text as a tree whose every node knows where it stands.
//!
//! Invariant: [`Document::at`] always answers, if need be with the nearest enclosing place that the
//! file has. Layer: value.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Location, Problem, Severity};

/// A parsed file: name, text and positions.
#[derive(Debug, Clone)]
pub struct Document {
    name: Arc<str>,
    text: Arc<str>,
    line_starts: Vec<usize>,
    root: Node,
}

/// A value and the bytes it stands in; for a table with a header, the bytes of the header.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Range<usize>,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    String(String),
    /// As an `i128`; `None` when the number does not even fit there.
    Integer(Option<i128>),
    Float(f64),
    Boolean(bool),
    DateTime,
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) node: Node,
}

impl Document {
    pub(crate) fn new(name: &str, text: &str, tree: &Spanned<DeTable<'_>>) -> Self {
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            name: name.into(),
            text: text.into(),
            line_starts,
            root: Node {
                span: 0..0,
                value: Value::Table(entries(tree.get_ref())),
            },
        }
    }

    /// The file's name as the operator gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the value at a path such as `device[2].point[0].register` stands; for a table, its
    /// header. A step that the file lacks leaves the answer at the place reached so far. A key with
    /// other characters than letters, digits, `-` and `_` is written in quotes.
    pub fn at(&self, path: &str) -> Location {
        self.locate(self.walk(path).1.span.start)
    }

    /// Where the key at a path stands, left of its `=`; otherwise as [`Document::at`].
    pub fn at_key(&self, path: &str) -> Location {
        let (entry, node) = self.walk(path);
        let start = entry.map_or(node.span.start, |entry| entry.key_span.start);
        self.locate(start)
    }

    /// Whether the file itself has a value at this path, rather than a default.
    pub fn has(&self, path: &str) -> bool {
        steps(path)
            .try_fold(&self.root, |node, step| {
                node.child(&step).map(|(_, child)| child)
            })
            .is_some()
    }

    /// The text with the values at some paths replaced by these strings; a path that the file
    /// lacks is left out.
    pub fn with_strings(&self, values: &[(String, String)]) -> String {
        let present = values.iter().filter(|(path, _)| self.has(path));
        let mut places: Vec<_> = present
            .map(|(path, value)| (self.walk(path).1.span.clone(), value))
            .collect();
        // From the end, so that what was found stays where it is.
        places.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
        let mut text = self.text.to_string();
        for (span, value) in places {
            // A JSON string is a basic string of TOML, too.
            let written = serde_json::Value::from(value.as_str()).to_string();
            text.replace_range(span, &written);
        }
        text
    }

    /// An error about the value at `path`.
    pub fn error(&self, path: &str, what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        self.problem(self.at(path), path, what, remedy, Severity::Error)
    }

    /// A warning about the value at `path`.
    pub fn warning(
        &self,
        path: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        self.problem(self.at(path), path, what, remedy, Severity::Warning)
    }

    pub(crate) fn problem(
        &self,
        location: Location,
        path: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
        severity: Severity,
    ) -> Problem {
        Problem {
            file: Arc::clone(&self.name),
            location,
            path: path.to_owned(),
            what: what.into(),
            remedy: remedy.into(),
            severity,
        }
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// Line and column of a byte.
    pub(crate) fn locate(&self, byte: usize) -> Location {
        let line = self.line_starts.partition_point(|start| *start <= byte);
        let start = self.line_starts[line.saturating_sub(1)];
        let before = self.text.get(start..byte).unwrap_or_default();
        Location {
            line,
            column: before.chars().count() + 1,
        }
    }

    /// The text of the line that a byte stands in.
    pub(crate) fn line_of(&self, byte: usize) -> &str {
        let line = self.line_starts.partition_point(|start| *start <= byte);
        let start = self.line_starts[line.saturating_sub(1)];
        let end = self
            .line_starts
            .get(line)
            .copied()
            .unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or_default()
    }

    /// Whether this table is opened by a header such as `[[device]]`, not written in braces.
    pub(crate) fn has_header(&self, node: &Node) -> bool {
        matches!(node.value, Value::Table(_)) && self.source(node).starts_with('[')
    }

    /// The node as it is written; of a table with a header, the header.
    pub(crate) fn source(&self, node: &Node) -> &str {
        self.text.get(node.span.clone()).unwrap_or_default()
    }

    /// The last entry and node that the path leads to.
    fn walk(&self, path: &str) -> (Option<&Entry>, &Node) {
        let mut reached = (None, &self.root);
        for step in steps(path) {
            let Some((entry, node)) = reached.1.child(&step) else {
                break;
            };
            reached = (entry, node);
        }
        reached
    }
}

impl Node {
    /// The table's entry of this name.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    fn child(&self, step: &Step) -> Option<(Option<&Entry>, &Node)> {
        match (step, &self.value) {
            (Step::Key(key), _) => self.entry(key).map(|entry| (Some(entry), &entry.node)),
            (Step::Index(index), Value::Array(items)) => items.get(*index).map(|item| (None, item)),
            (Step::Index(_), _) => None,
        }
    }

    /// What TOML calls this kind of value, with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number with a fraction",
            Value::Boolean(_) => "a boolean",
            Value::DateTime => "a date or time",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }
}

/// One step of a path.
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// Takes a path apart: `a.b[2]."c d"` is a, b, 2, `c d`.
pub(crate) fn steps(path: &str) -> impl Iterator<Item = Step> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.is_empty() {
            return None;
        }
        let (opening, closing) = match rest.as_bytes()[0] {
            b'[' => (1, rest.find(']').unwrap_or(rest.len())),
            b'"' => (1, rest[1..].find('"').map_or(rest.len(), |at| at + 1)),
            _ => (0, rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        let inner = &rest[opening..closing];
        let step = match rest.as_bytes()[0] {
            // An index that is no number leads nowhere, which `at` may be asked.
            b'[' => Step::Index(inner.parse().unwrap_or(usize::MAX)),
            _ => Step::Key(inner.to_owned()),
        };
        rest = rest.get(closing + opening..).unwrap_or_default();
        Some(step)
    })
}

/// The path of a key inside the table at `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let dot = if path.is_empty() { "" } else { "." };
    if !key.is_empty() && key.chars().all(bare) {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}\"{key}\"")
    }
}

fn entries(table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_span: key.span(),
            node: node(value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    entries
}

fn node(value: &Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(integer) => {
            Value::Integer(i128::from_str_radix(integer.as_str(), integer.radix()).ok())
        }
        DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::DateTime,
        DeValue::Array(items) => Value::Array(items.iter().map(node).collect()),
        DeValue::Table(table) => Value::Table(entries(table)),
    };
    Node { span, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
[[device]]
name = \"ä\" # two bytes, one character
[[device.point]]
name = \"voltage\"
  register = \"input:0\"
[names]
\"a b\".c = [1, 2]
";

    fn document() -> Document {
        let (tree, faults) = DeTable::parse_recoverable(TEXT);
        assert!(faults.is_empty());
        Document::new("gateway.toml", TEXT, &tree)
    }

    fn at(path: &str) -> (usize, usize) {
        let Location { line, column } = document().at(path);
        (line, column)
    }

    #[test]
    fn a_value_is_found_by_its_path() {
        assert_eq!(at("device[0].point[0].register"), (5, 14));
        assert_eq!(at("names.\"a b\".c[1]"), (7, 15));
    }

    #[test]
    fn a_table_stands_where_its_header_does() {
        assert_eq!(at("device[0].point[0]"), (3, 1));
    }

    #[test]
    fn a_key_the_file_lacks_is_answered_with_the_table_around_it() {
        assert_eq!(at("device[0].point[0].scale"), (3, 1));
        assert_eq!(at("device[0].point[7].scale"), (3, 1));
        assert_eq!(at("upstream.url"), (1, 1));
        assert_eq!(at("device[x"), (1, 1));
        assert_eq!(at("\"unclosed"), (1, 1));
    }

    #[test]
    fn a_key_has_its_own_place_left_of_the_value() {
        let place = document().at_key("device[0].point[0].register");
        assert_eq!((place.line, place.column), (5, 3));
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        let document = document();
        let hash = TEXT.find('#').map(|byte| document.locate(byte));
        assert_eq!(
            hash,
            Some(Location {
                line: 2,
                column: 12
            })
        );
    }

    #[test]
    fn a_value_from_the_file_is_told_from_a_default() {
        assert!(document().has("device[0].name"));
        assert!(!document().has("device[0].interval"));
        assert!(!document().has("device[1]"));
    }

    #[test]
    fn a_path_that_the_check_wrote_leads_back() {
        let path = join(&join("names", "a b"), "c");
        assert_eq!(path, "names.\"a b\".c");
        assert!(document().has(&path));
    }
}
