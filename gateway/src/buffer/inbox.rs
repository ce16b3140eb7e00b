//! The bounded queue between those who keep or delete messages and the one thread that commits.
//!
//! Invariant: what is queued is bounded in number and bytes; what does not fit is refused at once,
//! and an idle queue wakes nobody. Layer: driver.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use broker_lite::{
    keeper::{Kept, Receipt},
    message::Message,
};

use super::{
    arrivals::Arrival,
    clock::{self, RowStamp},
    errand::Errand,
    retention::Rank,
};
use crate::reading::ClockState;

/// Messages that may wait for a commit: a second's worth at the rate the store is built for.
pub(super) const MAX_QUEUED: usize = 100_000;
/// Bytes that may wait for a commit; together with a batch this bounds the store's memory.
pub(super) const MAX_QUEUED_BYTES: usize = 32 << 20;
/// Messages in one commit: large enough that the disk's flush costs little per message.
pub(super) const MAX_BATCH: usize = 8192;
/// Bytes in one commit: a fraction of the log's usual size.
pub(super) const MAX_BATCH_BYTES: usize = 2 << 20;
/// Messages that are worth a commit as soon as no more come, as in the broker's own store: so many
/// share the disk's flush that it costs little for each.
const WORTHWHILE: usize = 16;
/// Nobody else is on his way when nothing has come for this part of the delay.
const PAUSE_DIVISOR: u32 = 50;
/// Longest that acknowledged rows stay in the file; after a crash they are sent again.
const DELETE_DELAY: Duration = Duration::from_millis(200);
/// Deletions that are worth a commit of their own.
const MANY_DELETES: usize = 1024;
/// Removals that may wait before nothing more is read: while the disk fails, what the upstream has
/// already must not fill the memory.
const MAX_REMOVALS: usize = 50_000;
/// Errands that may wait for a commit: people ask for them, one at a time.
const MAX_ERRANDS: usize = 4;
/// Bytes that a row and its share of page headers take beside topic-independent content.
const ROW_OVERHEAD: usize = 64;

/// A message on its way into the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Message,
    pub(super) properties: Option<Vec<u8>>,
    pub(super) rank: Rank,
    pub(super) stamp: RowStamp,
    /// Its rule lets it wait in memory, and nobody is promised more.
    pub(super) memory: bool,
    pub(super) receipt: Receipt,
}

impl Entry {
    /// Bytes it will take in the file, about.
    pub(super) fn cost(&self) -> usize {
        cost(&self.message, self.properties.as_deref())
    }
}

/// Bytes that a message will take in the file, about.
pub(super) fn cost(message: &Message, properties: Option<&[u8]>) -> usize {
    ROW_OVERHEAD + message.payload.len() + properties.map_or(0, <[u8]>::len)
}

/// What leaves the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Removal {
    /// The upstream has it.
    Row(i64),
    /// The upstream will never take it: to the dead letters, with the reason and the time now in
    /// microseconds since 1970.
    Bury(i64, String, i64),
    /// The gap marker with this count was delivered.
    Gap { id: i64, count: u64 },
    /// What came from upstream with this packet identifier was not taken.
    Arrival(u16),
    /// Whether the local broker has this message from upstream: it has.
    Doubt(Arrival),
}

impl Removal {
    /// The row that leaves, where it is one.
    pub(super) fn row(&self) -> Option<i64> {
        match self {
            Removal::Row(row) | Removal::Bury(row, ..) => Some(*row),
            Removal::Gap { .. } | Removal::Arrival(_) | Removal::Doubt(_) => None,
        }
    }
}

/// One commit's worth of work.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    pub(super) removals: Vec<Removal>,
    pub(super) arrivals: Vec<(Arrival, Receipt)>,
    /// What becomes of dead letters that somebody asks about.
    pub(super) errands: Vec<Errand>,
    /// Marks of the account of wear, when they are due.
    pub(super) account: Vec<(&'static str, i64)>,
    /// Numbers to be kept under these names.
    pub(super) marks: Vec<(&'static str, i64)>,
    /// A moment by a right clock, microseconds since 1970, for a batch without messages.
    pub(super) synced_us: Option<i64>,
}

impl Batch {
    /// Whether there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        let nothing = self.entries.is_empty() && self.removals.is_empty();
        let nobody_waits = self.arrivals.is_empty() && self.errands.is_empty();
        nothing && nobody_waits && self.marks.is_empty()
    }

    /// The last moment in it that a right clock told.
    pub(super) fn synced_us(&self) -> Option<i64> {
        let synced = |entry: &&Entry| entry.stamp.clock == ClockState::Synced;
        let last = self.entries.iter().rev().find(synced);
        last.map(|entry| entry.stamp.wall_us).or(self.synced_us)
    }
}

