//! What outlives the restart into another release, in files. Driver.
//!
//! Invariant: a file is whole at any moment; one that cannot be read is as good as none, and says so.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::warn;

use super::baseline::Baseline;
use crate::whole_file;

/// Longer files are not of this program.
const FILE_MAX: u64 = 4 << 20;
/// Who may look into the directory: the gateway's user.
const DIRECTORY_MODE: u32 = 0o750;

/// What was told of releases, so that it is told once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Told {
    /// Merkle root of the last release whose roll-back was told, and why that was.
    pub(crate) rolled_back: Option<(String, String)>,
    /// Merkle root of the last release whose receipt was published, and the receipt.
    pub(crate) receipt: Option<(String, Value)>,
}

/// The files below `[update] directory`.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    directory: PathBuf,
}

impl Records {
    /// Those in that directory, which is made with the first of them.
    pub(crate) fn new(directory: &Path) -> Records {
        Records {
            directory: directory.to_owned(),
        }
    }

    /// How the plant ran before.
    pub(crate) fn baseline(&self) -> Option<Baseline> {
        self.read("baseline.json")
    }

    /// Remembers how the plant runs.
    ///
    /// # Errors
    /// The system refuses; the file is then as it was.
    pub(crate) fn remember(&self, baseline: &Baseline) -> io::Result<()> {
        self.replace("baseline.json", baseline)
    }

    /// What was told; nothing, where that is not known.
    pub(crate) fn told(&self) -> Told {
        self.read("told.json").unwrap_or_default()
    }

    /// Remembers what was told.
    ///
    /// # Errors
    /// The system refuses; the file is then as it was.
    pub(crate) fn tell(&self, told: &Told) -> io::Result<()> {
        self.replace("told.json", told)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.directory.join(name);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "what was kept about releases cannot be read");
                None
            }
            Ok(_) => serde_json::from_str(&text)
                .inspect_err(|error| {
                    warn!(path = %path.display(), %error, "what was kept about releases is not understood");
                })
                .ok(),
        }
    }

    fn replace<T: Serialize>(&self, name: &str, content: &T) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&self.directory)?;
        whole_file::replace(&self.directory.join(name), content)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_remembered_is_read_again_and_damage_counts_as_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(&folder.path().join("update"));
        assert_eq!(records.baseline(), None);
        assert_eq!(records.told(), Told::default());
        let baseline = Baseline {
            upstream: true,
            ..Baseline::default()
        };
        records.remember(&baseline).unwrap();
        assert_eq!(records.baseline(), Some(baseline));
        let told = Told {
            receipt: Some(("ab".to_owned(), Value::Bool(true))),
            ..Told::default()
        };
        records.tell(&told).unwrap();
        assert_eq!(records.told(), told);
        fs::write(folder.path().join("update/baseline.json"), "{\"devi").unwrap();
        assert_eq!(records.baseline(), None);
    }
}
