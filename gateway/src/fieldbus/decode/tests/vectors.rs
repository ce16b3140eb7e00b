//! Tables of vectors, one file per family of types: registers, what is printed of them, and the point's type and keys as
//! the configuration names them. They were made with Python's `struct` and `decimal`, not with the code they judge.
//!
//! Invariant: `docs/types.md` says how many there are of each type.

use std::{collections::BTreeMap, fs, path::Path};

use super::*;

const TABLES: [(&str, &str); 6] = [
    ("integers", include_str!("vectors/integers.txt")),
    ("floats", include_str!("vectors/floats.txt")),
    ("decimals", include_str!("vectors/decimals.txt")),
    ("bits", include_str!("vectors/bits.txt")),
    ("texts", include_str!("vectors/texts.txt")),
    ("scaled", include_str!("vectors/scaled.txt")),
];

/// Where a line counts vectors by type.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/types.md");
const COUNTS_BEGIN: &str = "<!-- counts -->\n";
const COUNTS_END: &str = "<!-- end of counts -->";

/// One line of a table.
struct Vector {
    place: String,
    kind: String,
    words: Vec<u16>,
    /// What is printed; `!` begins the reason why there is no value.
    printed: String,
    point: Point,
}

fn vectors() -> impl Iterator<Item = Vector> {
    TABLES.into_iter().flat_map(|(name, text)| {
        let lines = text.lines().enumerate();
        let rows = lines.filter(|(_, line)| !line.starts_with('#'));
        rows.map(move |(index, line)| vector(line, format!("{name}.txt:{}", index + 1)))
    })
}

fn vector(line: &str, place: String) -> Vector {
    let columns: Vec<&str> = line.splitn(3, " | ").collect();
    let [words, printed, keys] = columns[..] else {
        panic!("{place}: three columns");
    };
    let word = |word| u16::from_str_radix(word, 16).expect("four hexadecimal digits");
    let mut keys = keys.split_whitespace();
    let kind = keys.next().expect("a type").to_owned();
    Vector {
        words: words.split_whitespace().map(word).collect(),
        printed: printed.trim_end().replace("\\0", "\0").replace("\\s", " "),
        point: configured(&kind, keys),
        kind,
        place,
    }
}

/// The point as the configuration's own types read it.
fn configured<'a>(kind: &str, keys: impl Iterator<Item = &'a str>) -> Point {
    let mut point = serde_json::json!({
        "name": "p", "register": "holding:0", "type": kind, "access": "read-write"
    });
    for key in keys {
        let (key, value) = key.split_once('=').expect("key=value");
        let text = || serde_json::Value::from(value);
        point[key] = serde_json::from_str(value).unwrap_or_else(|_| text());
    }
    serde_json::from_value(point).expect("a point")
}

fn printed(decoded: Result<Value, BadValue>) -> String {
    match decoded {
        Ok(value) => value.to_string(),
        Err(bad) => format!("! {bad}"),
    }
}

#[test]
fn every_vector_prints_as_a_technician_writes_it() {
    for vector in vectors() {
        let decoded = Codec::of(&vector.point).decode(&vector.words);
        assert_eq!(printed(decoded), vector.printed, "{}", vector.place);
    }
}

#[test]
fn every_vector_is_written_as_it_was_read() {
    for vector in vectors() {
        let point = &vector.point;
        let codec = Codec::of(point);
        let Ok(value) = codec.decode(&vector.words) else {
            continue;
        };
        let part = point.bit.is_some() || point.bits.is_some() || !point.flags.is_empty();
        match codec.encode(&as_command(&value)) {
            Ok(encoded) => {
                let read = codec.decode(&after(&vector.words, &encoded));
                assert_eq!(read, Ok(value), "{}", vector.place);
            }
            Err(WriteError::PartOfSeveral) if part && vector.words.len() > 1 => {}
            Err(error) => panic!("{}: {error}", vector.place),
        }
    }
}

/// `UPDATE_DOCS=1` writes the counts anew.
#[test]
fn the_document_counts_the_vectors_of_every_type() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for vector in vectors() {
        *counts.entry(vector.kind).or_default() += 1;
    }
    for kind in [
        "bool", "u8", "i8", "u16", "i16", "u24", "i24", "u32", "i32", "u48", "i48", "u64", "i64",
        "f16", "f32", "f64", "bcd8", "bcd16", "bcd24", "bcd32", "bcd48", "bcd64", "string", "raw",
    ] {
        assert!(counts.get(kind).is_some_and(|count| *count >= 4), "{kind}");
    }
    let mut table = String::from("| type | vectors |\n|---|---|\n");
    for (kind, count) in &counts {
        table.push_str(&format!("| `{kind}` | {count} |\n"));
    }
    let total: usize = counts.values().sum();
    table.push_str(&format!("| all | {total} |\n"));
    let path = Path::new(DOCUMENT);
    let document = fs::read_to_string(path).expect("docs/types.md");
    let (before, rest) = document.split_once(COUNTS_BEGIN).expect("a place");
    let (_, after) = rest.split_once(COUNTS_END).expect("its end");
    let wanted = format!("{before}{COUNTS_BEGIN}{table}{COUNTS_END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, &wanted).expect("writable");
    }
    assert!(
        document == wanted || std::env::var_os("UPDATE_DOCS").is_some(),
        "docs/types.md is old: run this test with UPDATE_DOCS=1"
    );
}
