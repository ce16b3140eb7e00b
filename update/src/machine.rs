//! The journal and the boot loader's state of this machine, looked at and changed together. Driver.
//!
//! Invariant: what changes them is a plan of [`mod@crate::trial`], its writes in its order, and none after one that failed.

use std::path::PathBuf;

use crate::{
    journal::{
        Journal, Release,
        file::{JournalError, load, store},
    },
    slots::{BootState, Counting, Slot, SlotBackend, SlotError},
    trial::{Plan, Then, View, Write},
};

/// Why the machine cannot be looked at, or changed.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The boot loader's state.
    #[error(transparent)]
    Slot(#[from] SlotError),
}

/// See the module's description.
pub struct Machine {
    backend: Box<dyn SlotBackend + Send>,
    journal: PathBuf,
    /// What runs where nobody has installed anything.
    flashed: Release,
}

/// The machine at one moment.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What this system remembers.
    pub journal: Journal,
    /// What starts next.
    pub boot: BootState,
    /// What was started.
    pub booted: Slot,
    counting: Counting,
    running: Release,
}

impl Seen {
    /// For a decision.
    pub fn view(&self) -> View<'_> {
        View {
            journal: &self.journal,
            boot: self.boot,
            booted: self.booted,
            counting: self.counting,
            running: &self.running,
        }
    }

    /// The release that runs.
    pub fn running(&self) -> &Release {
        &self.running
    }
}

impl Machine {
    /// `flashed` is what a slot holds that runs and of which the journal knows nothing.
    pub fn new(
        backend: Box<dyn SlotBackend + Send>,
        journal: PathBuf,
        flashed: Release,
    ) -> Machine {
        Machine {
            backend,
            journal,
            flashed,
        }
    }

    /// How it is now.
    ///
    /// # Errors
    /// The journal or the boot loader's state cannot be read, or nothing proves what runs.
    pub fn look(&self) -> Result<Seen, MachineError> {
        let journal = load(&self.journal)?;
        let booted = self.backend.booted()?;
        let running = journal.of(booted).release().unwrap_or(&self.flashed);
        Ok(Seen {
            boot: self.backend.load()?,
            counting: self.backend.counting(),
            running: running.clone(),
            booted,
            journal,
        })
    }

    /// Writes what was decided.
    ///
    /// # Errors
    /// At the first write that may not have happened.
    pub fn carry_out(&mut self, plan: Plan) -> Result<Then, MachineError> {
        for write in plan.writes {
            match write {
                Write::Journal(journal) => store(&self.journal, &journal)?,
                Write::Boot(state) => self.backend.store(state)?,
            }
        }
        Ok(plan.then)
    }

    /// What reboot(2) is to be told.
    ///
    /// # Errors
    /// The boot loader's state cannot be read.
    pub fn restart_argument(&self) -> Result<Option<&'static str>, MachineError> {
        Ok(self.backend.restart_argument(self.backend.load()?))
    }
}
