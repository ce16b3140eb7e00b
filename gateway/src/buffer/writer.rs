//! The thread that owns the store: waits for a batch, commits it, answers its receipts.
//!
//! Invariant: a receipt is answered `Committed` only after its commit returned, and a batch that
//! cannot be committed is tried again until it can or the buffer is closed. Layer: driver.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use broker_lite::keeper::Kept;
use tracing::{error, info, warn};

use super::{
    Shared, clock,
    inbox::{Batch, Removal, Work},
    retention::Reason,
    salvage::{self, Opened, Salvaged},
    schema,
    store::{Done, Limits, Store},
};
use crate::reading::ClockState;

/// First pause after a failed commit; it doubles.
const RETRY: Duration = Duration::from_millis(100);
/// Longest pause between attempts, and so the longest a recovered disk waits for us.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Pause between two steps of giving pages back.
const VACUUM_PAUSE: Duration = Duration::from_millis(100);

/// How often the account of wear is written down, with a commit that takes place anyway.
const ACCOUNT_INTERVAL: Duration = Duration::from_secs(900);

/// How much longer it may wait when nothing else is committed.
const LONGEST_WITHOUT_ACCOUNT: Duration = Duration::from_secs(2700);

/// How often rows are looked at for their age: often enough that `max_age` means what it says.
const AGE_CHECK: Duration = Duration::from_secs(1);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) limits: Limits,
    pub(super) commit_delay: Duration,
    pub(super) shared: Arc<Shared>,
    pub(super) store: Option<Store>,
    /// The greatest order that any file of this run has used.
    pub(super) last_order: i64,
    pub(super) retry: Duration,
    /// When the account of wear is due again.
    pub(super) account_due: Instant,
    /// Before this, memory that could not be written to disk is not tried again.
    pub(super) spill_again: Option<Instant>,
}

impl Writer {
    /// Opens the file, or says in the status why not; tells whether it is open.
    pub(super) fn open(&mut self) -> bool {
        if self.store.is_some() {
            return true;
        }
        let opened = salvage::open(&self.path, self.limits.pages());
        self.adopt(opened)
    }

    /// The thread: until the inbox is closed and empty.
    pub(super) fn run(mut self) {
        let mut vacuum = true;
        let mut age_due = clock::now();
        loop {
            if !self.open() {
                if self.pause() {
                    break;
                }
                continue;
            }
            if self.ages() && age_due <= clock::now() {
                let more = self.expire();
                vacuum |= more;
                age_due = clock::now() + if more { VACUUM_PAUSE } else { AGE_CHECK };
            }
            let spill_due = self.spill_due();
            if spill_due.is_some_and(|due| due <= clock::now()) {
                self.spill();
                continue;
            }
            let at_most = self.pause_at_most(vacuum, age_due, spill_due);
            match self.shared.inbox.wait(self.commit_delay, at_most) {
                Work::Commit(batch) => {
                    let batch = self.stage(batch);
                    vacuum |= !batch.removals.is_empty();
                    if self.needs_disk(&batch) && !self.commit(batch) {
                        break;
                    }
                }
                Work::Idle if vacuum => vacuum = self.give_back(),
                Work::Idle => {}
                Work::Inspect => self.inspect(),
                Work::Spill => self.spill_now(),
                Work::Close => break,
            }
        }
        self.spill();
        self.close();
    }

    /// Whether rows wait that may become too old.
    fn ages(&self) -> bool {
        let waiting = self.store.as_ref().map_or(0, Store::rows);
        self.limits.max_age.is_some() && waiting > 0
    }

    /// With nothing to give back and nothing that ages, an idle buffer sleeps.
    fn pause_at_most(
        &self,
        vacuum: bool,
        age_due: Instant,
        spill_due: Option<Instant>,
    ) -> Option<Duration> {
        let vacuum = vacuum.then_some(VACUUM_PAUSE);
        let age_due = self.ages().then_some(age_due);
        let until = |due: Instant| due.saturating_duration_since(clock::now());
        let due = age_due.into_iter().chain(spill_due).map(until);
        vacuum.into_iter().chain(due).min()
    }

