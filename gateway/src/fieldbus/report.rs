//! Whether a value is published. A core.
//!
//! Invariant: a change of quality or of its reason is always published; with no deadband, so is
//! every poll.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::Deadband,
    reading::{Quality, Value},
};

/// When a point is published.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Rule {
    /// By how much a value has to move; `None`: every poll is published.
    pub(crate) deadband: Option<Deadband>,
    /// At least so often, at the poll nearest to it.
    pub(crate) heartbeat: Option<Duration>,
    /// Time between two polls.
    pub(crate) interval: Duration,
}

/// What was last published of one point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reporter {
    rule: Rule,
    last: Option<Published>,
}

#[derive(Debug, Clone, PartialEq)]
struct Published {
    value: Option<Value>,
    quality: Quality,
    reason: Option<Arc<str>>,
    at: Instant,
}

impl Reporter {
    /// A reporter that has published nothing.
    pub(crate) fn new(rule: Rule) -> Reporter {
        Reporter { rule, last: None }
    }

    /// Whether to publish; if so, remembers it as published.
    pub(crate) fn publishes(
        &mut self,
        value: Option<&Value>,
        quality: Quality,
        reason: Option<&Arc<str>>,
        now: Instant,
    ) -> bool {
        let due = match &self.last {
            None => true,
            Some(last) if last.quality != quality || last.reason.as_ref() != reason => true,
            Some(last) if self.is_overdue(last.at, now) => true,
            // What is bad stays bad until it is not: once is enough.
            Some(_) if quality != Quality::Good => false,
            Some(last) => self.moved(last.value.as_ref(), value),
        };
        if due {
            self.last = Some(Published {
                value: value.cloned(),
                quality,
                reason: reason.cloned(),
                at: now,
            });
        }
        due
    }

    fn is_overdue(&self, last: Instant, now: Instant) -> bool {
        let age = now.saturating_duration_since(last) + self.rule.interval / 2;
        self.rule
            .heartbeat
            .is_some_and(|heartbeat| age >= heartbeat)
    }

    fn moved(&self, before: Option<&Value>, now: Option<&Value>) -> bool {
        let Some(deadband) = self.rule.deadband else {
            return true;
        };
        let size = |value: Option<&Value>| value.and_then(Value::as_f64);
        match (size(before), size(now)) {
            // No distance leads from or to what is no number.
            (Some(before), Some(now)) if before.is_nan() || now.is_nan() => {
                before.is_nan() != now.is_nan()
            }
            // An integer may change beyond the digits of a float.
            (Some(_), Some(_)) if is_zero(deadband) => before != now,
            (Some(before), Some(now)) => beyond(deadband, before, now),
            _ => before != now,
        }
    }
}

fn is_zero(deadband: Deadband) -> bool {
    match deadband {
        Deadband::Absolute(width) => width == 0.0,
        Deadband::Share { percent, at_least } => percent == 0.0 && at_least == 0.0,
    }
}

