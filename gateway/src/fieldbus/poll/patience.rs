//! How long a unit is waited for that did not answer lately. A core.
//!
//! A unit that answers is given the response time-out of its bus. Once it has not answered, it is
//! given up after several times what its slowest answers took, wherever waiting longer would make
//! others late, until it has answered many times in a row. Why: docs/decisions/0029.
//!
//! Invariant: of [`BRIEF_MAX`] + 1 waits in vain for a unit that is offline at least one is as long as
//! configured, so that one that has become slower comes back.

use std::time::Duration;

/// Brief waits in vain in a row for a unit that is offline; the next is as long as configured.
const BRIEF_MAX: u32 = 2;
/// A brief wait is so many times the slowest of the answers.
const FACTOR: u32 = 4;
/// No wait is shorter: what a converter or a busy machine may add.
const SHORTEST: Duration = Duration::from_millis(100);
/// Answers in a row after which a unit is waited for as configured again.
const TRUSTED_AFTER: u32 = 50;
/// How fast a slow answer is forgotten: by one part in so many with each answer.
const MEMORY: u32 = 64;

/// What is known of one unit's answers.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    /// What the slowest answers take beside the time on the wire, once there are any.
    slowest: Option<Duration>,
    /// Answers in a row.
    answers: u32,
    /// Brief waits in vain in a row, since it is offline.
    brief: u32,
}

/// Whoever never failed is trusted.
impl Default for Patience {
    fn default() -> Patience {
        Patience {
            slowest: None,
            answers: TRUSTED_AFTER,
            brief: 0,
        }
    }
}

impl Patience {
    /// The unit answered, be it an exception.
    pub(crate) fn answered(&mut self) {
        self.answers = self.answers.saturating_add(1);
        self.brief = 0;
    }

    /// So much time passed between a request and its answer, beside that on the wire.
    pub(crate) fn took(&mut self, time: Duration) {
        let known = self.slowest.unwrap_or_default();
        self.slowest = Some(time.max(known - known / MEMORY));
    }

    /// It did not answer; `brief`: it was not waited for as long as configured, `offline`: nor did
    /// it the times before.
    pub(crate) fn failed(&mut self, brief: bool, offline: bool) {
        self.answers = 0;
        self.brief = if brief {
            self.brief + u32::from(offline)
        } else {
            0
        };
    }

    /// What its slowest answers take, if it ever gave any.
    pub(crate) fn slowest(&self) -> Option<Duration> {
        self.slowest
    }

    /// How long it may be waited for instead of as long as configured; `others`: the slowest
    /// answers of the other units, for one that never answered. `None`: no less than configured.
    pub(crate) fn brief(&self, others: impl FnOnce() -> Option<Duration>) -> Option<Duration> {
        if self.answers >= TRUSTED_AFTER || self.brief >= BRIEF_MAX {
            return None;
        }
        let slowest = self.slowest.or_else(others)?;
        Some((slowest * FACTOR).max(SHORTEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn after(answers: &[u64]) -> Patience {
        let mut patience = Patience::default();
        for millis in answers {
            patience.answered();
            patience.took(ms(*millis));
        }
        patience
    }

    #[test]
    fn a_unit_that_never_failed_is_waited_for_as_configured() {
        assert_eq!(Patience::default().brief(|| Some(ms(50))), None);
        assert_eq!(after(&[10]).brief(|| None), None);
    }

    #[test]
    fn one_that_failed_is_given_up_after_several_times_its_slowest_answer() {
        let brief = |answers: &[u64]| {
            let mut patience = after(answers);
            patience.failed(false, false);
            patience.brief(|| Some(ms(200)))
        };
        assert_eq!(brief(&[10, 60, 10]), Some(4 * ms(60) - 4 * ms(60) / 64));
        assert_eq!(brief(&[1; 100]), Some(ms(100)), "no less than is sane");
        assert_eq!(brief(&[]), Some(ms(800)), "as slow as another may be");
        let forgotten: Vec<u64> = [300].into_iter().chain([10; 300]).collect();
        assert_eq!(brief(&forgotten), Some(ms(100)));
    }

    #[test]
    fn each_third_wait_in_vain_for_a_unit_that_is_offline_is_as_long_as_configured() {
        let mut patience = after(&[10]);
        patience.failed(false, false);
        patience.failed(true, false);
        for _ in 0..3 {
            for _ in 0..BRIEF_MAX {
                assert_eq!(patience.brief(|| None), Some(ms(100)));
                patience.failed(true, true);
            }
            assert_eq!(patience.brief(|| None), None);
            patience.failed(false, true);
        }
    }

    #[test]
    fn many_answers_in_a_row_make_it_trusted_again() {
        let mut patience = after(&[10]);
        patience.failed(false, false);
        for _ in 0..TRUSTED_AFTER {
            assert_eq!(patience.brief(|| None), Some(ms(100)));
            patience.answered();
        }
        assert_eq!(patience.brief(|| None), None);
    }
}
