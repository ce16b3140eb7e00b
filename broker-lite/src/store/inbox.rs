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

/// Promises that are worth a commit as soon as no more come: so many share the disk's flush that
/// it costs little for each, and fewer are not committed more often than once per delay.
const WORTHWHILE: usize = 16;
/// Nobody else is on his way when nothing has come for this part of the delay.
const PAUSE_DIVISOR: u32 = 50;

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
    /// When the last change of the batch came.
    latest: Option<Instant>,
    /// Promises in the batch.
    promises: usize,
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
        let was_worthwhile = state.is_worthwhile();
        state.latest = Some(now);
        state.promises += changes.promises();
        state.batch.add(changes);
        if is_first || is_first_awaited || was_worthwhile != state.is_worthwhile() {
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

    /// Waits until a commit is due: `delay` after somebody began to wait for it, or sooner when
    /// many do and nobody joins them any more.
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
        let paused = self.latest.filter(|_| self.is_worthwhile());
        let paused = paused.map(|latest| latest + delay / PAUSE_DIVISOR);
        [awaited, unawaited, paused].into_iter().flatten().min()
    }

    fn is_worthwhile(&self) -> bool {
        self.awaited_since.is_some() && self.promises >= WORTHWHILE
    }

    fn take(&mut self) -> Batch {
        self.since = None;
        self.awaited_since = None;
        self.latest = None;
        self.promises = 0;
        mem::take(&mut self.batch)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{ids::SessionKey, journal::Change, packet::PacketId};

    /// Longer than any machine takes a nap.
    const DELAY: Duration = Duration::from_secs(600);

    /// As many promises as there are numbers.
    fn promises(numbers: std::ops::Range<u16>) -> Changes {
        let id = |number: u16| PacketId::new(number + 1).expect("is no 0");
        let took = |number| Change::Took(SessionKey(1), id(number));
        Changes {
            through: u64::from(numbers.end),
            awaited: true,
            whole: false,
            changes: numbers.map(took).collect(),
        }
    }

    #[test]
    fn a_few_promises_wait_out_the_delay_and_many_only_until_no_more_come() {
        let many = u16::try_from(WORTHWHILE).expect("is small");
        let inbox = Inbox::default();
        inbox.submit(promises(0..many - 1));
        let state = inbox.lock();
        let since = state.awaited_since.expect("somebody waits");
        assert_eq!(state.due(DELAY), Some(since + UNAWAITED_DELAY));
        assert_eq!(
            state.due(UNAWAITED_DELAY / 2),
            Some(since + UNAWAITED_DELAY / 2)
        );
        drop(state);
        inbox.submit(promises(many - 1..many));
        let state = inbox.lock();
        let latest = state.latest.expect("something came");
        let delay = UNAWAITED_DELAY / 2;
        assert_eq!(state.due(delay), Some(latest + delay / PAUSE_DIVISOR));
    }

    #[test]
    fn a_writer_that_sleeps_hears_that_a_commit_became_worthwhile() {
        let inbox = Inbox::default();
        let begun = Instant::now();
        thread::scope(|scope| {
            let writer = scope.spawn(|| inbox.wait(UNAWAITED_DELAY));
            inbox.submit(promises(0..1));
            // Most often it sleeps by now, and without word would do so for the whole delay.
            thread::sleep(UNAWAITED_DELAY / 20);
            inbox.submit(promises(1..200));
            match writer.join().expect("does not panic") {
                Work::Commit(batch) => assert_eq!(batch.through, 200),
                Work::Close => panic!("it was not closed"),
            }
        });
        assert!(begun.elapsed() < UNAWAITED_DELAY);
    }
}
