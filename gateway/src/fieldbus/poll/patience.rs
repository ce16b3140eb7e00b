//! How long a unit is waited for. A core.
//!
//! As long as configured where the others can wait that long; else for what they can spare, and no
//! less than what the unit's slowest answers took, and as much again. One that may have answered too
//! late for that is waited for as long as configured the next time. Why: docs/decisions/0029.
//!
//! Invariant: a unit that nothing was heard of is never a reason to wait longer than the others can.

use std::time::Duration;

/// The least wait is so many times the slowest of the answers.
const FACTOR: u32 = 2;
/// No wait is shorter: what a converter or a busy machine may add.
const SHORTEST: Duration = Duration::from_millis(100);
/// Answers in a row after which a unit is trusted to go on answering.
const TRUSTED_AFTER: u32 = 50;
/// How fast a slow answer is forgotten: by one part in so many with each answer.
const MEMORY: u32 = 256;
/// Shorter waits in vain that lie between two as long as configured, lest noise makes each so.
const SHORTER_BETWEEN: u32 = 2;

/// What is known of one unit's answers.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    /// What the slowest answers take beside the time on the wire, once there are any.
    slowest: Option<Duration>,
    /// Answers in a row.
    answers: u32,
    /// Waits in vain that were shorter than configured since one was as long.
    shorter: u32,
    /// Bytes came that may have been its answer, too late.
    heard: bool,
}

/// Whoever never failed is trusted.
impl Default for Patience {
    fn default() -> Patience {
        Patience {
            slowest: None,
            answers: TRUSTED_AFTER,
            shorter: SHORTER_BETWEEN,
            heard: false,
        }
    }
}

impl Patience {
    /// The unit answered, be it an exception.
    pub(crate) fn answered(&mut self) {
        self.answers = self.answers.saturating_add(1);
        self.shorter = SHORTER_BETWEEN;
        self.heard = false;
    }

    /// So much time passed between a request and its answer, beside that on the wire.
    pub(crate) fn took(&mut self, time: Duration) {
        let known = self.slowest.unwrap_or_default();
        self.slowest = Some(time.max(known - known / MEMORY));
    }

    /// It did not answer; `shorter`: it was not waited for as long as configured.
    pub(crate) fn failed(&mut self, shorter: bool) {
        self.answers = 0;
        self.shorter = if shorter {
            self.shorter.saturating_add(1)
        } else {
            0
        };
        self.heard = false;
    }

    /// After a wait shorter than configured bytes came that nobody asked for.
    pub(crate) fn heard(&mut self) {
        self.heard = true;
    }

    /// Whether it has answered often enough in a row to be counted on.
    pub(crate) fn is_trusted(&self) -> bool {
        self.answers >= TRUSTED_AFTER
    }

    /// What its slowest answers take, if it ever gave any.
    pub(crate) fn slowest(&self) -> Option<Duration> {
        self.slowest
    }

    /// How long it is waited for at least; `others`: the slowest answers of the other units, for one
    /// that never answered. `None`: as long as configured.
    pub(crate) fn least(&self, others: impl FnOnce() -> Option<Duration>) -> Option<Duration> {
        if self.heard && self.shorter >= SHORTER_BETWEEN {
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

    fn after(answers: impl IntoIterator<Item = u64>) -> Patience {
        let mut patience = Patience::default();
        for millis in answers {
            patience.answered();
            patience.took(ms(millis));
        }
        patience
    }

    #[test]
    fn a_unit_is_waited_for_twice_as_long_as_its_slowest_answer_took_at_least() {
        let least = |patience: Patience| patience.least(|| Some(ms(200)));
        assert_eq!(least(after([10, 256, 10])), Some(2 * ms(255)));
        assert_eq!(
            least(after([1; 100])),
            Some(ms(100)),
            "no less than is sane"
        );
        assert_eq!(least(after([])), Some(ms(400)), "as slow as another may be");
        let forgotten = [300].into_iter().chain([10; 1_000]);
        assert_eq!(least(after(forgotten)), Some(ms(100)));
        // One answer in a hundred is slow.
        let now_and_then = [300].into_iter().chain([10; 99]);
        assert!(least(after(now_and_then)) > Some(ms(400)));
    }

    #[test]
    fn where_no_unit_has_answered_nobody_knows_how_long_one_takes() {
        assert_eq!(after([]).least(|| None), None);
    }

    #[test]
    fn a_unit_that_may_have_answered_too_late_is_waited_for_as_configured() {
        let mut patience = after([10]);
        patience.failed(true);
        assert_eq!(patience.least(|| None), Some(ms(100)), "nothing was heard");
        patience.heard();
        assert_eq!(patience.least(|| None), None);
        patience.answered();
        patience.took(ms(250));
        assert_eq!(patience.least(|| None), Some(ms(500)));
    }

    #[test]
    fn on_a_noisy_line_at_most_one_wait_in_three_is_as_long_as_configured() {
        let mut patience = after([10]);
        patience.failed(true);
        let mut long = 0;
        for _ in 0..30 {
            patience.heard();
            let shorter = patience.least(|| None).is_some();
            long += u32::from(!shorter);
            patience.failed(shorter);
        }
        assert_eq!(long, 10);
    }

    #[test]
    fn many_answers_in_a_row_make_it_trusted_again() {
        let mut patience = after([10]);
        assert!(patience.is_trusted());
        patience.failed(true);
        for _ in 0..TRUSTED_AFTER {
            assert!(!patience.is_trusted());
            patience.answered();
        }
        assert!(patience.is_trusted());
    }
}
