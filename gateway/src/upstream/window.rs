//! Decides whether a time of the day is one at which what waits may go up.
//!
//! Invariant: a clock that tells nothing holds nothing back for longer than [`UNSYNCED_PATIENCE`].
//! Layer: core.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::{
    config::{Hold, Window},
    reading::{ClockState, Stamp},
};

/// How long after the link came up a clock is waited for that is not synchronised yet. A time
/// service needs the same link and some seconds.
pub(crate) const UNSYNCED_PATIENCE: Duration = Duration::from_secs(600);
/// Longest trust in a wall clock without another look at it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    windows: Vec<Window>,
    hold: Hold,
    /// When the link came up.
    up_since: Option<Instant>,
}

impl Windows {
    /// Without any, it is always time.
    pub(crate) fn new(windows: Vec<Window>, hold: Hold) -> Windows {
        Windows {
            windows,
            hold,
            up_since: None,
        }
    }

    /// The link has come up.
    pub(crate) fn link_up(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// What has to wait now; `None`: nothing.
    pub(crate) fn holds(&self, now: Stamp) -> Option<Hold> {
        (!self.is_open(now)).then_some(self.hold)
    }

    /// When to look again while something is held.
    pub(crate) fn due(&self, now: Stamp) -> Instant {
        let second = seconds_of_day(now.wall);
        let starts = self.windows.iter().map(|window| {
            let start = i64::from(window.from_minute) * 60;
            (start - second).rem_euclid(86_400)
        });
        let next = starts.min().unwrap_or(0).unsigned_abs();
        now.monotonic + Duration::from_secs(next.max(1)).min(LOOK_AGAIN)
    }

    fn is_open(&self, now: Stamp) -> bool {
        if self.windows.is_empty() {
            return true;
        }
        let patient = self
            .up_since
            .is_some_and(|since| now.monotonic < since + UNSYNCED_PATIENCE);
        if now.clock == ClockState::Unsynced && !patient {
            return true;
        }
        let second = seconds_of_day(now.wall);
        let inside = |window: &Window| {
            let from = i64::from(window.from_minute) * 60;
            let to = i64::from(window.to_minute) * 60;
            match from < to {
                true => (from..to).contains(&second),
                // Over midnight.
                false => second >= from || second < to,
            }
        };
        self.windows.iter().any(inside)
    }
}

fn seconds_of_day(wall: Timestamp) -> i64 {
    wall.as_second().rem_euclid(86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_goes_in_its_window_and_not_beside_it() {
        let windows = windows(&["01:00-05:00", "22:30-00:15"]);
        for (wall, open) in [
            ("00:59:59", false),
            ("01:00:00", true),
            ("04:59:59", true),
            ("05:00:00", false),
            ("22:30:00", true),
            ("23:59:59", true),
            ("00:00:00", true),
            ("00:14:59", true),
            ("00:15:00", false),
        ] {
            let held = windows.holds(at(wall, 0, ClockState::Synced));
            assert_eq!(held.is_none(), open, "{wall}");
        }
    }

    #[test]
    fn a_clock_that_is_never_set_strands_nothing() {
        let mut windows = windows(&["01:00-05:00"]);
        let noon = |second| at("12:00:00", second, ClockState::Unsynced);
        windows.link_up(noon(0).monotonic);
        assert!(
            windows.holds(noon(1)).is_some(),
            "a time service may set it yet"
        );
        let patience = UNSYNCED_PATIENCE.as_secs();
        assert!(windows.holds(noon(patience - 1)).is_some());
        assert!(windows.holds(noon(patience)).is_none());
        let set = at("12:00:00", patience + 1, ClockState::Synced);
        assert!(windows.holds(set).is_some());
    }

    #[test]
    fn the_clock_is_looked_at_when_the_window_opens_and_every_minute() {
        let windows = windows(&["01:00-05:00"]);
        let wait = |wall: &str| {
            let now = at(wall, 0, ClockState::Synced);
            (windows.due(now) - now.monotonic).as_secs()
        };
        assert_eq!(wait("12:00:00"), LOOK_AGAIN.as_secs());
        assert_eq!(wait("00:59:50"), 10);
    }

    #[test]
    fn without_windows_it_is_always_time() {
        let windows = Windows::new(Vec::new(), Hold::AllButHigh);
        assert_eq!(windows.holds(at("12:00:00", 0, ClockState::Unsynced)), None);
    }

    fn windows(texts: &[&str]) -> Windows {
        let parsed = texts.iter().map(|text| text.parse().unwrap());
        Windows::new(parsed.collect(), Hold::Backlog)
    }

    fn at(time: &str, second: u64, clock: ClockState) -> Stamp {
        Stamp {
            wall: format!("2026-11-22T{time}Z").parse().unwrap(),
            monotonic: begin() + Duration::from_secs(second),
            clock,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
    fn begin() -> Instant {
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BEGIN.get_or_init(Instant::now)
    }
}
