//! A vendor, a repository in memory that can be made to lie, and a device. Layer: tests.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::PathBuf;

use base64ct::{Base64, Encoding};
use jiff::Timestamp;
use tempfile::TempDir;
use tuf::directory::Directory;
use tuf::fetch::{FetchFailure, Fetcher, Place};
use tuf::floor::MemoryFloor;
use tuf::key::PublicKey;
use tuf::metadata::TopRole;
use tuf::repository::{
    DelegationDraft, FileKey, PrivatePem, RootDraft, Scheme, Signer, SnapshotDraft, TargetDraft,
    TargetsDraft, TimestampDraft, sign,
};
use tuf::time::{Now, days_after};
use tuf::verify::Software;
use tuf::{Judges, Update, UpdateError, init, refresh};

pub(crate) fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

pub(crate) fn key(scheme: Scheme) -> FileKey {
    FileKey::from_pem(&FileKey::generate(scheme).unwrap()).unwrap()
}

/// The Ed25519 key of a seed, for what has to be the same in another process: PKCS#8 without the public part.
pub(crate) fn seeded_key(seed: u8) -> FileKey {
    const HEAD: [u8; 16] = [
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    let der = [HEAD.as_slice(), &[seed; 32]].concat();
    let encoded = Base64::encode_string(&der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{encoded}\n-----END PRIVATE KEY-----\n");
    FileKey::from_pem(&PrivatePem(pem)).unwrap()
}

pub(crate) fn signed(file: &[u8], keys: &[&FileKey]) -> Vec<u8> {
    keys.iter()
        .fold(file.to_vec(), |file, key| sign(&file, *key).unwrap())
}

/// The last version that a file can name.
pub(crate) const MAXINT: &str = "18446744073709551615";

/// The three roles after the root, with the name that their file has on the shelf in version 1.
pub(crate) const ROLES: [(TopRole, &str); 3] = [
    (TopRole::Timestamp, "timestamp.json"),
    (TopRole::Snapshot, "1.snapshot.json"),
    (TopRole::Targets, "1.targets.json"),
];

/// Files by place and name, and what each request gets.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
    pub(crate) targets: BTreeMap<String, Vec<u8>>,
    /// Names that are answered with zeros without end.
    pub(crate) endless: Vec<String>,
    /// Requests until the line is cut.
    pub(crate) requests_left: Option<usize>,
    pub(crate) requests: Vec<String>,
    pub(crate) bytes_read: u64,
}

struct Counted<'a, R>(R, &'a mut u64);

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer)?;
        *self.1 += read as u64;
        Ok(read)
    }
}

impl Fetcher for Shelf {
    fn open(&mut self, place: Place, name: &str) -> Result<Box<dyn Read + '_>, FetchFailure> {
        if self.requests_left == Some(0) {
            return Err(FetchFailure::Unreachable {
                name: name.into(),
                reason: "cable out".into(),
            });
        }
        self.requests_left = self.requests_left.map(|left| left - 1);
        self.requests.push(name.into());
        if self.endless.iter().any(|endless| endless == name) {
            return Ok(Box::new(Counted(std::io::repeat(0), &mut self.bytes_read)));
        }
        let files = match place {
            Place::Metadata => &self.metadata,
            Place::Targets => &self.targets,
        };
        match files.get(name) {
            Some(bytes) => Ok(Box::new(Counted(
                Cursor::new(bytes.clone()),
                &mut self.bytes_read,
            ))),
            None => Err(FetchFailure::NotFound(name.into())),
        }
    }
}

/// Owns the keys: two of three for the root, one for each other role.
pub(crate) struct Vendor {
    pub(crate) root_keys: Vec<FileKey>,
    pub(crate) keys: BTreeMap<TopRole, FileKey>,
    /// A second key of each role but the root, any of which is enough; both sign.
    pub(crate) spare: Option<FileKey>,
    pub(crate) root_version: u64,
    pub(crate) root_expires: Timestamp,
    pub(crate) versions: BTreeMap<TopRole, u64>,
    pub(crate) expires: BTreeMap<TopRole, Timestamp>,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) delegations: Vec<DelegationDraft>,
    /// Signed files of delegated roles.
    pub(crate) delegated: BTreeMap<String, Vec<u8>>,
    /// A role whose owner forgets to sign.
    pub(crate) forgetful: Option<TopRole>,
    pub(crate) shelf: Shelf,
}

