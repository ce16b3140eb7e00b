//! Metadata as the specification's chapter 4 describes it, read into types that hold what the workflow needs.
//!
//! Invariant: what is not as chapter 4 says is refused whole; unknown fields are signed and otherwise ignored. A value.

mod root;
pub use root::{Root, TopRole};

mod files;
pub(crate) use files::FileMeta;
pub use files::{Hashes, Snapshot, Timestamp};

mod targets;
pub use targets::{Target, Targets};
pub(crate) use targets::{check_role_name, check_target_path};

use std::collections::{BTreeMap, BTreeSet};

use crate::json::{Json, Malformed};
use crate::key::PublicKey;
use crate::limits::MAX_ROLE_KEYS;
use crate::time::parse_time;

/// What every role's metadata has (4.2, 4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Common {
    /// From 1 up; never falls.
    pub version: u64,
    /// From then on the metadata is not to be used.
    pub expires: jiff::Timestamp,
}

impl Common {
    fn parse(signed: &Json, role_type: &str) -> Result<Self, Malformed> {
        let found = signed.member("_type")?.text("`_type`")?;
        if found != role_type {
            return Err(Malformed(format!(
                "the type is {found:?} instead of {role_type:?}"
            )));
        }
        check_spec_version(signed.member("spec_version")?.text("`spec_version`")?)?;
        Ok(Self {
            version: parse_version(signed.member("version")?)?,
            expires: parse_time(signed.member("expires")?.text("`expires`")?)?,
        })
    }
}

/// Metadata of one type of role.
pub(crate) trait Metadata: Sized {
    /// Reads the signed part of a file.
    fn parse(signed: &Json) -> Result<Self, Malformed>;

    /// Version and expiry.
    fn common(&self) -> &Common;
}

/// Which keys a role signs with, and how many of them it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleKeys {
    /// Ids; those of keys that this client cannot use count for nothing.
    pub key_ids: BTreeSet<String>,
    /// From 1 up.
    pub threshold: usize,
}

impl RoleKeys {
    fn parse(role: &Json) -> Result<Self, Malformed> {
        let listed = role.member("keyids")?.array("`keyids`")?;
        if listed.len() > MAX_ROLE_KEYS {
            return Err(Malformed(format!(
                "a role has more than {MAX_ROLE_KEYS} keys"
            )));
        }
        let mut key_ids = BTreeSet::new();
        for id in listed {
            let id = id.text("a key id")?;
            if !key_ids.insert(id.to_owned()) {
                return Err(Malformed(format!("a role lists the key {id} twice")));
            }
        }
        let threshold = role.member("threshold")?.number("`threshold`")?;
        Ok(Self {
            key_ids,
            threshold: usize::try_from(threshold)
                .ok()
                .filter(|threshold| *threshold > 0)
                .ok_or_else(|| Malformed("a threshold is not a number from 1 up".into()))?,
        })
    }
}

/// Who may sign a file: the keys that the delegating metadata knows, and what it says of the role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Authority<'a> {
    pub(crate) keys: &'a BTreeMap<String, PublicKey>,
    pub(crate) role: &'a RoleKeys,
}

/// A version number is an integer greater than 0 (4.3).
fn parse_version(version: &Json) -> Result<u64, Malformed> {
    match version.number("a version")? {
        0 => Err(Malformed("a version is 0".into())),
        version => Ok(version),
    }
}

/// The major version must be ours (4.3, SPEC_VERSION). `1.0`, without the last part, occurs in old metadata.
fn check_spec_version(version: &str) -> Result<(), Malformed> {
    let parts: Vec<_> = version.split('.').collect();
    let numbers = parts
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if numbers && (2..=3).contains(&parts.len()) && parts[0] == "1" {
        return Ok(());
    }
    Err(Malformed(format!(
        "specification version {version:?} is not one of 1.x that this client knows"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn common(text: &str) -> Result<Common, Malformed> {
        Common::parse(&Json::parse(text.as_bytes()).unwrap(), "root")
    }

    #[test]
    fn a_version_is_a_whole_number_from_one_up() {
        let with = |version: &str| {
            common(&format!(
                r#"{{"_type":"root","spec_version":"1.0.31","version":{version},"expires":"2030-01-01T00:00:00Z"}}"#
            ))
        };
        assert_eq!(with("1").unwrap().version, 1);
        for version in ["0", "-1", "true", "\"1\"", "null"] {
            assert!(with(version).is_err(), "{version}");
        }
    }

    #[test]
    fn other_specifications_are_refused() {
        for version in ["1.0", "1.0.0", "1.0.34"] {
            assert_eq!(check_spec_version(version), Ok(()), "{version}");
        }
        for version in ["2.0.0", "1", "10.0.0", "1..0", "1.0.0.0", "1.a", ""] {
            assert!(check_spec_version(version).is_err(), "{version}");
        }
    }

    #[test]
    fn a_role_without_a_threshold_or_with_the_same_key_twice_is_refused() {
        let parse = |text: &str| RoleKeys::parse(&Json::parse(text.as_bytes()).unwrap());
        assert!(parse(r#"{"keyids":["a","b"],"threshold":2}"#).is_ok());
        assert!(parse(r#"{"keyids":["a","a"],"threshold":2}"#).is_err());
        assert!(parse(r#"{"keyids":["a"],"threshold":0}"#).is_err());
        assert!(parse(r#"{"keyids":["a"]}"#).is_err());
    }

    proptest! {
        /// Well-formed JSON of any shape below the names that the formats use.
        #[test]
        fn arbitrary_metadata_never_panics(
            names in prop::collection::vec(
                prop::sample::select(vec!["_type", "version", "expires", "spec_version", "keys", "roles", "meta",
                    "targets", "delegations", "keyids", "threshold", "root", "snapshot.json", "hashes", "length"]),
                0..12,
            ),
            leaf in prop::sample::select(vec!["1", "\"root\"", "[]", "{}", "null", "[{}]", "{\"a\":{}}",
                "\"1.0.0\"", "\"2030-01-01T00:00:00Z\"", "18446744073709551615"]),
        ) {
            let mut members = BTreeMap::new();
            for name in names {
                members.insert(name.to_owned(), Json::parse(leaf.as_bytes()).unwrap());
            }
            for role_type in ["root", "timestamp", "snapshot", "targets"] {
                members.insert("_type".into(), role_type.into());
                let signed = Json::Object(members.clone());
                let _ = Root::parse(&signed);
                let _ = Timestamp::parse(&signed);
                let _ = Snapshot::parse(&signed);
                let _ = Targets::parse(&signed);
            }
        }
    }
}
