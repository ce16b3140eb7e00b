//! What waits for the next commit, and when that is due.
//!
//! Driver. Invariant: it holds each changed thing once, so the broker's own limits bound it while
//! the disk fails; an empty inbox wakes nobody.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::UNAWAITED_DELAY;
use crate::journal::{Batch, Changes};

/// What the writer is to do next.
#[derive(Debug)]
pub(super) enum Work {
    Commit(Box<Batch>),
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
    batch: Batch,
    /// When the first change of the batch came.
    since: Option<Instant>,
    /// When somebody began to wait for it.
    awaited_since: Option<Instant>,
    /// The file is empty: nothing but the whole state makes sense in it.
    needs_whole: bool,
    closed: bool,
}

impl Inbox {
    /// Adds changes; while the whole state is waited for, others are part of that.
    pub(super) fn submit(&self, changes: Changes) {
        let mut state = self.lock();
        if state.needs_whole && !changes.whole {
            return;
        }
        state.needs_whole = false;
        let now = Instant::now();
        let is_first = state.since.is_none();
        let is_first_awaited = changes.awaited && state.awaited_since.is_none();
        state.since.get_or_insert(now);
        if is_first_awaited {
            state.awaited_since = Some(now);
        }
        state.batch.add(changes);
        if is_first || is_first_awaited {
            self.changed.notify_one();
        }
    }

    /// Drops what is here: from now on only the whole state is taken.
    pub(super) fn require_whole(&self) {
        let mut state = self.lock();
        state.take();
        state.needs_whole = true;
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits until a commit is due: `delay` after somebody began to wait for it.
    pub(super) fn wait(&self, delay: Duration) -> Work {
        let mut state = self.lock();
        loop {
            let due = state.due(delay);
            let now = Instant::now();
            if state.since.is_some() && (state.closed || due.is_some_and(|due| due <= now)) {
                return Work::Commit(Box::new(state.take()));
            }
            if state.closed {
                return Work::Close;
            }
            state = self.sleep(state, due.map(|due| due - now));
        }
    }

    /// Waits out a failing disk, or until closed, which it tells.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !state.closed
            && let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            state = self.sleep(state, Some(left));
        }
        state.closed
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
    fn due(&self, delay: Duration) -> Option<Instant> {
        let awaited = self.awaited_since.map(|since| since + delay);
        let unawaited = self.since.map(|since| since + UNAWAITED_DELAY);
        [awaited, unawaited].into_iter().flatten().min()
    }

    fn take(&mut self) -> Batch {
        self.since = None;
        self.awaited_since = None;
        mem::take(&mut self.batch)
    }
}