/// What the writer is to do next.
#[derive(Debug)]
pub(super) enum Work {
    /// Commit this.
    Commit(Batch),
    /// The pause asked for is over, nothing is due.
    Idle,
    /// Look whether the file is damaged: a reader says so.
    Inspect,
    /// Write to disk what waits in memory.
    Spill,
    /// Nothing more will come.
    Close,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    bytes: usize,
    first_entry: Option<Instant>,
    /// When the last of the messages came.
    latest_entry: Option<Instant>,
    removals: Vec<Removal>,
    first_removal: Option<Instant>,
    /// At most one per link, which waits for the answer.
    arrivals: Vec<(Arrival, Receipt)>,
    errands: Vec<Errand>,
    marks: Vec<(&'static str, i64)>,
    inspect: bool,
    spill: bool,
    nudged: bool,
    closed: bool,
}

impl Inbox {
    /// Queues a message, or answers its receipt with a refusal; tells which.
    pub(super) fn keep(&self, entry: Entry) -> Kept {
        let cost = entry.cost();
        let mut state = self.lock();
        if state.closed
            || state.entries.len() >= MAX_QUEUED
            || state.bytes + cost > MAX_QUEUED_BYTES
        {
            drop(state);
            entry.receipt.answer(Kept::Refused);
            return Kept::Refused;
        }
        state.bytes += cost;
        state.entries.push(entry);
        let now = clock::now();
        let first = state.first_entry.is_none();
        state.first_entry.get_or_insert(now);
        state.latest_entry = Some(now);
        if first || state.entries.len() == WORTHWHILE || state.is_full_batch() {
            self.changed.notify_one();
        }
        Kept::Committed
    }

