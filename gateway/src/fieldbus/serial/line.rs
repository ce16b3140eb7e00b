//! Cuts the byte stream of a serial line into frames and checks their checksums.
//!
//! A framer that has just met a line, or lost its place, first waits for the end of a frame: half
//! a frame can look like a whole one (`.5 kg` of `12.5 kg`). Where frames have a start of their
//! own, it waits for that instead.
//!
//! Invariant: no frame that began before the framer knew its place is handed out, and never more
//! than [`MAX_FRAME_BYTES`] are kept. Core: it is told when the line was silent.

use std::time::Duration;

use crate::config::{ByteOrder, Characters, Checksum, Frame, Prefix};

use super::checksum::{Check, CheckError};

/// Longest frame in bytes; whatever is longer is noise, or a line with the wrong delimiter.
pub(crate) const MAX_FRAME_BYTES: usize = 4096;

/// Silence that separates frames where bytes do not: above the 16 ms that USB adapters collect
/// bytes for, below the pause of instruments that report ten times a second.
pub(crate) const GAP: Duration = Duration::from_millis(50);

/// Shortest silence that timers can tell.
const SHORTEST_SILENCE: Duration = Duration::from_millis(1);

/// Why bytes were not handed out as a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// More bytes than a frame may have, without an end.
    #[error("no end of a frame within {MAX_FRAME_BYTES} bytes (is the framing right?)")]
    Overlong,
    /// The line fell silent within a frame.
    #[error("frame broken off after {got} of {expected} bytes")]
    BrokenOff {
        /// Bytes that came.
        got: usize,
        /// Bytes that the frame should have, as far as that is known.
        expected: usize,
    },
    /// A frame began before the last one had ended.
    #[error("frame broken off after {got} bytes by the start of another")]
    Interrupted {
        /// Bytes that came.
        got: usize,
    },
    /// The checksum does not fit the bytes, or is not there.
    #[error(transparent)]
    Check(#[from] CheckError),
}

/// Where a frame ends.
#[derive(Debug)]
enum Rule {
    Delimiter { end: Vec<u8>, strip_cr: bool },
    Length(usize),
    Prefix(Prefix),
    Silence(Duration),
}

/// Frames out of a stream of bytes.
#[derive(Debug)]
pub(crate) struct Framer {
    rule: Rule,
    /// What each frame begins with; empty: nothing.
    start: Vec<u8>,
    check: Option<Check>,
    bytes: Vec<u8>,
    /// Whether `bytes` began where a frame begins.
    aligned: bool,
    /// Length that a frame has reached whose delimiter was seen and whose checksum is to come.
    delimited: Option<usize>,
}

impl Framer {
    /// A framer that has not yet found its place in the stream.
    pub(crate) fn new(frame: &Frame, checksum: Option<Checksum>) -> Framer {
        let bytes = |text: &Option<_>| text.as_ref().map(|Characters(bytes)| bytes.clone());
        let rule = if let Some(length) = frame.length {
            Rule::Length(usize::from(length).clamp(1, MAX_FRAME_BYTES))
        } else if let Some(prefix) = frame.prefix {
            Rule::Prefix(prefix)
        } else if let Some(silence) = frame.silence {
            Rule::Silence(silence.as_duration().max(SHORTEST_SILENCE))
        } else {
            delimiter(bytes(&frame.delimiter))
        };
        Framer {
            rule,
            start: bytes(&frame.start).unwrap_or_default(),
            check: checksum.map(Check::new),
            bytes: Vec::new(),
            aligned: false,
            delimited: None,
        }
    }

    /// How long the line must be without a byte before the driver calls [`Framer::silence`].
    pub(crate) fn gap(&self) -> Duration {
        match self.rule {
            Rule::Silence(silence) => silence,
            Rule::Delimiter { .. } | Rule::Length(_) | Rule::Prefix(_) => GAP,
        }
    }

    /// Forgets what came so far: the next byte begins a frame.
    pub(crate) fn begin(&mut self) {
        self.restart(true);
    }

    /// Takes one byte and answers with the frame that it ends, without start, delimiter, count and
    /// checksum.
    pub(crate) fn push(&mut self, byte: u8) -> Option<Result<Vec<u8>, FrameError>> {
        self.bytes.push(byte);
        if !self.start.is_empty() && self.bytes.ends_with(&self.start) {
            if !self.aligned {
                self.bytes.clone_from(&self.start);
                self.aligned = true;
                return None;
            }
            if let Some(error) = self.interrupted() {
                return Some(Err(error));
            }
        }
        if !self.start.is_empty() && !self.aligned {
            let kept = self.bytes.len().min(self.start.len() - 1);
            self.bytes.drain(..self.bytes.len() - kept);
            return None;
        }
        if self.ends_here() {
            return self.finish();
        }
        self.bound()
    }

