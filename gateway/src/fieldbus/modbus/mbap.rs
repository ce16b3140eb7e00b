//! Numbers requests on a Modbus TCP connection and tells by the number what an answer is to. A core.
//!
//! Invariant: an answer is taken for the request whose transaction identifier it bears, once; an
//! answer to a request that was given up, or to none, is nobody's.

use std::{collections::VecDeque, time::Instant};

/// Bytes before the unit identifier (Modbus messaging on TCP/IP 3.1.3).
const HEADER: usize = 6;
/// The shortest length field: unit identifier and function code.
const LENGTH_MIN: usize = 2;
/// The longest: unit identifier and a PDU of 253 bytes (application protocol 4.1).
const LENGTH_MAX: usize = 254;

/// Transactions under way on one connection.
#[derive(Debug)]
pub(super) struct Mbap<T> {
    next_id: u16,
    /// In the order of their sending.
    waiting: VecDeque<Waiting<T>>,
    received: Vec<u8>,
}

#[derive(Debug)]
struct Waiting<T> {
    id: u16,
    token: T,
    give_up_at: Instant,
}

/// A whole frame that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<T> {
    /// Whose answer it is; `None`: nobody's.
    pub(super) token: Option<T>,
    /// Header included.
    pub(super) bytes: Vec<u8>,
}

/// What comes is not Modbus TCP: where the next frame begins is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotModbus {
    /// The protocol identifier is not 0.
    #[error("what comes is no Modbus TCP (protocol identifier {0}, not 0)")]
    Protocol(u16),
    /// No frame has this length.
    #[error("what comes is no Modbus TCP (a frame of {0} bytes)")]
    Length(usize),
}

impl<T> Mbap<T> {
    /// A connection on which nothing is under way.
    pub(super) fn new() -> Mbap<T> {
        Mbap {
            next_id: 0,
            waiting: VecDeque::new(),
            received: Vec::new(),
        }
    }

    /// Numbers `frame`, whose answer `token` awaits.
    pub(super) fn send(&mut self, frame: &mut [u8], token: T, give_up_at: Instant) {
        while self.waiting.iter().any(|one| one.id == self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        set_id(frame, self.next_id);
        self.waiting.push_back(Waiting {
            id: self.next_id,
            token,
            give_up_at,
        });
        self.next_id = self.next_id.wrapping_add(1);
    }

    /// Takes what came.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// What came is no frame; the connection cannot be used any more.
    pub(super) fn poll_frame(&mut self) -> Result<Option<Frame<T>>, NotModbus> {
        let Some([id0, id1, protocol0, protocol1, length0, length1]) =
            self.received.first_chunk::<HEADER>().copied()
        else {
            return Ok(None);
        };
        let protocol = u16::from_be_bytes([protocol0, protocol1]);
        let length = usize::from(u16::from_be_bytes([length0, length1]));
        if protocol != 0 {
            return Err(NotModbus::Protocol(protocol));
        }
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
            return Err(NotModbus::Length(length));
        }
        if self.received.len() < HEADER + length {
            return Ok(None);
        }
        let bytes: Vec<u8> = self.received.drain(..HEADER + length).collect();
        let id = u16::from_be_bytes([id0, id1]);
        let mut waiting = self.waiting.iter();
        let place = waiting.position(|one| one.id == id);
        let token = place.and_then(|place| self.waiting.remove(place));
        Ok(Some(Frame {
            token: token.map(|waiting| waiting.token),
            bytes,
        }))
    }

    /// When the next transaction is to be given up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|one| one.give_up_at).min()
    }

    /// A transaction whose time is up; its answer will be nobody's.
    pub(super) fn give_up(&mut self, now: Instant) -> Option<T> {
        let place = self.waiting.iter().position(|one| one.give_up_at <= now)?;
        self.waiting.remove(place).map(|one| one.token)
    }

    /// Whether transactions are under way.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Forgets everything but the count: the connection is another. Returns what was under way,
    /// the first sent first.
    pub(super) fn reset(&mut self) -> Vec<T> {
        self.received.clear();
        self.waiting.drain(..).map(|one| one.token).collect()
    }
}

/// Writes a transaction identifier into a frame.
pub(super) fn set_id(frame: &mut [u8], id: u16) {
    if let Some(field) = frame.first_chunk_mut() {
        *field = id.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(id: u16, pdu: &[u8]) -> Vec<u8> {
        let length = u8::try_from(pdu.len() + 1).unwrap();
        let [high, low] = id.to_be_bytes();
        [&[high, low, 0, 0, 0, length, 1], pdu].concat()
    }

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn now() -> Instant {
        Instant::now()
    }

    fn sent(mbap: &mut Mbap<u64>, token: u64, give_up_at: Instant) -> u16 {
        let mut request = frame(0, &[3, 0, 0, 0, 1]);
        mbap.send(&mut request, token, give_up_at);
        u16::from_be_bytes([request[0], request[1]])
    }

    #[test]
    fn answers_find_their_requests_in_any_order_and_in_pieces() {
        let mut mbap = Mbap::new();
        let ids = [7, 8, 9].map(|token| sent(&mut mbap, token, now()));
        for (token, id) in [9, 7, 8].into_iter().zip([ids[2], ids[0], ids[1]]) {
            let answer = frame(id, &[3, 2, 0, 5]);
            for byte in &answer {
                assert_eq!(mbap.poll_frame(), Ok(None));
                mbap.receive(&[*byte]);
            }
            let expected = Frame {
                token: Some(token),
                bytes: answer,
            };
            assert_eq!(mbap.poll_frame(), Ok(Some(expected)));
        }
        assert!(!mbap.is_busy());
    }

    #[test]
    fn a_late_answer_is_nobodys_and_a_second_one_too() {
        let mut mbap = Mbap::new();
        let start = now();
        let late = sent(&mut mbap, 1, start);
        assert_eq!(mbap.poll_timeout(), Some(start));
        assert_eq!(mbap.give_up(start), Some(1));
        let next = sent(&mut mbap, 2, start + Duration::from_secs(1));
        assert_eq!(mbap.give_up(start), None);
        for id in [late, next, next] {
            mbap.receive(&frame(id, &[3, 2, 0, 5]));
        }
        let mut token = || mbap.poll_frame().unwrap().unwrap().token;
        assert_eq!([token(), token(), token()], [None, Some(2), None]);
    }

    #[test]
    fn a_number_that_is_under_way_is_not_given_twice() {
        let mut mbap = Mbap::new();
        let first = sent(&mut mbap, 1, now());
        mbap.next_id = u16::MAX;
        assert_eq!(sent(&mut mbap, 2, now()), u16::MAX);
        assert_eq!(first, 0);
        assert_eq!(sent(&mut mbap, 3, now()), 1);
    }

    #[test]
    fn what_is_no_modbus_ends_the_connection() {
        let lost = |bytes: &[u8]| {
            let mut mbap = Mbap::new();
            sent(&mut mbap, 4, now());
            mbap.receive(bytes);
            let error = mbap.poll_frame().unwrap_err();
            assert_eq!(mbap.reset(), [4]);
            error
        };
        assert_eq!(lost(b"HTTP/1.1"), NotModbus::Protocol(0x5450));
        assert_eq!(lost(&[0, 0, 0, 0, 0, 1, 1]), NotModbus::Length(1));
        assert_eq!(lost(&[0, 0, 0, 0, 1, 0, 1]), NotModbus::Length(256));
    }
}
