//! From a file or text to the program's value, or to everything that is wrong with it.
//!
//! Invariant: a value comes only from a text without any error. Layer: driver.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use crate::check::{Check, MAX_FOUND};
use crate::document::Document;
use crate::format::Formats;
use crate::problem::{Location, Problem, Problems, Severity};
use crate::rest;

/// Largest configuration file read: ten thousand points written out are about one MiB.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A configuration that has no errors.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The program's value.
    pub value: T,
    /// The file, for checks that speak of places in it.
    pub document: Document,
    /// What works, but probably not as meant.
    pub warnings: Problems,
}

/// Why a configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be opened or read.
    #[error("cannot read configuration {path}: {source} ({hint})")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operator may look at.
        hint: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error(
        "configuration {0} refused: it is larger than {limit} MiB; is it the right file?",
        limit = MAX_FILE_BYTES / (1024 * 1024)
    )]
    TooLarge(PathBuf),
    /// The file's content is wrong.
    #[error("{0}")]
    Problems(Problems),
}

/// What a file of type `T` is checked for beside its schema.
#[derive(Debug, Clone)]
pub struct Checks<T> {
    /// Forms of texts, by the name the schema gives them.
    pub formats: Formats,
    /// Completes the value from elsewhere where it has to be, and tells what one key says about
    /// another, as problems by path.
    pub across: fn(&mut T, &Document) -> Vec<Problem>,
}

impl<T> Default for Checks<T> {
    /// The common forms, and nothing across keys.
    fn default() -> Self {
        Self {
            formats: Formats::default(),
            across: |_, _| Vec::new(),
        }
    }
}

/// Reads a file and checks it against the types of `T`.
///
/// # Errors
/// The file cannot be read, or every problem in it.
pub fn load<T: DeserializeOwned + JsonSchema>(
    path: &Path,
    checks: &Checks<T>,
) -> Result<Loaded<T>, LoadError> {
    let bytes = read(path)?;
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|error| {
        LoadError::Problems(not_text(&name, error.as_bytes(), error.utf8_error()))
    })?;
    parse(&name, &text, checks).map_err(LoadError::Problems)
}

/// Checks a text against the types of `T`; `name` stands for the file in messages.
///
/// # Errors
/// Every problem in it.
pub fn parse<T: DeserializeOwned + JsonSchema>(
    name: &str,
    text: &str,
    checks: &Checks<T>,
) -> Result<Loaded<T>, Problems> {
    let (tree, faults) = DeTable::parse_recoverable(text);
    let document = Document::new(name, text, &tree);
    let schema = schema::<T>(name);
    let check = Check {
        schema: &schema,
        formats: &checks.formats,
        document: &document,
    };
    let found = beside_syntax(&document, &faults, check.file());
    let has_errors = found
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    if has_errors {
        let more = match faults.is_empty() {
            true => rest::check(tree, &document, &found, checks.across),
            false => Vec::new(),
        };
        return Err(Problems::new([found, more].concat()));
    }
    let mut problems = Problems::new(found);
    match T::deserialize(toml::Deserializer::from(tree)) {
        Ok(mut value) => {
            problems.extend((checks.across)(&mut value, &document));
            if problems.has_errors() {
                return Err(problems);
            }
            Ok(Loaded {
                value,
                document,
                warnings: problems,
            })
        }
        Err(error) => {
            problems.extend([toml_problem(&document, &error, String::new())]);
            Err(problems)
        }
    }
}