    /// The line was silent for [`Framer::gap`]: what comes next begins a frame, unless a delimiter
    /// is still to come.
    pub(crate) fn silence(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        let expected = match (&self.rule, self.delimited) {
            (Rule::Silence(_), _) => return self.finish(),
            (Rule::Delimiter { .. }, Some(length)) => length + self.trailer(),
            (Rule::Delimiter { .. }, None) if self.aligned => return None,
            (Rule::Delimiter { .. }, None) => 0,
            (Rule::Length(length), _) => *length,
            (Rule::Prefix(prefix), _) => self.announced(*prefix).unwrap_or(counted(*prefix)),
        };
        let got = self.bytes.len();
        let broken = self.aligned && got > 0;
        self.restart(true);
        broken.then_some(Err(FrameError::BrokenOff { got, expected }))
    }

    /// A frame that begins in the middle of one: only where a delimiter should have come, for
    /// other frames may hold any byte.
    fn interrupted(&mut self) -> Option<FrameError> {
        let got = self.bytes.len() - self.start.len();
        let open = matches!(self.rule, Rule::Delimiter { .. }) && self.delimited.is_none();
        if !open || got == 0 {
            return None;
        }
        self.bytes.clone_from(&self.start);
        Some(FrameError::Interrupted { got })
    }

    fn ends_here(&mut self) -> bool {
        let length = self.bytes.len();
        match &self.rule {
            Rule::Delimiter { end, .. } => match self.delimited {
                Some(delimited) => length == delimited + self.trailer(),
                None if !self.bytes.ends_with(end) => false,
                None if self.trailer() == 0 || !self.aligned => true,
                None => {
                    self.delimited = Some(length);
                    false
                }
            },
            Rule::Length(expected) => self.aligned && length == *expected,
            Rule::Prefix(prefix) => self.aligned && self.announced(*prefix) == Some(length),
            Rule::Silence(_) => false,
        }
    }

    /// Bytes after the delimiter that belong to the frame.
    fn trailer(&self) -> usize {
        let check = self.check.filter(|check| check.follows_delimiter());
        check.map_or(0, Check::length)
    }

    /// Ends the frame: hands it out if its beginning was seen.
    fn finish(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        let whole = self.aligned;
        let frame = self.restart(true);
        let behind = self.check.filter(|check| check.follows_delimiter());
        let bare = behind.is_none() && self.stripped(&frame).len() <= self.before();
        if !whole || bare {
            return None;
        }
        let body = self.checked(frame, behind);
        body.map(|body| (!body.is_empty()).then_some(body))
            .transpose()
    }

    /// The body of a whole frame.
    fn checked(&self, mut frame: Vec<u8>, behind: Option<Check>) -> Result<Vec<u8>, FrameError> {
        if let Some(check) = behind {
            check.take_off(&mut frame)?;
        }
        frame.truncate(self.stripped(&frame).len());
        if let Some(check) = self.check.filter(|check| !check.follows_delimiter()) {
            check.take_off(&mut frame)?;
        }
        frame.drain(..self.before().min(frame.len()));
        Ok(frame)
    }

