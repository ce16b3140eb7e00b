//! One point of a device: its place, its last value, and when that is too old. A core.
//!
//! ```text
//!  (none) ──value──▶ Good ──silence──▶ Stale      each arrow is published once;
//!     └─────────────▶ Bad ◀──no value──┘          the next answer decides anew
//! ```
//!
//! Invariant: a stale reading bears the last good value and the moment of that value.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config,
    reading::{Quality, Reading, Stamp, Value},
};

use super::{
    decode::{BadValue, Codec},
    report::{Reporter, Rule},
    transaction::{Answer, Span},
};

/// Intervals without a value after which a point is stale, unless the configuration says.
const STALE_INTERVALS: u32 = 3;
/// Least time before that: a device that restarts or a cable that is moved is not worth a message.
const STALE_AFTER_MIN: Duration = Duration::from_secs(10);

/// A configured point.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) name: Arc<str>,
    pub(crate) span: Span,
    pub(crate) codec: Codec,
    pub(crate) writable: bool,
    pub(crate) parked: Option<Parked>,
    pub(crate) unit: Option<Arc<str>>,
    pub(crate) interval: Duration,
    /// What is known of it now; `None` before the first answer.
    pub(crate) last: Option<Last>,
    stale_after: Duration,
    reporter: Reporter,
}

/// A point that answers with an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parked {
    /// When to ask again.
    pub(crate) retry_at: Instant,
    /// The pause that ends then.
    pub(crate) pause: Duration,
}

/// The newest that is known of a point, published or not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Last {
    pub(crate) value: Option<Value>,
    /// When the device gave it.
    pub(crate) stamp: Stamp,
    pub(crate) quality: Quality,
    pub(crate) reason: Option<Arc<str>>,
}

impl Point {
    /// A point of which nothing is known yet.
    pub(crate) fn new(point: &config::Point, device: &config::Device) -> Point {
        let codec = Codec::of(point);
        let interval = point.interval.unwrap_or(device.interval).as_duration();
        let stale_after = device.stale_after.map_or_else(
            || (interval * STALE_INTERVALS).max(STALE_AFTER_MIN),
            settings::Period::as_duration,
        );
        Point {
            name: point.name.as_str().into(),
            span: Span {
                table: point.register.table,
                start: point.register.address,
                count: codec.elements(),
            },
            codec,
            writable: point.access == config::Access::ReadWrite
                && point.register.table.is_writable(),
            parked: None,
            unit: point.unit.as_deref().map(Arc::from),
            interval,
            last: None,
            stale_after,
            reporter: Reporter::new(Rule {
                deadband: point.publishes_on(),
                heartbeat: point.heartbeat.map(settings::Period::as_duration),
                interval,
            }),
        }
    }

    /// The point's value in an answer to a read of `span`.
    pub(crate) fn value(&self, span: Span, answer: &Answer) -> Result<Value, BadValue> {
        let at = self.span.start.checked_sub(span.start);
        let at = usize::from(at.ok_or(BadValue::Short)?);
        match answer {
            Answer::Bits(bits) => match bits.get(at) {
                Some(bit) => Ok(self.codec.decode_bit(*bit)),
                None => Err(BadValue::Short),
            },
            Answer::Registers(words) => self.codec.decode(words.get(at..).unwrap_or_default()),
            Answer::Written => Err(BadValue::Short),
        }
    }

    /// Takes what the device gave; the reading if it is to be published.
    pub(crate) fn answered(
        &mut self,
        device: &Arc<str>,
        value: Result<Value, Arc<str>>,
        stamp: Stamp,
    ) -> Option<Reading> {
        let last = match value {
            Ok(value) => Last {
                value: Some(value),
                stamp,
                quality: Quality::Good,
                reason: None,
            },
            Err(reason) => Last {
                value: None,
                stamp,
                quality: Quality::Bad,
                reason: Some(reason),
            },
        };
        self.know(device, last, stamp.monotonic)
    }

    /// When the value will be too old; `None` unless it is good.
    pub(crate) fn stale_at(&self) -> Option<Instant> {
        let last = self.last.as_ref()?;
        let good = last.quality == Quality::Good;
        good.then(|| last.stamp.monotonic + self.stale_after)
    }

    /// Lets a value be stale that is too old; the reading that says so.
    pub(crate) fn grown_old(
        &mut self,
        device: &Arc<str>,
        reason: Option<&str>,
        now: Instant,
    ) -> Option<Reading> {
        if self.stale_at()? > now {
            return None;
        }
        let silence = || format!("no newer value for {:?}", self.stale_after);
        let reason = reason.map_or_else(silence, str::to_owned);
        let last = Last {
            quality: Quality::Stale,
            reason: Some(reason.into()),
            ..self.last.take()?
        };
        self.know(device, last, now)
    }

    fn know(&mut self, device: &Arc<str>, last: Last, now: Instant) -> Option<Reading> {
        let last = self.last.insert(last);
        let due =
            self.reporter
                .publishes(last.value.as_ref(), last.quality, last.reason.as_ref(), now);
        due.then(|| Reading {
            device: Arc::clone(device),
            point: Arc::clone(&self.name),
            value: last.value.clone(),
            unit: self.unit.clone(),
            stamp: last.stamp,
            quality: last.quality,
            reason: last.reason.clone(),
        })
    }
}
