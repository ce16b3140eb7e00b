//! What a JSON Schema, as schemars writes it, says of one value: references followed, `allOf`
//! joined, `null` (a key left out, in TOML) ignored.
//!
//! Invariant: a schema that refers to itself without end is read to a bounded depth. Layer: value.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use crate::document::{Node, Value};

/// References followed from one place; our types nest a handful deep.
const MAX_DEPTH: usize = 32;

/// Everything that the schema demands of one value.
pub(crate) struct Shape<'s> {
    parts: Vec<&'s Map<String, Json>>,
    /// Each group offers several shapes, of which one must fit.
    pub(crate) groups: Vec<Vec<Shape<'s>>>,
}

impl<'s> Shape<'s> {
    /// Reads `schema`, a part of `root`.
    pub(crate) fn of(root: &'s Json, schema: &'s Json) -> Self {
        let mut shape = Self {
            parts: Vec::new(),
            groups: Vec::new(),
        };
        shape.add(root, schema, 0);
        shape
    }

    fn add(&mut self, root: &'s Json, schema: &'s Json, depth: usize) {
        let Some(part) = schema.as_object().filter(|_| depth < MAX_DEPTH) else {
            return;
        };
        self.parts.push(part);
        if let Some(target) = part.get("$ref").and_then(Json::as_str) {
            let pointer = target.strip_prefix('#').and_then(|at| root.pointer(at));
            self.add(root, pointer.unwrap_or(&Json::Null), depth + 1);
        }
        for all in list(part, "allOf") {
            self.add(root, all, depth + 1);
        }
        for keyword in ["oneOf", "anyOf"] {
            let is_null = |choice: &&Json| choice.get("type") == Some(&Json::from("null"));
            let choices: Vec<&Json> = list(part, keyword).filter(|c| !is_null(c)).collect();
            match choices[..] {
                [] => {}
                [only] => self.add(root, only, depth + 1),
                _ => self.groups.push(
                    choices
                        .into_iter()
                        .map(|choice| {
                            let mut shape = Self {
                                parts: Vec::new(),
                                groups: Vec::new(),
                            };
                            shape.add(root, choice, depth + 1);
                            shape
                        })
                        .collect(),
                ),
            }
        }
    }

