//! The file that holds what devices have taught, over restarts. Driver.
//!
//! It is a convenience: without it the devices teach the same again. So a file that cannot be read
//! is kept aside, one that cannot be written is told, and neither stops anything.
//!
//! Invariant: the file is whole at any moment: a new one replaces it after it is on the disk.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{
    fieldbus::poll::memory::{Memories, Memory},
    whole_file::{self, beside},
};

/// The file's form; one of another version is kept aside.
const VERSION: u32 = 1;
/// Longest file that is read.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LessonsError {
    /// The system refused.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is damaged, of another version, or no such file at all.
    #[error("{path} is no file of lessons that this version understands: {reason}")]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    devices: Memories,
}

/// The file and what stands in it.
#[derive(Debug)]
pub(crate) struct LessonsFile {
    path: PathBuf,
    written: Memories,
    /// What was last said of a file that cannot be written.
    fault: Option<String>,
}

impl LessonsFile {
    /// What was learned before; a file that is not understood is kept aside.
    pub(crate) fn open(path: &Path) -> LessonsFile {
        let written = read(path).unwrap_or_else(|error| {
            warn!(%error, "what devices have taught is learned anew");
            if matches!(error, LessonsError::Foreign { .. }) {
                keep_aside(path);
            }
            Memories::new()
        });
        LessonsFile {
            path: path.to_owned(),
            written,
            fault: None,
        }
    }

    /// What stands in it.
    pub(crate) fn memories(&self) -> &Memories {
        &self.written
    }

    /// Writes what devices have taught, if any of it is news. Blocks. A failure is logged once.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&mut self, memories: Memories) -> io::Result<()> {
        let is_news = |(name, memory): (&String, &Memory)| {
            let written = self.written.get(name);
            written.is_none_or(|written| memory.is_news(written))
        };
        let gone = self.written.keys().any(|name| !memories.contains_key(name));
        if !gone && !memories.iter().any(is_news) {
            return Ok(());
        }
        let content = Written {
            version: VERSION,
            devices: memories.clone(),
        };
        match whole_file::replace(&self.path, &content) {
            Ok(()) => {
                self.written = memories;
                self.fault = None;
                Ok(())
            }
            Err(error) => {
                let fault = error.to_string();
                if self.fault.as_ref() != Some(&fault) {
                    warn!(path = %self.path.display(), %error, "cannot write down what devices have taught");
                }
                self.fault = Some(fault);
                Err(error)
            }
        }
    }
}

/// What stands in a file; nothing where there is none.
///
/// # Errors
/// It cannot be read, or is not understood.
pub(crate) fn read(path: &Path) -> Result<Memories, LessonsError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
    let foreign = |reason: String| LessonsError::Foreign {
        path: path.to_owned(),
        reason,
    };
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Memories::new()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(foreign("it is no text".to_owned()));
        }
        Err(source) => {
            return Err(LessonsError::File {
                path: path.to_owned(),
                source,
            });
        }
        Ok(_) => {}
    }
    let written: Written =
        serde_json::from_str(&text).map_err(|error| foreign(error.to_string()))?;
    if written.version != VERSION {
        return Err(foreign(format!("it is of version {}", written.version)));
    }
    Ok(written.devices)
}

fn keep_aside(path: &Path) {
    let aside = beside(path, ".damaged");
    match fs::rename(path, &aside) {
        Ok(()) => info!(kept = %aside.display(), "it is kept aside"),
        Err(error) => warn!(path = %path.display(), %error, "cannot keep it aside"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memories(parked: &str) -> Memories {
        let memory = Memory {
            fingerprint: "f".to_owned(),
            turnaround_us: Some(3_000),
            parked: vec![parked.to_owned()],
            ..Memory::default()
        };
        [("meter".to_owned(), memory)].into()
    }

    #[test]
    fn what_was_written_is_there_at_the_next_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lessons.json");
        LessonsFile::open(&path)
            .write(memories("p"))
            .expect("written");
        assert_eq!(*LessonsFile::open(&path).memories(), memories("p"));
        let files = fs::read_dir(folder.path()).expect("the folder").count();
        assert_eq!(files, 1, "nothing is left beside it");
    }

    #[test]
    fn the_file_is_written_only_for_news() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lessons.json");
        let mut file = LessonsFile::open(&path);
        file.write(Memories::new()).expect("nothing to do");
        assert!(!path.exists());
        file.write(memories("p")).expect("written");
        fs::remove_file(&path).expect("it was there");
        let mut same = memories("p");
        same.entry("meter".to_owned())
            .and_modify(|one| one.turnaround_us = Some(3_100));
        file.write(same).expect("nothing to do");
        assert!(!path.exists());
        file.write(memories("q")).expect("written");
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_is_not_understood_is_kept_aside_and_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lessons.json");
        for text in [&b"{"[..], b"\xff", b"{\"version\":9,\"devices\":{}}", b"[]"] {
            fs::write(&path, text).expect("written");
            assert!(matches!(read(&path), Err(LessonsError::Foreign { .. })));
            assert!(LessonsFile::open(&path).memories().is_empty());
            assert!(!path.exists());
            assert_eq!(fs::read(beside(&path, ".damaged")).expect("kept"), text);
        }
    }
}