    /// Whether there is anything to commit; where everything waits in memory, the clock and the
    /// account of wear are, now and then.
    fn needs_disk(&self, batch: &Batch) -> bool {
        !batch.is_empty() || self.account_due + LONGEST_WITHOUT_ACCOUNT <= clock::now()
    }

    /// Takes a step of rows out that are too old; tells whether there were any.
    fn expire(&mut self) -> bool {
        let now = self.shared.clock.stamp();
        let Some(store) = &mut self.store else {
            return false;
        };
        match store.expire(now) {
            Ok(Some(done)) => {
                self.publish(&done);
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.failed(&format!("cannot remove what is too old: {error}"));
                if schema::is_damage(&error) {
                    self.salvage(&error.to_string());
                }
                false
            }
        }
    }

    /// Tries until the batch is on disk; false when the buffer was closed before, and the batch
    /// with it is refused.
    fn commit(&mut self, mut batch: Batch) -> bool {
        if self.account_due <= clock::now() {
            let now = self.shared.clock.stamp();
            batch.synced_us = (now.clock == ClockState::Synced).then_some(now.wall_us);
            batch.account = self.shared.medium.account(&self.shared.clock);
            self.account_due = clock::now() + ACCOUNT_INTERVAL;
        }
        let mut closing = false;
        loop {
            if let Some(done) = self.try_commit(&batch) {
                let left = batch.removals.iter().filter_map(Removal::row);
                self.shared.leaving().commit(left);
                self.publish(&done);
                for (entry, answer) in batch.entries.into_iter().zip(done.answers) {
                    entry.receipt.answer(answer);
                }
                for (_, receipt) in batch.arrivals {
                    receipt.answer(Kept::Committed);
                }
                for (errand, settled) in batch.errands.into_iter().zip(done.settled) {
                    errand.answer(settled);
                }
                return true;
            }
            if closing {
                return false;
            }
            // One more attempt when closed: the disk may be just back.
            closing = self.pause();
        }
    }

    fn try_commit(&mut self, batch: &Batch) -> Option<Done> {
        self.open();
        let rules = self.shared.rules();
        let store = self.store.as_mut()?;
        match store.follow(&rules).and_then(|()| store.commit(batch)) {
            Ok(done) => {
                self.committed();
                Some(done)
            }
            Err(error) => {
                let count = batch.entries.len();
                self.failed(&format!("cannot commit {count} messages: {error}"));
                if schema::is_damage(&error) {
                    self.salvage(&error.to_string());
                }
                None
            }
        }
    }

    pub(super) fn committed(&mut self) {
        if let Some(store) = &mut self.store {
            self.last_order = store.last_order();
            if let Err(error) = store.bound_log() {
                warn!(%error, "cannot cut the buffer's log; it is tried again");
            }
        }
        self.recovered();
    }

    pub(super) fn publish(&self, done: &Done) {
        let waiting = self
            .store
            .as_ref()
            .map_or_else(Default::default, Store::waiting);
        self.show_clock_floor();
        self.show_horizon();
        self.shared.medium.kept(done.payload_bytes);
        self.shared.medium.wrote();
        let evicted = done.gaps.count(Reason::Evicted);
        let full = done.gaps.count(Reason::Full);
        let over_quota = done.gaps.count(Reason::Quota);
        let expired = done.gaps.count(Reason::Expired);
        let refused = done
            .answers
            .iter()
            .filter(|answer| **answer == Kept::Refused);
        let refused = refused.count() as u64;
        if evicted + full + refused > 0 {
            self.shared.note_full(self.limits.max_bytes);
        }
        self.shared.update(|status| {
            status.rows = waiting.iter().sum();
            status.waiting = waiting;
            status.appended += done.appended;
            status.spilled += done.spilled;
            status.forwarded += done.forwarded;
            status.refused += refused;
            status.evicted += evicted;
            status.left_out += full;
            status.over_quota += over_quota;
            status.expired += expired;
            status.dead_letters += done.buried;
        });
        self.shared.announce_rows();
    }