    /// Queues the memory of a message from upstream; once closed it is refused.
    pub(super) fn remember(&self, arrival: Arrival, receipt: Receipt) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            receipt.answer(Kept::Refused);
            return;
        }
        state.arrivals.push((arrival, receipt));
        self.changed.notify_one();
    }

    /// Queues what is to become of dead letters; `false` once closed, or where too much is queued.
    pub(super) fn settle(&self, errand: Errand) -> bool {
        let mut state = self.lock();
        if state.closed || state.errands.len() >= MAX_ERRANDS {
            return false;
        }
        state.errands.push(errand);
        self.changed.notify_one();
        true
    }

    /// Queues what leaves the file. Bounded since nothing is read while [`Self::is_clogged`].
    pub(super) fn remove(&self, removals: impl IntoIterator<Item = Removal>) {
        let mut state = self.lock();
        state.removals.extend(removals);
        if !state.removals.is_empty() {
            let first = state.first_removal.is_none();
            if first {
                state.first_removal = Some(clock::now());
            }
            if first || state.removals.len() >= MANY_DELETES {
                self.changed.notify_one();
            }
        }
    }

    /// Queues numbers to be kept, in the place of those queued before.
    pub(super) fn note(&self, marks: Vec<(&'static str, i64)>) {
        let mut state = self.lock();
        state.marks = marks;
        if state.first_removal.is_none() {
            state.first_removal = Some(clock::now());
            self.changed.notify_one();
        }
    }

    /// Asks the writer to check the file.
    pub(super) fn inspect(&self) {
        self.lock().inspect = true;
        self.changed.notify_one();
    }

    /// Asks the writer to write to disk what waits in memory.
    pub(super) fn spill(&self) {
        self.lock().spill = true;
        self.changed.notify_one();
    }

    /// Has the writer look anew how long it may wait.
    pub(super) fn nudge(&self) {
        self.lock().nudged = true;
        self.changed.notify_one();
    }

    /// Refuses what comes from now on; what is queued is still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits until a commit is due: `delay` after the first message, sooner when many wait and no
    /// more come, or with a full batch. With `at_most` it returns `Idle` after that time.
    pub(super) fn wait(&self, delay: Duration, at_most: Option<Duration>) -> Work {
        let until = at_most.map(|time| clock::now() + time);
        let mut state = self.lock();
        loop {
            if mem::take(&mut state.inspect) {
                return Work::Inspect;
            }
            // What is queued is older than the wish, so it comes first.
            if state.spill
                && let Some(batch) = state.take_batch()
            {
                return Work::Commit(batch);
            }
            if mem::take(&mut state.spill) {
                return Work::Spill;
            }
            let due = state.due(delay);
            let now = clock::now();
            if state.closed || state.is_full_batch() || due.is_some_and(|due| due <= now) {
                return match state.take_batch() {
                    Some(batch) => Work::Commit(batch),
                    None => Work::Close,
                };
            }
            if mem::take(&mut state.nudged) || until.is_some_and(|until| until <= now) {
                return Work::Idle;
            }
            let wake = [due, until].into_iter().flatten().min();
            state = self.sleep(state, wake.map(|wake| wake - now));
        }
    }

    /// Waits out a failing disk, or until closed, which it tells.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let until = clock::now() + time;
        let mut state = self.lock();
        while !state.closed && clock::now() < until {
            let left = until.saturating_duration_since(clock::now());
            state = self.sleep(state, Some(left));
        }
        state.closed
    }

    /// Whether too many removals wait for a commit.
    pub(super) fn is_clogged(&self) -> bool {
        self.lock().removals.len() >= MAX_REMOVALS
    }

    /// Messages that wait for a commit.
    pub(super) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    fn sleep<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        match time {
            Some(time) => {
                let waited = self.changed.wait_timeout(state, time);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait(state);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full_batch(&self) -> bool {
        // Whoever waits for an arrival or an errand waits alone: there is nothing to group it with.
        !self.arrivals.is_empty()
            || !self.errands.is_empty()
            || self.entries.len() >= MAX_BATCH
            || self.bytes >= MAX_BATCH_BYTES
            || self.removals.len() >= MANY_DELETES
    }

    fn due(&self, delay: Duration) -> Option<Instant> {
        let entries = self.first_entry.map(|first| first + delay);
        let is_worthwhile = self.first_entry.is_some() && self.entries.len() >= WORTHWHILE;
        let paused = self.latest_entry.filter(|_| is_worthwhile);
        let paused = paused.map(|latest| latest + delay / PAUSE_DIVISOR);
        let removals = self.first_removal.map(|first| first + DELETE_DELAY);
        [entries, paused, removals].into_iter().flatten().min()
    }

    fn take_batch(&mut self) -> Option<Batch> {
        let nothing = self.entries.is_empty() && self.removals.is_empty();
        let nobody_waits = self.arrivals.is_empty() && self.errands.is_empty();
        if nothing && nobody_waits && self.marks.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let count = self
            .entries
            .iter()
            .take(MAX_BATCH)
            .take_while(|entry| {
                let fits = bytes < MAX_BATCH_BYTES;
                bytes += entry.cost();
                fits
            })
            .count();
        let rest = self.entries.split_off(count);
        let entries = mem::replace(&mut self.entries, rest);
        self.bytes -= entries.iter().map(Entry::cost).sum::<usize>();
        // What stays has waited as long as what goes: its commit is due at once.
        self.first_entry = self.first_entry.filter(|_| !self.entries.is_empty());
        self.first_removal = None;
        Some(Batch {
            entries,
            removals: mem::take(&mut self.removals),
            arrivals: mem::take(&mut self.arrivals),
            errands: mem::take(&mut self.errands),
            marks: mem::take(&mut self.marks),
            ..Batch::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use broker_lite::topic::TopicName;

    use super::*;
    use crate::config::Priority;

    const DELAY: Duration = Duration::from_secs(600);

    fn entry() -> Entry {
        Entry {
            message: Message::new(TopicName::parse("t").unwrap(), &b"x"[..]),
            properties: None,
            rank: Rank::of(Priority::Normal),
            stamp: RowStamp {
                wall_us: 0,
                monotonic_ns: 0,
                clock: ClockState::Synced,
            },
            memory: false,
            receipt: Receipt::new(|_| {}),
        }
    }

    #[test]
    fn a_few_messages_wait_out_the_delay_and_many_only_until_no_more_come() {
        let inbox = Inbox::default();
        (1..WORTHWHILE).for_each(|_| assert_eq!(inbox.keep(entry()), Kept::Committed));
        let state = inbox.lock();
        let first = state.first_entry.expect("messages wait");
        assert_eq!(state.due(DELAY), Some(first + DELAY));
        drop(state);
        inbox.keep(entry());
        let state = inbox.lock();
        let latest = state.latest_entry.expect("messages wait");
        assert_eq!(state.due(DELAY), Some(latest + DELAY / PAUSE_DIVISOR));
    }

    #[test]
    fn removals_alone_are_not_hurried_by_messages_that_have_gone() {
        let inbox = Inbox::default();
        (0..WORTHWHILE).for_each(|_| assert_eq!(inbox.keep(entry()), Kept::Committed));
        assert!(inbox.lock().take_batch().is_some());
        inbox.remove([Removal::Row(1)]);
        let state = inbox.lock();
        let first = state.first_removal.expect("a removal waits");
        assert_eq!(state.due(DELAY), Some(first + DELETE_DELAY));
    }
}
