//! Slots in a folder: for tests and demonstrations, where the boot loader is a program that reads
//! it. Driver.
//!
//! ```text
//!  FOLDER/state      two copies of an environment, as U-Boot's
//!  FOLDER/started    `a` or `b`, written by whoever plays the boot loader
//! ```
//!
//! Invariant: as that of [`super::uboot`], whose format it uses.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    BootState, Counting, Slot, SlotBackend, SlotError,
    environment::Environment,
    evidence::{self, Witness},
    uboot::UBoot,
};

/// Bytes of a copy.
const SIZE: usize = 512;

/// The state in a folder.
#[derive(Debug)]
pub struct Files {
    state: UBoot,
    started: PathBuf,
}

impl Files {
    /// A folder that starts slot A.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn create(folder: &Path) -> Result<Files, SlotError> {
        let failed = |path: &Path, source| SlotError::File {
            what: "write",
            path: path.to_owned(),
            source,
        };
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            let file = File::create(&path).map_err(|error| failed(&path, error))?;
            file.write_all_at(bytes, 0)
                .and_then(|()| file.sync_all())
                .map_err(|error| failed(&path, error))
        };
        let first = Environment::default().with(BootState::settled(Slot::A));
        let mut copies = first.render(SIZE).map_err(|why| SlotError::Content {
            path: folder.to_owned(),
            why: why.to_string(),
        })?;
        copies.resize(2 * SIZE, 0);
        write("state", &copies)?;
        write("started", b"a")?;
        let state = folder.join("state");
        let state = state.display();
        let places = format!("{state} 0 {SIZE}\n{state} {SIZE} {SIZE}\n");
        write("places", places.as_bytes())?;
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed(folder, error))?;
        Files::open(folder)
    }

    /// A folder that was made before.
    ///
    /// # Errors
    /// When it was not.
    pub fn open(folder: &Path) -> Result<Files, SlotError> {
        let started = folder.join("started");
        Ok(Files {
            state: UBoot::open(&folder.join("places"), &started)?,
            started,
        })
    }
}

impl SlotBackend for Files {
    fn load(&self) -> Result<BootState, SlotError> {
        self.state.load()
    }

    fn store(&mut self, state: BootState) -> Result<(), SlotError> {
        self.state.store(state)
    }

    fn booted(&self) -> Result<Slot, SlotError> {
        let text = fs::read_to_string(&self.started).map_err(|source| SlotError::File {
            what: "read",
            path: self.started.clone(),
            source,
        })?;
        Ok(evidence::agree(&[Witness {
            who: "the file `started`",
            slot: text.trim().parse().ok(),
        }])?)
    }

    fn counting(&self) -> Counting {
        Counting::ByBootLoader
    }

    fn restart_argument(&self, _: BootState) -> Option<&'static str> {
        None
    }
}
