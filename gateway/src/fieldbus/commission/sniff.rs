//! Frames out of the bytes of a line that somebody else talks on. A core.
//!
//! The end of a frame is known by its CRC at a length that its function code allows; silence only
//! ends what has no such length, because adapters and the system deliver bytes in lumps. Who sent a
//! frame follows from its length, or from what is awaited.
//!
//! Invariant: every byte taken is given back in exactly one frame, in order.

use std::time::{Duration, Instant};

use crate::fieldbus::crc::{is_sealed, sealed_length};

use super::frame::Direction;

/// Longest RTU frame (Modbus over serial line 2.5.1.1).
const FRAME_MAX: usize = 256;
/// More bytes are not kept: two frames in a lump, and noise.
const BUFFER_MAX: usize = 4 * FRAME_MAX;

/// Bytes that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sniffed {
    /// Who sent them, as far as can be told.
    pub(crate) direction: Direction,
    /// As they stood on the line.
    pub(crate) bytes: Vec<u8>,
    /// When the first of them was taken.
    pub(crate) first: Instant,
    /// When the last of them was taken.
    pub(crate) last: Instant,
}

/// Bytes on their way to frames.
#[derive(Debug)]
pub(crate) struct Sniffer {
    silence: Duration,
    bytes: Vec<u8>,
    /// When each of them came.
    came: Vec<Instant>,
    /// Unit identifier and function code of the request that has no response yet.
    awaited: Option<(u8, u8)>,
}

impl Sniffer {
    /// A sniffer that takes `silence` for the end of a frame.
    pub(crate) fn new(silence: Duration) -> Sniffer {
        Sniffer {
            silence,
            bytes: Vec::new(),
            came: Vec::new(),
            awaited: None,
        }
    }

    /// Takes what came at `now`; gives the frames that are whole.
    pub(crate) fn take(&mut self, bytes: &[u8], now: Instant) -> Vec<Sniffed> {
        let mut found = self.handle_timeout(now);
        for byte in bytes {
            self.bytes.push(*byte);
            self.came.push(now);
            if self.bytes.len() >= BUFFER_MAX {
                found.extend(self.split(true));
            }
        }
        found.extend(self.split(false));
        found
    }

    /// Ends what silence has ended by `now`; early calls give nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Sniffed> {
        match self.poll_timeout() {
            Some(end) if end <= now => self.split(true),
            _ => Vec::new(),
        }
    }

    /// When silence ends what has come.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        Some(*self.came.last()? + self.silence)
    }

    /// Whole frames from the start; at the end of a burst all bytes, whole or not.
    fn split(&mut self, ended: bool) -> Vec<Sniffed> {
        let mut found = Vec::new();
        while !self.bytes.is_empty() {
            let whole = match self.frame_at(0) {
                Fit::Whole(length, direction) => Some((length, direction)),
                Fit::Incomplete if !ended => break,
                Fit::Incomplete | Fit::None => None,
            };
            match whole {
                Some((length, direction)) => found.push(self.cut(length, direction)),
                None if ended => found.push(self.cut_noise()),
                None => break,
            }
        }
        found
    }

    fn cut(&mut self, length: usize, direction: Direction) -> Sniffed {
        let (unit, function) = (self.bytes[0], self.bytes[1]);
        // A broadcast is not answered.
        self.awaited = (direction == Direction::Request && unit != 0).then_some((unit, function));
        self.take_front(length, direction)
    }

    /// What stands before the next whole frame.
    fn cut_noise(&mut self) -> Sniffed {
        let starts = 1..self.bytes.len();
        let whole = |start: &usize| matches!(self.frame_at(*start), Fit::Whole(..));
        let length = starts.into_iter().find(whole).unwrap_or(self.bytes.len());
        self.take_front(length, Direction::Stray)
    }

    fn take_front(&mut self, length: usize, direction: Direction) -> Sniffed {
        let bytes: Vec<u8> = self.bytes.drain(..length).collect();
        let came: Vec<Instant> = self.came.drain(..length).collect();
        Sniffed {
            direction,
            bytes,
            first: came[0],
            last: came[length - 1],
        }
    }

    /// Whether a frame starts at a place.
    fn frame_at(&self, start: usize) -> Fit {
        let bytes = &self.bytes[start..];
        let request = fit(bytes, request_length(bytes), Direction::Request);
        let response = fit(bytes, response_length(bytes), Direction::Response);
        let awaited = bytes
            .first()
            .zip(bytes.get(1))
            .map(|(unit, code)| (*unit, *code & 0x7f));
        let both = if awaited.is_some() && awaited == self.awaited {
            [response, request]
        } else {
            [request, response]
        };
        let whole = both.iter().find(|fit| matches!(fit, Fit::Whole(..)));
        let incomplete = both.iter().any(|fit| matches!(fit, Fit::Incomplete));
        match whole {
            Some(whole) => *whole,
            None if incomplete => Fit::Incomplete,
            None => unknown_function(bytes),
        }
    }
}

