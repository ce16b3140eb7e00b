//! Finds the answer to a request among what a serial line brings: after an echo, behind noise, in
//! pieces. A core.
//!
//! Invariant: only a frame of the asked unit and function with a right CRC counts, and bytes that
//! equal the request count as an answer only where the adapter is known not to echo, or when they
//! come a second time.

use std::ops::Range;

use crate::fieldbus::crc::{SHORTEST, is_sealed};

use super::echo::Expected;

/// Most bytes that are kept of one exchange: an echo, an answer and more noise than any line that
/// works brings (Modbus over serial line 2.5.1: a frame has up to 256 bytes).
const RECEIVED_MAX: usize = 1_024;
/// Unit, function, exception code and CRC.
const EXCEPTION: usize = 5;
/// Bytes before an answer that a transceiver may make of its own, when it turns around.
const TURN_AROUND_NOISE: usize = 3;

/// What one request brought so far.
#[derive(Debug)]
pub(super) struct Receiver {
    request: Vec<u8>,
    expected: Expected,
    received: Vec<u8>,
    echo: Option<Range<usize>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    /// Nothing came, or no more than a turning transceiver makes, or only the echo.
    #[error("no answer")]
    Silence,
    /// Whether the adapter echoes is not known, and all that came equals the request.
    #[error(
        "what came back equals the request, and whether the adapter echoes is not known yet: \
         write echo = \"off\" or \"on\" for this bus"
    )]
    PerhapsEcho,
    /// Another unit has answered.
    #[error("unit {0} answered instead")]
    OtherUnit(u8),
    /// The frame began as it should and is not whole.
    #[error("the answer is cut off or its checksum is wrong: noise, or a wrong line setting?")]
    Mangled,
    /// Bytes that are no frame.
    #[error("{0} bytes came that are no frame: noise, or a wrong line setting?")]
    Noise(usize),
}

impl Receiver {
    /// Waits for the answer to `request`, which is a whole frame.
    pub(super) fn new(request: Vec<u8>, expected: Expected) -> Receiver {
        Receiver {
            request,
            expected,
            received: Vec::new(),
            echo: None,
        }
    }

