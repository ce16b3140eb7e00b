//! One point of a device: its place, its codec, and when its value is too old. A core.
//!
//! Invariant: a value is too old when it is overdue by the device's `stale_after`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config,
    reading::{Reading, Value},
};

use crate::fieldbus::{
    decode::{BadValue, Codec},
    poll::plan::{self, Item},
    report::Rule,
    transaction::{Answer, Span},
    watch::Watch,
};

/// Intervals that a value may be overdue before it is stale, unless the configuration says.
const OVERDUE_INTERVALS: u32 = 2;
/// Least time for that: a device that restarts or a cable that is moved is not worth a message.
const OVERDUE_MIN: Duration = Duration::from_secs(10);

/// A configured point.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) name: Arc<str>,
    pub(crate) span: Span,
    pub(crate) codec: Codec,
    pub(crate) writable: bool,
    pub(crate) parked: Option<Parked>,
    pub(crate) interval: Duration,
    /// When a value is wanted next; one that is read along earlier is not published.
    pub(crate) due: Instant,
    pub(crate) watch: Watch,
    stale_after: Duration,
}

/// A point that answers with an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parked {
    /// When to ask again.
    pub(crate) retry_at: Instant,
    /// The pause that ends then.
    pub(crate) pause: Duration,
}

impl Point {
    /// A point of which nothing is known yet, wanted from `now`.
    pub(crate) fn new(point: &config::Point, device: &config::Device, now: Instant) -> Point {
        let codec = Codec::of(point);
        let interval = interval(point, device);
        let overdue = device.stale_after.map_or_else(
            || (interval * OVERDUE_INTERVALS).max(OVERDUE_MIN),
            settings::Period::as_duration,
        );
        let name: Arc<str> = point.name.as_str().into();
        let rule = Rule {
            deadband: point.publishes_on(),
            heartbeat: point.heartbeat.map(settings::Period::as_duration),
            interval,
        };
        Point {
            span: plan::span(point),
            codec,
            writable: point.access == config::Access::ReadWrite
                && point.register.table.is_writable(),
            parked: None,
            interval,
            due: now,
            watch: Watch::new(
                device.name.as_str().into(),
                Arc::clone(&name),
                point.unit.as_deref().map(Arc::from),
                rule,
            ),
            name,
            stale_after: interval + overdue,
        }
    }

    /// What the plan needs of it as the point `index` of its device.
    pub(crate) fn item(&self, index: usize) -> Item {
        Item {
            point: index,
            span: self.span,
            interval: self.interval,
        }
    }

    /// Moves on to the point's next moment after `at`, at which it was read if it was wanted.
    pub(crate) fn served(&mut self, at: Instant) {
        if self.due <= at {
            let interval = self.interval.as_nanos().max(1);
            let moments = (at - self.due).as_nanos() / interval + 1;
            let moments = u32::try_from(moments).unwrap_or(u32::MAX);
            self.due += self.interval.saturating_mul(moments);
        }
    }

    /// The point's value in an answer to a read of `span`, as it is published.
    pub(crate) fn value(&self, span: Span, answer: &Answer) -> Result<Value, BadValue> {
        self.within(span, answer, Codec::decode)
    }

    /// The same as it compares with what was written.
    pub(crate) fn read_back(&self, span: Span, answer: &Answer) -> Result<Value, BadValue> {
        self.within(span, answer, Codec::read_back)
    }

    fn within(
        &self,
        span: Span,
        answer: &Answer,
        decode: impl Fn(&Codec, &[u16]) -> Result<Value, BadValue>,
    ) -> Result<Value, BadValue> {
        let at = self.span.start.checked_sub(span.start);
        let at = usize::from(at.ok_or(BadValue::Short)?);
        match answer {
            Answer::Bits(bits) => {
                let bit = bits.get(at).ok_or(BadValue::Short)?;
                Ok(self.codec.decode_bit(*bit))
            }
            Answer::Registers(words) => decode(&self.codec, words.get(at..).unwrap_or_default()),
            Answer::Written | Answer::Raw(_) | Answer::Broadcast => Err(BadValue::Short),
        }
    }

    /// When the value will be too old; `None` unless it is good.
    pub(crate) fn stale_at(&self) -> Option<Instant> {
        Some(self.watch.good_since()? + self.stale_after)
    }

    /// Lets a value be stale that is too old; the reading that says so.
    pub(crate) fn grown_old(&mut self, reason: Option<&str>, now: Instant) -> Option<Reading> {
        if self.stale_at()? > now {
            return None;
        }
        let silence = || format!("no newer value for {:?}", self.stale_after);
        let reason = reason.map_or_else(silence, str::to_owned);
        self.watch.outdated(&reason, now)
    }
}

/// How often a configured point is read.
pub(crate) fn interval(point: &config::Point, device: &config::Device) -> Duration {
    point.interval.unwrap_or(device.interval).as_duration()
}
