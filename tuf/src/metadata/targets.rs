//! Targets metadata: files, and roles that speak for others of them (4.5).
//!
//! Invariant: no name or path in it can leave the folder that it is below. A value.

use std::collections::{BTreeMap, BTreeSet};

use super::{Authority, Common, Hashes, Metadata, RoleKeys, TopRole};
use crate::json::{Json, Malformed};
use crate::key::{PublicKey, usable_keys};
use crate::limits::{MAX_ROLE_NAME, MAX_TARGET_PATH};
use crate::pattern::{matches_pattern, matches_prefix};

/// A file as targets metadata describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it lies below the targets' address.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// Digests.
    pub hashes: Hashes,
    /// What the metadata's maker says besides, opaque to TUF.
    pub custom: Option<Json>,
}

/// Targets metadata of the top-level role or a delegated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Version and expiry.
    pub common: Common,
    targets: BTreeMap<String, Target>,
    keys: BTreeMap<String, PublicKey>,
    delegations: Vec<DelegatedRole>,
}

impl Targets {
    /// The target at `path`, if this very role speaks of it.
    pub fn target(&self, path: &str) -> Option<&Target> {
        self.targets.get(path)
    }

    /// Every target that this very role speaks of, by path.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.values()
    }

    /// The roles that speak for `path`, the most trusted first.
    pub(crate) fn roles_for<'a>(
        &'a self,
        path: &'a str,
    ) -> impl Iterator<Item = &'a DelegatedRole> {
        self.delegations.iter().filter(|role| role.covers(path))
    }

    /// The roles that this one delegates to.
    pub(crate) fn roles(&self) -> impl Iterator<Item = &str> {
        self.delegations.iter().map(|role| role.name.as_str())
    }

    pub(crate) fn authority(&self, role: &str) -> Option<Authority<'_>> {
        let role = self.delegations.iter().find(|known| known.name == role)?;
        Some(Authority {
            keys: &self.keys,
            role: &role.keys,
        })
    }
}

impl Metadata for Targets {
    fn parse(signed: &Json) -> Result<Self, Malformed> {
        let common = Common::parse(signed, "targets")?;
        let mut targets = BTreeMap::new();
        for (path, target) in signed.member("targets")?.object("`targets`")? {
            targets.insert(path.clone(), parse_target(path, target)?);
        }
        let (keys, delegations) = match signed.optional("delegations") {
            Some(delegations) => parse_delegations(delegations)?,
            None => Default::default(),
        };
        Ok(Self {
            common,
            targets,
            keys,
            delegations,
        })
    }

    fn common(&self) -> &Common {
        &self.common
    }
}

/// A role that speaks for some target paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DelegatedRole {
    pub(crate) name: String,
    /// What it covers is not asked of any role after it.
    pub(crate) terminating: bool,
    keys: RoleKeys,
    paths: Paths,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Paths {
    Patterns(Vec<String>),
    HashPrefixes(Vec<String>),
}

impl DelegatedRole {
    fn parse(role: &Json) -> Result<Self, Malformed> {
        let name = role.member("name")?.text("a role's name")?;
        check_role_name(name)?;
        let paths = match (role.optional("paths"), role.optional("path_hash_prefixes")) {
            (Some(patterns), None) => Paths::Patterns(texts(patterns)?),
            (None, Some(prefixes)) => Paths::HashPrefixes(texts(prefixes)?),
            _ => {
                return Err(Malformed(format!(
                    "the role {name:?} has not exactly one of `paths` and `path_hash_prefixes`"
                )));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            terminating: match role.optional("terminating") {
                Some(terminating) => terminating.flag("`terminating`")?,
                None => false,
            },
            keys: RoleKeys::parse(role)?,
            paths,
        })
    }

