//! The newest that is known of one point, and whether it is told. A core.
//!
//! ```text
//!  (none) ──value──▶ Good ──silence──▶ Stale      each arrow is published once;
//!     └─────────────▶ Bad ◀──no value──┘          the next answer decides anew
//! ```
//!
//! Invariant: a stale reading bears the last good value and the moment of that value.

use std::{sync::Arc, time::Instant};

use crate::reading::{Quality, Reading, Stamp, Value};

use crate::fieldbus::report::{Reporter, Rule};

/// One point as those see it who read values.
#[derive(Debug)]
pub(crate) struct Watch {
    device: Arc<str>,
    name: Arc<str>,
    unit: Option<Arc<str>>,
    last: Option<Last>,
    reporter: Reporter,
}

/// The newest value, published or not.
#[derive(Debug, Clone, PartialEq)]
struct Last {
    value: Option<Value>,
    stamp: Stamp,
    quality: Quality,
    reason: Option<Arc<str>>,
}

/// What is known of a point.
#[derive(Debug, Clone, PartialEq)]
pub struct PointStatus {
    /// Its name in topics.
    pub name: Arc<str>,
    /// Its unit.
    pub unit: Option<Arc<str>>,
    /// The newest value, published or not.
    pub value: Option<Value>,
    /// When the device gave it, and what it is worth; `None` before the first answer.
    pub known: Option<(Stamp, Quality)>,
    /// Why it is not good.
    pub reason: Option<Arc<str>>,
}

impl Watch {
    /// A point of which nothing is known yet.
    pub(crate) fn new(
        device: Arc<str>,
        name: Arc<str>,
        unit: Option<Arc<str>>,
        rule: Rule,
    ) -> Watch {
        Watch {
            device,
            name,
            unit,
            last: None,
            reporter: Reporter::new(rule),
        }
    }

    /// Takes what the device gave, or why it gave none; the reading if it is to be published.
    pub(crate) fn answered(
        &mut self,
        value: Result<Value, Arc<str>>,
        stamp: Stamp,
    ) -> Option<Reading> {
        let (value, quality, reason) = match value {
            Ok(value) => (Some(value), Quality::Good, None),
            Err(reason) => (None, Quality::Bad, Some(reason)),
        };
        let last = Last {
            value,
            stamp,
            quality,
            reason,
        };
        self.know(last, stamp.monotonic)
    }

    /// Lets a good value be stale; the reading that says so.
    pub(crate) fn outdated(&mut self, reason: &str, now: Instant) -> Option<Reading> {
        self.good_since()?;
        let last = Last {
            quality: Quality::Stale,
            reason: Some(reason.into()),
            ..self.last.take()?
        };
        self.know(last, now)
    }

    /// When the value was given; `None` unless it is good.
    pub(crate) fn good_since(&self) -> Option<Instant> {
        let last = self.last.as_ref()?;
        (last.quality == Quality::Good).then_some(last.stamp.monotonic)
    }

    /// What is known now.
    pub(crate) fn status(&self) -> PointStatus {
        let last = self.last.as_ref();
        PointStatus {
            name: Arc::clone(&self.name),
            unit: self.unit.clone(),
            value: last.and_then(|last| last.value.clone()),
            known: last.map(|last| (last.stamp, last.quality)),
            reason: last.and_then(|last| last.reason.clone()),
        }
    }

    fn know(&mut self, last: Last, now: Instant) -> Option<Reading> {
        let last = self.last.insert(last);
        let due =
            self.reporter
                .publishes(last.value.as_ref(), last.quality, last.reason.as_ref(), now);
        due.then(|| Reading {
            device: Arc::clone(&self.device),
            point: Arc::clone(&self.name),
            value: last.value.clone(),
            unit: self.unit.clone(),
            stamp: last.stamp,
            quality: last.quality,
            reason: last.reason.clone(),
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use jiff::Timestamp;

    use crate::reading::ClockState;

    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            wall: Timestamp::UNIX_EPOCH,
            monotonic: Instant::now(),
            clock: ClockState::Synced,
        }
    }

    fn watch() -> Watch {
        Watch::new("meter".into(), "power".into(), None, Rule::default())
    }

    #[test]
    fn a_stale_value_is_told_once_with_its_own_time() {
        let (mut watch, given) = (watch(), stamp());
        assert!(watch.answered(Ok(Value::Integer(7)), given).is_some());
        let later = given.monotonic + std::time::Duration::from_secs(60);
        let told = watch.outdated("silent", later);
        let told = told.map(|reading| (reading.value, reading.stamp, reading.quality));
        assert_eq!(told, Some((Some(Value::Integer(7)), given, Quality::Stale)));
        assert_eq!(watch.outdated("silent", later), None);
        let status = watch.status();
        assert_eq!(status.known, Some((given, Quality::Stale)));
        assert_eq!(status.reason.as_deref(), Some("silent"));
        let again = watch.answered(Ok(Value::Integer(7)), stamp());
        assert_eq!(again.map(|one| one.quality), Some(Quality::Good));
    }

    #[test]
    fn what_has_no_value_cannot_grow_stale() {
        let mut watch = watch();
        assert_eq!(watch.outdated("silent", Instant::now()), None);
        let bad = watch.answered(Err("exception 02".into()), stamp());
        assert_eq!(
            bad.map(|one| (one.value, one.quality)),
            Some((None, Quality::Bad))
        );
        assert_eq!(watch.outdated("silent", Instant::now()), None);
    }
}
