//! When memory falls again after a burst, and giving it to the system then: glibc keeps what is
//! freed between things that live on, 25 MB after 1,000 sessions with ten messages each.
//!
//! Driver. Invariant: it is trimmed only after memory fell by [`FALL_BYTES`] or more, at most once in
//! [`PAUSE`], and no timer stands otherwise. The only unsafe code of this crate is here.

use std::time::{Duration, Instant};

/// A fall by less is not worth it, and neither is one by less than an eighth of what was in use.
const FALL_BYTES: usize = 4 << 20;

/// From the fall until memory is trimmed: a burst that ends goes on falling, and one that comes back
/// at once would have to fetch its memory again.
const SETTLE: Duration = Duration::from_secs(1);

/// Between two trims.
const PAUSE: Duration = Duration::from_secs(3);

/// Watches how many bytes are charged, for the end of bursts.
#[derive(Debug, Default)]
pub(crate) struct Ebb {
    /// The most since the last trim.
    peak: usize,
    due: Option<Instant>,
    /// No trim before this.
    rests_until: Option<Instant>,
}

impl Ebb {
    /// So many bytes are in use.
    pub(crate) fn note(&mut self, used: usize, now: Instant) {
        if used >= self.peak {
            self.peak = used;
            return;
        }
        if self.due.is_some() || self.peak - used < FALL_BYTES.max(self.peak / 8) {
            return;
        }
        let settled = now + SETTLE;
        self.due = Some(self.rests_until.map_or(settled, |rest| rest.max(settled)));
    }

    /// When [`Ebb::is_due`] is to be asked.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Whether to trim now; the answer is yes once.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            *self = Ebb {
                rests_until: Some(now + PAUSE),
                ..Ebb::default()
            };
        }
        is_due
    }
}

/// Gives the system what the allocator keeps and nobody uses. Takes some milliseconds, in which
/// threads that allocate may wait.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no crate wraps malloc_trim")]
pub(crate) fn trim() {
    // SAFETY: malloc_trim(3) takes any number, touches free memory alone, and locks what it touches.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other C libraries give back what is freed by themselves, or cannot.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::sim::start;

    const BURST: usize = 20 << 20;

    #[test]
    fn the_end_of_a_burst_trims_once_and_sets_no_other_timer() {
        let (mut ebb, now) = (Ebb::default(), start());
        ebb.note(BURST, now);
        assert_eq!(ebb.poll_timeout(), None);
        ebb.note(BURST - FALL_BYTES + 1, now);
        assert_eq!(ebb.poll_timeout(), None, "a small fall");
        ebb.note(BURST - FALL_BYTES, now);
        assert_eq!(ebb.poll_timeout(), Some(now + SETTLE));
        ebb.note(0, now + SETTLE / 2);
        assert!(!ebb.is_due(now + SETTLE / 2));
        assert!(ebb.is_due(now + SETTLE));
        assert!(!ebb.is_due(now + SETTLE));
        ebb.note(0, now + 2 * SETTLE);
        assert_eq!(ebb.poll_timeout(), None);
    }

    #[test]
    fn bursts_in_a_row_are_trimmed_after_a_pause() {
        let (mut ebb, now) = (Ebb::default(), start());
        ebb.note(BURST, now);
        ebb.note(0, now);
        assert!(ebb.is_due(now + SETTLE));
        ebb.note(BURST, now + SETTLE);
        ebb.note(0, now + SETTLE);
        assert_eq!(ebb.poll_timeout(), Some(now + SETTLE + PAUSE));
    }

    #[test]
    fn of_much_memory_little_is_not_worth_it() {
        let (mut ebb, now) = (Ebb::default(), start());
        ebb.note(20 * BURST, now);
        ebb.note(19 * BURST, now);
        assert_eq!(ebb.poll_timeout(), None);
        ebb.note(17 * BURST, now);
        assert!(ebb.poll_timeout().is_some());
    }
}
