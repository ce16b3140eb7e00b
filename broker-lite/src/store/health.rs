//! How the store does: whether it can commit, and what that costs the medium.
//!
//! Driver: reads what the kernel counted for the writing thread. Invariant: looking never waits for
//! the disk.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::{
    broker::Stored,
    journal::{Batch, MessageChange},
    observe::{
        status::{Salvaged, StoreFault, StoreStatus},
        written,
    },
};

/// Written by the store's thread, read by anybody.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<StoreStatus>);

impl Health {
    pub(super) fn status(&self) -> StoreStatus {
        self.lock().clone()
    }

    /// A batch is on disk; told by the thread that wrote it.
    pub(super) fn committed(&self, batch: &Batch) {
        let (mut messages, mut payload_bytes) = (0, 0);
        for change in batch.messages.values() {
            if let MessageChange::Insert(new) | MessageChange::Replace(new) = change {
                messages += 1;
                payload_bytes += new.message.payload.len() as u64;
            }
        }
        let written = written::by_this_thread();
        let mut status = self.lock();
        status.commits += 1;
        status.messages += messages;
        status.payload_bytes += payload_bytes;
        status.bytes_written = written.unwrap_or(status.bytes_written);
    }

    /// A damaged file was kept aside, and this is what read of it.
    pub(super) fn salvaged(&self, aside: &Path, damage: &str, stored: &Stored) {
        self.lock().salvaged = Some(Salvaged {
            aside: aside.to_owned(),
            damage: damage.to_owned(),
            sessions: stored.sessions.len(),
            messages: stored.messages.len(),
            retained: stored.retained.len(),
        });
    }

    /// Nothing can be committed.
    pub(super) fn failed(&self, cause: &str) {
        let mut status = self.lock();
        let since = match &status.fault {
            Some(fault) => fault.since,
            None => SystemTime::now(),
        };
        let cause = cause.to_owned();
        status.fault = Some(StoreFault { cause, since });
    }

    pub(super) fn recovered(&self) {
        self.lock().fault = None;
    }

    fn lock(&self) -> MutexGuard<'_, StoreStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
