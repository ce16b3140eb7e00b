//! The broker's sessions and retained messages on disk: one thread, one SQLite file, group commits.
//!
//! ```text
//!  Core::take_changes ──▶ Inbox (a Batch) ──▶ writer thread ──▶ broker.db
//!  Core::handle_committed … ◀── Notice ◀──────────┘
//! ```
//!
//! Driver. Invariant: `Committed` is told only after the transaction is on disk, and a file that
//! cannot be used never keeps the broker from starting.

mod health;
mod inbox;
mod rows;
mod salvage;
mod schema;
mod time;
mod writer;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::error;

use self::{health::Health, inbox::Inbox, writer::Writer};
use crate::{broker::Stored, config::Persistence, journal::Changes, observe::status::StoreStatus};

/// What the store tells the core.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Everything up to this change is on disk.
    Committed(u64),
    /// The disk takes no commits (true), or takes them again.
    Failing(bool),
    /// The file could be read at last: `Core::adopt`.
    Read(Box<Stored>),
    /// The file was damaged while in use; a fresh one waits for the whole state.
    Lost,
}

/// Takes notices, on the store's thread; returns at once.
pub(crate) type Tell = Box<dyn Fn(Notice) + Send>;

/// What the file held at the start.
#[derive(Debug)]
pub(crate) enum Found {
    /// The state that the last run left, or what could be read of it.
    Stored(Box<Stored>),
    /// Not known yet: a notice will tell.
    Nothing,
}

/// The running store.
#[derive(Debug)]
pub(crate) struct Store {
    inbox: Arc<Inbox>,
    health: Arc<Health>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens or makes the file, and starts the writer. Fails only if there is no thread to have.
    pub(crate) fn start(config: &Persistence, tell: Tell) -> std::io::Result<(Store, Found)> {
        let inbox = Arc::new(Inbox::default());
        let health = Arc::new(Health::default());
        let mut writer = Writer::new(
            PathBuf::from(&config.path),
            config.commit_delay.as_duration(),
            Arc::clone(&inbox),
            Arc::clone(&health),
            tell,
        );
        let found = writer.open();
        let thread = thread::Builder::new()
            .name("broker-store".to_owned())
            .spawn(move || writer.run())?;
        let store = Store {
            inbox,
            health,
            thread: Mutex::new(Some(thread)),
        };
        Ok((store, found))
    }

    /// Hands over what the core has recorded.
    pub(crate) fn submit(&self, changes: Changes) {
        self.inbox.submit(changes);
    }

    /// Whether it can commit, and what it wrote.
    pub(crate) fn status(&self) -> StoreStatus {
        self.health.status()
    }

    /// Commits what was submitted and closes the file. Blocks on the disk.
    pub(crate) fn close(&self) {
        self.inbox.close();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the broker's storing thread ended by a bug");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Longest that changes wait which nobody waits for: deliveries that ended, values retained at
/// QoS 0. After a crash such a delivery is repeated, as MQTT allows.
const UNAWAITED_DELAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod tests;
