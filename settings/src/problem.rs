//! What is wrong in a configuration file, where, and what to write instead.
//!
//! Invariant: a list of problems is sorted by position and never longer than [`MAX_PROBLEMS`].
//! Layer: value.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Problems kept from one file. A file of another kind (a log, a certificate) has one per line,
/// and nobody reads the hundred-and-first.
const MAX_PROBLEMS: usize = 100;

/// A place in a file; both numbers count from 1, columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// Line, from 1.
    pub line: usize,
    /// Character within the line, from 1.
    pub column: usize,
}

/// Whether a problem stops the configuration from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration works, but probably not as meant.
    Warning,
}

/// One finding; prints as `file:line:column: what; remedy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file's name as the operator gave it.
    pub file: Arc<str>,
    /// Where to look.
    #[serde(flatten)]
    pub location: Location,
    /// The key's path, such as `device[2].point[0].register`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead; empty when `what` says it already.
    pub remedy: String,
    /// Whether it stops the configuration from being used.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Location { line, column } = self.location;
        write!(f, "{}:{line}:{column}: ", self.file)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Everything found in one file, in the order of the file; prints one problem per line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    listed: Vec<Problem>,
    left_off: usize,
    has_errors: bool,
}

impl Problems {
    /// Sorts the problems by position and keeps the first hundred.
    pub fn new(mut listed: Vec<Problem>) -> Self {
        listed.sort_by(|a, b| (a.location, &a.path).cmp(&(b.location, &b.path)));
        let has_errors = listed.iter().any(|p| p.severity == Severity::Error);
        let left_off = listed.len().saturating_sub(MAX_PROBLEMS);
        listed.truncate(MAX_PROBLEMS);
        Self {
            listed,
            left_off,
            has_errors,
        }
    }

    /// Adds what a later check found.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Problem>) {
        let mut all = std::mem::take(&mut self.listed);
        all.extend(more);
        let earlier = std::mem::replace(self, Self::new(all));
        self.left_off += earlier.left_off;
        self.has_errors |= earlier.has_errors;
    }

    /// Whether anything stops the configuration from being used.
    pub fn has_errors(&self) -> bool {
        self.has_errors
    }

    /// Whether nothing was found, not even a warning.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// How many problems are listed.
    pub fn len(&self) -> usize {
        self.listed.len()
    }

    /// The problems in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.listed.iter()
    }

    /// The problems as a JSON array of objects with `file`, `line`, `column`, `path`, `what`,
    /// `remedy` and `severity`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self.listed)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.listed.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.left_off > 0 {
            write!(f, "\n{} more problems are not shown", self.left_off)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: usize, severity: Severity) -> Problem {
        Problem {
            file: "gateway.toml".into(),
            location: Location { line, column: 12 },
            path: "device[0].point[0].register".to_owned(),
            what: "device \"meter\" reads 4 registers as f32, which takes 2".to_owned(),
            remedy: "write type = \"f64\"".to_owned(),
            severity,
        }
    }

    #[test]
    fn a_problem_prints_its_place_what_is_wrong_and_the_remedy() {
        assert_eq!(
            problem(41, Severity::Error).to_string(),
            "gateway.toml:41:12: device \"meter\" reads 4 registers as f32, which takes 2; \
             write type = \"f64\""
        );
    }

    #[test]
    fn a_warning_says_that_it_is_one_and_stops_nothing() {
        let problems = Problems::new(vec![problem(1, Severity::Warning)]);
        assert!(!problems.has_errors());
        assert!(problems.to_string().contains(":1:12: warning: device"));
    }

    #[test]
    fn problems_stand_in_the_order_of_the_file() {
        let mut problems = Problems::new(vec![
            problem(9, Severity::Error),
            problem(2, Severity::Error),
        ]);
        problems.extend([problem(5, Severity::Error)]);
        let lines: Vec<usize> = problems.iter().map(|p| p.location.line).collect();
        assert_eq!(lines, [2, 5, 9]);
    }

    #[test]
    fn a_list_is_cut_at_its_bound_and_says_how_much_is_missing() {
        let mut problems = Problems::new(
            (0..MAX_PROBLEMS + 5)
                .map(|n| problem(n + 1, Severity::Error))
                .collect(),
        );
        problems.extend([problem(1, Severity::Error)]);
        assert_eq!(problems.len(), MAX_PROBLEMS);
        assert!(
            problems
                .to_string()
                .ends_with("6 more problems are not shown")
        );
    }

    #[test]
    fn json_carries_place_and_path_for_tools() {
        let json = Problems::new(vec![problem(41, Severity::Error)]).to_json();
        assert_eq!(json[0]["line"], 41);
        assert_eq!(json[0]["path"], "device[0].point[0].register");
        assert_eq!(json[0]["severity"], "error");
    }
}
