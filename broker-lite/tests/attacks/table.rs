//! The table of attacks in `docs/security.md` names every test here, and nothing that is not there.

use std::{collections::BTreeSet, fs, path::Path};

fn read(path: impl AsRef<Path>) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).unwrap()
}

/// `file::name` of the tests in a file.
fn tests_in(file: &str, text: &str) -> Vec<String> {
    let after_attribute = text.split("#[test]\n").skip(1);
    let names = after_attribute.filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
    names
        .map(|(name, _)| format!("attacks/{file}::{name}"))
        .collect()
}

#[test]
fn every_attack_stands_in_the_table_and_every_test_there_exists() {
    let manual = read("../docs/security.md");
    let (_, table) = manual.split_once("## Attacks\n").unwrap();
    let named: BTreeSet<&str> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.contains("::"))
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let text = read(format!("tests/attacks/{file}"));
        for test in tests_in(file.trim_end_matches(".rs"), &text) {
            count += 1;
            let is_this = test.starts_with("attacks/table::");
            assert!(
                is_this || named.contains(&*test),
                "not in the table: {test}"
            );
        }
    }
    assert!(count > 45, "{count}");
    for test in named {
        let (path, name) = test.split_once("::").unwrap();
        let folder = if path.starts_with("broker/") {
            "src"
        } else {
            "tests"
        };
        let text = read(format!("{folder}/{path}.rs"));
        assert!(
            text.contains(&format!("fn {name}(")),
            "no such test: {test}"
        );
    }
}
