//! The password file: one line per user and kind of verifier, comments and blank lines between.
//! Values.
//!
//! ```text
//! # ann's panel in hall 3
//! ann:$argon2id$v=19$m=19456,t=2,p=1$…$…
//! ann:SCRAM-SHA-256$10000:…$…:…
//! press-3:$7$101$…$…
//! ```
//!
//! Invariant: a file is taken as a whole or not at all, so that a bad line lets nobody in
//! (CVE-2018-12551); lines that are not changed stay as they are.

use std::{collections::BTreeMap, fmt};

use super::{ScramKeys, Verifier, VerifierError};

/// More users than sessions are remembered by default are no plant's.
const USERS_MAX: usize = 10_000;

/// Longest user name, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Bad lines told at once; nobody reads on.
const PROBLEMS_MAX: usize = 20;

/// What is known of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Checks a password in CONNECT.
    pub password: Option<Verifier>,
    /// Checks a client's proof in an AUTH exchange.
    pub scram: Option<ScramKeys>,
}

/// A line that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}; {remedy}")]
pub struct LineProblem {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// A comment, or nothing.
    Remark(String),
    Password {
        name: String,
        verifier: Verifier,
    },
    Scram {
        name: String,
        keys: ScramKeys,
    },
}

/// A password file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PasswordFile {
    lines: Vec<Line>,
}

impl PasswordFile {
    /// Reads a file's text; `Err` holds the bad lines, at most twenty of them.
    pub fn parse(text: &str) -> Result<PasswordFile, Vec<LineProblem>> {
        let (mut lines, mut problems) = (Vec::new(), Vec::new());
        let mut seen = BTreeMap::new();
        for (number, text) in (1..).zip(text.lines()) {
            match parse_line(text) {
                Ok(line) => {
                    if let Some(key) = line.key()
                        && let Some(first) = seen.insert(key, number)
                    {
                        problems.push(twice(number, first, &line));
                    }
                    lines.push(line);
                }
                Err((what, remedy)) => problems.push(LineProblem {
                    line: number,
                    what,
                    remedy,
                }),
            }
            if seen.len() > 2 * USERS_MAX {
                problems.push(LineProblem {
                    line: number,
                    what: format!("more than {USERS_MAX} users"),
                    remedy: "give the others certificates",
                });
            }
            if problems.len() >= PROBLEMS_MAX {
                break;
            }
        }
        if problems.is_empty() {
            Ok(PasswordFile { lines })
        } else {
            Err(problems)
        }
    }

    /// Every user, by name.
    pub fn users(&self) -> BTreeMap<&str, Credentials> {
        let mut users: BTreeMap<&str, Credentials> = BTreeMap::new();
        for line in &self.lines {
            match line {
                Line::Remark(_) => {}
                Line::Password { name, verifier } => {
                    users.entry(name).or_default().password = Some(verifier.clone());
                }
                Line::Scram { name, keys } => {
                    users.entry(name).or_default().scram = Some(keys.clone());
                }
            }
        }
        users
    }

    /// Whether a user of this name is in it.
    pub fn has(&self, name: &str) -> bool {
        self.lines.iter().any(|line| line.is_of(name))
    }

    /// Gives a user these credentials in place of all earlier ones; true when it was known. The
    /// name must be one that [`check_name`] takes.
    pub fn set(&mut self, name: &str, credentials: Credentials) -> bool {
        let first = self.lines.iter().position(|line| line.is_of(name));
        self.remove(name);
        let at = first.unwrap_or(self.lines.len());
        let name = || name.to_owned();
        let scram = credentials
            .scram
            .map(|keys| Line::Scram { name: name(), keys });
        let password = credentials.password.map(|verifier| Line::Password {
            name: name(),
            verifier,
        });
        self.lines.splice(at..at, password.into_iter().chain(scram));
        first.is_some()
    }

    /// Removes a user; false when there is none of this name.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| !line.is_of(name));
        self.lines.len() < before
    }
}

/// The file's text, as it is written.
impl fmt::Display for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Remark(text) => writeln!(f, "{text}")?,
                Line::Password { name, verifier } => writeln!(f, "{name}:{verifier}")?,
                Line::Scram { name, keys } => writeln!(f, "{name}:{keys}")?,
            }
        }
        Ok(())
    }
}

impl Line {
    fn is_of(&self, wanted: &str) -> bool {
        match self {
            Line::Remark(_) => false,
            Line::Password { name, .. } | Line::Scram { name, .. } => name == wanted,
        }
    }

    /// What no two lines may share: the name, and whether it is for SCRAM.
    fn key(&self) -> Option<(String, bool)> {
        match self {
            Line::Remark(_) => None,
            Line::Password { name, .. } => Some((name.clone(), false)),
            Line::Scram { name, .. } => Some((name.clone(), true)),
        }
    }
}

/// One line of another broker's password file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// From 1.
    pub line: usize,
    /// The user and the verifier as it was, or why not.
    pub outcome: Result<(String, Verifier), String>,
}

/// Reads a file of `mosquitto_passwd` line by line; a bad line spoils no other.
pub fn import(text: &str) -> Vec<Imported> {
    let outcome = |text: &str| match parse_line(text) {
        Ok(Line::Password { name, verifier }) => Some(Ok((name, verifier))),
        Ok(Line::Scram { .. }) => Some(Err("keys for SCRAM are no line of mosquitto's".to_owned())),
        Ok(Line::Remark(_)) => None,
        Err((what, remedy)) => Some(Err(format!("{what}; {remedy}"))),
    };
    (1..)
        .zip(text.lines())
        .filter_map(|(line, text)| {
            Some(Imported {
                line,
                outcome: outcome(text)?,
            })
        })
        .collect()
}

/// Why a text cannot be a user name in a password file.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("the user name is empty")
    } else if name.len() > NAME_BYTES_MAX {
        Err("the user name has more than 256 bytes")
    } else if name.contains(':') {
        Err("a user name holds no colon, which ends it in the file")
    } else if name.starts_with('#') {
        Err("a user name does not begin with #, which begins a comment in the file")
    } else if name.chars().any(char::is_control) || name.trim() != name {
        Err("a user name holds no control character and no space at its ends")
    } else {
        Ok(())
    }
}

fn parse_line(text: &str) -> Result<Line, (String, &'static str)> {
    if text.trim().is_empty() || text.starts_with('#') {
        return Ok(Line::Remark(text.to_owned()));
    }
    let Some((name, verifier)) = text.split_once(':') else {
        let what = "there is no colon between a user name and a password hash".to_owned();
        return Err((what, ADD_AGAIN));
    };
    check_name(name).map_err(|what| (what.to_owned(), "choose another name"))?;
    let name = name.to_owned();
    let refused = |error: VerifierError| (format!("user {name:?}: {error}"), ADD_AGAIN);
    if ScramKeys::is_meant(verifier) {
        let keys = ScramKeys::parse(verifier).map_err(refused)?;
        return Ok(Line::Scram { name, keys });
    }
    let verifier = Verifier::parse(verifier).map_err(refused)?;
    Ok(Line::Password { name, verifier })
}

const ADD_AGAIN: &str = "remove the line and run `broker-lite passwd add` for this user";

fn twice(line: usize, first: usize, present: &Line) -> LineProblem {
    let name = present.key().map(|(name, _)| name).unwrap_or_default();
    LineProblem {
        line,
        what: format!("user {name:?} stands in line {first} already"),
        remedy: "remove one of the two lines",
    }
}
