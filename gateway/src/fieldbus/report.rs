//! Whether a value is published. A core.
//!
//! Invariant: a change of quality is always published; with no deadband, so is every poll.

use crate::reading::{Quality, Value};

/// What was last published of one point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reporter {
    deadband: Option<f64>,
    last: Option<(Option<Value>, Quality)>,
}

impl Reporter {
    /// A reporter that has published nothing.
    pub(crate) fn new(deadband: Option<f64>) -> Reporter {
        Reporter {
            deadband,
            last: None,
        }
    }

    /// Whether to publish; if so, remembers it as published.
    pub(crate) fn publishes(&mut self, value: Option<&Value>, quality: Quality) -> bool {
        let due = match &self.last {
            None => true,
            Some((_, before)) if *before != quality => true,
            // What is bad stays bad until it is not: once is enough.
            Some(_) if quality == Quality::Bad => false,
            Some((before, _)) => self.moved(before.as_ref(), value),
        };
        if due {
            self.last = Some((value.cloned(), quality));
        }
        due
    }

    fn moved(&self, before: Option<&Value>, now: Option<&Value>) -> bool {
        let Some(deadband) = self.deadband else {
            return true;
        };
        match (before.and_then(Value::as_f64), now.and_then(Value::as_f64)) {
            (Some(before), Some(now)) => (now - before).abs() > deadband,
            _ => before != now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(deadband: Option<f64>, values: &[f64]) -> Vec<f64> {
        let mut reporter = Reporter::new(deadband);
        let publishes =
            |value: &&f64| reporter.publishes(Some(&Value::F64(**value)), Quality::Good);
        values.iter().filter(publishes).copied().collect()
    }

    #[test]
    fn without_a_deadband_every_poll_is_published() {
        assert_eq!(published(None, &[1.0, 1.0, 1.0]), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_slow_drift_is_published_once_it_adds_up() {
        assert_eq!(
            published(Some(0.5), &[1.0, 1.4, 1.5, 1.6, 1.2, 1.0]),
            [1.0, 1.6, 1.0]
        );
    }

    #[test]
    fn a_deadband_of_zero_publishes_changes_alone() {
        assert_eq!(published(Some(0.0), &[1.0, 1.0, 2.0, 2.0]), [1.0, 2.0]);
    }

    #[test]
    fn a_point_that_turns_bad_is_published_once_and_again_when_it_is_good() {
        let mut reporter = Reporter::new(Some(10.0));
        let value = Value::Integer(1);
        assert!(reporter.publishes(Some(&value), Quality::Good));
        assert!(reporter.publishes(None, Quality::Bad));
        assert!(!reporter.publishes(None, Quality::Bad));
        assert!(reporter.publishes(Some(&value), Quality::Good));
    }
}
