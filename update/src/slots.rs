//! The two places a release can be in, and what the boot loader keeps about them. Values.
//!
//! Each kind of board has a room: [`uboot`] for U-Boot's redundant environment, [`tryboot`] for the
//! Raspberry Pi's firmware, [`files`] for tests and demonstrations.
//!
//! Invariant: the slot on trial is never the one that starts by default.

use std::{fmt, io, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

pub mod evidence;

pub mod environment;
pub mod uboot;

pub mod autoboot;
pub mod tryboot;

pub mod files;

mod place;

/// Most starts that a release gets to become healthy; the boot loaders count in one digit.
pub const MAX_TRIES: u8 = 9;

/// Orderly restarts that give their start back in one trial; after these, each costs one.
pub const MAX_REFUNDS: u8 = 9;

/// One of the two places for a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The one beside it.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Slot::A => "a",
            Slot::B => "b",
        })
    }
}

impl FromStr for Slot {
    type Err = UnknownSlot;

    fn from_str(text: &str) -> Result<Slot, UnknownSlot> {
        match text {
            "a" => Ok(Slot::A),
            "b" => Ok(Slot::B),
            _ => Err(UnknownSlot(text.chars().take(16).collect())),
        }
    }
}

/// Neither `a` nor `b`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no slot: there are \"a\" and \"b\"")]
pub struct UnknownSlot(String);

/// What starts next, as the boot loader keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootState {
    /// What starts when nothing is on trial.
    pub default: Slot,
    /// What starts instead, for as long as starts are left.
    pub trial: Option<Trial>,
}

impl BootState {
    /// Nothing on trial.
    pub fn settled(default: Slot) -> BootState {
        BootState {
            default,
            trial: None,
        }
    }

    /// The other slot on trial, with so many starts.
    pub fn trying(default: Slot, left: u8) -> BootState {
        let trial = Trial { left, refunds: 0 };
        BootState {
            default,
            trial: Some(trial),
        }
    }

    /// The slot on trial.
    pub fn on_trial(&self) -> Option<Slot> {
        self.trial.map(|_| self.default.other())
    }
}

/// The slot that does not start by default is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// Starts it still gets.
    pub left: u8,
    /// Starts that were given back because a restart was asked for.
    pub refunds: u8,
}

/// Who takes a start off the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// The boot loader, before it starts the slot; at none left it starts the other.
    ByBootLoader,
    /// We, before we ask for the restart; the boot loader tries once and then starts the other.
    ByUs,
}

/// A boot loader's state, read and replaced.
pub trait SlotBackend {
    /// What starts next.
    ///
    /// # Errors
    /// When nothing valid can be read; nothing is then known, and nothing may be written.
    fn load(&self) -> Result<BootState, SlotError>;

    /// Replaces it by one write: after a power cut it reads as before, or as it is to be.
    ///
    /// # Errors
    /// When the write may not have reached the medium.
    fn store(&mut self, state: BootState) -> Result<(), SlotError>;

    /// The slot that the running system was started from, by evidence that the stored state cannot
    /// change.
    ///
    /// # Errors
    /// When there is no evidence, or two pieces of it disagree.
    fn booted(&self) -> Result<Slot, SlotError>;

    /// Who takes a start off the count.
    fn counting(&self) -> Counting;

    /// What reboot(2) is to be told so that the slot on trial starts; `None`: nothing special.
    fn restart_argument(&self, state: BootState) -> Option<&'static str>;
}

/// Why the boot loader's state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The system refused.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// `read`, `write` or `sync`.
        what: &'static str,
        /// Of the file or device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What stands there is not ours to understand.
    #[error("{path}: {why}")]
    Content {
        /// Of the file or device.
        path: PathBuf,
        /// What is wrong with it, and what helps.
        why: String,
    },
    /// It is not known which slot runs.
    #[error(transparent)]
    Evidence(#[from] evidence::NoEvidence),
}
