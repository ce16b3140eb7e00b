//! The thread that owns the file: commits batches, tells of it, and gets over failures.
//!
//! Driver. Invariant: a batch that cannot be committed is tried again until it can, the file turns
//! out damaged, or the broker stops.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rusqlite::Connection;
use tracing::{error, info, warn};

use super::{
    Found, Notice, Tell,
    health::Health,
    inbox::{Inbox, Work},
    rows::{self, Moment},
    salvage,
    schema::{self, SchemaError},
    time::OwnTime,
};
use crate::{broker::Stored, journal::Batch, observe::catalog};

/// First pause after a failure; it doubles.
const RETRY: Duration = Duration::from_millis(100);
/// Longest pause, and so the longest that a recovered disk waits for us.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a commit also says what time it is: by so much may what expires live on after a
/// crash, and more often would cost a page of each commit.
const MARK_INTERVAL: Duration = Duration::from_secs(60);

/// See the module's description.
pub(super) struct Writer {
    path: PathBuf,
    delay: Duration,
    inbox: Arc<Inbox>,
    health: Arc<Health>,
    tell: Tell,
    connection: Option<Connection>,
    retry: Duration,
    time: OwnTime,
    /// When the file was last told our time and the calendar's.
    marked: Option<Instant>,
    /// The failure that was told last.
    fault: Option<String>,
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        delay: Duration,
        inbox: Arc<Inbox>,
        health: Arc<Health>,
        tell: Tell,
    ) -> Writer {
        Writer {
            path,
            delay,
            inbox,
            health,
            tell,
            connection: None,
            retry: RETRY,
            time: OwnTime::resume(None, Instant::now(), SystemTime::now()),
            marked: None,
            fault: None,
        }
    }

    /// Opens the file and reads it; a damaged one is set aside.
    pub(super) fn open(&mut self) -> Found {
        match self.try_open() {
            Ok(found) => found,
            Err(error) => {
                self.failed(&error.to_string());
                Found::Nothing
            }
        }
    }

    /// The thread: until the inbox is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            if self.connection.is_none() && !self.open_late() {
                if self.pause() {
                    break;
                }
                continue;
            }
            match self.inbox.wait(self.delay) {
                Work::Commit(batch) => {
                    if !self.commit(&batch) {
                        break;
                    }
                    self.give_back();
                }
                Work::Close => break,
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err((_, error)) = connection.close()
        {
            warn!(path = %self.path.display(), %error, "the broker's file was not closed in order; nothing committed is lost");
        }
    }

    fn try_open(&mut self) -> Result<Found, SchemaError> {
        salvage::finish_earlier(&self.path)?;
        let opened = schema::open(&self.path).and_then(|connection| {
            let (now, wall) = (Instant::now(), SystemTime::now());
            let time = OwnTime::resume(rows::last_mark(&connection)?, now, wall);
            let stored = rows::load(&connection, Moment { now, time })?;
            Ok((connection, stored, time))
        });
        match opened {
            Ok((connection, stored, time)) => {
                self.connection = Some(connection);
                self.time = time;
                Ok(Found::Stored(Box::new(stored)))
            }
            Err(error) if error.is_damage() => {
                let (stored, time) = self.salvage(&error)?;
                self.time = time;
                Ok(Found::Stored(Box::new(stored)))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a file that could not be opened at the start.
    fn open_late(&mut self) -> bool {
        let stored = match self.open() {
            Found::Stored(stored) => stored,
            Found::Nothing => return false,
        };
        // Numbers given meanwhile may be in the file too, so everything is written under new ones.
        self.inbox.require_whole();
        (self.tell)(Notice::Read(stored));
        self.recovered();
        true
    }

    /// Goes on with a fresh file that holds what reads of a damaged one.
    fn salvage(&mut self, damage: &SchemaError) -> Result<(Stored, OwnTime), SchemaError> {
        self.connection = None;
        let salvaged = salvage::salvage(&self.path, Instant::now(), SystemTime::now())?;
        let stored = salvaged.stored;
        error!(
            message_id = catalog::STORE_SALVAGED.id, kind = catalog::STORE_SALVAGED.name,
            path = %self.path.display(), aside = %salvaged.aside.display(), reason = %damage,
            sessions = stored.sessions.len(), messages = stored.messages.len(),
            retained = stored.retained.len(), wills = stored.wills.len(),
            "the broker's file was damaged; it is kept aside, and what could be read is in a fresh one"
        );
        self.health
            .salvaged(&salvaged.aside, &damage.to_string(), &stored);
        self.connection = Some(salvaged.connection);
        self.marked = None;
        Ok((stored, salvaged.time))
    }

    /// Tries until the batch is on disk; false when the broker stopped before.
    fn commit(&mut self, batch: &Batch) -> bool {
        let mut closing = false;
        loop {
            match self.try_commit(batch) {
                Ok(()) => {
                    if batch.writes() {
                        self.health.committed(batch);
                    }
                    (self.tell)(Notice::Committed(batch.through));
                    self.recovered();
                    return true;
                }
                Err(error) if error.is_damage() => return self.start_over(&error),
                Err(error) => self.failed(&error.to_string()),
            }
            if closing {
                return false;
            }
            // One more attempt when closed: the disk may be just back.
            closing = self.pause();
        }
    }

    fn try_commit(&mut self, batch: &Batch) -> Result<(), SchemaError> {
        if !batch.writes() {
            return Ok(());
        }
        let Some(connection) = &mut self.connection else {
            return Err(SchemaError::Closed);
        };
        let now = Instant::now();
        let is_due = |marked| now.saturating_duration_since(marked) >= MARK_INTERVAL;
        let is_due = self.marked.is_none_or(is_due);
        let mark = is_due.then(|| self.time.mark(now, SystemTime::now()));
        rows::write(connection, batch, self.time, mark)?;
        if is_due {
            self.marked = Some(now);
        }
        Ok(())
    }

    /// The broker has everything in memory: it goes into a fresh file.
    fn start_over(&mut self, damage: &SchemaError) -> bool {
        self.inbox.require_whole();
        match self.salvage(damage) {
            Ok(_) => (self.tell)(Notice::Lost),
            Err(error) => {
                // Opened anew later, it would bring back a state of the past.
                self.failed(&error.to_string());
                let closed = loop {
                    if self.pause() {
                        break true;
                    }
                    match schema::open(&self.path) {
                        Ok(connection) => {
                            self.connection = Some(connection);
                            break false;
                        }
                        Err(error) => self.failed(&error.to_string()),
                    }
                };
                if closed {
                    return false;
                }
                (self.tell)(Notice::Lost);
            }
        }
        true
    }

    /// A burst's space goes back step by step, behind the commits that empty it.
    fn give_back(&self) {
        let Some(connection) = &self.connection else {
            return;
        };
        if let Err(error) = schema::give_back(connection) {
            warn!(path = %self.path.display(), %error, "cannot give the broker's free pages back; it is tried again");
        }
    }

    fn failed(&mut self, cause: &str) {
        self.health.failed(cause);
        if self.fault.is_none() {
            (self.tell)(Notice::Failing(true));
        }
        if self.fault.as_deref() != Some(cause) {
            error!(
                message_id = catalog::STORE_FAILING.id, kind = catalog::STORE_FAILING.name,
                path = %self.path.display(), reason = cause,
                "the broker cannot store its sessions; what would be promised waits, and it is tried again"
            );
            self.fault = Some(cause.to_owned());
        }
    }

    fn recovered(&mut self) {
        self.retry = RETRY;
        if self.fault.take().is_some() {
            self.health.recovered();
            (self.tell)(Notice::Failing(false));
            info!(
                message_id = catalog::STORE_RECOVERED.id, kind = catalog::STORE_RECOVERED.name,
                path = %self.path.display(), "the broker stores its sessions again"
            );
        }
    }

    /// Waits before the next attempt; tells whether the broker stopped meanwhile.
    fn pause(&mut self) -> bool {
        let retry = self.retry;
        self.retry = (retry * 2).min(RETRY_MAX);
        self.inbox.pause(retry)
    }
}