    fn show_clock_floor(&self) {
        let floor_us = self.store.as_ref().map_or(0, |store| store.floor_us);
        self.shared.floor_us.store(floor_us, Ordering::Relaxed);
    }

    /// All orders given so far are on disk or in memory.
    fn show_horizon(&self) {
        if let Some(store) = &self.store {
            self.shared.stage().set_horizon(store.last_order() + 1);
        }
    }

    fn give_back(&mut self) -> bool {
        let Some(store) = &self.store else {
            return false;
        };
        let more = store.vacuum_step().unwrap_or_else(|error| {
            warn!(%error, "cannot give the buffer's free pages back; it is tried again later");
            false
        });
        self.shared.medium.wrote();
        more
    }

    fn inspect(&mut self) {
        let Some(store) = &self.store else { return };
        match store.check() {
            Ok(()) => {}
            Err(error) if error.is_damage() => self.salvage(&error.to_string()),
            Err(error) => self.failed(&format!("cannot check the file: {error}")),
        }
    }

    pub(super) fn salvage(&mut self, damage: &str) {
        self.store = None;
        let opened = salvage::salvage(&self.path, self.limits.pages(), damage);
        self.shared.reader.forget();
        self.adopt(opened);
    }

    fn adopt(&mut self, opened: Result<Opened, salvage::SalvageError>) -> bool {
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.failed(&error.to_string());
                return false;
            }
        };
        let boot = self.shared.clock.boot();
        let limits = self.limits;
        match Store::new(
            opened.connection,
            &self.path,
            limits,
            boot,
            opened.log_missing,
        ) {
            Ok((mut store, log_lost)) => {
                store.continue_after(self.last_order);
                self.shared
                    .medium
                    .recall(|name| store.mark(name).ok().flatten());
                if log_lost {
                    error!(path = %self.path.display(), "the buffer's log is gone, and with it the last commits; numbering leaps on");
                }
                let waiting = store.waiting();
                self.shared.update(|status| {
                    status.rows = waiting.iter().sum();
                    status.waiting = waiting;
                });
                self.store = Some(store);
                self.show_clock_floor();
                self.show_horizon();
                if let Some(salvaged) = opened.salvaged {
                    self.announce(salvaged);
                }
                self.shared.announce_rows();
                self.recovered();
                true
            }
            Err(error) => {
                self.failed(&format!("cannot read the tables: {error}"));
                // Damage that the check did not see; the next attempt opens the fresh file.
                if error.is_damage()
                    && let Err(error) =
                        salvage::salvage(&self.path, limits.pages(), &error.to_string())
                {
                    self.failed(&error.to_string());
                }
                false
            }
        }
    }

    fn announce(&self, salvaged: Salvaged) {
        error!(
            path = %self.path.display(),
            aside = %salvaged.aside.display(),
            damage = %salvaged.damage,
            kept = salvaged.kept,
            lost = salvaged.lost,
            "the buffer was damaged; what could be read was copied into a fresh file"
        );
        self.shared
            .update(|status| status.salvaged = Some(salvaged));
    }

    pub(super) fn failed(&self, what: &str) {
        if self.shared.fail(what) {
            error!(path = %self.path.display(), cause = what, "the buffer cannot be written; trying again");
        }
    }

    fn recovered(&mut self) {
        self.retry = RETRY;
        if self.shared.recover() {
            info!(path = %self.path.display(), "the buffer can be written again");
        }
    }

    /// Waits before the next attempt; tells whether the buffer was closed meanwhile.
    fn pause(&mut self) -> bool {
        let retry = self.retry;
        self.retry = (retry * 2).min(RETRY_MAX);
        self.shared.inbox.pause(retry)
    }

    fn close(self) {
        let account = self.shared.medium.account(&self.shared.clock);
        let memory_is_empty = self.shared.stage().bytes() == 0;
        if let Some(store) = self.store
            && let Err(error) = store.close(&account, memory_is_empty)
        {
            warn!(path = %self.path.display(), %error, "the buffer was not closed in order; nothing committed is lost");
        }
        self.shared.medium.wrote();
    }
}

/// The retry that a new writer starts with.
pub(super) const FIRST_RETRY: Duration = RETRY;
