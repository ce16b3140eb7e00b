//! The journal's file. Driver.
//!
//! Invariant: the file is whole at any moment: a new one replaces it after it is on the disk.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Journal;

/// The file's form.
const VERSION: u32 = 1;
/// Longest file that is read.
const FILE_MAX: u64 = 64 * 1024;

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("cannot {what} the slots' journal {path}: {source}")]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is damaged, or of another version.
    #[error(
        "the slots' journal {path} is not understood: {why}; nothing is installed until it is removed, and then both slots count as empty"
    )]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    slots: Journal,
}

/// What the file says; an absent one says that nothing is known of either slot.
///
/// # Errors
/// When it is there and cannot be read or understood.
pub fn load(path: &Path) -> Result<Journal, JournalError> {
    let failed = |source| JournalError::File {
        what: "read",
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Journal::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(FILE_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let content = |why: String| JournalError::Content {
        path: path.to_owned(),
        why,
    };
    let written: Written =
        serde_json::from_str(&text).map_err(|error| content(error.to_string()))?;
    if written.version != VERSION {
        return Err(content(format!(
            "version {} instead of {VERSION}",
            written.version
        )));
    }
    Ok(written.slots)
}

/// Replaces the file in one step, and waits for the disk.
///
/// # Errors
/// When the system refuses; the file is then as it was, or as it is to be.
pub fn store(path: &Path, journal: &Journal) -> Result<(), JournalError> {
    replace(path, journal).map_err(|source| JournalError::File {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, journal: &Journal) -> io::Result<()> {
    let written = Written {
        version: VERSION,
        slots: journal.clone(),
    };
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec_pretty(&written)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        journal::{Content, Release},
        slots::Slot,
    };

    #[test]
    fn what_is_stored_is_loaded_and_an_absent_file_knows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slots.json");
        assert_eq!(load(&path).unwrap(), Journal::default());
        let release = Release {
            version: "2.4.1".to_owned(),
            epoch: 7,
            root: "ab".repeat(32),
        };
        let reason = "bus hall-2 stopped polling".to_owned();
        let journal = Journal::default()
            .with(
                Slot::A,
                Content::Good {
                    release: release.clone(),
                },
            )
            .with(Slot::B, Content::Bad { release, reason });
        store(&path, &journal).unwrap();
        assert_eq!(load(&path).unwrap(), journal);
    }

    #[test]
    fn a_journal_of_other_hands_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slots.json");
        for text in [
            "",
            "{}",
            "{\"version\":2,\"slots\":{\"a\":{\"state\":\"empty\"},\"b\":{\"state\":\"empty\"}}}",
        ] {
            fs::write(&path, text).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("is not understood"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