impl Vendor {
    /// With everything in version 1, for thirty days.
    pub(crate) fn new() -> Self {
        let root_keys = vec![
            key(Scheme::P256),
            key(Scheme::Ed25519),
            key(Scheme::Ed25519),
        ];
        Self::with_keys(root_keys, [(); 3].map(|()| key(Scheme::Ed25519)), None)
    }

    /// With these keys for root, and for timestamp, snapshot and targets.
    pub(crate) fn with_keys(
        root_keys: Vec<FileKey>,
        keys: [FileKey; 3],
        spare: Option<FileKey>,
    ) -> Self {
        let expires = days_after(now(), 30);
        let others = [TopRole::Timestamp, TopRole::Snapshot, TopRole::Targets];
        let mut vendor = Self {
            root_keys,
            keys: others.into_iter().zip(keys).collect(),
            spare,
            root_version: 1,
            root_expires: expires,
            versions: others.map(|role| (role, 1)).into(),
            expires: others.map(|role| (role, expires)).into(),
            files: vec![("app/image.idx".into(), b"chunks".to_vec())],
            delegations: Vec::new(),
            delegated: BTreeMap::new(),
            forgetful: None,
            shelf: Shelf::default(),
        };
        let root = vendor.root(&[0, 1]);
        vendor.shelf.metadata.insert("1.root.json".into(), root);
        vendor.publish();
        vendor
    }

    pub(crate) fn first_root(&self) -> Vec<u8> {
        self.shelf.metadata["1.root.json"].clone()
    }

    /// The root as it is to be now, signed with some of the root's keys.
    pub(crate) fn root(&self, signers: &[usize]) -> Vec<u8> {
        let signers: Vec<_> = signers.iter().map(|at| &self.root_keys[*at]).collect();
        signed(&self.root_draft().to_file().unwrap(), &signers)
    }

    pub(crate) fn root_draft(&self) -> RootDraft {
        let public = |key: &FileKey| key.public_key().clone();
        let mut roles: BTreeMap<TopRole, (Vec<PublicKey>, u64)> = self
            .keys
            .iter()
            .map(|(role, key)| {
                let keys = [key].into_iter().chain(&self.spare);
                (*role, (keys.map(public).collect(), 1))
            })
            .collect();
        roles.insert(
            TopRole::Root,
            (self.root_keys.iter().map(public).collect(), 2),
        );
        RootDraft {
            version: self.root_version,
            expires: self.root_expires,
            roles,
        }
    }

    /// Puts the next root on the shelf, with what was changed since the last.
    pub(crate) fn publish_root(&mut self) {
        self.root_version += 1;
        let root = self.root(&[0, 1]);
        let name = format!("{}.root.json", self.root_version);
        self.shelf.metadata.insert(name, root);
    }

    /// A new key for a role, as after the old one was lost.
    pub(crate) fn rotate(&mut self, role: TopRole) {
        self.keys.insert(role, key(Scheme::P256));
    }

    pub(crate) fn raise(&mut self, roles: &[TopRole]) {
        for role in roles {
            *self.versions.get_mut(role).unwrap() += 1;
        }
    }

    /// A new version of everything but the root.
    pub(crate) fn publish_next(&mut self) {
        self.raise(&[TopRole::Targets, TopRole::Snapshot, TopRole::Timestamp]);
        self.publish();
    }

    /// Puts everything but roots on the shelf, in the versions that are set.
    pub(crate) fn publish(&mut self) {
        let targets = self.targets();
        let snapshot = self.snapshot(&targets);
        let timestamp = self.timestamp(&snapshot);
        for (role, bytes) in &self.delegated {
            self.shelf
                .metadata
                .insert(format!("1.{role}.json"), bytes.clone());
        }
        for (path, bytes) in &self.files {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            let name = format!("{folder}/{}.{name}", hex(&sha256(bytes)));
            self.shelf
                .targets
                .insert(name.trim_start_matches('/').into(), bytes.clone());
        }
        let versions = self.versions.clone();
        let metadata = &mut self.shelf.metadata;
        metadata.insert(
            format!("{}.targets.json", versions[&TopRole::Targets]),
            targets,
        );
        metadata.insert(
            format!("{}.snapshot.json", versions[&TopRole::Snapshot]),
            snapshot,
        );
        metadata.insert("timestamp.json".into(), timestamp);
    }

    pub(crate) fn targets(&self) -> Vec<u8> {
        let targets = self.files.iter().map(|(path, bytes)| target(path, bytes));
        let draft = TargetsDraft {
            version: self.versions[&TopRole::Targets],
            expires: self.expires[&TopRole::Targets],
            targets: targets.collect(),
            delegations: self.delegations.clone(),
        };
        self.sign(TopRole::Targets, &draft.to_file().unwrap())
    }

