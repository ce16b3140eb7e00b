//! Who vouches for a release on this device: the TPM and the software together where there is a TPM, else the software
//! alone.
//!
//! ```text
//!                 ┌─ verifier: every signature, by ring and by the TPM
//!  tuf::refresh ──┼─ floor: the trusted root in the TPM, moved by `N.root.approval.json` alone; versions in a file
//!                 └─ clock: trusted once a time service set it, else a lower bound
//!  installation ──── security floor, content keys: what the TPM lets go
//!  afterwards ────── receipt: floor and release, signed by the TPM
//! ```
//!
//! Invariant: a device that is told to have a TPM trusts nothing while that is away, cleared or exchanged; it does not
//! fall back to the software alone. Driver.

pub mod clock;

mod verifier;
pub use verifier::TpmVerifier;

mod floor;
pub use floor::TpmFloor;

mod epoch;

pub mod receipt;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tpm::{Anchors, Approval, DeviceKey, EpochApproval, PublicKey, Secret, Subject, Wrapped};
use tuf::floor::{FileFloor, FloorStore};
use tuf::verify::{Both, Software, Verifier};

use epoch::EpochFile;
use receipt::{Installed, Receipt};

/// How long the TPM may take for one of these, waiting included.
const PATIENCE: Duration = Duration::from_secs(30);

/// The floor of versions, beside the trusted root where there is no TPM.
const FLOOR_FILE: &str = "floor.json";
/// The floor that is being moved to, while the TPM moves.
const NEXT_FLOOR_FILE: &str = "floor.next.json";
/// The security floor of a device without TPM.
const EPOCH_FILE: &str = "security-floor.json";

/// Why a release is not trusted, or trust does not move.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] tpm::Error),
    /// The security floor forbids it.
    #[error(
        "the release is of security epoch {epoch}, and nothing below {floor} is installed here any more"
    )]
    Withdrawn {
        /// The release's.
        epoch: u64,
        /// The device's.
        floor: u64,
    },
    /// What came as an approval is none, or one of something else.
    #[error("the approval of security epoch {epoch} is of no use: {reason}")]
    NotApproved {
        /// The epoch that the floor was to rise to.
        epoch: u64,
        /// What is wrong.
        reason: String,
    },
    /// The file that stands in for the TPM.
    #[error("cannot {action} the security floor in {}: {reason}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Who vouches on this device. Cheap to clone where there is a TPM: clones share its queue.
#[derive(Debug, Clone)]
pub struct Trust {
    hardware: Option<Hardware>,
    /// For root alone; not the directory of metadata.
    state: PathBuf,
}

/// A TPM with the vendor's anchors in it.
#[derive(Debug, Clone)]
pub(crate) struct Hardware {
    device: DeviceKey,
    key: PublicKey,
}

impl Hardware {
    /// Asks the TPM with the anchors that stand in it: they are looked for each time, as it may have been exchanged.
    fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut tpm::Tpm, &tpm::Keys, &Anchors) -> tpm::Result<T> + Send + 'static,
    ) -> tpm::Result<T> {
        let key = self.key;
        self.device.ask(PATIENCE, move |tpm, keys| {
            let anchors = tpm.anchors(&key)?;
            act(tpm, keys, &anchors)
        })
    }
}

impl Trust {
    /// With the TPM of `device`, whose anchors the vendor's root-approval `key` moves. `state` is a directory that only
    /// those can write who install releases.
    pub fn with_tpm(device: DeviceKey, key: PublicKey, state: &Path) -> Trust {
        Trust {
            hardware: Some(Hardware { device, key }),
            state: state.into(),
        }
    }

    /// With files in `state` alone: what is trusted is as safe as those are.
    pub fn without_tpm(state: &Path) -> Trust {
        Trust {
            hardware: None,
            state: state.into(),
        }
    }

    /// Whether a TPM has its say.
    #[must_use]
    pub fn has_tpm(&self) -> bool {
        self.hardware.is_some()
    }