    /// Takes what came; what is beyond every measure is forgotten.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = RECEIVED_MAX.saturating_sub(self.received.len());
        self.received.extend(bytes.iter().take(room));
        if self.echo.is_none() && self.expected != Expected::NoEcho {
            let mut windows = self.received.windows(self.request.len());
            let start = windows.position(|window| window == self.request);
            self.echo = start.map(|start| start..start + self.request.len());
        }
    }

    /// Whether anything has come.
    pub(super) fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    /// Where the answer stands, once it is whole. `settled`: the line has been silent for so long
    /// that a frame which has begun will not go on.
    pub(super) fn answer(&self, settled: bool) -> Option<Range<usize>> {
        let from = self.echo.as_ref().map_or(0, |echo| echo.end);
        if from == 0 && self.may_be_echo_so_far() && !settled {
            return None;
        }
        frame(&self.received, from, &self.request, settled)
    }

    /// What this exchange tells of the adapter: whether it echoes.
    ///
    /// That it does not is concluded only from an answer that stands where the echo would, to a
    /// request that no answer can equal.
    pub(super) fn echoed(&self) -> Option<bool> {
        let unlike_its_answer = !self.may_answer_itself();
        match (&self.echo, self.answer(true)) {
            (Some(_), answer) => (unlike_its_answer || answer.is_some()).then_some(true),
            (None, Some(answer)) if answer.start <= TURN_AROUND_NOISE => {
                unlike_its_answer.then_some(false)
            }
            (None, _) => None,
        }
    }

    /// The bytes in a range that [`Receiver::answer`] gave.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.received[range]
    }

    /// The echo, if one came.
    pub(super) fn echo(&self) -> &[u8] {
        self.echo.clone().map_or(&[], |echo| self.bytes(echo))
    }

    /// What came and is neither the echo nor the `answer`, in the order of its coming.
    pub(super) fn strays(&self, answer: Option<Range<usize>>) -> Vec<u8> {
        let known = |at: &usize| {
            let within = |range: &Range<usize>| range.contains(at);
            self.echo.as_ref().is_some_and(within) || answer.as_ref().is_some_and(within)
        };
        let places = (0..self.received.len()).filter(|at| !known(at));
        places.map(|at| self.received[at]).collect()
    }

    /// Whether the asked unit has begun to answer and did not get to the end: waiting on is vain.
    pub(super) fn is_mangled(&self) -> bool {
        self.why_missing() == Missing::Mangled
    }

    /// Why there is no answer, once no more will come.
    pub(super) fn why_missing(&self) -> Missing {
        if self.echo.is_some() && self.may_answer_itself() && self.expected == Expected::Unknown {
            return Missing::PerhapsEcho;
        }
        let strays = self.strays(None);
        let frame = strays.iter().position(|byte| *byte != 0).unwrap_or(0);
        let frame = &strays[frame..];
        match frame {
            _ if strays.len() < SHORTEST => Missing::Silence,
            [unit, function, ..] if self.is_asked(*unit, *function) => Missing::Mangled,
            [unit, ..] if is_sealed(frame) => Missing::OtherUnit(*unit),
            _ => Missing::Noise(strays.len()),
        }
    }

    fn is_asked(&self, unit: u8, function: u8) -> bool {
        unit == self.request[0] && function & 0x7f == self.request[1]
    }

    /// Whether all that came is the beginning of the request.
    fn may_be_echo_so_far(&self) -> bool {
        self.expected != Expected::NoEcho && self.request.starts_with(&self.received)
    }

    /// Whether the request reads as the answer to itself: function codes 5, 6, 8 and 22 always,
    /// and reads of bits at unlucky addresses.
    fn may_answer_itself(&self) -> bool {
        frame(&self.request, 0, &self.request, true) == Some(0..self.request.len())
    }
}

/// Where the first frame from `from` on stands that answers `request`; while one may still become
/// whole, none behind it counts unless the line has `settled`.
fn frame(received: &[u8], from: usize, request: &[u8], settled: bool) -> Option<Range<usize>> {
    let [unit, function, ..] = *request else {
        return None;
    };
    for start in from..received.len() {
        let rest = &received[start..];
        match *rest {
            [first] if first == unit && !settled => return None,
            [first, second, ..] if first == unit && second & 0x7f == function => {}
            _ => continue,
        }
        match length(rest) {
            Length::Known(length) if length <= rest.len() => {
                if is_sealed(&rest[..length]) {
                    return Some(start..start + length);
                }
            }
            Length::AtItsCrc if is_sealed(rest) => return Some(start..received.len()),
            _ if settled => {}
            _ => return None,
        }
    }
    None
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known(usize),
    /// The bytes that tell are not there yet.
    NotYet,
    /// Only its CRC shows where a frame of this function ends.
    AtItsCrc,
}

/// Bytes of the answer that begins here (application protocol 6), CRC included.
fn length(frame: &[u8]) -> Length {
    let at = |place: usize| frame.get(place).copied().map(usize::from);
    let known = |length: Option<usize>| length.map_or(Length::NotYet, Length::Known);
    match frame[1] {
        0x80.. => Length::Known(EXCEPTION),
        0x01..=0x04 | 0x0c | 0x11 | 0x14 | 0x15 | 0x17 => known(at(2).map(|count| 5 + count)),
        0x05 | 0x06 | 0x08 | 0x0b | 0x0f | 0x10 => Length::Known(8),
        0x07 => Length::Known(5),
        0x16 => Length::Known(10),
        0x18 => known(at(2).zip(at(3)).map(|(high, low)| 6 + 256 * high + low)),
        _ => Length::AtItsCrc,
    }
}

#[cfg(test)]
mod tests;