/// Whether bytes start with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Whole(usize, Direction),
    Incomplete,
    None,
}

/// A length that the first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known(usize),
    /// More bytes are needed to tell.
    Untold,
    /// No function code of the specification.
    Unknown,
}

fn fit(bytes: &[u8], length: Length, direction: Direction) -> Fit {
    match length {
        Length::Known(length) if length > FRAME_MAX => Fit::None,
        Length::Known(length) if length > bytes.len() => Fit::Incomplete,
        Length::Known(length) if is_sealed(&bytes[..length]) => Fit::Whole(length, direction),
        Length::Untold => Fit::Incomplete,
        Length::Known(_) | Length::Unknown => Fit::None,
    }
}

/// A frame of a function that the specification does not know: any length with the right CRC.
fn unknown_function(bytes: &[u8]) -> Fit {
    let known = |length| length != Length::Unknown;
    if known(request_length(bytes)) && known(response_length(bytes)) {
        return Fit::None;
    }
    let bytes = &bytes[..bytes.len().min(FRAME_MAX)];
    let whole = |length| Fit::Whole(length, Direction::Stray);
    sealed_length(bytes).map_or(Fit::None, whole)
}

/// Length of a request, unit identifier and CRC included (application protocol 6).
fn request_length(bytes: &[u8]) -> Length {
    let counted = |at: usize, rest: usize| {
        let count = bytes.get(at).map(|count| rest + usize::from(*count));
        count.map_or(Length::Untold, Length::Known)
    };
    match bytes.get(1) {
        None => Length::Untold,
        Some(1..=6 | 8) => Length::Known(8),
        Some(7 | 11 | 12 | 17) => Length::Known(4),
        Some(15 | 16) => counted(6, 9),
        Some(20 | 21) => counted(2, 5),
        Some(22) => Length::Known(10),
        Some(23) => counted(10, 13),
        Some(24) => Length::Known(6),
        Some(43) => Length::Known(7),
        Some(_) => Length::Unknown,
    }
}

/// The same of a response.
fn response_length(bytes: &[u8]) -> Length {
    match bytes.get(1) {
        None => Length::Untold,
        Some(1..=4 | 12 | 17 | 20 | 21 | 23) => {
            let count = bytes.get(2).map(|count| 5 + usize::from(*count));
            count.map_or(Length::Untold, Length::Known)
        }
        Some(5 | 6 | 8 | 11 | 15 | 16) => Length::Known(8),
        Some(7) => Length::Known(5),
        Some(22) => Length::Known(10),
        Some(43) => identification_length(bytes),
        Some(0x81..=0xab) => Length::Known(5),
        Some(_) => Length::Unknown,
    }
}

/// Read device identification: objects of an identifier, a length and as many bytes (6.21).
fn identification_length(bytes: &[u8]) -> Length {
    let Some(count) = bytes.get(7) else {
        return Length::Untold;
    };
    let mut end = 8;
    for _ in 0..*count {
        match bytes.get(end + 1) {
            Some(length) => end += 2 + usize::from(*length),
            None => return Length::Untold,
        }
    }
    Length::Known(end + 2)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "moments to count from")]
mod tests {
    use proptest::prelude::*;

