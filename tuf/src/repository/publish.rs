//! A repository as a folder of static files, for any web server or object store.
//!
//! Invariant: what is published was checked as a device would. Files come before those that name them, the timestamp
//! last: a device that reads meanwhile sees the old edition or the new one. A driver.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ring::digest::{Context as Digest, SHA256};

use crate::directory::replace;
use crate::floor::Floor;
use crate::hex;
use crate::limits::MAX_APPROVAL_BYTES;
use crate::metadata::{Targets, check_target_path};
use crate::names;
use crate::refusal::Refusal;
use crate::repository::TargetDraft;
use crate::time::Now;
use crate::trusted::{Context, RootChain, Trusted};
use crate::verify::Software;

/// An edition was not published; the folder's timestamp is the old one.
#[derive(Debug, thiserror::Error)]
pub enum PublishFailure {
    /// A device would refuse it.
    #[error("not published, as devices would not accept it: {0}")]
    Refused(#[from] Refusal),
    /// Roots are published from the first on.
    #[error("not published: there is no root version {0}, and devices follow every version")]
    NoRoot(u64),
    /// A role that the snapshot lists but nobody delegates to, or the other way round.
    #[error("not published: role {0:?} is not both delegated to and listed in the snapshot")]
    StrayRole(String),
    /// The disk.
    #[error("cannot write {}: {error}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The signed files of one edition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition {
    /// New roots by version; those published before need not be repeated.
    pub roots: BTreeMap<u64, Vec<u8>>,
    /// The timestamp.
    pub timestamp: Vec<u8>,
    /// The snapshot.
    pub snapshot: Vec<u8>,
    /// All targets metadata by role, `targets` among them.
    pub targets: BTreeMap<String, Vec<u8>>,
}

/// The folder: `metadata/` and `targets/`.
#[derive(Debug, Clone)]
pub struct Tree(PathBuf);

impl Tree {
    /// Uses the folder `path`, which is made where it is missing.
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }

    /// Copies a file to where a device will look for the target `path`, and describes it.
    ///
    /// # Errors
    /// When the file cannot be read or written, or `path` is not acceptable.
    pub fn add_target(&self, path: &str, source: &Path) -> Result<TargetDraft, PublishFailure> {
        check_target_path(path).map_err(|reason| Refusal::Malformed {
            file: "targets".into(),
            reason,
        })?;
        let (length, sha256) = measure(source).map_err(|error| disk(source, error))?;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.0.join("targets").join(folder);
        let name = format!("{}.{name}", hex::encode(&sha256));
        let copied = fs::create_dir_all(&folder).and_then(|()| {
            let mut from = File::open(source)?;
            replace(&folder, &name, |to| io::copy(&mut from, to).map(drop))
        });
        copied.map_err(|error| disk(&folder.join(name), error))?;
        Ok(TargetDraft {
            path: path.into(),
            length,
            sha256,
            custom: None,
        })
    }

    /// Puts the approval of a root beside where the root is, or will be: before the root is published, so that no device
    /// sees the one without the other.
    ///
    /// # Errors
    /// When it is larger than devices read, or cannot be written.
    pub fn add_root_approval(&self, version: u64, bytes: &[u8]) -> Result<(), PublishFailure> {
        if bytes.len() as u64 > MAX_APPROVAL_BYTES {
            return Err(Refusal::Oversized {
                file: "root approval".into(),
                limit: MAX_APPROVAL_BYTES,
            }
            .into());
        }
        let folder = self.0.join("metadata");
        let name = names::approval(version);
        fs::create_dir_all(&folder)
            .and_then(|()| replace(&folder, &name, |file| file.write_all(bytes)))
            .map_err(|error| disk(&folder.join(name), error))
    }

