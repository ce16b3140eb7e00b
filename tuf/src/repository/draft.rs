//! Metadata before anybody signed them.
//!
//! Invariant: a draft becomes a file only if our own client can read it. A value.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use crate::envelope::Envelope;
use crate::hex;
use crate::json::{Json, Malformed};
use crate::key::PublicKey;
use crate::metadata::{self, Metadata, Root, TopRole, check_role_name};
use crate::time::format_time;

/// The specification that we write by.
const SPEC_VERSION: &str = "1.0.34";

/// A draft that would be refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the draft of {file} is not one that a device would accept: {reason}")]
pub struct DraftFailure {
    /// The role.
    pub file: String,
    /// Why not.
    pub reason: Malformed,
}

/// Root metadata, with consistent snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDraft {
    /// One more than the last.
    pub version: u64,
    /// When it is to be replaced by.
    pub expires: Timestamp,
    /// Keys and threshold of every top-level role.
    pub roles: BTreeMap<TopRole, (Vec<PublicKey>, u64)>,
}

impl RootDraft {
    /// The file, without signatures.
    ///
    /// # Errors
    /// When a role is missing, or has fewer keys than its threshold.
    pub fn to_file(&self) -> Result<Vec<u8>, DraftFailure> {
        let mut roles = BTreeMap::new();
        for (role, (keys, threshold)) in &self.roles {
            check_threshold(role.name(), keys, *threshold)?;
            roles.insert(role.name().to_owned(), role_json(keys, *threshold));
        }
        let keys = self.roles.values().flat_map(|(keys, _)| keys);
        let fields = [
            ("consistent_snapshot", Json::Bool(true)),
            ("keys", keys_json(keys)),
            ("roles", Json::Object(roles)),
        ];
        file::<Root>("root", self.version, self.expires, fields)
    }
}

/// A file to describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDraft {
    /// Where it lies below the targets' address.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// The digest of its bytes.
    pub sha256: [u8; 32],
    /// An object for the application, if any.
    pub custom: Option<Json>,
}

/// A role that is to speak for some paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegationDraft {
    /// Its name.
    pub name: String,
    /// What it signs with.
    pub keys: Vec<PublicKey>,
    /// How many of them it takes.
    pub threshold: u64,
    /// Patterns of the paths that it speaks for.
    pub paths: Vec<String>,
    /// Whether no role after it is asked about them.
    pub terminating: bool,
}

/// Targets metadata, of the top-level role or a delegated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetsDraft {
    /// More than the last.
    pub version: u64,
    /// When it is to be replaced by.
    pub expires: Timestamp,
    /// The files.
    pub targets: Vec<TargetDraft>,
    /// The roles, the most trusted first.
    pub delegations: Vec<DelegationDraft>,
}

impl TargetsDraft {
    /// The file, without signatures.
    ///
    /// # Errors
    /// When a path, a name or a threshold is not acceptable.
    pub fn to_file(&self) -> Result<Vec<u8>, DraftFailure> {
        let targets = self
            .targets
            .iter()
            .map(|target| (target.path.clone(), target_json(target)));
        let mut fields = vec![("targets", Json::Object(targets.collect()))];
        let mut roles = Vec::new();
        for delegation in &self.delegations {
            check_threshold(&delegation.name, &delegation.keys, delegation.threshold)?;
            roles.push(delegation_json(delegation));
        }
        if !roles.is_empty() {
            let keys = self.delegations.iter().flat_map(|role| &role.keys);
            let delegations = [("keys", keys_json(keys)), ("roles", Json::Array(roles))];
            fields.push(("delegations", delegations.into()));
        }
        file::<metadata::Targets>("targets", self.version, self.expires, fields)
    }
}

/// Snapshot metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotDraft {
    /// More than the last.
    pub version: u64,
    /// When it is to be replaced by.
    pub expires: Timestamp,
    /// The signed files of all targets roles, by role.
    pub roles: BTreeMap<String, Vec<u8>>,
}

impl SnapshotDraft {
    /// The file, without signatures.
    ///
    /// # Errors
    /// When one of the files is no targets metadata, or those of the top-level role are missing.
    pub fn to_file(&self) -> Result<Vec<u8>, DraftFailure> {
        let failure = |file: &str, reason| DraftFailure {
            file: file.into(),
            reason,
        };
        if !self.roles.contains_key("targets") {
            let reason = Malformed("it lists no targets".into());
            return Err(failure("snapshot", reason));
        }
        let mut meta = BTreeMap::new();
        for (role, bytes) in &self.roles {
            if role != "targets" {
                check_role_name(role).map_err(|reason| failure(role, reason))?;
            }
            let described = describe::<metadata::Targets>(bytes);
            let described = described.map_err(|reason| failure(role, reason))?;
            meta.insert(format!("{role}.json"), described);
        }
        let fields = [("meta", Json::Object(meta))];
        file::<metadata::Snapshot>("snapshot", self.version, self.expires, fields)
    }
}

