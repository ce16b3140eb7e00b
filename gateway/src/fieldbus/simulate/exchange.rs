//! The device's end of one wire: bytes in, requests out; answers in, bytes out when they are due.
//! A core.
//!
//! Invariant: with a line rate, no byte leaves before the line could have carried it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{config::Framing, fieldbus::wire::line_rate::LineRate};

use super::frame::{self, FRAME_MAX, Found, Request};

/// What is unfinished for so long was cut off, and the next byte begins another request.
const UNFINISHED_FOR: Duration = Duration::from_millis(50);
/// Answers that wait to leave; more were asked for by nobody who listens.
const WAITING_MAX: usize = 1_024;
/// Bytes leave in lumps of about this much of the line's time: what a timer can do.
const LUMP: Duration = Duration::from_millis(1);

/// One wire's bytes on their way.
#[derive(Debug)]
pub(super) struct Exchange {
    framing: Framing,
    rate: Option<LineRate>,
    received: Vec<u8>,
    heard_at: Option<Instant>,
    /// In the order in which they leave.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    /// When the line has carried all that waits.
    free_at: Option<Instant>,
}

impl Exchange {
    /// A wire on which nothing has been sent yet; with a rate, it takes a line's time.
    pub(super) fn new(framing: Framing, rate: Option<LineRate>) -> Exchange {
        Exchange {
            framing,
            rate,
            received: Vec::with_capacity(FRAME_MAX),
            heard_at: None,
            waiting: VecDeque::new(),
            free_at: None,
        }
    }

    /// Takes what the client sent.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) {
        let silent = |heard: Instant| now.saturating_duration_since(heard) > UNFINISHED_FOR;
        if self.framing == Framing::Rtu && self.heard_at.is_some_and(silent) {
            self.received.clear();
        }
        self.heard_at = Some(now);
        self.received.extend_from_slice(bytes);
    }

    /// The next request among what was received.
    ///
    /// # Errors
    /// The bytes make no sense and never will.
    pub(super) fn next_request(&mut self) -> Result<Option<Request>, Nonsense> {
        loop {
            match frame::find(self.framing, &self.received) {
                Found::Request(request) => {
                    self.received.drain(..request.bytes);
                    return Ok(Some(request));
                }
                Found::Garbage(bytes) => drop(self.received.drain(..bytes)),
                Found::Unfinished => return Ok(None),
                Found::Lost => return Err(Nonsense),
            }
        }
    }

    /// When a request that was received `now` has arrived on the line.
    pub(super) fn arrived_at(&self, request: &Request, now: Instant) -> Instant {
        let line_time = |rate: LineRate| rate.frame(request.bytes) + rate.silence();
        now + self.rate.map_or(Duration::ZERO, line_time)
    }

    /// Lets bytes leave at `at`, or once the line is free.
    pub(super) fn send(&mut self, at: Instant, bytes: Vec<u8>) {
        if self.waiting.len() >= WAITING_MAX {
            return;
        }
        let Some(rate) = self.rate else {
            return self.insert(at, bytes);
        };
        let begins = self.free_at.map_or(at, |free| free.max(at));
        let lump = LUMP.div_duration_f64(rate.character()).max(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "characters in a millisecond: 1 to a few hundred"
        )]
        let lump = lump as usize;
        let mut sent = 0;
        for part in bytes.chunks(lump) {
            sent += part.len();
            self.insert(begins + rate.frame(sent), part.to_vec());
        }
        self.free_at = Some(begins + rate.frame(sent));
    }

    /// When the next bytes leave.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// All bytes that are due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut due = Vec::new();
        while self.next_due().is_some_and(|at| at <= now) {
            let next = self.waiting.pop_front();
            due.extend(next.into_iter().flat_map(|(_, bytes)| bytes));
        }
        (!due.is_empty()).then_some(due)
    }

    fn insert(&mut self, at: Instant, bytes: Vec<u8>) {
        let place = self.waiting.partition_point(|(other, _)| *other <= at);
        self.waiting.insert(place, (at, bytes));
    }
}

/// The client does not speak this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonsense;

#[cfg(test)]
mod tests {
    use crate::config::Parity;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
    fn start() -> Instant {
        Instant::now()
    }

    fn request() -> Vec<u8> {
        let body = [1, 4, 0, 0, 0, 2];
        [&body[..], &frame::crc(&body).to_le_bytes()].concat()
    }

    #[test]
    fn half_a_request_is_forgotten_after_a_silence() {
        let now = start();
        let mut exchange = Exchange::new(Framing::Rtu, None);
        exchange.receive(&request()[..5], now);
        assert_eq!(exchange.next_request(), Ok(None));
        let later = now + 2 * UNFINISHED_FOR;
        exchange.receive(&request(), later);
        assert!(matches!(exchange.next_request(), Ok(Some(_))));
        assert_eq!(exchange.next_request(), Ok(None));
    }

    #[test]
    fn requests_behind_noise_and_behind_each_other_are_all_found() {
        let mut exchange = Exchange::new(Framing::Rtu, None);
        let bytes = [&[0xff, 0, 0x55][..], &request(), &request()].concat();
        exchange.receive(&bytes, start());
        for _ in 0..2 {
            assert!(matches!(exchange.next_request(), Ok(Some(_))));
        }
        assert_eq!(exchange.next_request(), Ok(None));
    }

    #[test]
    fn without_a_rate_answers_leave_when_they_are_due_whatever_their_order() {
        let now = start();
        let mut exchange = Exchange::new(Framing::Tcp, None);
        let after = |ms| now + Duration::from_millis(ms);
        exchange.send(after(300), vec![3]);
        exchange.send(after(2), vec![1]);
        exchange.send(after(2), vec![2]);
        assert_eq!(exchange.next_due(), Some(after(2)));
        assert_eq!(exchange.take_due(now), None);
        assert_eq!(exchange.take_due(after(2)), Some(vec![1, 2]));
        assert_eq!(exchange.take_due(after(400)), Some(vec![3]));
        assert_eq!(exchange.next_due(), None);
    }

    #[test]
    fn at_a_line_rate_no_byte_is_early_and_answers_follow_each_other() {
        let now = start();
        let rate = LineRate::new(9_600, Parity::Even, None);
        let mut exchange = Exchange::new(Framing::Rtu, Some(rate));
        exchange.send(now, vec![1; 10]);
        exchange.send(now, vec![2; 10]);
        let mut got = 0;
        while let Some(due) = exchange.next_due() {
            assert_eq!(exchange.take_due(due - Duration::from_nanos(1)), None);
            got += exchange.take_due(due).expect("what is due").len();
            assert!(due >= now + rate.frame(got), "{got} bytes too early");
            assert!(due <= now + rate.frame(got) + rate.character());
        }
        assert_eq!(got, 20);
    }
}
