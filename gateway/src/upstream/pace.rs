//! Decides how fast the backlog goes: so many messages and bytes a second.
//!
//! Invariant: over any stretch of time no more goes than the rate allows and one second's worth,
//! or one message where that is more. Layer: core.

use std::time::{Duration, Instant};

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

/// Fills with time, is emptied by what is sent, and may go below zero by one message.
#[derive(Debug, Clone)]
struct Bucket {
    per_second: f64,
    level: f64,
    at: Option<Instant>,
}

impl Pace {
    /// So many of each per second; `None`: as many as the link takes.
    pub(crate) fn new(messages: Option<f64>, bytes: Option<f64>) -> Pace {
        Pace {
            messages: messages.map(Bucket::new),
            bytes: bytes.map(Bucket::new),
        }
    }

    /// Whether a message may go now.
    pub(crate) fn is_ready(&mut self, now: Instant) -> bool {
        self.buckets().all(|bucket| bucket.is_ready(now))
    }

    /// A message of so many bytes goes.
    pub(crate) fn take(&mut self, bytes: u64, now: Instant) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "packets are far below 2^52 bytes"
        )]
        let bytes = bytes as f64;
        if let Some(bucket) = &mut self.messages {
            bucket.take(1.0, now);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes, now);
        }
    }

    /// When a message may go that may not now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Instant> {
        self.buckets().filter_map(|bucket| bucket.due(now)).max()
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.messages.iter_mut().chain(&mut self.bytes)
    }
}

impl Bucket {
    fn new(per_second: f64) -> Bucket {
        Bucket {
            per_second,
            level: per_second,
            at: None,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let most = self.per_second.max(1.0);
        self.level = (self.level + self.per_second * passed.as_secs_f64()).min(most);
        self.at = Some(now);
    }

    /// One message or one byte is there.
    fn is_ready(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level >= 1.0
    }

    fn take(&mut self, amount: f64, now: Instant) {
        self.fill(now);
        self.level -= amount;
    }

    fn due(&mut self, now: Instant) -> Option<Instant> {
        self.fill(now);
        let missing = 1.0 - self.level;
        // A microsecond more, so that rounding does not wake us too early.
        let wait = Duration::from_secs_f64((missing / self.per_second).clamp(0.0, 3600.0));
        (missing > 0.0).then(|| now + wait + Duration::from_micros(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_at_their_rate_whatever_the_pauses_are() {
        let start = begin();
        let mut pace = Pace::new(Some(50.0), None);
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(10) {
            while pace.is_ready(now) {
                pace.take(100, now);
                sent += 1;
            }
            now = pace.due(now).unwrap();
        }
        assert!((500..=550).contains(&sent), "{sent}");
    }

    #[test]
    fn a_message_larger_than_a_seconds_bytes_goes_and_the_next_waits_for_it() {
        let start = begin();
        let mut pace = Pace::new(None, Some(1000.0));
        assert!(pace.is_ready(start));
        pace.take(5000, start);
        assert!(!pace.is_ready(start));
        let due = pace.due(start).unwrap();
        assert_eq!((due - start).as_secs(), 4);
        assert!(pace.is_ready(due));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut pace = Pace::new(None, None);
        for _ in 0..1000 {
            assert!(pace.is_ready(begin()));
            pace.take(1 << 30, begin());
        }
        assert_eq!(pace.due(begin()), None);
    }

    #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
    fn begin() -> Instant {
        Instant::now()
    }
}
