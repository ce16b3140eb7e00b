//! CONFORMANCE.md says which test shows which statement of the specifications, and stays true.
//!
//! The statements stand in `tests/conformance/mqtt-*.txt`. A test names those that it shows in its
//! documentation, as `3.1.1: [MQTT-2.3.1-1]` or `5.0: [MQTT-2.2.1-3]`: from both the table is made
//! and held against the file. `UPDATE_DOCS=1 cargo test --test conformance` writes it anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// The two specifications, with the number of statements in their appendix B.
const VERSIONS: [(&str, &str, usize); 2] = [
    ("3.1.1", include_str!("conformance/mqtt-3.1.1.txt"), 141),
    ("5.0", include_str!("conformance/mqtt-5.0.txt"), 251),
];

/// One numbered statement, without the `MQTT-` that they all begin with.
struct Statement {
    number: &'static str,
    binds: &'static str,
    asks: &'static str,
    /// Why no test shows it; empty where one does.
    why_not: &'static str,
}

/// Tests by the version and number that they show, as `path::name`.
type Shown = BTreeMap<(String, String), BTreeSet<String>>;

fn statements(list: &'static str) -> Vec<Statement> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.map(|line| {
        let mut fields = line.split(" | ");
        let mut next = || fields.next().unwrap_or_default();
        Statement {
            number: next(),
            binds: next(),
            asks: next(),
            why_not: next(),
        }
    });
    rows.collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the crate with its path from the crate's folder.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the crate") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((shown_path(&path), text));
            }
        }
    }
    found.sort();
    found
}

fn shown_path(path: &Path) -> String {
    let within = path.strip_prefix(root()).expect("a path of the crate");
    within.to_string_lossy().replace('\\', "/")
}

/// The numbers in `[MQTT-…]` or `MQTT-…`, wherever they stand in a text.
fn cited(text: &str) -> Vec<&str> {
    let numbers = text.split("MQTT-").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-');
        rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', '-'])
    });
    let is_number = |number: &&str| number.starts_with(|c: char| c.is_ascii_digit());
    numbers.filter(is_number).collect()
}

/// Reads which tests show what; fails on a mark that stands on no test.
fn shown(sources: &[(String, String)]) -> Shown {
    let mut shown = Shown::new();
    for (path, text) in sources {
        let mut marks: Vec<(String, String)> = Vec::new();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if let Some(doc) = line.strip_prefix("/// ") {
                let mark = VERSIONS.iter().find_map(|(version, ..)| {
                    let rest = doc.strip_prefix(version)?.strip_prefix(": [MQTT-")?;
                    Some((version, format!("MQTT-{rest}")))
                });
                if let Some((version, numbers)) = mark {
                    let numbers = cited(&numbers).into_iter();
                    marks.extend(numbers.map(|number| (version.to_string(), number.to_owned())));
                }
            } else if line.starts_with("#[") {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            } else if let Some(name) = function(line) {
                assert!(
                    is_test || marks.is_empty(),
                    "{path}: {name} is marked and no test"
                );
                for mark in marks.drain(..) {
                    shown
                        .entry(mark)
                        .or_default()
                        .insert(format!("{path}::{name}"));
                }
                is_test = false;
            } else if !line.is_empty() && !line.starts_with("//") {
                assert!(marks.is_empty(), "{path}: marks on no function: {line}");
                is_test = false;
            }
        }
    }
    shown
}

