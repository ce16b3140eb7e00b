//! The floor in a file, for devices without a TPM, and for what a TPM's floor leaves to the disk.
//!
//! Invariant: the file holds the old floor or the new one whole. It protects from those only who cannot write it, so it
//! belongs to root, outside of the metadata directory. A driver.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Floor, FloorFailure, FloorStore, RootPin};
use crate::directory::replace_file;
use crate::hex;

/// Remembers in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFloor(PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    root: Option<PinWords>,
    timestamp: u64,
    snapshot: u64,
    targets: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinWords {
    version: u64,
    sha256: String,
}

impl FileFloor {
    /// Uses the file `path`, which is made with the first floor; its directory has to be there.
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }

    fn failure(&self, action: &'static str, reason: impl std::fmt::Display) -> FloorFailure {
        FloorFailure {
            action,
            reason: format!("{}: {reason}", self.0.display()),
        }
    }
}

impl FloorStore for FileFloor {
    fn floor(&mut self) -> Result<Floor, FloorFailure> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Floor::default()),
            Err(error) => return Err(self.failure("read", error)),
        };
        let words: Words =
            serde_json::from_slice(&bytes).map_err(|error| self.failure("read", error))?;
        let pin = |pin: PinWords| {
            let sha256 = hex::decode(&pin.sha256).and_then(|bytes| bytes.try_into().ok());
            let sha256 = sha256.ok_or_else(|| self.failure("read", "no digest of a root"))?;
            Ok(RootPin {
                version: pin.version,
                sha256,
            })
        };
        Ok(Floor {
            root: words.root.map(pin).transpose()?,
            timestamp: words.timestamp,
            snapshot: words.snapshot,
            targets: words.targets,
        })
    }

    fn keep(&mut self, floor: &Floor) -> Result<(), FloorFailure> {
        let words = Words {
            root: floor.root.map(|pin| PinWords {
                version: pin.version,
                sha256: hex::encode(&pin.sha256),
            }),
            timestamp: floor.timestamp,
            snapshot: floor.snapshot,
            targets: floor.targets,
        };
        let bytes = serde_json::to_vec(&words).map_err(|error| self.failure("kept", error))?;
        replace_file(&self.0, |file| file.write_all(&bytes))
            .map_err(|error| self.failure("kept", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_reads_back_and_a_damaged_one_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("floor.json");
        let mut store = FileFloor::new(&path);
        assert_eq!(store.floor(), Ok(Floor::default()));
        let floor = Floor {
            root: Some(RootPin::of(7, b"root")),
            timestamp: 3,
            snapshot: 2,
            targets: 1,
        };
        store.keep(&floor).unwrap();
        assert_eq!(FileFloor::new(&path).floor(), Ok(floor));
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [
            &text[..text.len() - 1],
            "",
            &text.replace(r#""sha256":""#, r#""sha256":"0"#),
        ] {
            fs::write(&path, damaged).unwrap();
            let failure = store.floor().unwrap_err().to_string();
            assert!(failure.contains("floor.json"), "{failure}");
        }
    }
}
