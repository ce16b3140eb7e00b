//! JSON as signatures need it: read strictly, written in the canonical form that is signed.
//!
//! Invariant: two values with the same canonical form are equal. So names that occur twice, fractions and exponents are
//! refused, as is what follows the value. Depth and number of values are bounded. A value.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::limits::{MAX_DEPTH, MAX_VALUES};

/// A JSON value without fractions. The names of an object are in the order of their code points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number below zero.
    Negative(i64),
    /// A whole number.
    Integer(u64),
    /// A text.
    String(String),
    /// A list.
    Array(Vec<Json>),
    /// An object.
    Object(BTreeMap<String, Json>),
}

/// What is wrong with a file's form, in words for its maker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Json {
    /// Reads one value that fills `bytes`.
    ///
    /// # Errors
    /// For what is not JSON in UTF-8, or has duplicate names, fractions, more than [`MAX_DEPTH`] levels or more than
    /// [`MAX_VALUES`] values.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let left = Cell::new(MAX_VALUES);
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let value = Level {
            depth: MAX_DEPTH,
            left: &left,
        }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
        value.map_err(|error| Malformed(format!("not the JSON of metadata: {error}")))
    }

    /// The bytes that are signed: OLPC canonical JSON, as the specification and the reference implementation have it
    /// (4.1): no white space, names in order of code points, `"` and `\` escaped and nothing else.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_canonical(&mut out);
        out
    }

    fn write_canonical(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend(b"null"),
            Self::Bool(value) => out.extend(value.to_string().bytes()),
            Self::Negative(value) => out.extend(value.to_string().bytes()),
            Self::Integer(value) => out.extend(value.to_string().bytes()),
            Self::String(text) => write_text(text, out),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    separate(index, out);
                    item.write_canonical(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (index, (name, value)) in members.iter().enumerate() {
                    separate(index, out);
                    write_text(name, out);
                    out.push(b':');
                    value.write_canonical(out);
                }
                out.push(b'}');
            }
        }
    }

    /// The file's text: indented, names in order, a newline at the end. The same value always makes the same bytes.
    pub fn to_file(&self) -> Vec<u8> {
        let mut text =
            serde_json::to_vec_pretty(self).expect("names are texts and writing to memory works");
        text.push(b'\n');
        text
    }

    /// The object's members.
    ///
    /// # Errors
    /// When it is something else; `what` names it.
    pub fn object(&self, what: &str) -> Result<&BTreeMap<String, Json>, Malformed> {
        match self {
            Self::Object(members) => Ok(members),
            _ => Err(Malformed(format!("{what} is not an object"))),
        }
    }

    /// The list's items.
    ///
    /// # Errors
    /// When it is something else; `what` names it.
    pub fn array(&self, what: &str) -> Result<&[Json], Malformed> {
        match self {
            Self::Array(items) => Ok(items),
            _ => Err(Malformed(format!("{what} is not a list"))),
        }
    }

    /// The text.
    ///
    /// # Errors
    /// When it is something else; `what` names it.
    pub fn text(&self, what: &str) -> Result<&str, Malformed> {
        match self {
            Self::String(text) => Ok(text),
            _ => Err(Malformed(format!("{what} is not a text"))),
        }
    }

    /// The whole number from zero up.
    ///
    /// # Errors
    /// When it is something else; `what` names it.
    pub fn number(&self, what: &str) -> Result<u64, Malformed> {
        match self {
            Self::Integer(value) => Ok(*value),
            _ => Err(Malformed(format!(
                "{what} is not a whole number from zero up"
            ))),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// When it is something else; `what` names it.
    pub fn flag(&self, what: &str) -> Result<bool, Malformed> {
        match self {
            Self::Bool(value) => Ok(*value),
            _ => Err(Malformed(format!("{what} is neither true nor false"))),
        }
    }

    /// The member `name` of an object.
    ///
    /// # Errors
    /// When this is no object, or has no such member.
    pub fn member(&self, name: &str) -> Result<&Json, Malformed> {
        self.object(&format!("what should hold `{name}`"))?
            .get(name)
            .ok_or_else(|| Malformed(format!("`{name}` is missing")))
    }

    /// The member `name` of an object, `None` where it is absent.
    pub fn optional(&self, name: &str) -> Option<&Json> {
        match self {
            Self::Object(members) => members.get(name),
            _ => None,
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl<const N: usize> From<[(&str, Json); N]> for Json {
    fn from(members: [(&str, Json); N]) -> Self {
        Self::Object(
            members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Negative(value) => serializer.serialize_i64(*value),
            Self::Integer(value) => serializer.serialize_u64(*value),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(members) => serializer.collect_map(members),
        }
    }
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Reads one value that may hold `depth` levels, out of `left` values.
#[derive(Clone, Copy)]
struct Level<'a> {
    depth: usize,
    left: &'a Cell<usize>,
}

impl Level<'_> {
    fn below<E: Error>(self) -> Result<Self, E> {
        let depth = self
            .depth
            .checked_sub(1)
            .ok_or_else(|| E::custom(format!("more than {MAX_DEPTH} levels")))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        let left = self
            .left
            .get()
            .checked_sub(1)
            .ok_or_else(|| D::Error::custom(format!("more than {MAX_VALUES} values")))?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value without fractions")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Integer))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(below)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut members = BTreeMap::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(below)?;
            if members.contains_key(&name) {
                return Err(A::Error::custom(format!("the name {name:?} occurs twice")));
            }
            members.insert(name, value);
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(Json::parse(text.as_bytes()).unwrap().canonical()).unwrap()
    }

    fn refusal(text: &str) -> String {
        Json::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn canonical_json_is_that_of_the_reference_implementation() {
        assert_eq!(
            canonical(r#" { "y" : 2, "x":[ 99 , -3,true, null ], "é":"" } "#),
            r#"{"x":[99,-3,true,null],"y":2,"é":""}"#
        );
        assert_eq!(canonical("{}"), "{}");
        assert_eq!(canonical(r#""a\n\t\u00e9\"\\/""#), "\"a\n\té\\\"\\\\/\"");
        // Code points, not UTF-16 units, order the names: U+FF5E stands before U+1F600.
        assert_eq!(
            canonical(r#"{"\ud83d\ude00":1,"\uff5e":2,"Z":3,"a":4}"#),
            "{\"Z\":3,\"a\":4,\"\u{ff5e}\":2,\"\u{1f600}\":1}"
        );
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused() {
        assert!(refusal(r#"{"version":1,"version":2}"#).contains("\"version\" occurs twice"));
        assert!(refusal(r#"{"a":{"v":1,"\u0076":2}}"#).contains("\"v\" occurs twice"));
    }

    #[test]
    fn fractions_exponents_and_numbers_beyond_64_bits_are_refused() {
        for text in [
            "1.0",
            "1e3",
            "-0",
            "18446744073709551616",
            "-9223372036854775809",
        ] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(
            Json::parse(b"18446744073709551615"),
            Ok(Json::Integer(u64::MAX))
        );
    }

    #[test]
    fn what_follows_the_value_is_refused() {
        assert!(Json::parse(b"{} {}").is_err());
        assert!(Json::parse(b"{}\0").is_err());
        assert!(Json::parse(b"{} \n").is_ok());
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |levels| "[".repeat(levels) + &"]".repeat(levels);
        assert!(Json::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(refusal(&nested(MAX_DEPTH + 1)).contains("levels"));
        assert!(refusal(&nested(1_000_000)).contains("levels"));
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert!(refusal(&many).contains("values"));
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            any::<u64>().prop_map(Json::Integer),
            (i64::MIN..0).prop_map(Json::Negative),
            ".*".prop_map(Json::String),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Json::Array),
                prop::collection::btree_map(".*", inner, 0..8).prop_map(Json::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_file_reads_back_as_what_was_written(value in any_json()) {
            prop_assert_eq!(Json::parse(&value.to_file()), Ok(value));
        }

        #[test]
        fn different_values_have_different_canonical_forms(one in any_json(), other in any_json()) {
            prop_assert_eq!(one == other, one.canonical() == other.canonical());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Json::parse(&bytes);
        }
    }
}
