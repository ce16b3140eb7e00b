//! A local client's name. Value.
//!
//! Invariant: a name is one plain level of a topic, a common name and a line's beginning in a
//! password file, whatever stands around it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: a common name's bound (RFC 5280, appendix A.1, `ub-common-name`).
const NAME_BYTES_MAX: usize = 64;

/// What a client of the local broker is called: in certificates, topics and files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientName(String);

impl ClientName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientName {
    type Err = String;

    fn from_str(text: &str) -> Result<ClientName, String> {
        let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match begins && text.chars().all(plain) && text.len() <= NAME_BYTES_MAX {
            true => Ok(ClientName(text.to_owned())),
            false => Err(format!(
                "{text:?} is no client's name: it has 1 to {NAME_BYTES_MAX} letters, digits, -, _ or . \
                 and begins with a letter or a digit"
            )),
        }
    }
}

impl TryFrom<String> for ClientName {
    type Error = String;

    fn try_from(text: String) -> Result<ClientName, String> {
        text.parse()
    }
}

impl From<ClientName> for String {
    fn from(name: ClientName) -> String {
        name.0
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_level_of_a_topic() {
        for good in ["press-3", "7", "A.b_c-d", &"x".repeat(64)] {
            assert!(good.parse::<ClientName>().is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in [
            "", "a/b", "+", "#", "%u", "$SYS", "-a", ".a", "..", "a b", "a:b", "a\n", "ä", &long,
        ] {
            assert!(bad.parse::<ClientName>().is_err(), "{bad:?}");
        }
    }
}