    /// Checks an edition as a device would that has followed this folder from its first root, and writes it.
    ///
    /// # Errors
    /// When a device would refuse it, or a file cannot be written.
    pub fn publish(&self, edition: &Edition, now: Timestamp) -> Result<(), PublishFailure> {
        let folder = self.0.join("metadata");
        fs::create_dir_all(&folder).map_err(|error| disk(&folder, error))?;
        let versions = self.check(edition, now)?;
        let write = |name: &str, bytes: &[u8]| {
            replace(&folder, name, |file| file.write_all(bytes))
                .map_err(|error| disk(&folder.join(name), error))
        };
        for (version, bytes) in &edition.roots {
            write(&names::versioned("root", *version), bytes)?;
        }
        for (role, bytes) in &edition.targets {
            write(&names::versioned(role, versions.targets[role]), bytes)?;
        }
        write(
            &names::versioned("snapshot", versions.snapshot),
            &edition.snapshot,
        )?;
        write(&names::local("timestamp"), &edition.timestamp)
    }

    fn check(&self, edition: &Edition, now: Timestamp) -> Result<Versions, PublishFailure> {
        let context = Context {
            verifier: &Software,
            now: Now::Trusted(now),
            floor: Floor::default(),
        };
        let mut chain = RootChain::load(&self.root(edition, 1)?, context)?;
        while let Some(version) = chain.next_version() {
            match self.root(edition, version) {
                Ok(bytes) => chain.follow(&bytes)?,
                Err(PublishFailure::NoRoot(_)) => break,
                Err(failure) => return Err(failure),
            };
        }
        let last = chain.version();
        if let Some(beyond) = edition.roots.keys().find(|version| **version > last) {
            return Err(PublishFailure::NoRoot(beyond - 1));
        }
        let mut trusted = chain.finish()?;
        if let Some(old) = self.published(&names::local("timestamp"))? {
            trusted.load_timestamp(&old);
        }
        trusted.update_timestamp(&edition.timestamp)?;
        trusted.update_snapshot(&edition.snapshot)?;
        check_roles(&mut trusted, edition)
    }

    /// A root of this edition or of an earlier one.
    fn root(&self, edition: &Edition, version: u64) -> Result<Vec<u8>, PublishFailure> {
        let published = self.published(&names::versioned("root", version))?;
        let bytes = published.or_else(|| edition.roots.get(&version).cloned());
        bytes.ok_or(PublishFailure::NoRoot(version))
    }

    fn published(&self, name: &str) -> Result<Option<Vec<u8>>, PublishFailure> {
        let path = self.0.join("metadata").join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk(&path, error)),
        }
    }
}

/// What the names of files bear.
struct Versions {
    snapshot: u64,
    targets: BTreeMap<String, u64>,
}

/// Every targets role, from the top down its delegations.
fn check_roles(trusted: &mut Trusted<'_>, edition: &Edition) -> Result<Versions, PublishFailure> {
    let top = edition.targets.get("targets");
    let stray = || PublishFailure::StrayRole("targets".into());
    trusted.update_targets(top.ok_or_else(stray)?)?;
    let top = trusted.targets().cloned().ok_or_else(stray)?;
    let mut checked: BTreeMap<String, Targets> = BTreeMap::new();
    let mut pending = vec![top.clone()];
    while let Some(delegator) = pending.pop() {
        for role in delegator.roles() {
            let bytes = edition.targets.get(role);
            let bytes = bytes.ok_or_else(|| PublishFailure::StrayRole(role.into()))?;
            let authority = delegator.authority(role);
            let authority = authority.ok_or_else(|| PublishFailure::StrayRole(role.into()))?;
            let targets = trusted.check_targets(role, bytes, authority)?;
            if checked.insert(role.to_owned(), targets.clone()).is_none() {
                pending.push(targets);
            }
        }
    }
    checked.insert("targets".into(), top);
    for role in edition.targets.keys() {
        if !checked.contains_key(role) {
            return Err(PublishFailure::StrayRole(role.clone()));
        }
    }
    Ok(Versions {
        snapshot: trusted.snapshot_meta()?.version,
        targets: checked
            .into_iter()
            .map(|(role, targets)| (role, targets.common.version))
            .collect(),
    })
}

fn measure(source: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut file = File::open(source)?;
    let mut digest = Digest::new(&SHA256);
    let mut length = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        length += read as u64;
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest.finish().as_ref());
    Ok((length, sha256))
}

fn disk(path: &Path, error: io::Error) -> PublishFailure {
    PublishFailure::Disk {
        path: path.into(),
        error,
    }
}
