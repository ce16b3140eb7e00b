//! The directory of trusted metadata, byte for byte as they came, and that of downloaded targets.
//!
//! Invariant: a file holds the old bytes or the new ones whole, also after a power cut: written aside, synced, renamed,
//! and the directory synced. What is read back is not trusted for lying here. A driver.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::failure::UpdateError;
use crate::fetch::{Fetcher, copy_target};
use crate::metadata::Target;
use crate::names;

/// The disk did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// The system refused.
    #[error("cannot {action} {}: {error}", path.display())]
    Disk {
        /// `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody else is at it.
    #[error("{} is in use by another update; try again when it has ended", .0.display())]
    Busy(PathBuf),
    /// 5.2 has nothing to start from.
    #[error("{} has no root.json: put the root there that came with the device", .0.display())]
    NoRoot(PathBuf),
    /// There is one to start from.
    #[error("{} has a root.json already; delete the directory to start over", .0.display())]
    HasRoot(PathBuf),
}

/// The directory of trusted metadata: `root.json`, `timestamp.json`, and so on.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held as long as this lives.
    _lock: File,
}

impl Directory {
    /// Takes the directory for an update, and makes it where it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or another update has it.
    pub fn open(path: &Path) -> Result<Self, StoreFailure> {
        fs::create_dir_all(path).map_err(|error| disk("make", path, error))?;
        let lock_path = path.join(".lock");
        let lock = File::create(&lock_path).map_err(|error| disk("make", &lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreFailure::Busy(path.into())),
            Err(TryLockError::Error(error)) => return Err(disk("lock", &lock_path, error)),
        }
        Ok(Self {
            path: path.into(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file `name` if there is one of at most `limit` bytes. A longer one was not written by us.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreFailure> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk("read", &path, error)),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| disk("read", &path, error))?;
        Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= limit))
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreFailure> {
        replace(&self.path, name, |file| file.write_all(bytes))
            .map_err(|error| disk("write", &self.path.join(name), error))
    }

    /// Deletes files together: the directory is synced after the last.
    pub(crate) fn remove(&self, names: &[String]) -> Result<(), StoreFailure> {
        for name in names {
            let path = self.path.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(disk("delete", &path, error));
                }
                _ => {}
            }
        }
        sync(&self.path).map_err(|error| disk("sync", &self.path, error))
    }
}

/// A folder of downloaded targets, each under its whole path as one percent-encoded name.
#[derive(Debug, Clone)]
pub struct TargetFolder(PathBuf);

impl TargetFolder {
    /// Uses the folder `path`, which has to be there.
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }

    /// Where a target's file is, or would be.
    pub fn file(&self, target: &Target) -> PathBuf {
        self.0.join(names::encode(&target.path))
    }

    /// Whether the target's file is there and is what the metadata says.
    pub fn has(&self, target: &Target) -> bool {
        let mut check = target.hashes.check();
        let mut left = target.length;
        let mut buffer = vec![0; 64 * 1024];
        let Ok(mut file) = File::open(self.file(target)) else {
            return false;
        };
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return left == 0 && check.matches(),
                Ok(read) if read as u64 <= left => {
                    left -= read as u64;
                    check.update(&buffer[..read]);
                }
                _ => return false,
            }
        }
    }

    /// Fetches a target; the file appears only once it is what the metadata says.
    pub(crate) fn fetch(
        &self,
        target: &Target,
        name: &str,
        fetcher: &mut dyn Fetcher,
    ) -> Result<(), UpdateError> {
        let mut refused = Ok(());
        let written = replace(&self.0, &names::encode(&target.path), |file| {
            refused = copy_target(fetcher, name, target, file);
            match &refused {
                Ok(()) => Ok(()),
                Err(_) => Err(io::Error::other("refused")),
            }
        });
        refused?;
        written.map_err(|error| UpdateError::Sink {
            target: target.path.clone(),
            error,
        })
    }
}

/// Beside the file to be written. No target's encoded name holds a `+`; a later attempt overwrites it.
const ASIDE: &str = ".new+";

/// Writes `name` in `folder` by way of a file beside it.
pub(crate) fn replace(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let aside = folder.join(ASIDE);
    let done = File::create(&aside)
        .and_then(|mut file| {
            write(&mut file)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&aside, folder.join(name)))
        .and_then(|()| sync(folder));
    if done.is_err() {
        // What is left would only take space; that it stays is no second error.
        let _ = fs::remove_file(&aside);
    }
    done
}

/// Writes a file as a whole: beside its place, synced, named in one step, the directory synced.
///
/// # Errors
/// Those of the system; the old file stays.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str());
    match (path.parent(), name) {
        (Some(folder), Some(name)) => replace(folder, name, write),
        _ => Err(io::ErrorKind::InvalidFilename.into()),
    }
}

/// Makes renames and deletions last.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn disk(action: &'static str, path: &Path, error: io::Error) -> StoreFailure {
    StoreFailure::Disk {
        action,
        path: path.into(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(&folder.path().join("metadata")).unwrap();
        assert_eq!(directory.read("a.json", 10).unwrap(), None);
        directory.write("a.json", b" {}\n ").unwrap();
        directory.write("a.json", b" { }\n").unwrap();
        assert_eq!(
            directory.read("a.json", 5).unwrap(),
            Some(b" { }\n".to_vec())
        );
        assert_eq!(directory.read("a.json", 4).unwrap(), None);
        directory
            .remove(&["a.json".into(), "b.json".into()])
            .unwrap();
        assert_eq!(directory.read("a.json", 5).unwrap(), None);
    }

    #[test]
    fn one_update_at_a_time_has_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let first = Directory::open(folder.path()).unwrap();
        assert!(matches!(
            Directory::open(folder.path()),
            Err(StoreFailure::Busy(_))
        ));
        drop(first);
        assert!(Directory::open(folder.path()).is_ok());
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_bytes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        replace(folder.path(), "a", |file| file.write_all(b"old")).unwrap();
        let failed = replace(folder.path(), "a", |file| {
            file.write_all(b"ne")?;
            Err(io::Error::other("no space"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