    /// The values of a keyword, from every part that has it.
    pub(crate) fn all(&self, keyword: &str) -> impl Iterator<Item = &'s Json> {
        self.parts.iter().filter_map(move |part| part.get(keyword))
    }

    /// A keyword's first text.
    pub(crate) fn text(&self, keyword: &str) -> Option<&'s str> {
        self.all(keyword).find_map(Json::as_str)
    }

    /// The keyword's tightest lower bound.
    pub(crate) fn largest(&self, keyword: &str) -> Option<f64> {
        self.all(keyword).filter_map(Json::as_f64).reduce(f64::max)
    }

    /// The keyword's tightest upper bound.
    pub(crate) fn smallest(&self, keyword: &str) -> Option<f64> {
        self.all(keyword).filter_map(Json::as_f64).reduce(f64::min)
    }

    /// The schemas of a table's key; none for a key that the types do not have.
    pub(crate) fn property(&self, key: &str) -> Vec<&'s Json> {
        let named: Vec<&Json> = self
            .all("properties")
            .filter_map(|properties| properties.get(key))
            .collect();
        if !named.is_empty() {
            return named;
        }
        self.all("additionalProperties")
            .filter(|schema| schema.is_object())
            .collect()
    }

    /// The keys that the types have, those of every choice included.
    pub(crate) fn known_keys(&self) -> BTreeSet<&'s str> {
        let own = self
            .all("properties")
            .filter_map(Json::as_object)
            .flat_map(|properties| properties.keys().map(String::as_str));
        let offered = self.groups.iter().flatten().flat_map(Shape::known_keys);
        own.chain(offered).collect()
    }

    /// The keys that a table must have.
    pub(crate) fn required(&self) -> impl Iterator<Item = &'s str> {
        self.parts
            .iter()
            .flat_map(|part| list(part, "required").filter_map(Json::as_str))
    }

    /// Whether a table with other keys is refused.
    pub(crate) fn is_closed(&self) -> bool {
        ["additionalProperties", "unevaluatedProperties"]
            .into_iter()
            .any(|keyword| self.all(keyword).any(|value| *value == Json::Bool(false)))
    }

    /// The values of an enumeration, in the order of the types; none for any other shape.
    pub(crate) fn values(&self) -> Vec<&'s Json> {
        let own = self
            .all("const")
            .chain(self.parts.iter().flat_map(|part| list(part, "enum")));
        let own: Vec<&Json> = own.filter(|value| !value.is_null()).collect();
        if !own.is_empty() {
            return own;
        }
        match &self.groups[..] {
            [choices] if choices.iter().all(|choice| !choice.values().is_empty()) => {
                choices.iter().flat_map(Shape::values).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether a value of this kind may stand here.
    pub(crate) fn accepts_kind(&self, node: &Node) -> bool {
        let types = self.types();
        if types.is_empty() {
            return self
                .groups
                .iter()
                .all(|choices| choices.iter().any(|choice| choice.accepts_kind(node)));
        }
        types.iter().any(|name| {
            matches!(
                (*name, &node.value),
                ("string", Value::String(_))
                    | ("integer" | "number", Value::Integer(_))
                    | ("number", Value::Float(_))
                    | ("boolean", Value::Boolean(_))
                    | ("array", Value::Array(_))
                    | ("object", Value::Table(_))
            )
        })
    }

    /// What must stand here, for a message: `an integer`, `one of "even", "odd"`.
    pub(crate) fn noun(&self) -> String {
        let values = self.values();
        if !values.is_empty() {
            return one_of(&values);
        }
        let nouns: Vec<String> = match &self.groups[..] {
            [choices, ..] if self.types().is_empty() => choices.iter().map(Shape::noun).collect(),
            _ => self.types().iter().map(|name| self.noun_of(name)).collect(),
        };
        nouns.join(" or ")
    }

    fn noun_of(&self, type_name: &str) -> String {
        match (type_name, self.text("format")) {
            ("string", Some(format)) => format!("{} in quotes", with_article(format)),
            ("string", None) => "a string".to_owned(),
            ("integer", _) => "an integer".to_owned(),
            ("number", _) => "a number".to_owned(),
            ("boolean", _) => "true or false".to_owned(),
            ("array", _) => "an array".to_owned(),
            _ => match self.form() {
                form if form.is_empty() => "a table".to_owned(),
                form => format!("a table {form}"),
            },
        }
    }

    /// How a table of this shape is written at its shortest: `{ file = … }`.
    pub(crate) fn form(&self) -> String {
        let keys: Vec<String> = self.required().map(|key| format!("{key} = …")).collect();
        if keys.is_empty() {
            return String::new();
        }
        format!("{{ {} }}", keys.join(", "))
    }

    /// The names of the types that may stand here, `null` left out.
    pub(crate) fn types(&self) -> Vec<&'s str> {
        let names = self.all("type").next();
        let names = names.map_or(&[][..], |names| match names {
            Json::Array(names) => names,
            name => std::slice::from_ref(name),
        });
        names
            .iter()
            .filter_map(Json::as_str)
            .filter(|name| *name != "null")
            .collect()
    }
}

/// `a duration`, `an ip`; hyphens in a form's name are read as spaces.
pub(crate) fn with_article(format: &str) -> String {
    let article = if format.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {}", format.replace('-', " "))
}

/// `one of "even", "odd"`, or the value alone where there is just one.
pub(crate) fn one_of(values: &[&Json]) -> String {
    let listed: Vec<String> = values.iter().map(ToString::to_string).collect();
    match &listed[..] {
        [only] => only.clone(),
        _ => format!("one of {}", listed.join(", ")),
    }
}

fn list<'s>(
    part: &'s Map<String, Json>,
    keyword: &str,
) -> impl Iterator<Item = &'s Json> + use<'s> {
    part.get(keyword)
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
}
