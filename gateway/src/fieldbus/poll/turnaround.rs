//! How long a device thinks before it answers, as it was measured. A core.
//!
//! Only answers in time count, so a time-out changes nothing. One long pause moves the estimate no
//! further than a moderate one would.
//!
//! Invariant: the estimate lies between the shortest and the longest sane turnaround, and it is
//! offered to the plan rarely, and only when it differs from what the plan counts on.

use std::time::{Duration, Instant};

/// Answers until the estimate is believed.
const BELIEVED_AFTER: u32 = 16;
/// The weight of one more answer then: one part in so many.
const MEMORY: u32 = 32;
/// An answer counts as no slower than so many times the estimate.
const OUTLIER: u32 = 4;
/// Shortest turnaround: nothing answers faster than this.
const SHORTEST: Duration = Duration::from_micros(50);
/// Longest: a device that takes longer is not helped by another plan.
const LONGEST: Duration = Duration::from_secs(1);
/// What changes by less than one part in so many is not worth another plan.
const WORTH_PLANNING: u32 = 5;
/// Least time between two plans for this reason.
const PLAN_PAUSE: Duration = Duration::from_secs(60);

/// The measured turnaround of one device.
#[derive(Debug, Clone)]
pub(crate) struct Turnaround {
    estimate: Duration,
    answers: u32,
    /// When the plan may next be made anew.
    plan_at: Option<Instant>,
}

impl Turnaround {
    /// Nothing is measured yet; `assumed` is what the plan counts on.
    pub(crate) fn assumed(assumed: Duration) -> Turnaround {
        Turnaround {
            estimate: assumed,
            answers: 0,
            plan_at: None,
        }
    }

    /// What was measured before the last restart.
    pub(crate) fn remembered(estimate: Duration) -> Turnaround {
        Turnaround {
            estimate: estimate.clamp(SHORTEST, LONGEST),
            answers: BELIEVED_AFTER,
            plan_at: None,
        }
    }

    /// Takes the time between one request and its answer.
    pub(crate) fn answered(&mut self, time: Duration) {
        let outlier = match self.answers {
            0..BELIEVED_AFTER => LONGEST,
            _ => self.estimate * OUTLIER,
        };
        let time = time.min(outlier).clamp(SHORTEST, LONGEST);
        self.answers = (self.answers + 1).min(MEMORY);
        let before = self.estimate * (self.answers - 1);
        self.estimate = (before + time) / self.answers;
    }

    /// The turnaround, once enough answers have been measured.
    pub(crate) fn measured(&self) -> Option<Duration> {
        (self.answers >= BELIEVED_AFTER).then_some(self.estimate)
    }

    /// What to plan with instead of `counted_on`, if that is worth it now.
    pub(crate) fn worth_planning_with(
        &mut self,
        counted_on: Duration,
        now: Instant,
    ) -> Option<Duration> {
        let measured = self.measured()?;
        let differs = measured.abs_diff(counted_on) > counted_on / WORTH_PLANNING;
        let early = self.plan_at.is_some_and(|at| now < at);
        if !differs || early {
            return None;
        }
        self.plan_at = Some(now + PLAN_PAUSE);
        Some(measured)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    const ASSUMED: Duration = Duration::from_millis(10);

    fn after(answers: impl IntoIterator<Item = u64>) -> Turnaround {
        let mut turnaround = Turnaround::assumed(ASSUMED);
        for millis in answers {
            turnaround.answered(Duration::from_millis(millis));
        }
        turnaround
    }

    #[test]
    fn a_few_answers_are_no_measurement() {
        assert_eq!(after([40; 15]).measured(), None);
        assert_eq!(after([40; 16]).measured(), Some(ASSUMED * 4));
    }

    #[test]
    fn a_rare_long_pause_hardly_moves_it_and_a_lasting_change_does() {
        let steady = || [10; 200].into_iter();
        let paused = after(steady().chain([900])).measured().expect("measured");
        assert!(paused < Duration::from_millis(12), "{paused:?}");
        let slower = after(steady().chain([40; 200]))
            .measured()
            .expect("measured");
        assert!(slower > Duration::from_millis(39), "{slower:?}");
        let faster = after(steady().chain([1; 200]))
            .measured()
            .expect("measured");
        assert!(faster < Duration::from_millis(2), "{faster:?}");
    }

    #[test]
    fn a_plan_is_made_anew_only_for_a_change_worth_it_and_not_all_the_time() {
        let now = Instant::now();
        assert_eq!(after([11; 50]).worth_planning_with(ASSUMED, now), None);
        let mut slow = after([40; 50]);
        let measured = slow.measured();
        assert_eq!(slow.worth_planning_with(ASSUMED, now), measured);
        assert_eq!(
            slow.worth_planning_with(ASSUMED, now + PLAN_PAUSE / 2),
            None
        );
        assert_eq!(
            slow.worth_planning_with(ASSUMED, now + PLAN_PAUSE),
            measured
        );
    }
}
