//! The security floor of a device without TPM: a file.
//!
//! Invariant: it only rises, by at most what leaves room for later ones; a damaged file is not taken for none. Driver.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tpm::VERSION_MAX;

use super::TrustError;

/// The file.
pub(super) struct EpochFile(PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    security_floor: u64,
}

impl EpochFile {
    pub(super) fn new(path: PathBuf) -> EpochFile {
        EpochFile(path)
    }

    pub(super) fn read(&self) -> Result<u64, TrustError> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(self.error("read", error)),
        };
        serde_json::from_slice(&bytes)
            .map(|words: Words| words.security_floor)
            .map_err(|error| self.error("read", error))
    }

    /// Writes a floor that the caller knows to be higher.
    pub(super) fn write(&self, epoch: u64) -> Result<(), TrustError> {
        if epoch > VERSION_MAX {
            let reason =
                format!("epoch {epoch} is above {VERSION_MAX}, after which none could rise");
            return Err(self.error("write", reason));
        }
        let words = Words {
            security_floor: epoch,
        };
        serde_json::to_vec(&words)
            .map_err(io::Error::from)
            .and_then(|bytes| tuf::directory::replace_file(&self.0, |file| file.write_all(&bytes)))
            .map_err(|error| self.error("write", error))
    }

    fn error(&self, action: &'static str, reason: impl std::fmt::Display) -> TrustError {
        TrustError::File {
            action,
            path: self.0.clone(),
            reason: reason.to_string(),
        }
    }
}
