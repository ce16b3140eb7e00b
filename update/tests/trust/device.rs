//! A device whose TPM pins the first root of a repository.

use std::path::PathBuf;

use tempfile::TempDir;
use tpm::provision::{Request, provision};
use tpm::{Anchors, DeviceKey, Layout, Subject, Tpm, TrustedRoot};
use tuf::directory::Directory;
use tuf::fetch::Fetcher;
use tuf::metadata::TopRole;
use tuf::repository::Scheme;
use tuf::time::Now;
use tuf::verify::Verifier;
use tuf::{Judges, UpdateError, init, refresh};
use update::trust::Trust;

use crate::approver::Vendor as Approver;
use crate::repository::{Vendor as Repository, key, now, sha256};
use crate::simulator::Simulator;

/// The security floor that a device comes with.
pub(crate) const FIRST_FLOOR: u64 = 2;

pub(crate) struct Device {
    pub(crate) simulator: Simulator,
    pub(crate) approver: Approver,
    pub(crate) repository: Repository,
    pub(crate) layout: Layout,
    folder: TempDir,
    key: Option<DeviceKey>,
}

/// A repository whose every key is of P-256.
pub(crate) fn p256_repository() -> Repository {
    let keys = || [(); 3].map(|()| key(Scheme::P256));
    Repository::with_keys(keys().into(), keys(), None)
}

pub(crate) fn approved_root(version: u64, bytes: &[u8]) -> Subject {
    Subject::Root(TrustedRoot {
        version,
        digest: sha256(bytes),
    })
}

impl Device {
    pub(crate) fn new(layout: Layout) -> Device {
        Device::of(p256_repository(), layout)
    }

    pub(crate) fn of(repository: Repository, layout: Layout) -> Device {
        let simulator = Simulator::new();
        if layout == Layout::Owner {
            // Starts it.
            drop(simulator.open());
            simulator
                .tool("tpm2_changeauth", &["-c", "platform", "firmware"])
                .unwrap();
        }
        let device = Device {
            simulator,
            approver: Approver::new(),
            repository,
            layout,
            folder: tempfile::tempdir().unwrap(),
            key: None,
        };
        device.provision();
        std::fs::create_dir(device.state()).unwrap();
        let judges = Judges {
            verifier: &tuf::verify::Software,
            clock: &Now::Trusted(now()),
        };
        init(&device.directory(), &device.repository.first_root(), judges).unwrap();
        device
    }

    /// With the approvals that every device of this vendor gets at the factory.
    pub(crate) fn provision(&self) {
        let root = approved_root(1, &self.repository.first_root());
        let request = Request {
            directory: self.simulator.file("files"),
            trust: Some(tpm::provision::Trust {
                key: self.approver.key,
                root: self.approver.approves(root),
                floor: self.approver.approves(Subject::Floor(FIRST_FLOOR)),
            }),
        };
        provision(&mut self.simulator.open(), &request, &mut |_, _| {}).unwrap();
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn directory(&self) -> Directory {
        Directory::open(&self.folder.path().join("metadata")).unwrap()
    }

    pub(crate) fn key(&mut self) -> DeviceKey {
        let start = || DeviceKey::start(self.simulator.address(), self.simulator.file("files"));
        self.key.get_or_insert_with(|| start().unwrap()).clone()
    }

    pub(crate) fn trust(&mut self) -> Trust {
        let state = self.state();
        Trust::with_tpm(self.key(), self.approver.key, &state)
    }

    /// Lets go of the TPM, which serves one at a time here.
    pub(crate) fn release(&mut self) {
        self.key = None;
    }

    pub(crate) fn restart(&mut self) {
        self.release();
        self.simulator.power_cycle();
    }

    pub(crate) fn refresh(&mut self) -> Result<(), UpdateError> {
        let mut shelf = std::mem::take(&mut self.repository.shelf);
        let verifier = self.trust().verifier();
        let refreshed = self.refresh_with(&*verifier, &mut shelf);
        self.repository.shelf = shelf;
        refreshed
    }

    pub(crate) fn refresh_with(
        &mut self,
        verifier: &dyn Verifier,
        fetcher: &mut dyn Fetcher,
    ) -> Result<(), UpdateError> {
        let clock = Now::Trusted(now());
        let judges = Judges {
            verifier,
            clock: &clock,
        };
        let mut floors = self.trust().floors();
        refresh(&self.directory(), fetcher, judges, &mut *floors).map(drop)
    }

    /// The error of an update that has to fail, in words.
    pub(crate) fn refusal(&mut self) -> String {
        self.refresh().unwrap_err().to_string()
    }

    /// Puts the next root on the shelf, and beside it the approval of it.
    pub(crate) fn publish_approved_root(&mut self) {
        self.repository.publish_root();
        let version = self.repository.root_version;
        let approval = self.approval_of(version);
        self.shelve_approval(version, approval);
    }

    pub(crate) fn approval_of(&self, version: u64) -> Vec<u8> {
        let root = &self.repository.shelf.metadata[&format!("{version}.root.json")];
        let approval = self.approver.approves(approved_root(version, root));
        approval.to_json().into_bytes()
    }

    pub(crate) fn shelve_approval(&mut self, version: u64, approval: Vec<u8>) {
        let name = format!("{version}.root.approval.json");
        self.repository.shelf.metadata.insert(name, approval);
    }

    pub(crate) fn publish_after_losing(&mut self, role: TopRole) {
        self.repository.rotate(role);
        self.publish_approved_root();
        self.repository.publish_next();
    }

    /// The root that the directory holds.
    pub(crate) fn kept_root(&self) -> u64 {
        let bytes = std::fs::read(self.folder.path().join("metadata/root.json")).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        file["signed"]["version"].as_u64().unwrap()
    }

    /// The root that the TPM holds.
    pub(crate) fn pinned_root(&mut self) -> u64 {
        self.release();
        let files = self.simulator.file("files");
        let (mut tpm, _) = Tpm::open_provisioned(&self.simulator.address(), &files).unwrap();
        let anchors = Anchors::new(self.approver.key, self.layout).unwrap();
        tpm.trusted_root(&anchors).unwrap().unwrap().version
    }
}
