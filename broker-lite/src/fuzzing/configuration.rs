//! The configuration on any text: it is taken, or every problem stands at a place of the file.
//!
//! Values. Invariant: nothing but the text is read.

use settings::{Checks, Formats};

use crate::config::{self, Config};

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let checks = Checks {
        formats: Formats::default(),
        across: |config: &mut Config, document| config::check(config, document, ""),
    };
    let problems = match settings::parse("broker.toml", text, &checks) {
        Ok(loaded) => {
            for rule in &loaded.value.access {
                for pattern in rule.publish.iter().chain(&rule.subscribe) {
                    let checked = pattern.check();
                    assert!(checked.is_ok(), "{pattern:?} was taken: {checked:?}");
                }
            }
            loaded.warnings
        }
        Err(problems) => {
            assert!(problems.has_errors(), "refused without an error");
            problems
        }
    };
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in problems.iter() {
        let place = problem.location;
        let line = place.line.checked_sub(1).and_then(|line| lines.get(line));
        let line = line.unwrap_or_else(|| panic!("{problem} is at no line of the file"));
        let columns = line.chars().count() + 1;
        assert!(
            (1..=columns).contains(&place.column),
            "{problem} is outside its line of {columns} columns"
        );
        assert!(!problem.what.is_empty(), "a problem says what it is");
    }
}
