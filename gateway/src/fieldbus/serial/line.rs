//! Cuts the byte stream of a serial line into frames and checks their checksums.
//!
//! A framer that has just met a line, or lost its place, first waits for the end of a frame: half
//! a frame can look like a whole one (`.5 kg` of `12.5 kg`).
//!
//! Invariant: no frame that began before the framer knew its place is handed out, and never more
//! than [`MAX_FRAME_BYTES`] are kept. Core: it is told when the line was silent.

use std::time::Duration;

use crate::config::{Checksum, Frame};

/// Longest frame in bytes; whatever is longer is noise, or a line with the wrong delimiter.
pub(crate) const MAX_FRAME_BYTES: usize = 4096;

/// Silence that separates frames where bytes do not: above the 16 ms that USB adapters collect
/// bytes for, below the pause of instruments that report ten times a second.
const GAP: Duration = Duration::from_millis(50);

/// Shortest silence that timers can tell.
const SHORTEST_SILENCE: Duration = Duration::from_millis(1);

/// Why bytes were not handed out as a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// More bytes than a frame may have, without an end.
    #[error("no end of a frame within {MAX_FRAME_BYTES} bytes (is the framing right?)")]
    Overlong,
    /// The line fell silent within a frame of known length.
    #[error("frame broken off after {got} of {expected} bytes")]
    BrokenOff {
        /// Bytes that came.
        got: usize,
        /// Bytes that the frame should have.
        expected: usize,
    },
    /// The checksum does not fit the bytes.
    #[error("{kind} checksum is {got:02x}, should be {expected:02x}")]
    Checksum {
        /// Which one.
        kind: &'static str,
        /// What the frame bears.
        got: u16,
        /// What its bytes make.
        expected: u16,
    },
    /// The frame has no room for its checksum.
    #[error("frame of {got} bytes is too short for its checksum")]
    TooShort {
        /// Its bytes.
        got: usize,
    },
}

/// Where a frame ends.
#[derive(Debug)]
enum Rule {
    Delimiter { end: Vec<u8>, strip_cr: bool },
    Length(usize),
    Prefix,
    Silence(Duration),
}

/// Frames out of a stream of bytes.
#[derive(Debug)]
pub(crate) struct Framer {
    rule: Rule,
    checksum: Option<Checksum>,
    bytes: Vec<u8>,
    /// Whether `bytes` began where a frame begins.
    aligned: bool,
}

impl Framer {
    /// A framer that has not yet found its place in the stream.
    pub(crate) fn new(frame: &Frame, checksum: Option<Checksum>) -> Framer {
        let rule = if let Some(length) = frame.length {
            Rule::Length(usize::from(length).clamp(1, MAX_FRAME_BYTES))
        } else if frame.prefix == Some(true) {
            Rule::Prefix
        } else if let Some(silence) = frame.silence {
            Rule::Silence(silence.as_duration().max(SHORTEST_SILENCE))
        } else {
            delimiter(frame.delimiter.as_deref())
        };
        Framer {
            rule,
            checksum,
            bytes: Vec::new(),
            aligned: false,
        }
    }

    /// How long the line must be without a byte before the driver calls [`Framer::silence`].
    pub(crate) fn gap(&self) -> Duration {
        match self.rule {
            Rule::Silence(silence) => silence,
            Rule::Delimiter { .. } | Rule::Length(_) | Rule::Prefix => GAP,
        }
    }

    /// Takes one byte and answers with the frame that it ends, without delimiter, count and
    /// checksum.
    pub(crate) fn push(&mut self, byte: u8) -> Option<Result<Vec<u8>, FrameError>> {
        self.bytes.push(byte);
        match &self.rule {
            Rule::Delimiter { end, .. } if self.bytes.ends_with(end) => {
                let kept = self.bytes.len() - end.len();
                self.bytes.truncate(kept);
                self.finish()
            }
            Rule::Length(length) if self.aligned && self.bytes.len() == *length => self.finish(),
            Rule::Prefix if self.aligned && self.bytes.len() == self.prefixed() => self.finish(),
            _ => self.bound(),
        }
    }

    /// The line was silent for [`Framer::gap`]: what comes next begins a frame, unless a delimiter
    /// is still to come.
    pub(crate) fn silence(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        let expected = match self.rule {
            Rule::Silence(_) => return self.finish(),
            Rule::Delimiter { .. } if self.aligned => return None,
            Rule::Delimiter { .. } => 0,
            Rule::Length(length) => length,
            Rule::Prefix => self.prefixed(),
        };
        let got = self.bytes.len();
        let broken = self.aligned && got > 0;
        self.restart(true);
        broken.then_some(Err(FrameError::BrokenOff { got, expected }))
    }

