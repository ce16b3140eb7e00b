//! The staging directory, as the gateway fills it for the updater. Driver.
//!
//! Invariant: a file bears its name only once it is whole and was checked; no more lies there than `[update.staging]` allows.

use std::{
    collections::HashSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use nix::sys::statvfs::statvfs;
use tuf::directory::replace_file;
use update::{
    install::staging::{CHUNKS, INDEX, METADATA, ROOTS},
    release::{Chunk, INDEX_MAX, Index, sha256},
};

use crate::config;

/// What the file system keeps free for the buffer and everybody else.
const KEEP_FREE: u64 = 64 << 20;
/// Indexes of releases that were staged, kept to know what the running slot holds: both slots' and the next one's.
const INDEXES: usize = 3;

/// Why nothing can be staged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    /// The system refused.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// `make`, `read`, `write` or `delete`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than is allowed.
    #[error(
        "the download takes {needed} bytes in {path}, and [update.staging] max_size is {allowed}"
    )]
    TooLarge {
        /// The directory.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        allowed: u64,
    },
    /// More than there is.
    #[error(
        "the download takes {needed} bytes in {path}, where {free} are free and {KEEP_FREE} of them stay so for the rest"
    )]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    folder: PathBuf,
    indexes: PathBuf,
    max: u64,
}

impl Stage {
    /// Makes the directory where it is missing.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn open(config: &config::Update) -> Result<Stage, StageError> {
        let stage = Stage {
            folder: config.staging.directory.clone(),
            indexes: config.directory.join("indexes"),
            max: config.staging.max_size.as_bytes(),
        };
        for folder in [METADATA, ROOTS, CHUNKS].map(|name| stage.folder.join(name)) {
            fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        }
        fs::create_dir_all(&stage.indexes).map_err(failed("make", &stage.indexes))?;
        Ok(stage)
    }

    /// Where the trusted metadata are.
    pub(crate) fn metadata(&self) -> PathBuf {
        self.folder.join(METADATA)
    }

    /// Keeps a root, or its approval, for an updater that has not followed it yet.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn keep_root(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        write(&self.folder.join(ROOTS).join(name), bytes)
    }

    /// Keeps a file beside the index, or takes it away.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn put(&self, name: &str, bytes: Option<&[u8]>) -> Result<(), StageError> {
        let path = self.folder.join(name);
        match bytes {
            Some(bytes) => write(&path, bytes).map_err(failed("write", &path)),
            None => delete(&path),
        }
    }

    /// Stages an index: chunks of other releases go.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn begin(&self, index: &Index, bytes: &[u8]) -> Result<(), StageError> {
        let wanted: HashSet<String> = index.chunks().iter().map(name_of).collect();
        self.delete_chunks(|name| !wanted.contains(name))?;
        self.put(INDEX, Some(bytes))?;
        self.remember(index, bytes)
    }

    /// Whether so many bytes may be added.
    ///
    /// # Errors
    /// They may not.
    pub(crate) fn admit(&self, needed: u64) -> Result<(), StageError> {
        let path = self.folder.join(CHUNKS);
        let mut lies = 0;
        for entry in fs::read_dir(&path).map_err(failed("read", &path))? {
            let found = entry.and_then(|entry| entry.metadata());
            lies += found.map_err(failed("read", &path))?.len();
        }
        if lies.saturating_add(needed) > self.max {
            let (needed, allowed) = (lies + needed, self.max);
            return Err(StageError::TooLarge {
                path,
                needed,
                allowed,
            });
        }
        let system = statvfs(&path).map_err(|error| failed("read", &path)(error.into()))?;
        #[allow(
            clippy::useless_conversion,
            reason = "both are 32 bits wide on 32-bit boards"
        )]
        let free = u64::from(system.blocks_available()) * u64::from(system.fragment_size());
        match free >= needed.saturating_add(KEEP_FREE) {
            true => Ok(()),
            false => Err(StageError::NoSpace { path, needed, free }),
        }
    }

    /// Whether this very chunk is there.
    pub(crate) fn has(&self, chunk: &Chunk) -> bool {
        let path = self.chunk(chunk);
        let length = u64::from(chunk.stored_length);
        fs::metadata(&path).is_ok_and(|found| found.len() == length)
            && fs::read(&path).is_ok_and(|bytes| sha256(&[&bytes]) == chunk.stored)
    }

    /// Adds a chunk that was checked. It need not survive a power cut: what is torn is downloaded again.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn add(&self, chunk: &Chunk, bytes: &[u8]) -> Result<(), StageError> {
        let path = self.chunk(chunk);
        let partial = path.with_extension("part");
        fs::write(&partial, bytes)
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(failed("write", &path))
    }

    /// Takes all chunks away: they are installed.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn clear(&self) -> Result<(), StageError> {
        self.delete_chunks(|_| true)
    }

    /// The index of a release that was staged once, by its Merkle root.
    pub(crate) fn remembered(&self, root: &str) -> Option<Index> {
        let path = self.indexes.join(root);
        let length = fs::metadata(&path).ok()?.len();
        let bytes = (length <= INDEX_MAX).then(|| fs::read(&path).ok())??;
        let index = Index::parse(&bytes).ok()?;
        (index.release().root == root).then_some(index)
    }

    fn remember(&self, index: &Index, bytes: &[u8]) -> Result<(), StageError> {
        let path = self.indexes.join(index.release().root);
        write(&path, bytes).map_err(failed("write", &path))?;
        let entries = fs::read_dir(&self.indexes).map_err(failed("read", &self.indexes))?;
        let mut found: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        found.sort();
        let old = found.len().saturating_sub(INDEXES);
        found[..old].iter().try_for_each(|(_, path)| delete(path))
    }

    fn delete_chunks(&self, unwanted: impl Fn(&str) -> bool) -> Result<(), StageError> {
        let folder = self.folder.join(CHUNKS);
        for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
            let entry = entry.map_err(failed("read", &folder))?;
            if unwanted(&entry.file_name().to_string_lossy()) {
                delete(&entry.path())?;
            }
        }
        Ok(())
    }

    fn chunk(&self, chunk: &Chunk) -> PathBuf {
        self.folder.join(CHUNKS).join(name_of(chunk))
    }
}

/// As the repository and staging name it.
pub(crate) fn name_of(chunk: &Chunk) -> String {
    tpm::hex::encode(&chunk.stored)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_file(path, |file| file.write_all(bytes))
}

fn delete(path: &Path) -> Result<(), StageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete", path)(error)),
        _ => Ok(()),
    }
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> StageError {
    let path = path.to_owned();
    move |source| StageError::File {
        what,
        path: path.clone(),
        source,
    }
}