/// The JSON Schema of a configuration's types, for editors.
pub fn schema<T: JsonSchema>(title: &str) -> serde_json::Value {
    let mut schema = schemars::schema_for!(T);
    schema.insert("title".to_owned(), title.into());
    schema.to_value()
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |source: io::Error| LoadError::Read {
        path: path.to_owned(),
        hint: match source.kind() {
            io::ErrorKind::NotFound => "is the path right?",
            io::ErrorKind::PermissionDenied => "may this user read it, and enter its directory?",
            io::ErrorKind::IsADirectory => "name the file inside it",
            _ => "is the disk in order?",
        },
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// Where a file stops being text.
fn not_text(name: &str, bytes: &[u8], error: std::str::Utf8Error) -> Problems {
    let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
    let column = valid.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let line = valid.matches('\n').count() + 1;
    Problems::new(vec![Problem {
        file: name.into(),
        location: Location { line, column },
        path: String::new(),
        what: "not UTF-8 text from here on".to_owned(),
        remedy: "save the file in the UTF-8 encoding".to_owned(),
        severity: Severity::Error,
    }])
}

/// Joins faults of syntax with those of the check that they did not cause. A line with a fault may
/// hold any key, so keys are not said to be missing; a header with a fault leaves open whose keys
/// follow, so what stands below it is not judged.
fn beside_syntax(
    document: &Document,
    faults: &[toml::de::Error],
    checked: Vec<Problem>,
) -> Vec<Problem> {
    let faults = &faults[..faults.len().min(MAX_FOUND)];
    let start = |fault: &toml::de::Error| fault.span().map_or(0, |span| span.start);
    let line = |fault: &toml::de::Error| document.locate(start(fault)).line;
    let lines: BTreeSet<usize> = faults.iter().map(line).collect();
    let judged_to = faults
        .iter()
        .filter(|fault| document.line_of(start(fault)).trim_start().starts_with('['))
        .map(line)
        .min();
    let stands = |problem: &Problem| {
        let line = problem.location.line;
        let missing = !document.has(&problem.path);
        let below = judged_to.is_some_and(|last| line >= last);
        !lines.contains(&line) && !missing && !below
    };
    let kept = checked
        .into_iter()
        .filter(|p| faults.is_empty() || stands(p));
    let syntax = faults
        .iter()
        .map(|fault| toml_problem(document, fault, syntax_remedy(fault.message())));
    syntax.chain(kept).collect()
}

fn toml_problem(document: &Document, error: &toml::de::Error, remedy: String) -> Problem {
    let start = error.span().map_or(0, |span| span.start);
    let location = document.locate(start);
    document.problem(location, "", error.message(), remedy, Severity::Error)
}

/// What to write where the parser's words leave that open.
fn syntax_remedy(message: &str) -> String {
    let remedies = [
        (
            "string values must be quoted",
            "put the text in double quotes",
        ),
        (
            "duplicate key",
            "a key stands once in its table; several tables of one name are [[name]]",
        ),
        ("key with no value", "write key = value"),
        ("missing value", "write a value behind the ="),
        ("unclosed array", "close it with ]"),
        ("unclosed table", "close the header with ]"),
        ("unclosed array table", "close the header with ]]"),
        ("unclosed inline table", "close it with }"),
    ];
    remedies
        .iter()
        .rev()
        .find(|(words, _)| message.starts_with(words))
        .map(|(_, remedy)| (*remedy).to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    struct Config {
        id: String,
    }

    /// What loading a file of this content says, with the directory's name taken out.
    fn loaded(content: &[u8]) -> String {
        let directory = tempfile::tempdir().expect("a directory for the test");
        let path = directory.path().join("gateway.toml");
        std::fs::write(&path, content).expect("a file for the test");
        message(directory.path(), &path)
    }

    fn message(directory: &Path, path: &Path) -> String {
        let message = match load::<Config>(path, &Checks::default()) {
            Ok(loaded) => loaded.value.id,
            Err(error) => error.to_string(),
        };
        message.replace(&directory.display().to_string(), "/d")
    }

    #[test]
    fn a_file_is_loaded() {
        assert_eq!(loaded(b"id = \"plant-7\"\n"), "plant-7");
    }

    #[test]
    fn problems_of_a_file_bear_its_path() {
        assert_eq!(
            loaded(b"id = 1\n"),
            "/d/gateway.toml:1:6: id is an integer, must be a string; put it in quotes"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_names_path_and_reason() {
        let directory = tempfile::tempdir().expect("a directory for the test");
        assert_eq!(
            message(directory.path(), &directory.path().join("gateway.toml")),
            "cannot read configuration /d/gateway.toml: No such file or directory (os error 2) \
             (is the path right?)"
        );
        assert_eq!(
            message(directory.path(), directory.path()),
            "cannot read configuration /d: Is a directory (os error 21) (name the file inside it)"
        );
    }

    #[test]
    fn a_file_above_the_bound_is_refused() {
        let content = vec![b'#'; usize::try_from(MAX_FILE_BYTES).expect("fits") + 1];
        assert_eq!(
            loaded(&content),
            "configuration /d/gateway.toml refused: it is larger than 4 MiB; is it the right file?"
        );
    }

    #[test]
    fn a_file_in_another_encoding_is_refused_where_that_shows() {
        assert_eq!(
            loaded(b"# a\nid = \"\xe4\"\n"),
            "/d/gateway.toml:2:7: not UTF-8 text from here on; save the file in the UTF-8 encoding"
        );
    }
}
