//! A vendor that packs releases, and a device with two slots in files.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tuf::{
    Judges, directory::Directory, floor::MemoryFloor, init, refresh, time::Now, verify::Software,
};
use update::{
    install::{
        InstallError,
        job::{Kit, Places, install},
        verify::Taste,
        write::Observer,
    },
    journal::{Content, Release},
    machine::{Machine, Seen},
    protocol::{Progress, Work},
    release::{
        About, CHUNK, ContentKey, FileKey, Grants, Index, WrappedKey,
        pack::{Parameters, pack},
    },
    slots::{Slot, files::Files},
    trust::Trust,
};

use crate::repository::{Vendor as Repository, now, seeded_key};

pub(crate) const TARGET: &str = "board/release.index";
pub(crate) const HARDWARE: &str = "board";

/// The key of the fleet's devices.
pub(crate) fn file_key() -> FileKey {
    FileKey::new(&[9; 32])
}

/// Packs and publishes.
pub(crate) struct Vendor {
    pub(crate) repository: Repository,
    folder: TempDir,
    pub(crate) epoch: u64,
    pub(crate) hardware: &'static str,
}

impl Vendor {
    pub(crate) fn new() -> Vendor {
        Vendor::with(Repository::new())
    }

    /// The same one in every process.
    pub(crate) fn seeded() -> Vendor {
        let root_keys = (1..=3).map(seeded_key).collect();
        let keys = [4, 5, 6].map(seeded_key);
        Vendor::with(Repository::with_keys(root_keys, keys, None))
    }

    fn with(repository: Repository) -> Vendor {
        Vendor {
            repository,
            folder: tempfile::tempdir().unwrap(),
            epoch: 1,
            hardware: HARDWARE,
        }
    }

    /// Makes this image the newest release.
    pub(crate) fn publish(&mut self, version: &str, image: &[u8]) -> Index {
        let key = ContentKey::new(&[7; 32]);
        let about = About {
            product: "gateway".into(),
            version: version.into(),
            hardware: vec![self.hardware.into()],
            epoch: self.epoch,
            image_size: image.len() as u64,
            sbom: None,
        };
        let sealed = file_key().wrap(self.epoch, &key);
        let parameters = Parameters {
            about,
            grants: Grants {
                approval: None,
                keys: vec![(file_key().recipient(), WrappedKey::File(sealed))],
            },
            key,
            sbom: None,
            level: 1,
        };
        let index = pack(
            &mut &image[..],
            &parameters,
            self.folder.path(),
            &mut |_| {},
        )
        .unwrap();
        self.repository.files = vec![(TARGET.into(), index.to_bytes())];
        self.repository.publish_next();
        index
    }

    pub(crate) fn chunk(&self, index: &Index, number: usize) -> Vec<u8> {
        let name = tpm::hex::encode(&index.chunks()[number].stored);
        fs::read(self.folder.path().join("chunks").join(name)).unwrap()
    }
}

/// An image of so many chunks, each different, that begin as `salt` says.
pub(crate) fn image(salt: &[u8]) -> Vec<u8> {
    let chunks = salt.iter().map(|salt| {
        let mut state = u64::from(*salt) + 1;
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        // Half of it compresses.
        (0..CHUNK)
            .map(|at| if at % 2 == 0 { *salt } else { noise() })
            .collect::<Vec<u8>>()
    });
    chunks.collect::<Vec<_>>().concat()
}

/// Runs release 1 in slot A.
pub(crate) struct Device {
    folder: PathBuf,
    pub(crate) kit: Kit,
    gateway_floor: MemoryFloor,
    /// Gone with the device, where it is the device's own.
    _own: Option<TempDir>,
}

/// What a file system may have forgotten of an empty directory.
const FOLDERS: [&str; 7] = [
    "boot",
    "staging",
    "updater",
    "run",
    "staging/metadata",
    "staging/roots",
    "staging/chunks",
];

impl Device {
    pub(crate) fn new(vendor: &Vendor) -> Device {
        let folder = tempfile::tempdir().unwrap();
        let device = Device::at(folder.path(), vendor);
        Device {
            _own: Some(folder),
            ..device
        }
    }

    /// One whose files are to be there.
    pub(crate) fn at(folder: &Path, vendor: &Vendor) -> Device {
        let path = |name: &str| folder.join(name);
        for name in FOLDERS {
            fs::create_dir_all(path(name)).unwrap();
        }
        for name in ["slot-a", "slot-b"] {
            fs::write(path(name), b"").unwrap();
        }
        fs::write(path("root.json"), vendor.repository.first_root()).unwrap();
        fs::write(path("key"), file_key().to_text()).unwrap();
        Files::create(&path("boot")).unwrap();
        Device::again(folder)
    }

    /// One whose files are there.
    pub(crate) fn again(folder: &Path) -> Device {
        Device {
            folder: folder.to_owned(),
            kit: Device::kit(folder),
            gateway_floor: MemoryFloor::default(),
            _own: None,
        }
    }

