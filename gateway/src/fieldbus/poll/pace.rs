//! How a poll keeps its interval: what it takes, whether it is late, how far it gives way. A core.
//!
//! Invariant: one that gives way is sent at the latest two stretched intervals after the last
//! time, as far as the bus' load is known; one answer early or late changes nothing that is told.

use std::time::{Duration, Instant};

use super::overload::Booking;

/// Intervals missed in a row after which a poll counts as late: one may be a command's or a dead
/// unit's doing.
const LATE_AFTER: u32 = 2;
/// Answers in time in a row after which a late one counts as punctual.
const PUNCTUAL_AFTER: u32 = 10;
/// One part in so many of a new measurement enters the mean.
const SMOOTHING: u32 = 8;

/// The pace of one poll.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    /// Mean time for which it keeps the bus busy, once measured.
    time: Option<Duration>,
    /// Its stretched interval and its deadline; `None`: it keeps its own.
    giving_way: Option<(Duration, Instant)>,
    missed: u32,
    in_time: u32,
    late: bool,
}

impl Pace {
    /// Takes how long it kept the bus busy.
    pub(crate) fn took(&mut self, time: Duration) {
        self.time = Some(match self.time {
            None => time,
            Some(mean) => (mean * (SMOOTHING - 1) + time) / SMOOTHING,
        });
    }

    /// What it books; `planned` until it has been measured.
    pub(crate) fn booking(&self, planned: Booking) -> Booking {
        Booking {
            time: self.time.unwrap_or(planned.time),
            ..planned
        }
    }

    /// Until when an answer is early enough, if the poll gives way.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.giving_way.map(|(_, deadline)| deadline)
    }

    /// The interval to which it is stretched, if it gives way.
    pub(crate) fn stretched(&self) -> Option<Duration> {
        self.giving_way.map(|(interval, _)| interval)
    }

    /// Lets it give way by this factor, for the first time from `from`; 1: not any more.
    pub(crate) fn stretch(&mut self, factor: f64, interval: Duration, from: Instant) {
        self.giving_way = (factor > 1.0).then(|| {
            let stretched = interval.mul_f64(factor);
            let deadline = match self.giving_way {
                None => from + stretched,
                // What has become more since is not to be made up for.
                Some((before, deadline)) => deadline + stretched.saturating_sub(before),
            };
            (stretched, deadline)
        });
    }

    /// It was answered and is due again at `due`.
    pub(crate) fn answered(&mut self, missed: bool, due: Instant, now: Instant) {
        if let Some((interval, deadline)) = &mut self.giving_way {
            // One that was sent early with time to spare takes nothing from the others later.
            *deadline = (*deadline).max(due).min(now + *interval) + *interval;
        }
        if missed {
            self.missed = self.missed.saturating_add(1);
            self.in_time = 0;
            self.late |= self.missed >= LATE_AFTER;
        } else {
            self.missed = 0;
            self.in_time = self.in_time.saturating_add(1);
            self.late &= self.in_time < PUNCTUAL_AFTER;
        }
    }

    /// Whether it misses its interval again and again.
    pub(crate) fn is_late(&self) -> bool {
        self.late || self.giving_way.is_some()
    }
}
