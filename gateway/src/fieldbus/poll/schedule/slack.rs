//! Whether the polls of a bus keep their deadlines after it was blocked for a while. A core; part
//! of the schedule.
//!
//! ```text
//!  now ── blocked ──┬── what has become due ──┬── what becomes due meanwhile ──┬── idle
//!                   └──────────────── every deadline in here is checked ───────┘
//! ```
//!
//! Invariant: in doubt there is none.

use std::time::{Duration, Instant};

use crate::fieldbus::poll::device::Poll;

/// Intervals of one poll that are looked at; a bus that has not caught up by then has no slack.
const INTERVALS_MAX: u32 = 16;
/// Looks for the moment at which the bus has caught up; each takes it further.
const LOOKS_MAX: u32 = 16;

/// Whether all polls, sent in the order of their deadlines, keep these if the bus is blocked for
/// so long from now.
pub(super) fn lasts(polls: &[&Poll], blocked: Duration, now: Instant) -> bool {
    let Some(caught_up) = caught_up(polls, now + blocked) else {
        return false;
    };
    let times = |poll: &&Poll| poll.planned.widest().time;
    // One that has begun is finished before one that becomes due with a nearer deadline.
    let longest = polls.iter().map(times).max().unwrap_or_default();
    let mut jobs: Vec<(Instant, Duration)> = Vec::new();
    for poll in polls {
        let count = due_until(poll, caught_up);
        let deadline = |index| poll.deadline() + poll.interval() * index;
        jobs.extend((0..count).map(|index| (deadline(index), times(poll))));
    }
    jobs.sort_unstable();
    let mut free_at = now + blocked + longest;
    jobs.into_iter().all(|(deadline, time)| {
        free_at += time;
        free_at <= deadline
    })
}

/// When all that has become due by then has been sent, if the bus is free at `free_at`.
fn caught_up(polls: &[&Poll], free_at: Instant) -> Option<Instant> {
    let mut until = free_at;
    for _ in 0..LOOKS_MAX {
        let mut next = free_at;
        for poll in polls {
            let count = due_until(poll, until);
            if count > INTERVALS_MAX {
                return None;
            }
            next += poll.planned.widest().time * count;
        }
        if next <= until {
            return Some(until);
        }
        until = next;
    }
    None
}

/// How often a poll becomes due until then.
fn due_until(poll: &Poll, until: Instant) -> u32 {
    let Some(time) = until.checked_duration_since(poll.due) else {
        return 0;
    };
    let intervals = time.as_nanos() / poll.interval().as_nanos().max(1);
    u32::try_from(intervals)
        .unwrap_or(u32::MAX)
        .saturating_add(1)
}
