//! What the buffer says of itself, and how its parts keep that.
//!
//! Invariant: each count only rises while the process lives. Layer: driver.

use std::sync::{MutexGuard, PoisonError};

use jiff::Timestamp;
use tracing::warn;

use super::{Salvaged, Shared, Wear, retention};

/// What waits, what has passed, what was lost, and whether the disk takes more.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Messages that wait.
    pub rows: u64,
    /// The same per priority, high first.
    pub waiting: [u64; retention::RANKS],
    /// Bytes that they take, in the file and in memory, about.
    pub bytes: u64,
    /// The files' size on disk, log included.
    pub bytes_on_disk: u64,
    /// When the oldest waiting message was received.
    pub oldest: Option<Timestamp>,
    /// Messages that wait for their commit.
    pub queued: u64,
    /// Of those that wait, messages in memory.
    pub in_memory: u64,
    /// Bytes that these take there.
    pub memory_bytes: u64,
    /// Messages kept since the start, on disk or in memory.
    pub appended: u64,
    /// Messages put on disk after they waited in memory, since the start.
    pub spilled: u64,
    /// Messages that the upstream acknowledged since the start.
    pub forwarded: u64,
    /// Messages whose publishers were told no since the start.
    pub refused: u64,
    /// Messages that made room for others since the start, each in a gap marker.
    pub evicted: u64,
    /// New messages dropped because of `drop-newest` since the start, each in a gap marker.
    pub left_out: u64,
    /// Messages over the quota of their rule since the start, each in a gap marker.
    pub over_quota: u64,
    /// Messages older than `max_age` since the start, each in a gap marker.
    pub expired: u64,
    /// Messages that the upstream will never take, since the start, each in a gap marker.
    pub dead_letters: u64,
    /// Nothing is sent upstream until [`super::Buffer::pause`] is taken back.
    pub paused: bool,
    /// The disk does not take commits.
    pub fault: Option<Fault>,
    /// The file was damaged.
    pub salvaged: Option<Salvaged>,
    /// What storing costs the medium.
    pub wear: Wear,
}

/// Why nothing can be committed, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// First failure in a row.
    pub since: Timestamp,
    /// The latest cause, in words.
    pub cause: String,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    pub(super) fn count_staged(&self, status: &mut Status) {
        let stage = self.stage();
        let in_memory = stage.waiting();
        status.in_memory = in_memory.iter().sum();
        status.memory_bytes = stage.bytes() as u64;
        status.rows += status.in_memory;
        for (waiting, more) in status.waiting.iter_mut().zip(in_memory) {
            *waiting += more;
        }
        let oldest = stage.firsts().map(|staged| staged.received());
        status.oldest = status.oldest.into_iter().chain(oldest).min();
    }

    /// Notes a failure; tells whether it is news.
    pub(super) fn fail(&self, cause: &str) -> bool {
        let mut status = self.lock();
        let since = status.fault.as_ref().map(|fault| fault.since);
        let news = status
            .fault
            .as_ref()
            .is_none_or(|fault| fault.cause != cause);
        status.fault = Some(Fault {
            since: since.unwrap_or_else(|| crate::clock::now().wall),
            cause: cause.to_owned(),
        });
        news
    }

    /// Notes that the disk works; tells whether it is news.
    pub(super) fn recover(&self) -> bool {
        self.lock().fault.take().is_some()
    }

    /// Warns once per start that messages are lost because the buffer is full.
    pub(super) fn note_full(&self, max_bytes: u64) {
        let status = self.lock();
        if status.evicted + status.left_out + status.refused == 0 {
            drop(status);
            warn!(
                max_bytes,
                "the buffer is full; from here on messages are dropped as configured"
            );
        }
    }
}
