//! Root metadata: which keys the top-level roles sign with (4.3). A value.

use std::collections::BTreeMap;
use std::fmt;

use super::{Authority, Common, Metadata, RoleKeys};
use crate::json::{Json, Malformed};
use crate::key::{PublicKey, usable_keys};

/// A role that root metadata delegates to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopRole {
    /// Says which keys the others have.
    Root,
    /// Says which snapshot is the newest.
    Timestamp,
    /// Says which versions of targets metadata belong together.
    Snapshot,
    /// Says what the targets are.
    Targets,
}

impl TopRole {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Timestamp, Self::Snapshot, Self::Targets];

    /// The role's name, which is its metadata's type as well.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
        }
    }
}

impl fmt::Display for TopRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Root metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Version and expiry.
    pub common: Common,
    /// Whether file names bear versions and hashes (6.2).
    pub consistent_snapshot: bool,
    keys: BTreeMap<String, PublicKey>,
    roles: [RoleKeys; 4],
}

impl Root {
    /// What a role signs with.
    pub fn role(&self, role: TopRole) -> &RoleKeys {
        &self.roles[role as usize]
    }

    pub(crate) fn authority(&self, role: TopRole) -> Authority<'_> {
        Authority {
            keys: &self.keys,
            role: self.role(role),
        }
    }

    /// Whether a key that `role` signed with here does so no longer in `newer`: its owner lost it, perhaps to somebody
    /// who has used it (5.3.11).
    pub(crate) fn has_lost_a_key(&self, role: TopRole, newer: &Root) -> bool {
        let points = |root: &Root| -> Vec<PublicKey> {
            let ids = root.role(role).key_ids.iter();
            ids.filter_map(|id| root.keys.get(id).cloned()).collect()
        };
        let kept = points(newer);
        points(self).iter().any(|key| !kept.contains(key))
    }
}

impl Metadata for Root {
    fn parse(signed: &Json) -> Result<Self, Malformed> {
        let common = Common::parse(signed, "root")?;
        let roles = signed.member("roles")?;
        let role = |role: TopRole| RoleKeys::parse(roles.member(role.name())?);
        Ok(Self {
            common,
            consistent_snapshot: match signed.optional("consistent_snapshot") {
                Some(flag) => flag.flag("`consistent_snapshot`")?,
                None => false,
            },
            keys: usable_keys(signed.member("keys")?)?,
            roles: [
                role(TopRole::Root)?,
                role(TopRole::Timestamp)?,
                role(TopRole::Snapshot)?,
                role(TopRole::Targets)?,
            ],
        })
    }

    fn common(&self) -> &Common {
        &self.common
    }
}
