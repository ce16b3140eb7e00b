//! How fast somebody may go on, with a burst after a silence. A value.
//!
//! Invariant: over any time, no more is let pass than the burst and the rate times that time.

use std::time::{Duration, Instant};

/// A leaky bucket, kept as the moment when it will have run dry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    dry_at: Instant,
}

/// Whether somebody keeps to a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paced {
    Within,
    /// He does again at this moment, if he waits until then.
    TooFast {
        until: Instant,
    },
}

impl Rate {
    /// Of somebody who was silent so far.
    pub(crate) fn new(now: Instant) -> Rate {
        Rate { dry_at: now }
    }

    /// How long this amount takes at this rate; `per_second` is above zero.
    pub(crate) fn time_for(amount: u64, per_second: u64) -> Duration {
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Whether nothing of the past counts any more.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.dry_at <= now
    }

    /// What [`Rate::take`] would say.
    pub(crate) fn peek(&self, cost: Duration, burst: Duration, now: Instant) -> Paced {
        let dry_at = self.dry_at.max(now) + cost;
        match dry_at.checked_sub(burst) {
            Some(until) if until > now => Paced::TooFast { until },
            _ => Paced::Within,
        }
    }

    /// Counts something that takes `cost` at this rate.
    pub(crate) fn take(&mut self, cost: Duration, burst: Duration, now: Instant) -> Paced {
        let paced = self.peek(cost, burst, now);
        self.dry_at = self.dry_at.max(now) + cost;
        paced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_its_burst_a_flood_is_let_pass_at_the_rate() {
        let start = crate::broker::sim::start();
        let (cost, burst) = (Rate::time_for(1, 10), Duration::from_secs(2));
        let (mut rate, mut now, mut passed) = (Rate::new(start), start, 0);
        while now < start + Duration::from_secs(10) {
            passed += 1;
            if let Paced::TooFast { until } = rate.take(cost, burst, now) {
                now = until;
            }
        }
        assert_eq!(passed, 10 * 10 + 2 * 10);
    }
}
