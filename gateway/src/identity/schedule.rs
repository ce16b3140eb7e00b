//! When a certificate is to be renewed. Core.
//!
//! Invariant: neither clock is believed alone: a wall clock that stands in 1970 does not put the
//! renewal off for ever, and one that jumps over the moment does not miss it.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Gateways that were enrolled together renew apart: by up to so much of a certificate's life.
const JITTER: f64 = 0.05;

/// A certificate's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) starts: Timestamp,
    pub(crate) ends: Timestamp,
}

/// The renewal of one certificate after another.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Part of the life after which it is renewed, jitter included.
    part: f64,
    /// The certificate that is watched, since when.
    watched: Option<(Life, Instant)>,
}

impl Schedule {
    /// Renews after `percent` of a life; `chance`, from 0 to 1, should differ between gateways.
    pub(crate) fn new(percent: u8, chance: f64) -> Schedule {
        Schedule {
            part: f64::from(percent) / 100.0 - JITTER * chance,
            watched: None,
        }
    }

    /// Whether it is time, by either clock.
    pub(crate) fn is_due(&mut self, life: Life, wall: Timestamp, now: Instant) -> bool {
        let since = match self.watched {
            Some((watched, since)) if watched == life => since,
            _ => {
                self.watched = Some((life, now));
                now
            }
        };
        wall >= self.moment(life) || now.saturating_duration_since(since) >= self.after(life)
    }

    /// The moment by the wall clock.
    pub(crate) fn moment(&self, life: Life) -> Timestamp {
        life.starts
            .checked_add(self.after(life))
            .unwrap_or(life.ends)
    }

    /// The same from the certificate's beginning.
    fn after(&self, life: Life) -> Duration {
        let whole = life.ends.duration_since(life.starts);
        let whole = Duration::try_from(whole).unwrap_or_default();
        whole.mul_f64(self.part.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests measure time")]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn life() -> Life {
        Life {
            starts: at(0),
            ends: at(90),
        }
    }

    /// So many days after the certificate's beginning.
    fn at(days: i64) -> Timestamp {
        let start = 1_800_000_000;
        Timestamp::from_second(start + days * 86_400).unwrap()
    }

    #[test]
    fn it_is_due_after_its_part_of_the_life_by_the_wall_clock() {
        let now = Instant::now();
        let mut schedule = Schedule::new(66, 0.0);
        assert!(!schedule.is_due(life(), at(59), now));
        assert!(schedule.is_due(life(), at(60), now));
        assert_eq!(
            schedule.moment(life()).duration_since(at(0)).as_secs() / 86_400,
            59
        );
    }

    #[test]
    fn gateways_enrolled_together_renew_apart() {
        let moment = |chance| Schedule::new(66, chance).moment(life());
        let apart = moment(0.0).duration_since(moment(1.0)).as_secs();
        assert_eq!(apart, (90.0 * 86_400.0 * JITTER) as i64);
    }

    #[test]
    fn a_wall_clock_that_stands_still_or_goes_back_is_overruled_by_the_other() {
        let now = Instant::now();
        let mut schedule = Schedule::new(66, 0.0);
        let past = Timestamp::UNIX_EPOCH;
        assert!(!schedule.is_due(life(), past, now));
        assert!(!schedule.is_due(life(), past, now + 59 * DAY));
        assert!(schedule.is_due(life(), past, now + 60 * DAY));
    }

    #[test]
    fn a_step_over_the_whole_window_and_the_end_is_noticed() {
        let now = Instant::now();
        let mut schedule = Schedule::new(66, 0.5);
        assert!(!schedule.is_due(life(), at(1), now));
        assert!(schedule.is_due(life(), at(4_000), now + Duration::from_secs(1)));
        // And a step back before it is tried does not lose it for longer than the certificate lives.
        assert!(!schedule.is_due(life(), at(1), now + Duration::from_secs(2)));
        assert!(schedule.is_due(life(), at(1), now + 60 * DAY));
    }

    #[test]
    fn a_new_certificate_begins_a_new_watch() {
        let now = Instant::now();
        let mut schedule = Schedule::new(66, 0.0);
        let next = Life {
            starts: at(60),
            ends: at(150),
        };
        assert!(!schedule.is_due(life(), at(1), now));
        assert!(!schedule.is_due(next, at(61), now + 80 * DAY));
        assert!(schedule.is_due(next, at(61), now + 140 * DAY));
    }
}