    /// Ends the frame: hands it out if its beginning was seen.
    fn finish(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        let whole = self.aligned;
        let mut frame = self.restart(true);
        if let Rule::Delimiter { strip_cr: true, .. } = self.rule
            && frame.last() == Some(&b'\r')
        {
            frame.pop();
        }
        let counted = usize::from(matches!(self.rule, Rule::Prefix));
        if !whole || frame.len() == counted {
            return None;
        }
        if let Err(error) = verify(self.checksum, &mut frame) {
            return Some(Err(error));
        }
        frame.drain(..counted);
        Some(Ok(frame))
    }

    /// Keeps an unfinished frame within its bound; tells of the first overflow only.
    fn bound(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        if self.bytes.len() <= MAX_FRAME_BYTES {
            return None;
        }
        let told = !self.aligned;
        let bytes = self.restart(false);
        if let Rule::Delimiter { end, .. } = &self.rule {
            // The delimiter itself may lie across the cut.
            let across = bytes.len().saturating_sub(end.len() - 1);
            self.bytes
                .extend_from_slice(bytes.get(across..).unwrap_or_default());
        }
        (!told).then_some(Err(FrameError::Overlong))
    }

    fn restart(&mut self, aligned: bool) -> Vec<u8> {
        self.aligned = aligned;
        std::mem::take(&mut self.bytes)
    }

    /// Length of the frame that the first byte announces, itself included.
    fn prefixed(&self) -> usize {
        1 + self.bytes.first().copied().map_or(0, usize::from)
    }
}

fn delimiter(end: Option<&str>) -> Rule {
    match end {
        Some(end) if !end.is_empty() => Rule::Delimiter {
            end: end.as_bytes().to_vec(),
            strip_cr: false,
        },
        _ => Rule::Delimiter {
            end: b"\n".to_vec(),
            strip_cr: true,
        },
    }
}

/// Checks the end of a frame and takes it off.
fn verify(checksum: Option<Checksum>, frame: &mut Vec<u8>) -> Result<(), FrameError> {
    let Some(checksum) = checksum else {
        return Ok(());
    };
    let (kind, width) = match checksum {
        Checksum::Sum => ("sum", 1),
        Checksum::Xor => ("xor", 1),
        Checksum::CrcModbus => ("CRC-16/MODBUS", 2),
    };
    let Some(length) = frame.len().checked_sub(width) else {
        return Err(FrameError::TooShort { got: frame.len() });
    };
    let (body, check) = frame.split_at(length);
    let got = check
        .iter()
        .rev()
        .fold(0, |number, byte| (number << 8) | u16::from(*byte));
    let expected = match checksum {
        Checksum::Sum => u16::from(body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte))),
        Checksum::Xor => u16::from(body.iter().fold(0, |xor, byte| xor ^ byte)),
        Checksum::CrcModbus => crc_modbus(body),
    };
    if got != expected {
        return Err(FrameError::Checksum {
            kind,
            got,
            expected,
        });
    }
    frame.truncate(length);
    Ok(())
}

