//! Writes a staged release into the slot that does not run.
//!
//! ```text
//!  staging ─▶ verify: metadata, index, hardware, epoch, content key     whose bytes may be used
//!     │                   │ Verified
//!     │ chunk             ▼
//!     └────▶ write ◀── source: in place? in the running slot? zeros? staged?
//!              │ hashed in memory, written, synced
//!              ▼
//!           image ─▶ read back past the page cache ─▶ Merkle root ─▶ the slot is written
//! ```
//!
//! Staging belongs to the unprivileged gateway. What is read from it is read once, into memory, and what was hashed there is
//! what is written: whoever exchanges a file meanwhile exchanges nothing.
//!
//! Invariant: the journal calls a slot written only after every chunk of the release was read back from the medium.
//! Driver; its decisions are [`source`]'s.

pub mod staging;

pub mod image;

pub mod verify;

pub mod source;

pub mod write;

pub mod job;

use std::{io, path::PathBuf};

use crate::{release::Malformed, trust::TrustError};

/// Why nothing was installed. The slot that runs is as it was.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The metadata are not to be trusted, or are not there.
    #[error(transparent)]
    Metadata(#[from] tuf::UpdateError),
    /// The TPM, or the security floor.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The index that was signed is none.
    #[error(transparent)]
    Index(#[from] Malformed),
    /// For other machines.
    #[error("release {version} is for {hardware}, and this is {here}")]
    WrongHardware {
        /// Its version.
        version: String,
        /// What it is for.
        hardware: String,
        /// What this is.
        here: String,
    },
    /// For other recipients.
    #[error("release {version} is not encrypted for this device: {why}")]
    NotForThisDevice {
        /// Its version.
        version: String,
        /// Which keys there are.
        why: String,
    },
    /// It runs.
    #[error("release {0} runs already")]
    Runs(String),
    /// What is staged cannot be read.
    #[error("cannot read {name} in the staging directory: {source}")]
    Staging {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The slot, or what is remembered of it.
    #[error("cannot {what} {path}: {source}")]
    Slot {
        /// `open`, `read`, `write` or `sync`.
        what: &'static str,
        /// The device or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The image does not fit.
    #[error("the image has {image} bytes, and slot {path} has {slot}")]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its bytes.
        slot: u64,
        /// The image's.
        image: u64,
    },
    /// Chunks that are nowhere.
    #[error(
        "{} chunks, the first of them number {}, are neither staged nor in a slot", .0.len(), .0.first().unwrap_or(&0)
    )]
    Missing(Vec<u32>),
    /// The medium does not hold what was written to it.
    #[error(
        "chunk {chunk} of {path} reads back other than it was written: the medium is worn out or faulty; the slot is not used"
    )]
    ReadBack {
        /// The device.
        path: PathBuf,
        /// The first such chunk.
        chunk: usize,
    },
    /// Nothing changes while it is unclear what runs.
    #[error(transparent)]
    Refused(#[from] crate::trial::Refused),
    /// The journal or the boot loader's state.
    #[error(transparent)]
    Machine(#[from] crate::machine::MachineError),
    /// The process ends.
    #[error("the installation was interrupted; it goes on when the updater starts again")]
    Stopped,
}

impl InstallError {
    /// Whether something was not to be trusted, rather than failed.
    pub fn is_security(&self) -> bool {
        match self {
            InstallError::Metadata(error) => matches!(
                error,
                tuf::UpdateError::Refused(_) | tuf::UpdateError::NoSuchTarget(_)
            ),
            InstallError::Trust(error) => matches!(
                error,
                TrustError::Withdrawn { .. } | TrustError::NotApproved { .. }
            ),
            InstallError::Index(_)
            | InstallError::WrongHardware { .. }
            | InstallError::NotForThisDevice { .. } => true,
            _ => false,
        }
    }

    /// The chunks that would help.
    pub fn missing(&self) -> &[u32] {
        match self {
            InstallError::Missing(chunks) => chunks,
            _ => &[],
        }
    }
}