/// Timestamp metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimestampDraft {
    /// More than the last.
    pub version: u64,
    /// When it is to be replaced by: soon.
    pub expires: Timestamp,
    /// The signed snapshot file.
    pub snapshot: Vec<u8>,
}

impl TimestampDraft {
    /// The file, without signatures.
    ///
    /// # Errors
    /// When the snapshot is none.
    pub fn to_file(&self) -> Result<Vec<u8>, DraftFailure> {
        let snapshot = describe::<metadata::Snapshot>(&self.snapshot);
        let snapshot = snapshot.map_err(|reason| DraftFailure {
            file: "snapshot".into(),
            reason,
        })?;
        let fields = [("meta", [("snapshot.json", snapshot)].into())];
        file::<metadata::Timestamp>("timestamp", self.version, self.expires, fields)
    }
}

/// Version, length and digest of a file, as another lists them.
fn describe<Role: Metadata>(bytes: &[u8]) -> Result<Json, Malformed> {
    let envelope = Envelope::parse(bytes)?;
    let version = Role::parse(&envelope.signed)?.common().version;
    Ok(Json::from([
        ("version", Json::Integer(version)),
        ("length", Json::Integer(bytes.len() as u64)),
        ("hashes", hashes_json(digest(&SHA256, bytes).as_ref())),
    ]))
}

/// The file of a role, read back as a device would.
fn file<Role: Metadata>(
    role: &str,
    version: u64,
    expires: Timestamp,
    fields: impl IntoIterator<Item = (&'static str, Json)>,
) -> Result<Vec<u8>, DraftFailure> {
    let mut signed: BTreeMap<String, Json> = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    signed.insert("_type".into(), role.into());
    signed.insert("spec_version".into(), SPEC_VERSION.into());
    signed.insert("version".into(), Json::Integer(version));
    signed.insert("expires".into(), Json::String(format_time(expires)));
    let envelope = Envelope {
        signed: Json::Object(signed),
        signatures: BTreeMap::new(),
    };
    let bytes = envelope.to_file();
    Envelope::parse(&bytes)
        .and_then(|read| Role::parse(&read.signed))
        .map_err(|reason| DraftFailure {
            file: role.into(),
            reason,
        })?;
    Ok(bytes)
}

fn check_threshold(role: &str, keys: &[PublicKey], threshold: u64) -> Result<(), DraftFailure> {
    if threshold <= keys.len() as u64 {
        return Ok(());
    }
    Err(DraftFailure {
        file: role.into(),
        reason: Malformed(format!(
            "{} keys cannot reach a threshold of {threshold}",
            keys.len()
        )),
    })
}

fn keys_json<'a>(keys: impl Iterator<Item = &'a PublicKey>) -> Json {
    Json::Object(keys.map(|key| (key.id(), key.to_json())).collect())
}

fn role_json(keys: &[PublicKey], threshold: u64) -> Json {
    let ids = keys.iter().map(|key| Json::String(key.id()));
    Json::from([
        ("keyids", Json::Array(ids.collect())),
        ("threshold", Json::Integer(threshold)),
    ])
}

fn delegation_json(delegation: &DelegationDraft) -> Json {
    let texts = |list: &[String]| Json::Array(list.iter().cloned().map(Json::String).collect());
    let ids: Vec<_> = delegation.keys.iter().map(PublicKey::id).collect();
    Json::from([
        ("name", delegation.name.as_str().into()),
        ("keyids", texts(&ids)),
        ("threshold", Json::Integer(delegation.threshold)),
        ("paths", texts(&delegation.paths)),
        ("terminating", Json::Bool(delegation.terminating)),
    ])
}

fn target_json(target: &TargetDraft) -> Json {
    let mut members = BTreeMap::from([
        ("length".to_owned(), Json::Integer(target.length)),
        ("hashes".to_owned(), hashes_json(&target.sha256)),
    ]);
    if let Some(custom) = &target.custom {
        members.insert("custom".to_owned(), custom.clone());
    }
    Json::Object(members)
}

fn hashes_json(sha256: &[u8]) -> Json {
    Json::from([("sha256", Json::String(hex::encode(sha256)))])
}
