//! The directory in which the unprivileged gateway leaves what it has downloaded, as the updater reads it. Driver.
//!
//! ```text
//!  STAGING/metadata/   the gateway's own trusted metadata: timestamp.json, snapshot.json, targets.json, …
//!  STAGING/roots/      every root on the way, N.root.json, with N.root.approval.json
//!  STAGING/index       the release's index
//!  STAGING/chunks/     stored chunks by their SHA-256
//!  STAGING/sbom        the release's list of components
//!  STAGING/floor.approval.json   the vendor's approval to raise the security floor to the release's epoch
//! ```
//!
//! Invariant: only regular files directly in these folders are read, never by way of a symbolic link, and never more of one
//! than it may have. Nothing read is trusted.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::stat::Mode,
};
use tuf::fetch::{FetchFailure, Fetcher, Place};

/// Trusted metadata of the gateway.
pub const METADATA: &str = "metadata";
/// Every root on the way.
pub const ROOTS: &str = "roots";
/// Stored chunks.
pub const CHUNKS: &str = "chunks";
/// The release's index.
pub const INDEX: &str = "index";
/// Its list of components.
pub const SBOM: &str = "sbom";
/// The vendor's approval of the release's epoch as security floor.
pub const FLOOR_APPROVAL: &str = "floor.approval.json";

/// The staging directory, opened once: to rename it changes nothing for who has it open.
#[derive(Debug)]
pub struct Staging {
    folder: OwnedFd,
}

impl Staging {
    /// Opens the directory.
    ///
    /// # Errors
    /// It is not there, or is a symbolic link.
    pub fn open(path: &Path) -> io::Result<Staging> {
        let folder = open(path, folder_flags(), Mode::empty())?;
        Ok(Staging { folder })
    }

    /// The file `name` of the directory itself, if there is one; at most `limit` bytes of it.
    ///
    /// # Errors
    /// It is no regular file, longer, or cannot be read.
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        match self.file(None, name)? {
            Some(file) => read_whole(file, limit).map(Some),
            None => Ok(None),
        }
    }

    /// The stored chunk of this name, if there is one.
    ///
    /// # Errors
    /// As of [`Staging::read`].
    pub fn chunk(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        match self.file(Some(CHUNKS), name)? {
            Some(file) => read_whole(file, limit).map(Some),
            None => Ok(None),
        }
    }

    fn file(&self, folder: Option<&str>, name: &str) -> io::Result<Option<File>> {
        if !is_plain(name) {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let opened = match folder {
            None => openat(&self.folder, name, file_flags(), Mode::empty()),
            Some(folder) => openat(&self.folder, folder, folder_flags(), Mode::empty())
                .and_then(|folder| openat(&folder, name, file_flags(), Mode::empty())),
        };
        let file = match opened {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match file.metadata()?.is_file() {
            true => Ok(Some(file)),
            false => Err(io::Error::other("not a regular file")),
        }
    }
}

/// To the updater, the staging directory is the repository.
impl Fetcher for &Staging {
    fn open(&mut self, place: Place, name: &str) -> Result<Box<dyn Read + '_>, FetchFailure> {
        let file = match place {
            Place::Metadata if is_of_root(name) => self.file(Some(ROOTS), name),
            Place::Metadata => self.file(Some(METADATA), without_version(name)),
            // One target is looked for: the index.
            Place::Targets => self.file(None, INDEX),
        };
        match file {
            Ok(Some(file)) => Ok(Box::new(file)),
            Ok(None) => Err(FetchFailure::NotFound(name.to_owned())),
            Err(error) => Err(FetchFailure::Unreachable {
                name: name.to_owned(),
                reason: error.to_string(),
            }),
        }
    }
}

/// `42.root.json` and `42.root.approval.json`, which lie in [`ROOTS`].
pub fn is_of_root(name: &str) -> bool {
    name.split_once('.').is_some_and(|(version, rest)| {
        is_number(version) && matches!(rest, "root.json" | "root.approval.json")
    })
}

/// `42.targets.json` lies in the gateway's metadata as `targets.json`: whether it is the version wanted, its reader checks.
fn without_version(name: &str) -> &str {
    match name.split_once('.') {
        Some((version, rest)) if is_number(version) && rest.contains('.') => rest,
        _ => name,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a name is one file's, and no hidden one's.
fn is_plain(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits)
}

fn folder_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// Not blocking, as the name may be a pipe's.
fn file_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC
}

fn read_whole(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= limit {
        true => Ok(bytes),
        false => Err(io::Error::other(format!("longer than {limit} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in [METADATA, ROOTS, CHUNKS] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        folder
    }

    #[test]
    fn no_name_and_no_link_leads_out_of_staging() {
        let folder = folder();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), folder.path().join("index")).unwrap();
        symlink("/etc", folder.path().join("linked")).unwrap();
        let staging = Staging::open(folder.path()).unwrap();
        assert!(staging.read(INDEX, 10).is_err());
        for name in ["../index", "/etc/passwd", "chunks/a", ".", "..", "", "a\0b"] {
            assert!(staging.read(name, 10).is_err(), "{name:?}");
            assert!(staging.chunk(name, 10).is_err(), "{name:?}");
        }
        fs::remove_dir(folder.path().join(CHUNKS)).unwrap();
        symlink("/etc", folder.path().join(CHUNKS)).unwrap();
        assert!(staging.chunk("passwd", 10_000).is_err());
        assert!(Staging::open(&folder.path().join("linked")).is_err());
    }

    #[test]
    fn pipes_folders_and_endless_files_hold_nobody_up() {
        let folder = folder();
        let chunks = folder.path().join(CHUNKS);
        nix::unistd::mkfifo(&chunks.join("pipe"), Mode::S_IRWXU).unwrap();
        fs::create_dir(chunks.join("folder")).unwrap();
        fs::write(chunks.join("long"), [0; 11]).unwrap();
        let staging = Staging::open(folder.path()).unwrap();
        for name in ["pipe", "folder", "long"] {
            assert!(staging.chunk(name, 10).is_err(), "{name}");
        }
        assert_eq!(staging.chunk("long", 11).unwrap().unwrap().len(), 11);
        assert!(staging.chunk("absent", 11).unwrap().is_none());
    }

    #[test]
    fn metadata_are_found_under_the_names_that_a_repository_gives_them() {
        let folder = folder();
        fs::write(folder.path().join("roots/7.root.json"), "root").unwrap();
        fs::write(folder.path().join("metadata/targets.json"), "targets").unwrap();
        fs::write(folder.path().join("index"), "index").unwrap();
        let staging = Staging::open(folder.path()).unwrap();
        let fetched = |place, name: &str| {
            let mut text = String::new();
            let mut fetcher = &staging;
            let mut reader = fetcher.open(place, name).ok()?;
            reader.read_to_string(&mut text).ok()?;
            Some(text)
        };
        assert_eq!(fetched(Place::Metadata, "7.root.json").unwrap(), "root");
        assert_eq!(fetched(Place::Metadata, "8.root.json"), None);
        assert_eq!(
            fetched(Place::Metadata, "3.targets.json").unwrap(),
            "targets"
        );
        assert_eq!(fetched(Place::Targets, "ab12.board").unwrap(), "index");
    }
}