    fn covers(&self, path: &str) -> bool {
        match &self.paths {
            Paths::Patterns(patterns) => patterns
                .iter()
                .any(|pattern| matches_pattern(pattern, path)),
            Paths::HashPrefixes(prefixes) => matches_prefix(prefixes, path),
        }
    }
}

/// A role's name becomes part of a file name: not empty, not too long, and not one of the top-level roles'.
pub(crate) fn check_role_name(name: &str) -> Result<(), Malformed> {
    if name.is_empty() || name.len() > MAX_ROLE_NAME {
        return Err(Malformed(format!(
            "a delegated role's name has not 1 to {MAX_ROLE_NAME} bytes"
        )));
    }
    if TopRole::ALL.iter().any(|role| role.name() == name) {
        return Err(Malformed(format!(
            "the name {name:?} of a delegated role is that of a top-level role"
        )));
    }
    Ok(())
}

/// A target's path is relative and stays below its folder.
pub(crate) fn check_target_path(path: &str) -> Result<(), Malformed> {
    let sound = !path.is_empty()
        && path.len() <= MAX_TARGET_PATH
        && !path.starts_with('/')
        && !path.chars().any(char::is_control)
        && !path.split('/').any(|part| matches!(part, "." | ".."));
    if sound {
        return Ok(());
    }
    Err(Malformed(format!(
        "{path:?} is not a target's path: relative, without . and .., at most {MAX_TARGET_PATH} bytes"
    )))
}

fn parse_target(path: &str, target: &Json) -> Result<Target, Malformed> {
    check_target_path(path)?;
    Ok(Target {
        path: path.to_owned(),
        length: target.member("length")?.number("`length`")?,
        hashes: Hashes::parse(target.member("hashes")?)?,
        custom: target.optional("custom").cloned(),
    })
}

type Delegations = (BTreeMap<String, PublicKey>, Vec<DelegatedRole>);

fn parse_delegations(delegations: &Json) -> Result<Delegations, Malformed> {
    let keys = usable_keys(delegations.member("keys")?)?;
    let mut names = BTreeSet::new();
    let mut roles = Vec::new();
    for role in delegations.member("roles")?.array("`roles`")? {
        let role = DelegatedRole::parse(role)?;
        if !names.insert(role.name.clone()) {
            return Err(Malformed(format!(
                "the role {:?} is delegated to twice",
                role.name
            )));
        }
        roles.push(role);
    }
    Ok((keys, roles))
}

fn texts(list: &Json) -> Result<Vec<String>, Malformed> {
    list.array("the paths of a role")?
        .iter()
        .map(|text| Ok(text.text("a path of a role")?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_leave_its_folder_is_refused() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/./b",
            "a\0b",
            "a\nb",
        ] {
            assert!(check_target_path(path).is_err(), "{path:?}");
        }
        for path in ["a", "a/b.tgz", "..a/b..", "a b?c"] {
            assert!(check_target_path(path).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn a_delegated_role_cannot_take_a_top_level_roles_name() {
        for role in TopRole::ALL {
            assert!(check_role_name(role.name()).is_err());
        }
        assert!(check_role_name(&"a".repeat(MAX_ROLE_NAME + 1)).is_err());
        assert!(check_role_name("../delegated").is_ok());
    }

    #[test]
    fn a_role_is_delegated_to_once_and_covers_paths_in_one_way() {
        let parse = |roles: &str| {
            parse_delegations(
                &Json::parse(format!(r#"{{"keys":{{}},"roles":[{roles}]}}"#).as_bytes()).unwrap(),
            )
        };
        let role = r#"{"name":"a","keyids":[],"threshold":1,"terminating":false,"paths":["*"]}"#;
        assert!(parse(role).is_ok());
        assert!(parse(&format!("{role},{role}")).is_err());
        assert!(parse(&role.replace(r#","paths":["*"]"#, "")).is_err());
        assert!(parse(&role.replace("\"paths\"", "\"path_hash_prefixes\":[],\"paths\"")).is_err());
    }
}