    pub(crate) fn snapshot(&self, targets: &[u8]) -> Vec<u8> {
        let mut roles = self.delegated.clone();
        roles.insert("targets".into(), targets.to_vec());
        let draft = SnapshotDraft {
            version: self.versions[&TopRole::Snapshot],
            expires: self.expires[&TopRole::Snapshot],
            roles,
        };
        self.sign(TopRole::Snapshot, &draft.to_file().unwrap())
    }

    pub(crate) fn timestamp(&self, snapshot: &[u8]) -> Vec<u8> {
        let draft = TimestampDraft {
            version: self.versions[&TopRole::Timestamp],
            expires: self.expires[&TopRole::Timestamp],
            snapshot: snapshot.to_vec(),
        };
        self.sign(TopRole::Timestamp, &draft.to_file().unwrap())
    }

    pub(crate) fn sign(&self, role: TopRole, file: &[u8]) -> Vec<u8> {
        if self.forgetful == Some(role) {
            return file.to_vec();
        }
        let keys: Vec<_> = [&self.keys[&role]].into_iter().chain(&self.spare).collect();
        signed(file, &keys)
    }

    /// Changes a signed file's text and signs it again: what a draft would not let through.
    pub(crate) fn forge(&self, role: TopRole, file: &[u8], from: &str, to: &str) -> Vec<u8> {
        let text = String::from_utf8(file.to_vec()).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        let key_id = self.keys[&role].public_key().id();
        let unsigned = text.replace(from, to).replace(&key_id, "nobody");
        self.sign(role, unsigned.as_bytes())
    }
}

pub(crate) fn target(path: &str, bytes: &[u8]) -> TargetDraft {
    TargetDraft {
        path: path.into(),
        length: bytes.len() as u64,
        sha256: sha256(bytes),
        custom: None,
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The version of what is kept of a role.
pub(crate) fn version_of(device: &Device, role: &str) -> u64 {
    let file = device.kept(role).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    file["signed"]["version"].as_u64().unwrap()
}

/// A device with its directory and a floor outside of it.
pub(crate) struct Device {
    pub(crate) folder: TempDir,
    pub(crate) floor: MemoryFloor,
    pub(crate) now: Now,
}

impl Device {
    pub(crate) fn new(root: &[u8]) -> Self {
        let device = Self {
            folder: tempfile::tempdir().unwrap(),
            floor: MemoryFloor::default(),
            now: Now::Trusted(now()),
        };
        init(&device.directory(), root, device.judges()).unwrap();
        device
    }

    /// One that has updated once.
    pub(crate) fn updated(vendor: &mut Vendor) -> Self {
        let mut device = Self::new(&vendor.first_root());
        device.refresh(&mut vendor.shelf).unwrap();
        device
    }

    pub(crate) fn refresh(&mut self, shelf: &mut Shelf) -> Result<(), UpdateError> {
        self.update(shelf, |_| Ok(()))
    }

    /// The error of an update that has to fail, in words.
    pub(crate) fn refusal(&mut self, shelf: &mut Shelf) -> String {
        self.refresh(shelf).unwrap_err().to_string()
    }

    /// An update, and what is done with it.
    pub(crate) fn update<T>(
        &mut self,
        shelf: &mut Shelf,
        then: impl FnOnce(&mut Update<'_>) -> Result<T, UpdateError>,
    ) -> Result<T, UpdateError> {
        let directory = self.directory();
        let now = self.now;
        let judges = Judges {
            verifier: &Software,
            clock: &now,
        };
        let mut update = refresh(&directory, shelf, judges, &mut self.floor)?;
        then(&mut update)
    }

    pub(crate) fn download(
        &mut self,
        shelf: &mut Shelf,
        path: &str,
    ) -> Result<Vec<u8>, UpdateError> {
        self.update(shelf, |update| {
            let target = update.find(path)?;
            let mut bytes = Vec::new();
            update.copy(&target, &mut bytes)?;
            Ok(bytes)
        })
    }

    pub(crate) fn directory(&self) -> Directory {
        Directory::open(&self.path()).unwrap()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("metadata")
    }

    /// The bytes kept of a role.
    pub(crate) fn kept(&self, role: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path().join(format!("{role}.json"))).ok()
    }

    fn judges(&self) -> Judges<'_> {
        Judges {
            verifier: &Software,
            clock: &self.now,
        }
    }
}