fn function(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches("pub ").trim_start_matches("async ");
    rest.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// What stands in the last column, and whether it names a test.
fn evidence(version: &str, statement: &Statement, shown: &Shown) -> (String, bool) {
    let number = statement.number;
    let tests = shown.get(&(version.to_owned(), number.to_owned()));
    match tests {
        Some(tests) => {
            assert_eq!(
                statement.why_not, "",
                "{version} {number} is shown after all"
            );
            let names: Vec<String> = tests.iter().map(|name| format!("`{name}`")).collect();
            (names.join("<br>"), true)
        }
        None if statement.binds == "client" => ("not applicable: binds clients".to_owned(), false),
        None => {
            assert_ne!(
                statement.why_not, "",
                "{version}: no test shows [MQTT-{number}]"
            );
            (format!("not applicable: {}", statement.why_not), false)
        }
    }
}

/// CONFORMANCE.md as it has to be.
fn document(shown: &Shown) -> String {
    let mut counts = String::new();
    let mut tables = String::new();
    for (version, list, _) in VERSIONS {
        let (mut tested, mut binding) = (0, 0);
        let all = statements(list);
        let _ = write!(
            tables,
            "\n## MQTT {version}\n\n| statement | asks | binds | shown by |\n|---|---|---|---|\n"
        );
        for statement in &all {
            let (evidence, is_tested) = evidence(version, statement, shown);
            tested += usize::from(is_tested);
            binding += usize::from(statement.binds != "client");
            let Statement {
                number,
                asks,
                binds,
                ..
            } = statement;
            let _ = writeln!(tables, "| MQTT-{number} | {asks} | {binds} | {evidence} |");
        }
        let _ = writeln!(
            counts,
            "| {version} | {} | {binding} | {tested} | {} |",
            all.len(),
            all.len() - tested
        );
    }
    format!(
        "# Conformance\n\n\
         Every numbered statement of MQTT 3.1.1 and 5.0 (appendix B of each), in our words, with \
         the tests that show it. Statements that bind clients alone are listed too: where a \
         client breaks one, a test shows what the broker does. This file is made by \
         `tests/conformance.rs` from `tests/conformance/mqtt-*.txt` and the marks on the tests, \
         and checked by it.\n\n\
         | version | statements | bind a server | shown by tests | not applicable |\n\
         |---|---|---|---|---|\n{counts}{tables}"
    )
}

#[test]
fn each_statement_stands_once_in_its_list() {
    for (version, list, count) in VERSIONS {
        let all = statements(list);
        let numbers: BTreeSet<&str> = all.iter().map(|statement| statement.number).collect();
        assert_eq!((all.len(), numbers.len()), (count, count), "{version}");
        for Statement {
            number,
            binds,
            asks,
            ..
        } in &all
        {
            assert_eq!(cited(&format!("[MQTT-{number}]")), [*number]);
            assert!(
                ["server", "client", "both"].contains(binds),
                "{number}: {binds}"
            );
            assert!(!asks.is_empty(), "{number}");
        }
    }
}

#[test]
fn every_number_that_is_cited_is_one_of_the_specifications() {
    let known: BTreeSet<&str> = VERSIONS
        .iter()
        .flat_map(|(_, list, _)| statements(list))
        .map(|statement| statement.number)
        .collect();
    let sources = sources();
    let mut count = 0;
    for (path, text) in sources
        .iter()
        .filter(|(path, _)| path != "tests/conformance.rs")
    {
        for number in cited(text) {
            assert!(known.contains(number), "{path} cites [MQTT-{number}]");
            count += 1;
        }
    }
    assert!(count > 300, "only {count} citations were found");
    for (version, number) in shown(&sources).keys() {
        let (_, list, _) = VERSIONS
            .iter()
            .find(|(name, ..)| name == version)
            .expect("a version");
        let is_listed = statements(list)
            .iter()
            .any(|statement| statement.number == number);
        assert!(is_listed, "a test claims {version} [MQTT-{number}]");
    }
}

#[test]
fn conformance_md_says_what_the_tests_say() {
    let path = root().join("CONFORMANCE.md");
    let expected = document(&shown(&sources()));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).expect("CONFORMANCE.md is written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = found
        .lines()
        .zip(expected.lines())
        .find(|(old, new)| old != new);
    assert!(
        found == expected,
        "CONFORMANCE.md is not what the tests say, at {differs:?}; \
         UPDATE_DOCS=1 cargo test -p broker-lite --test conformance writes it"
    );
}
