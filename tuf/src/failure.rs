//! Why an update or a download ended early: the drivers' own error.

use std::io;

use crate::directory::StoreFailure;
use crate::fetch::FetchFailure;
use crate::floor::FloorFailure;
use crate::refusal::Refusal;

/// What was trusted before stays trusted, whichever it is; the next update goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The repository offers what is not to be trusted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The repository does not answer, or lacks a file.
    #[error(transparent)]
    Fetch(#[from] FetchFailure),
    /// The floor of versions.
    #[error(transparent)]
    Floor(#[from] FloorFailure),
    /// The metadata directory.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// 5.7.2: no role that may speak of it does.
    #[error("no trusted metadata describes a target {0}")]
    NoSuchTarget(String),
    /// Where the target was to be written.
    #[error("cannot write target {target}: {error}")]
    Sink {
        /// The target's path.
        target: String,
        /// What the system said.
        error: io::Error,
    },
}
