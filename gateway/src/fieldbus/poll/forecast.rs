//! When a device's requests will be sent, and what each will take. A core.
//!
//! Invariant: a request is as long as the points that are due by then make it, no longer.

use std::time::{Duration, Instant};

use super::{
    device::{Device, Poll},
    plan::Turn,
    point::Point,
};

/// A request that is still to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sending {
    /// When it may be sent.
    pub(crate) due: Instant,
    /// Until when its answer is in time.
    pub(crate) deadline: Instant,
    /// How long it keeps the bus busy.
    pub(crate) time: Duration,
}

impl Device {
    /// The request of one of its polls that comes so many after the next.
    pub(crate) fn sending(&self, poll: &Poll, index: u32) -> Sending {
        let ahead = poll.interval() * index;
        let due = poll.due + ahead;
        let before = (index > 0).then(|| due - poll.interval());
        let wanted = |turn: &&Turn| {
            let mut added = turn.added.iter().map(|at| &self.points[*at]);
            added.any(|point| becomes_due(point, before, due))
        };
        let wider = poll.planned.wider.iter().rev().find(wanted);
        Sending {
            due,
            deadline: poll.deadline() + ahead,
            time: wider.unwrap_or(&poll.planned.base).time,
        }
    }
}

/// Whether a point becomes due until then, and not already `before`.
fn becomes_due(point: &Point, before: Option<Instant>, until: Instant) -> bool {
    if point.due > until {
        return false;
    }
    let interval = point.interval.as_nanos().max(1);
    let moments = |at: Instant| (at - point.due).as_nanos() / interval;
    before.is_none_or(|before| point.due > before || moments(before) < moments(until))
}