    /// The frame without its delimiter.
    fn stripped<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let Rule::Delimiter { end, strip_cr } = &self.rule else {
            return frame;
        };
        let line = frame.strip_suffix(end.as_slice()).unwrap_or(frame);
        let cr: &[u8] = if *strip_cr { b"\r" } else { b"" };
        line.strip_suffix(cr).unwrap_or(line)
    }

    /// Bytes before the body.
    fn before(&self) -> usize {
        match self.rule {
            Rule::Prefix(prefix) => counted(prefix).max(self.start.len()),
            _ => self.start.len(),
        }
    }

    /// Keeps an unfinished frame within its bound; tells of the first overflow only.
    fn bound(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        let announced = match self.rule {
            Rule::Prefix(prefix) if self.aligned => self.announced(prefix),
            _ => None,
        };
        if self.bytes.len().max(announced.unwrap_or_default()) <= MAX_FRAME_BYTES {
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

    /// Gives up what came so far; the next byte begins a frame if `aligned`, and if frames have no
    /// start that says so itself.
    fn restart(&mut self, aligned: bool) -> Vec<u8> {
        self.aligned = aligned && self.start.is_empty();
        self.delimited = None;
        std::mem::take(&mut self.bytes)
    }

    /// Length of the frame that its count announces, once that has come.
    fn announced(&self, prefix: Prefix) -> Option<usize> {
        let number = match (
            self.bytes.get(usize::from(prefix.at)..counted(prefix))?,
            prefix.order,
        ) {
            ([low, high], ByteOrder::LowFirst) => u16::from_le_bytes([*low, *high]),
            ([high, low], ByteOrder::HighFirst) => u16::from_be_bytes([*high, *low]),
            (one, _) => one.first().copied().unwrap_or_default().into(),
        };
        let number = usize::from(number);
        let after = number.saturating_add_signed(prefix.plus.into());
        Some(counted(prefix) + after)
    }
}

/// Bytes of a frame up to the end of its count.
fn counted(prefix: Prefix) -> usize {
    usize::from(prefix.at) + usize::from(prefix.bytes.clamp(1, 2))
}

fn delimiter(end: Option<Vec<u8>>) -> Rule {
    match end {
        Some(end) if !end.is_empty() => Rule::Delimiter {
            end,
            strip_cr: false,
        },
        _ => Rule::Delimiter {
            end: b"\n".to_vec(),
            strip_cr: true,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use settings::Period;

    use crate::config::ChecksumKind;

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

    /// A framer of a line as it is configured.
    fn configured(frame: serde_json::Value, checksum: serde_json::Value) -> Framer {
        let frame: Frame = serde_json::from_value(frame).expect("a frame");
        let checksum = serde_json::from_value(checksum).expect("a checksum or none");
        Framer::new(&frame, checksum)
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
            delimiter: Some(Characters(b"<<>>".to_vec())),
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
            prefix: Some(Prefix::default()),
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
    fn a_start_is_found_amid_noise_and_taken_off() {
        let frame = serde_json::json!({ "start": "\u{2}", "delimiter": "\u{3}" });
        let mut framer = configured(frame, serde_json::json!(null));
        assert_eq!(
            feed(&mut framer, b"noise\x03\x0212.5\x03\r\n\x0213\x03\x02\x03"),
            frames(&[b"12.5", b"13"])
        );
    }

    #[test]
    fn a_frame_interrupted_by_the_start_of_another_is_not_joined_to_it() {
        let frame = serde_json::json!({ "start": "\u{2}", "delimiter": "\u{3}" });
        let mut framer = configured(frame, serde_json::json!(null));
        assert_eq!(
            feed(&mut framer, b"\x0212\x0213\x03"),
            vec![Err(FrameError::Interrupted { got: 3 }), Ok(b"13".to_vec())]
        );
    }

    #[test]
    fn a_block_check_after_the_end_belongs_to_the_frame() {
        // STX, data, ETX, and the exclusive or of data and ETX, which may be any byte.
        let frame = serde_json::json!({ "start": "\u{2}", "delimiter": "\u{3}" });
        let check = serde_json::json!({ "kind": "xor", "place": "after-delimiter", "skip": 1 });
        let mut framer = configured(frame, check);
        assert_eq!(
            feed(
                &mut framer,
                b"\x02W12\x03\x57\x02\x01\x03\x02\x02W13\x03\x56"
            ),
            frames(&[b"W12", b"\x01", b"W13"])
        );
        let got = feed(&mut framer, b"\x02W12\x03\x58");
        assert!(matches!(got[..], [Err(FrameError::Check(_))]), "{got:?}");
        assert_eq!(feed(&mut framer, b"\x02W12\x03"), frames(&[]));
        let expected = 6;
        let broken = Err(FrameError::BrokenOff { got: 5, expected });
        assert_eq!(framer.silence(), Some(broken));
    }

    #[test]
    fn a_telegram_of_many_lines_ends_with_its_check_in_digits() {
        // As smart meters send it: "/" to "!" inclusive, then CRC-16/ARC in hexadecimal.
        let frame = serde_json::json!({ "start": "/", "delimiter": "!" });
        let check = serde_json::json!({
            "kind": "crc-16/arc", "place": "after-delimiter", "form": "hex",
        });
        let mut framer = configured(frame, check);
        let telegram = b"/ISK5\r\n1-0:1.7.0(01.193*kW)\r\n!";
        let crc = crc::Crc::<u16, crc::NoTable>::new(&crc::CRC_16_ARC).checksum(telegram);
        let sent = [&telegram[..], format!("{crc:04X}\r\n").as_bytes()].concat();
        let body = &telegram[1..telegram.len() - 1];
        assert_eq!(feed(&mut framer, &sent), frames(&[body]));
        assert_eq!(feed(&mut framer, &sent), frames(&[body]), "and the next");
    }

    #[test]
    fn a_count_of_two_bytes_may_stand_within_the_frame() {
        // Address, count of what follows without the two check bytes, low byte first.
        let prefix = serde_json::json!({ "at": 1, "bytes": 2, "order": "low-first", "plus": 2 });
        let frame = serde_json::json!({ "start": "\u{fe}", "prefix": prefix });
        let mut framer = configured(frame, serde_json::json!("sum-16"));
        let sent = b"x\xfe\x03\x00abc\x02\x27\xfe\x01\x00\xfe\x01\xfd";
        assert_eq!(feed(&mut framer, sent), frames(&[b"abc", b"\xfe"]));
    }

    #[test]
    fn a_count_that_counts_itself_or_too_much_is_bounded() {
        let own = serde_json::json!({ "prefix": { "plus": -1 } });
        let mut framer = configured(own, serde_json::json!(null));
        assert_eq!(framer.silence(), None);
        assert_eq!(
            feed(&mut framer, b"\x03ab\x02c\x00\x02d"),
            frames(&[b"ab", b"c", b"d"])
        );
        let long = serde_json::json!({ "prefix": { "bytes": 2 } });
        let mut framer = configured(long, serde_json::json!(null));
        assert_eq!(framer.silence(), None);
        let got = feed(&mut framer, b"\xff\xffab");
        assert_eq!(got, vec![Err(FrameError::Overlong)]);
    }

    #[test]
    fn a_wrong_checksum_hands_out_nothing() {
        let mut framer = aligned(Frame::default(), Some(Checksum::Kind(ChecksumKind::Xor)));
        assert_eq!(feed(&mut framer, b"ab\x03\r\n"), frames(&[b"ab"]));
        let got = feed(&mut framer, b"ab\x04\n");
        assert!(matches!(got[..], [Err(FrameError::Check(_))]), "{got:?}");
    }

    /// Every framing, with and without a start and a checksum.
    fn any_framer() -> impl Strategy<Value = Framer> {
        let frame = prop_oneof![
            Just(serde_json::json!({})),
            Just(serde_json::json!({ "delimiter": "\u{3}" })),
            Just(serde_json::json!({ "length": 5 })),
            Just(serde_json::json!({ "silence": "20ms" })),
            (0u8..4, 1u8..3, -4i8..5).prop_map(|(at, bytes, plus)| {
                serde_json::json!({ "prefix": { "at": at, "bytes": bytes, "plus": plus } })
            }),
        ];
        let start = prop_oneof![Just(None), Just(Some("\u{2}")), Just(Some("\u{2}\u{2}"))];
        let kind = prop_oneof![Just("xor"), Just("crc-16/modbus")];
        let form = prop_oneof![Just("binary"), Just("hex")];
        let place = prop_oneof![Just("end"), Just("after-delimiter")];
        let check = proptest::option::of((kind, form, place, 0u8..3, 0u8..3));
        (frame, start, check).prop_map(|(mut frame, start, check)| {
            if let Some(start) = start {
                frame["start"] = start.into();
            }
            let check = check.map(|(kind, form, place, skip, skip_end)| {
                serde_json::json!({
                    "kind": kind, "form": form, "place": place, "skip": skip, "skip_end": skip_end,
                })
            });
            configured(frame, check.into())
        })
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_framer_panic_or_grow(
            mut framer in any_framer(),
            bytes in proptest::collection::vec(prop_oneof![0u8..5, any::<u8>()], 0..600),
            pauses in proptest::collection::vec(0usize..600, 0..4),
        ) {
            for (place, byte) in bytes.iter().enumerate() {
                let quiet = pauses.contains(&place).then(|| framer.silence()).flatten();
                for frame in [quiet, framer.push(*byte)].into_iter().flatten().flatten() {
                    prop_assert!(!frame.is_empty() && frame.len() <= place + 1);
                }
                prop_assert!(framer.bytes.len() <= MAX_FRAME_BYTES);
            }
        }
    }
}