/// Whether a number has moved by more than the deadband; out of infinity every way leads far.
fn beyond(deadband: Deadband, before: f64, now: f64) -> bool {
    let width = match deadband {
        Deadband::Absolute(width) => width,
        Deadband::Share { percent, at_least } if before.is_finite() => {
            at_least.max(before.abs() * percent / 100.0)
        }
        Deadband::Share { .. } => 0.0,
    };
    now != before && (now - before).abs() > width
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(1);

    fn rule(deadband: Option<Deadband>) -> Rule {
        Rule {
            deadband,
            heartbeat: None,
            interval: POLL,
        }
    }

    /// The values that are published of those polled, one each second.
    fn published(rule: Rule, values: &[f64]) -> Vec<f64> {
        let mut reporter = Reporter::new(rule);
        let mut now = Instant::now();
        let publishes = |value: &&f64| {
            now += POLL;
            reporter.publishes(Some(&Value::F64(**value)), Quality::Good, None, now)
        };
        values.iter().filter(publishes).copied().collect()
    }

    fn absolute(width: f64) -> Rule {
        rule(Some(Deadband::Absolute(width)))
    }

    fn share(percent: f64, at_least: f64) -> Rule {
        rule(Some(Deadband::Share { percent, at_least }))
    }

    #[test]
    fn without_a_deadband_every_poll_is_published() {
        assert_eq!(published(rule(None), &[1.0, 1.0, 1.0]), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_slow_drift_is_published_once_it_adds_up() {
        assert_eq!(
            published(absolute(0.5), &[1.0, 1.4, 1.5, 1.6, 1.2, 1.0]),
            [1.0, 1.6, 1.0]
        );
    }

    #[test]
    fn a_deadband_of_zero_publishes_changes_alone() {
        assert_eq!(published(absolute(0.0), &[1.0, 1.0, 2.0, 2.0]), [1.0, 2.0]);
        let mut reporter = Reporter::new(absolute(0.0));
        let mut publishes = |value| {
            let value = Value::Integer(value);
            reporter.publishes(Some(&value), Quality::Good, None, Instant::now())
        };
        assert!(publishes(1 << 60));
        assert!(publishes((1 << 60) + 1), "one in the last digit");
        assert!(!publishes((1 << 60) + 1));
    }

    #[test]
    fn a_share_is_taken_of_what_was_published_last() {
        let two_percent = share(2.0, 0.0);
        assert_eq!(
            published(two_percent, &[100.0, 101.9, 102.1, 104.0, 104.2, -1.0]),
            [100.0, 102.1, 104.2, -1.0]
        );
        assert_eq!(published(two_percent, &[0.0, 0.0, 0.1]), [0.0, 0.1]);
    }

    #[test]
    fn near_zero_a_share_has_a_floor() {
        let values = [0.0, 0.05, -0.1, 0.11, 0.2, 10.0, 10.19, 10.21, 0.0];
        assert_eq!(
            published(share(2.0, 0.1), &values),
            [0.0, 0.11, 10.0, 10.21, 0.0]
        );
        assert_eq!(published(share(0.0, 0.1), &values).len(), 5);
    }

    #[test]
    fn a_value_after_no_number_is_published() {
        let shown = |values: &[f64]| published(absolute(0.5), values).len();
        assert_eq!(shown(&[1.0, f64::NAN, f64::NAN, 1.0, 1.1]), 3);
        assert_eq!(shown(&[f64::NAN, 5.0, 9.0]), 3);
        assert_eq!(shown(&[f64::INFINITY, f64::INFINITY, 5.0]), 2);
        assert_eq!(published(share(1.0, 0.0), &[f64::INFINITY, 5.0]).len(), 2);
    }

    #[test]
    fn a_heartbeat_publishes_what_does_not_change() {
        let beating = Rule {
            heartbeat: Some(Duration::from_secs(5)),
            ..absolute(10.0)
        };
        let values: Vec<f64> = (0..16).map(|second| f64::from(second) / 100.0).collect();
        assert_eq!(published(beating, &values), [0.0, 0.05, 0.10, 0.15]);
    }

    #[test]
    fn a_point_that_turns_bad_is_published_once_and_again_when_it_is_good() {
        let mut reporter = Reporter::new(absolute(10.0));
        let now = Instant::now();
        let value = Value::Integer(1);
        let (ill, worse) = (Arc::from("ill"), Arc::from("worse"));
        assert!(reporter.publishes(Some(&value), Quality::Good, None, now));
        assert!(reporter.publishes(None, Quality::Bad, Some(&ill), now));
        assert!(!reporter.publishes(None, Quality::Bad, Some(&ill), now));
        assert!(reporter.publishes(None, Quality::Bad, Some(&worse), now));
        assert!(reporter.publishes(Some(&value), Quality::Good, None, now));
    }
}