    use crate::fieldbus::crc::crc;

    use super::*;

    const SILENCE: Duration = Duration::from_millis(25);

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut bytes = body.to_vec();
        bytes.extend(crc(body).to_le_bytes());
        bytes
    }

    /// Direction and body of what is found in bursts that silence separates.
    fn sniffed(bursts: &[&[u8]]) -> Vec<(Direction, Vec<u8>)> {
        let mut sniffer = Sniffer::new(SILENCE);
        let mut now = Instant::now();
        let mut found = Vec::new();
        for burst in bursts {
            found.extend(sniffer.take(burst, now));
            now += SILENCE;
        }
        found.extend(sniffer.handle_timeout(now));
        let plain = |one: Sniffed| (one.direction, one.bytes);
        found.into_iter().map(plain).collect()
    }

    #[test]
    fn request_and_response_are_told_apart_even_in_one_lump() {
        let request = framed(&[1, 3, 0, 0, 0, 2]);
        let response = framed(&[1, 3, 4, 0x43, 0x67, 0x66, 0x66]);
        let lump = [request.clone(), response.clone()].concat();
        let expected = [
            (Direction::Request, request),
            (Direction::Response, response),
        ];
        assert_eq!(sniffed(&[&lump]), expected);
    }

    #[test]
    fn a_confirmation_of_equal_length_is_the_response() {
        let write = framed(&[1, 6, 0, 1, 0, 3]);
        let found = sniffed(&[&write, &write, &write]);
        let directions: Vec<_> = found.into_iter().map(|(direction, _)| direction).collect();
        let expected = [Direction::Request, Direction::Response, Direction::Request];
        assert_eq!(directions, expected);
    }

    #[test]
    fn an_exception_is_a_response_and_a_broadcast_has_none() {
        let exception = framed(&[1, 0x83, 2]);
        let broadcast = framed(&[0, 6, 0, 1, 0, 3]);
        let found = sniffed(&[&exception, &broadcast, &broadcast]);
        let directions: Vec<_> = found.into_iter().map(|(direction, _)| direction).collect();
        let expected = [Direction::Response, Direction::Request, Direction::Request];
        assert_eq!(directions, expected);
    }

    #[test]
    fn noise_is_shown_and_does_not_hide_the_frame_behind_it() {
        let request = framed(&[1, 3, 0, 0, 0, 2]);
        let noisy = [&[0, 0xff][..], &request].concat();
        let expected = [
            (Direction::Stray, vec![0, 0xff]),
            (Direction::Request, request),
        ];
        assert_eq!(sniffed(&[&noisy]), expected);
    }

    #[test]
    fn a_frame_with_a_wrong_crc_ends_with_silence() {
        let mut request = framed(&[1, 3, 0, 0, 0, 2]);
        request[7] ^= 1;
        let right = framed(&[1, 4, 0, 0, 0, 2]);
        let expected = [
            (Direction::Stray, request.clone()),
            (Direction::Request, right.clone()),
        ];
        assert_eq!(sniffed(&[&request, &right]), expected);
    }

    #[test]
    fn identification_and_private_functions_have_their_lengths() {
        let request = framed(&[9, 43, 14, 1, 0]);
        let response = framed(&[9, 43, 14, 1, 1, 0, 0, 2, 0, 2, b'A', b'B', 1, 1, b'C']);
        let private = framed(&[9, 0x41, 1, 2, 3, 4, 5]);
        let lump = [request.clone(), response.clone()].concat();
        let expected = [
            (Direction::Request, request),
            (Direction::Response, response),
            (Direction::Stray, private.clone()),
        ];
        assert_eq!(sniffed(&[&lump, &private]), expected);
    }

    proptest! {
        #[test]
        fn every_byte_comes_back_once_and_in_order(
            bursts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..5)
        ) {
            let all: Vec<&[u8]> = bursts.iter().map(Vec::as_slice).collect();
            let found: Vec<u8> = sniffed(&all).into_iter().flat_map(|(_, bytes)| bytes).collect();
            prop_assert_eq!(found, bursts.concat());
        }
    }
}
