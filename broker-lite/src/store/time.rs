//! The store's own time, by which sessions and messages expire.
//!
//! It goes on with the broker's monotonic clock, and over an absence by the calendar as far as that
//! can be believed. Invariant: it never runs back, and a wrong calendar ends nothing. A value.

use std::time::{Duration, Instant, SystemTime};

/// A longer absence is not believed: a calendar that leaps by years would end every session at
/// once. Our time then goes on where it stopped.
const LONGEST_ABSENCE: Duration = Duration::from_secs(30 * 86_400);

/// One moment in our time and by the calendar, as it is stored; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) own_ms: u64,
    pub(super) wall_ms: u64,
}

/// See the module's description.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnTime {
    base_ms: u64,
    since: Instant,
}

impl OwnTime {
    /// Goes on from what the last run has left; without that it begins by the calendar.
    pub(super) fn resume(mark: Option<Mark>, now: Instant, wall: SystemTime) -> OwnTime {
        let wall_ms = since_epoch_ms(wall);
        let base_ms = mark.map_or(wall_ms, |mark| mark.own_ms + absence_ms(mark, wall_ms));
        OwnTime {
            base_ms,
            since: now,
        }
    }

    /// Our time at a moment; one before the start counts as the start.
    pub(super) fn at_ms(self, moment: Instant) -> u64 {
        self.base_ms + whole_ms(moment.saturating_duration_since(self.since))
    }

    /// The moment on the monotonic clock; what is over counts as now.
    pub(super) fn moment(self, at_ms: u64, now: Instant) -> Option<Instant> {
        now.checked_add(Duration::from_millis(at_ms.saturating_sub(self.at_ms(now))))
    }

    pub(super) fn mark(self, now: Instant, wall: SystemTime) -> Mark {
        Mark {
            own_ms: self.at_ms(now),
            wall_ms: since_epoch_ms(wall),
        }
    }
}

fn absence_ms(mark: Mark, wall_ms: u64) -> u64 {
    match wall_ms.checked_sub(mark.wall_ms) {
        Some(away_ms) if away_ms <= whole_ms(LONGEST_ABSENCE) => away_ms,
        _ => 0,
    }
}

fn since_epoch_ms(wall: SystemTime) -> u64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, whole_ms)
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::sim::start;

    const DAY_MS: u64 = 86_400_000;

    fn after(mark: Mark, wall_ms: u64) -> u64 {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(wall_ms);
        OwnTime::resume(Some(mark), start(), wall).at_ms(start()) - mark.own_ms
    }

    #[test]
    fn an_absence_counts_by_the_calendar_if_that_can_be_believed() {
        let mark = Mark {
            own_ms: 5_000,
            wall_ms: 20_000 * DAY_MS,
        };
        for (what, wall_ms, counted) in [
            ("a second later", mark.wall_ms + 1_000, 1_000),
            ("a week later", mark.wall_ms + 7 * DAY_MS, 7 * DAY_MS),
            ("years later", mark.wall_ms + 3_000 * DAY_MS, 0),
            ("the clock has gone back", mark.wall_ms - 1_000, 0),
            ("no clock at all", 0, 0),
        ] {
            assert_eq!(after(mark, wall_ms), counted, "{what}");
        }
    }

    #[test]
    fn a_calendar_that_is_set_while_we_run_changes_nothing() {
        let unset = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let time = OwnTime::resume(None, start(), unset);
        let later = start() + Duration::from_secs(100);
        let set = SystemTime::UNIX_EPOCH + Duration::from_millis(20_000 * DAY_MS);
        let mark = time.mark(later, set);
        assert_eq!(mark.own_ms, 160_000);
        let again = OwnTime::resume(Some(mark), start(), set + Duration::from_secs(5));
        assert_eq!(again.at_ms(start()), 165_000);
    }
}
