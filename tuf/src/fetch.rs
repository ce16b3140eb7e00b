//! How files come from a repository, and that no more of them comes than may.
//!
//! Invariant: no more is read than the limit and one byte, whatever the other side sends. The limit of time is the
//! fetcher's. A driver of the fetcher that the caller brings.

use std::fmt;
use std::io::{self, Read, Write};

use crate::failure::UpdateError;
use crate::metadata::Target;
use crate::refusal::Refusal;

/// Bytes of a target that are in memory at a time.
const COPY_BYTES: usize = 64 * 1024;

/// Which of a repository's two addresses a name is below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Metadata files.
    Metadata,
    /// Target files.
    Targets,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Metadata => "metadata",
            Self::Targets => "targets",
        })
    }
}

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchFailure {
    /// The repository answers that it has no such file.
    #[error("the repository has no {0}")]
    NotFound(String),
    /// The repository cannot be reached, or breaks off.
    #[error("cannot fetch {name}: {reason}")]
    Unreachable {
        /// The file.
        name: String,
        /// What happened.
        reason: String,
    },
}

/// Opens files of a repository. Whatever it reads is checked by the caller; it has to bound the time that a slow sender
/// may take, and nothing else.
pub trait Fetcher {
    /// Opens the file `name`, percent-encoded and relative to the address of `place`.
    ///
    /// # Errors
    /// When there is none, or nobody answers.
    fn open(&mut self, place: Place, name: &str) -> Result<Box<dyn Read + '_>, FetchFailure>;
}

/// Reads a metadata file of at most `limit` bytes (5.3.3, 5.4.1, 5.5.1, 5.6.1). `role` names it in messages.
pub(crate) fn read_metadata(
    fetcher: &mut dyn Fetcher,
    name: &str,
    role: &str,
    limit: u64,
) -> Result<Vec<u8>, UpdateError> {
    let reader = fetcher.open(Place::Metadata, name)?;
    let mut bytes = Vec::new();
    reader
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| broken(name, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Refusal::Oversized {
            file: role.into(),
            limit,
        }
        .into());
    }
    Ok(bytes)
}

/// 5.7.3: copies a target to `sink`, of which nothing may be used before this returns without an error.
pub(crate) fn copy_target(
    fetcher: &mut dyn Fetcher,
    name: &str,
    target: &Target,
    sink: &mut dyn Write,
) -> Result<(), UpdateError> {
    let mut reader = fetcher.open(Place::Targets, name)?;
    let mut check = target.hashes.check();
    let mut left = target.length;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(name, &error).into()),
        };
        left = left.checked_sub(read as u64).ok_or(Refusal::Oversized {
            file: target.path.clone(),
            limit: target.length,
        })?;
        check.update(&buffer[..read]);
        sink.write_all(&buffer[..read])
            .map_err(|error| UpdateError::Sink {
                target: target.path.clone(),
                error,
            })?;
    }
    if left > 0 {
        return Err(Refusal::WrongLength {
            file: target.path.clone(),
            expected: target.length,
            found: target.length - left,
        }
        .into());
    }
    if !check.matches() {
        return Err(Refusal::WrongHash {
            file: target.path.clone(),
        }
        .into());
    }
    Ok(())
}

fn broken(name: &str, error: &io::Error) -> FetchFailure {
    FetchFailure::Unreachable {
        name: name.into(),
        reason: error.to_string(),
    }
}