    /// What protects this device, in a sentence for people.
    #[must_use]
    pub fn in_words(&self) -> &'static str {
        match self.hardware {
            Some(_) => {
                "the TPM and the software both check every signature; the TPM holds the trusted root and the security floor"
            }
            None => {
                "NO TPM: the software alone checks signatures, and whoever is root here can put back the trusted root and \
                 the security floor, which are files"
            }
        }
    }

    /// Checks signatures: both where there is a TPM.
    #[must_use]
    pub fn verifier(&self) -> Box<dyn Verifier> {
        match &self.hardware {
            Some(hardware) => Box::new(Both(Software, TpmVerifier::new(hardware.device.clone()))),
            None => Box::new(Software),
        }
    }

    /// Remembers the trusted root and the versions.
    #[must_use]
    pub fn floors(&self) -> Box<dyn FloorStore> {
        let file = FileFloor::new(&self.state.join(FLOOR_FILE));
        match &self.hardware {
            Some(hardware) => Box::new(TpmFloor::new(
                hardware.clone(),
                file,
                FileFloor::new(&self.state.join(NEXT_FLOOR_FILE)),
            )),
            None => Box::new(file),
        }
    }

    /// The security epoch below which nothing is installed; 0 before there is a floor.
    ///
    /// # Errors
    /// The TPM is away, cleared or exchanged; the file is damaged.
    pub fn security_floor(&self) -> Result<u64, TrustError> {
        match &self.hardware {
            Some(hardware) => {
                let floor = hardware.ask(|tpm, _, anchors| tpm.security_floor(anchors))?;
                Ok(floor.unwrap_or(0))
            }
            None => self.epoch_file().read(),
        }
    }

    /// Refuses a release of a security epoch that was withdrawn.
    ///
    /// # Errors
    /// [`TrustError::Withdrawn`]; those of [`Trust::security_floor`].
    pub fn admit(&self, epoch: u64) -> Result<(), TrustError> {
        let floor = self.security_floor()?;
        match floor <= epoch {
            true => Ok(()),
            false => Err(TrustError::Withdrawn { epoch, floor }),
        }
    }

    /// Raises the security floor to `epoch`, after a release of that epoch was committed. A TPM demands the vendor's
    /// `approval` of just that floor, and takes one rise until the device restarts; a floor that is as high already is
    /// left alone.
    ///
    /// # Errors
    /// There is no approval, or the TPM refuses it; the file cannot be written.
    pub fn raise_security_floor(
        &self,
        epoch: u64,
        approval: Option<&[u8]>,
    ) -> Result<(), TrustError> {
        if self.security_floor()? >= epoch {
            return Ok(());
        }
        let Some(hardware) = &self.hardware else {
            return self.epoch_file().write(epoch);
        };
        let refused = |reason: String| TrustError::NotApproved { epoch, reason };
        let text = approval.ok_or_else(|| refused("the release brings none".into()))?;
        let approval = read_approval(text).map_err(refused)?;
        if approval.subject() != &Subject::Floor(epoch) {
            let reason = format!("it is about {:?}", approval.subject());
            return Err(refused(reason));
        }
        hardware.ask(move |tpm, _, anchors| tpm.apply(anchors, &approval))?;
        Ok(())
    }

    /// The key to which releases for this very device are encrypted; `None` where there is no TPM.
    ///
    /// # Errors
    /// The TPM is away, cleared or exchanged.
    pub fn payload_key(&self) -> Result<Option<PublicKey>, TrustError> {
        let hardware = self.hardware.as_ref();
        let asked = hardware.map(|hardware| hardware.ask(|_, keys, _| Ok(keys.payload_public)));
        Ok(asked.transpose()?)
    }

    /// Opens a release's content key, which the TPM does only while the floor allows the release's epoch.
    ///
    /// # Errors
    /// There is no TPM; it refuses, or is away.
    pub fn unwrap_key(
        &self,
        wrapped: &Wrapped,
        approval: &EpochApproval,
    ) -> Result<Secret, TrustError> {
        let Some(hardware) = &self.hardware else {
            return Err(tpm::Error::Rule(
                "the release is encrypted to TPMs, and this device has none configured".to_owned(),
            )
            .into());
        };
        let (wrapped, approval) = (wrapped.clone(), approval.clone());
        Ok(hardware.ask(move |tpm, keys, anchors| {
            tpm.unwrap_key(anchors, &keys.payload, &wrapped, &approval)
        })?)
    }

    /// What tells others that a release was installed: under the TPM's signature where there is one.
    ///
    /// # Errors
    /// The TPM is away, cleared or exchanged.
    pub fn receipt(&self, installed: &Installed) -> Result<Receipt, TrustError> {
        let statement = installed.statement();
        let Some(hardware) = &self.hardware else {
            return Ok(Receipt::unsigned(statement));
        };
        let asked = receipt::qualifying(&statement);
        let (floor, key) = hardware.ask(move |tpm, keys, anchors| {
            let floor = tpm.attest_floor(keys, anchors, &asked)?;
            Ok((floor, keys.attestation_public))
        })?;
        Ok(Receipt::signed(statement, &floor, &key))
    }

    fn epoch_file(&self) -> EpochFile {
        EpochFile::new(self.state.join(EPOCH_FILE))
    }
}

/// Reads an approval that came from a repository.
fn read_approval(bytes: &[u8]) -> Result<Approval, String> {
    if bytes.len() as u64 > tpm::APPROVAL_MAX {
        return Err(format!("it is larger than {} bytes", tpm::APPROVAL_MAX));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    Approval::from_json(text)
}
