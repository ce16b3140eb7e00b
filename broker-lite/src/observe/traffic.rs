//! What flowed, and how fast it flows: totals, and averages that no timer keeps up. A core.
//!
//! Invariant: an average is brought up to date by the next event or by whoever looks, never by a
//! clock that ticks; both find the value that a ticking clock would have led to.

use std::time::{Duration, Instant};

use crate::observe::status::{Flow, Rates};

/// Totals are folded into the averages at most this often; in between an event costs a comparison.
const FOLD_EVERY: Duration = Duration::from_secs(2);

/// The window of a client's rates: long enough for a poll of a few seconds to look steady.
const CLIENT_WINDOW_S: f32 = 15.0;

/// Exponentially weighted averages of `N` totals over `T` windows, per second.
#[derive(Debug, Clone)]
pub(crate) struct Averages<const N: usize, const T: usize> {
    per_second: [[f32; N]; T],
    /// The totals when they were folded last.
    folded: [u64; N],
    folded_at: Instant,
    /// The last event; since then nothing was counted.
    last: Instant,
}

impl<const N: usize, const T: usize> Averages<N, T> {
    pub(crate) fn new(now: Instant) -> Averages<N, T> {
        Averages {
            per_second: [[0.0; N]; T],
            folded: [0; N],
            folded_at: now,
            last: now,
        }
    }

    /// Something is about to be counted on top of `totals`.
    pub(crate) fn event(
        &mut self,
        totals: impl FnOnce() -> [u64; N],
        windows_s: &[f32; T],
        now: Instant,
    ) {
        if now.saturating_duration_since(self.folded_at) >= FOLD_EVERY {
            self.fold(totals(), windows_s, now);
        }
        self.last = now;
    }

    /// The averages at this moment.
    pub(crate) fn at(&self, totals: [u64; N], windows_s: &[f32; T], now: Instant) -> [[f32; N]; T] {
        let mut seen = self.clone();
        seen.fold(totals, windows_s, now);
        seen.per_second
    }

    /// What was counted came between the last folding and the last event, evenly; since then
    /// nothing did.
    fn fold(&mut self, totals: [u64; N], windows_s: &[f32; T], now: Instant) {
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f32();
        let busy = seconds(self.folded_at, self.last).max(0.001);
        let idle = seconds(self.last, now);
        for (averages, window) in self.per_second.iter_mut().zip(windows_s) {
            let (kept, faded) = ((-busy / window).exp(), (-idle / window).exp());
            for (index, average) in averages.iter_mut().enumerate() {
                let rate = totals[index].saturating_sub(self.folded[index]) as f32 / busy;
                *average = (*average * kept + rate * (1.0 - kept)) * faded;
            }
        }
        self.folded = totals;
        self.folded_at = now;
        self.last = now;
    }
}

/// What one client sent and got; made with its first message.
#[derive(Debug)]
pub(crate) struct ClientTraffic {
    pub(crate) received: Flow,
    pub(crate) sent: Flow,
    averages: Averages<4, 1>,
}

impl ClientTraffic {
    pub(crate) fn new(now: Instant) -> ClientTraffic {
        ClientTraffic {
            received: Flow::default(),
            sent: Flow::default(),
            averages: Averages::new(now),
        }
    }

    /// A message came from the client.
    pub(crate) fn receive(&mut self, payload_len: usize, now: Instant) {
        self.note(now);
        self.received.add(payload_len);
    }

    /// A message goes to the client.
    pub(crate) fn send(&mut self, payload_len: usize, now: Instant) {
        self.note(now);
        self.sent.add(payload_len);
    }

    pub(crate) fn rates(&self, now: Instant) -> Rates {
        let [per_second] = self.averages.at(self.totals(), &[CLIENT_WINDOW_S], now);
        let [messages_received, bytes_received, messages_sent, bytes_sent] = per_second;
        Rates {
            messages_received,
            bytes_received,
            messages_sent,
            bytes_sent,
        }
    }

    fn note(&mut self, now: Instant) {
        let totals = self.totals();
        self.averages.event(|| totals, &[CLIENT_WINDOW_S], now);
    }

    fn totals(&self) -> [u64; 4] {
        let (received, sent) = (self.received, self.sent);
        [received.messages, received.bytes, sent.messages, sent.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: [f32; 1] = [60.0];

    /// Ten events a second for `seconds`, and the instant of the last.
    fn busy(averages: &mut Averages<1, 1>, total: &mut u64, seconds: u64) -> Instant {
        let mut now = crate::broker::sim::start();
        for _ in 0..seconds * 10 {
            now += Duration::from_millis(100);
            let before = *total;
            averages.event(|| [before], &MINUTE, now);
            *total += 1;
        }
        now
    }

    #[test]
    fn a_steady_rate_is_found_and_fades_when_nothing_comes_any_more() {
        let (mut averages, mut total) = (Averages::new(crate::broker::sim::start()), 0);
        let now = busy(&mut averages, &mut total, 600);
        let rate = |at| averages.at([total], &MINUTE, at)[0][0];
        assert!((rate(now) - 10.0).abs() < 0.1, "{}", rate(now));
        let a_minute_later = rate(now + Duration::from_secs(60));
        assert!((a_minute_later - 10.0 / std::f32::consts::E).abs() < 0.1);
        assert!(rate(now + Duration::from_secs(3_600)) < 0.001);
    }

    #[test]
    fn a_burst_before_a_long_silence_is_not_taken_for_the_present() {
        let (mut averages, mut total) = (Averages::new(crate::broker::sim::start()), 0);
        let burst = busy(&mut averages, &mut total, 1);
        let next = burst + Duration::from_secs(3_600);
        averages.event(|| [total], &MINUTE, next);
        let [[rate]] = averages.at([total + 1], &MINUTE, next);
        assert!(rate < 0.02, "{rate}");
    }

    #[test]
    fn looking_changes_nothing() {
        let (mut averages, mut total) = (Averages::new(crate::broker::sim::start()), 0);
        let now = busy(&mut averages, &mut total, 30);
        let first = averages.at([total], &MINUTE, now);
        assert_eq!(averages.at([total], &MINUTE, now), first);
    }
}