/// CRC-16/MODBUS (Modbus over serial line, 6.2.2).
fn crc_modbus(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            let shifted = crc >> 1;
            if crc & 1 == 1 {
                shifted ^ 0xa001
            } else {
                shifted
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use settings::Period;

    use super::*;

    type Frames = Vec<Result<Vec<u8>, FrameError>>;

    fn feed(framer: &mut Framer, bytes: &[u8]) -> Frames {
        bytes.iter().filter_map(|byte| framer.push(*byte)).collect()
    }

    fn aligned(frame: Frame, checksum: Option<Checksum>) -> Framer {
        let mut framer = Framer::new(&frame, checksum);
        assert_eq!(framer.silence(), None);
        framer
    }

    fn frames(texts: &[&[u8]]) -> Frames {
        texts.iter().map(|text| Ok(text.to_vec())).collect()
    }

    #[test]
    fn lines_lose_their_end_and_a_carriage_return() {
        let mut framer = aligned(Frame::default(), None);
        let got = feed(&mut framer, b"12.5 kg\r\n\r\n13.0 kg\n");
        assert_eq!(got, frames(&[b"12.5 kg", b"13.0 kg"]));
    }

    #[test]
    fn a_line_whose_beginning_was_missed_is_dropped() {
        let mut framer = Framer::new(&Frame::default(), None);
        assert_eq!(
            feed(&mut framer, b".5 kg\n13.0 kg\n"),
            frames(&[b"13.0 kg"])
        );
    }

    #[test]
    fn a_pause_within_a_line_does_not_cut_it() {
        let mut framer = aligned(Frame::default(), None);
        assert_eq!(feed(&mut framer, b"12."), frames(&[]));
        assert_eq!(framer.silence(), None);
        assert_eq!(feed(&mut framer, b"5\n"), frames(&[b"12.5"]));
    }

    #[test]
    fn a_delimiter_may_have_several_bytes_and_is_found_after_noise() {
        let frame = Frame {
            delimiter: Some("<<>>".to_owned()),
            ..Frame::default()
        };
        let mut framer = aligned(frame, None);
        let mut noise = vec![b'x'; MAX_FRAME_BYTES - 2];
        noise.extend_from_slice(b"<<>>a<<b<<>>");
        assert_eq!(
            feed(&mut framer, &noise),
            vec![Err(FrameError::Overlong), Ok(b"a<<b".to_vec())]
        );
    }

    #[test]
    fn endless_noise_is_told_once_and_keeps_no_memory() {
        let mut framer = aligned(Frame::default(), None);
        let got = feed(&mut framer, &vec![0x55; 10 * MAX_FRAME_BYTES]);
        assert_eq!(got, vec![Err(FrameError::Overlong)]);
        assert!(framer.bytes.len() <= MAX_FRAME_BYTES);
        assert_eq!(feed(&mut framer, b"end\nnext\n"), frames(&[b"next"]));
    }

    #[test]
    fn a_fixed_length_starts_after_a_silence() {
        let frame = Frame {
            length: Some(3),
            ..Frame::default()
        };
        let mut framer = Framer::new(&frame, None);
        assert_eq!(feed(&mut framer, b"bcabc"), frames(&[]));
        assert_eq!(framer.silence(), None);
        assert_eq!(feed(&mut framer, b"abcdef"), frames(&[b"abc", b"def"]));
    }

    #[test]
    fn a_frame_that_breaks_off_does_not_shift_the_next() {
        let frame = Frame {
            length: Some(3),
            ..Frame::default()
        };
        let mut framer = aligned(frame, None);
        assert_eq!(feed(&mut framer, b"ab"), frames(&[]));
        assert_eq!(
            framer.silence(),
            Some(Err(FrameError::BrokenOff {
                got: 2,
                expected: 3
            }))
        );
        assert_eq!(feed(&mut framer, b"abc"), frames(&[b"abc"]));
    }

    #[test]
    fn a_length_prefix_counts_the_bytes_after_it() {
        let frame = Frame {
            prefix: Some(true),
            ..Frame::default()
        };
        let mut framer = aligned(frame, None);
        assert_eq!(
            feed(&mut framer, b"\x03abc\x00\x01d"),
            frames(&[b"abc", b"d"])
        );
    }

    #[test]
    fn a_silence_ends_a_frame() {
        let frame = Frame {
            silence: Some(Period::from_millis(20)),
            ..Frame::default()
        };
        let mut framer = Framer::new(&frame, None);
        assert_eq!(framer.gap(), Duration::from_millis(20));
        assert_eq!(feed(&mut framer, b"half"), frames(&[]));
        assert_eq!(framer.silence(), None, "its beginning was missed");
        assert_eq!(feed(&mut framer, b"whole"), frames(&[]));
        assert_eq!(framer.silence(), Some(Ok(b"whole".to_vec())));
        assert_eq!(framer.silence(), None);
    }

    #[test]
    fn a_right_checksum_is_taken_off() {
        for (checksum, frame) in [
            (Checksum::Sum, &b"\x01\xff\x05\x05"[..]),
            (Checksum::Xor, b"\x01\xff\x05\xfb"),
            // Modbus over serial line, the request 02 07 with its CRC 0x1241.
            (Checksum::CrcModbus, b"\x02\x07\x41\x12"),
        ] {
            let mut bytes = frame.to_vec();
            assert_eq!(verify(Some(checksum), &mut bytes), Ok(()));
            assert!(frame.starts_with(&bytes) && bytes.len() < frame.len());
        }
    }

    #[test]
    fn a_wrong_checksum_is_named_with_what_it_should_be() {
        let mut bytes = b"\x02\x07\x41\x13".to_vec();
        let error = verify(Some(Checksum::CrcModbus), &mut bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "CRC-16/MODBUS checksum is 1341, should be 1241"
        );
        assert_eq!(
            verify(Some(Checksum::CrcModbus), &mut vec![1]),
            Err(FrameError::TooShort { got: 1 })
        );
    }
}
