//! Estimates how long a backlog lasts from how it has shrunk.
//!
//! Invariant: what grows or stands still has no end that could be told. Layer: core.

use std::time::{Duration, Instant};

/// Shortest time over which the rate is taken.
const STEP: Duration = Duration::from_secs(5);
/// Share of a new rate in the smoothed one: the last minute counts for most of it.
const WEIGHT: f64 = 0.2;
/// Longer than anybody would wait.
const LONGEST_S: f64 = 10.0 * 365.0 * 86_400.0;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    last: Option<(Instant, u64)>,
    /// Messages per second by which the backlog shrinks.
    rate: Option<f64>,
}

impl Progress {
    /// So many wait now.
    pub(crate) fn observe(&mut self, waiting: u64, now: Instant) {
        let Some((at, before)) = self.last else {
            self.last = Some((now, waiting));
            return;
        };
        let passed = now.saturating_duration_since(at);
        if passed < STEP {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rate = (before as f64 - waiting as f64) / passed.as_secs_f64();
        let known = self.rate.unwrap_or(rate);
        self.rate = Some(known + WEIGHT * (rate - known));
        self.last = Some((now, waiting));
    }

    /// Nothing is sent: what is known of the rate is of another link.
    pub(crate) fn forget(&mut self) {
        *self = Progress::default();
    }

    /// Until nothing waits, if it goes on like this.
    pub(crate) fn empty_in(&self) -> Option<Duration> {
        let (_, waiting) = self.last.filter(|(_, waiting)| *waiting > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = waiting as f64 / self.rate.filter(|rate| *rate > 0.0)?;
        (seconds < LONGEST_S).then(|| Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_shrinks_ends_when_it_is_used_up() {
        let mut progress = Progress::default();
        for second in 0..=60 {
            progress.observe(10_000 - 100 * second, begin() + Duration::from_secs(second));
        }
        assert_eq!(progress.empty_in(), Some(Duration::from_secs(40)));
    }

    #[test]
    fn one_that_grows_or_stands_still_has_no_end() {
        for growth in [0, 5] {
            let mut progress = Progress::default();
            for second in 0..60 {
                progress.observe(
                    1000 + growth * second,
                    begin() + Duration::from_secs(second),
                );
            }
            assert_eq!(progress.empty_in(), None);
        }
    }

    fn begin() -> Instant {
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
        let begin = || Instant::now();
        *BEGIN.get_or_init(begin)
    }
}