    /// Makes a device of files that were another's elsewhere.
    pub(crate) fn moved(folder: &Path) {
        for name in FOLDERS {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let places = folder.join("boot/places");
        let text = fs::read_to_string(&places).unwrap();
        let old = text.split("/state ").next().unwrap();
        let here = folder.join("boot").display().to_string();
        fs::write(&places, text.replace(old, &here)).unwrap();
    }

    /// As a new process finds it.
    pub(crate) fn reopen(&mut self) {
        self.kit = Device::kit(&self.folder);
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.clone()
    }

    fn kit(folder: &Path) -> Kit {
        let path = |name: &str| folder.join(name);
        let flashed = Release {
            version: "0".into(),
            epoch: 0,
            root: String::new(),
        };
        let boot = Files::open(&path("boot")).unwrap();
        let machine = Machine::new(Box::new(boot), path("updater/slots.json"), flashed);
        Kit {
            places: Places {
                slots: [path("slot-a"), path("slot-b")],
                staging: path("staging"),
                directory: path("updater"),
            },
            taste: Taste {
                target: TARGET.into(),
                hardware: HARDWARE.into(),
                root: path("root.json"),
                file_key: Some(path("key")),
            },
            trust: Trust::without_tpm(&path("updater")),
            build: now(),
            machine: Arc::new(Mutex::new(machine)),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn staged(&self, index: &Index, number: usize) -> PathBuf {
        let name = tpm::hex::encode(&index.chunks()[number].stored);
        self.path("staging/chunks").join(name)
    }

    /// What the gateway does: checked metadata, the index, and the chunks of these numbers.
    pub(crate) fn stage(
        &mut self,
        vendor: &mut Vendor,
        index: &Index,
        chunks: impl IntoIterator<Item = usize>,
    ) {
        self.stage_metadata(vendor);
        fs::write(self.path("staging/index"), index.to_bytes()).unwrap();
        for number in chunks {
            if !index.chunks()[number].is_zero() {
                fs::write(self.staged(index, number), vendor.chunk(index, number)).unwrap();
            }
        }
    }

    pub(crate) fn stage_all(&mut self, vendor: &mut Vendor, index: &Index) {
        self.stage(vendor, index, 0..index.chunks().len());
    }

    pub(crate) fn stage_metadata(&mut self, vendor: &mut Vendor) {
        let shelf = &mut vendor.repository.shelf;
        for (name, bytes) in &shelf.metadata {
            if name.ends_with(".root.json") {
                fs::write(self.path("staging/roots").join(name), bytes).unwrap();
            }
        }
        let directory = Directory::open(&self.path("staging/metadata")).unwrap();
        let judges = Judges {
            verifier: &Software,
            clock: &Now::Trusted(now()),
        };
        if !self.path("staging/metadata/root.json").exists() {
            init(
                &directory,
                &fs::read(self.path("root.json")).unwrap(),
                judges,
            )
            .unwrap();
        }
        refresh(&directory, shelf, judges, &mut self.gateway_floor).unwrap();
    }

    /// Installs, and does `meanwhile` at every step.
    pub(crate) fn install_while(
        &self,
        meanwhile: impl FnMut(&Work) -> Stop,
    ) -> Result<Progress, InstallError> {
        let observer = Watcher {
            meanwhile: RefCell::new(Box::new(meanwhile)),
            stop: RefCell::new(Stop::No),
        };
        install(&self.kit, &observer, &mut None)
    }

    pub(crate) fn install(&self) -> Result<Progress, InstallError> {
        self.install_while(|_| Stop::No)
    }

    pub(crate) fn refusal(&self) -> InstallError {
        let before = self.slot(Slot::A);
        let error = self.install().unwrap_err();
        assert_eq!(self.slot(Slot::A), before, "the running slot was touched");
        self.assert_never_flips();
        error
    }

    pub(crate) fn slot(&self, slot: Slot) -> Vec<u8> {
        fs::read(self.kit.places.slot(slot)).unwrap()
    }

    pub(crate) fn seen(&self) -> Seen {
        self.kit.machine().look().unwrap()
    }

    /// What is in the slot that does not run.
    pub(crate) fn other(&self) -> Content {
        let seen = self.seen();
        seen.journal.of(seen.booted.other()).clone()
    }

    /// Nothing is on trial, and nothing can be put there.
    pub(crate) fn assert_never_flips(&self) {
        let seen = self.seen();
        assert_eq!(seen.boot.trial, None);
        assert!(update::trial::activate(seen.view(), 3).is_err());
    }

    /// Starts what the boot loader's state says, as a new process finds it.
    pub(crate) fn restart(&mut self) {
        let boot = self.seen().boot;
        let started = boot.on_trial().unwrap_or(boot.default);
        fs::write(self.path("boot/started"), started.to_string()).unwrap();
        self.reopen();
    }

    /// Every file in staging by its path.
    pub(crate) fn staging(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let folders = [
            "staging",
            "staging/chunks",
            "staging/roots",
            "staging/metadata",
        ];
        let files = folders.iter().flat_map(|folder| {
            let entries = fs::read_dir(self.path(folder)).unwrap();
            entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_file())
        });
        files
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }
}

/// Whether to end the installation there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    No,
    Here,
}

type Meanwhile<'m> = Box<dyn FnMut(&Work) -> Stop + 'm>;

struct Watcher<'m> {
    meanwhile: RefCell<Meanwhile<'m>>,
    stop: RefCell<Stop>,
}

impl Observer for Watcher<'_> {
    fn tell(&self, work: Work) {
        let stop = (self.meanwhile.borrow_mut())(&work);
        if stop == Stop::Here {
            *self.stop.borrow_mut() = stop;
        }
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow() == Stop::Here
    }
}
