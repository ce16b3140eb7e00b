//! WebSocket frames (RFC 6455, section 5) as a server of MQTT sees them: the client's payloads
//! become one stream of bytes, control frames become answers.
//!
//! Core. Invariant: a frame is never held. Its payload is passed on as it comes, so that its length,
//! its fragments and where packets begin in it cost no memory.

/// The longest payload of a control frame (section 5.5).
const CONTROL_MAX: usize = 125;

/// The longest header of a client's frame: two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;

/// Why a client's bytes are not what MQTT over WebSocket may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameFault {
    /// MQTT travels in binary frames.
    #[error("a text frame, where MQTT needs binary ones [MQTT-6.0.0-1]")]
    Text,
    /// Clients mask what they send.
    #[error("a WebSocket frame without a mask (RFC 6455, 5.1)")]
    Unmasked,
    /// Reserved bits or opcodes, of extensions that were not agreed.
    #[error("a WebSocket frame with reserved bits or a reserved opcode (RFC 6455, 5.2)")]
    Reserved,
    /// The length is not written in the fewest bytes, or has its highest bit set.
    #[error("a WebSocket frame's length is not written as it must be (RFC 6455, 5.2)")]
    Length,
    /// A continuation of nothing, or a new message within another.
    #[error("WebSocket fragments out of order (RFC 6455, 5.4)")]
    Fragments,
    /// A control frame is fragmented, or longer than 125 bytes.
    #[error("a WebSocket control frame that is fragmented or too long (RFC 6455, 5.5)")]
    Control,
    /// Frames cost work whether they carry anything or not.
    #[error("more WebSocket frames without a byte of MQTT than a client has use for")]
    Idle,
}

impl FrameFault {
    /// The status code that says so to the client (section 7.4.1).
    pub(crate) fn code(self) -> u16 {
        match self {
            FrameFault::Text => 1003,
            FrameFault::Idle => 1008,
            _ => 1002,
        }
    }
}

/// What has to be sent in answer to a control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To the last ping; earlier ones need none (section 5.5.3).
    Pong(Vec<u8>),
    /// The client closes, with the status it gave.
    Close(Option<u16>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Pong,
    Close,
}

/// A frame whose payload is on its way.
#[derive(Debug)]
struct Frame {
    kind: Kind,
    left: u64,
    /// Turned, so that its first byte belongs to the next byte of the payload.
    mask: [u8; 4],
}

/// Takes a client's frames apart.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    header: [u8; HEADER_MAX],
    header_bytes: u8,
    frame: Option<Frame>,
    /// A message's last fragment has not come.
    fragmented: bool,
    /// The last data frame was not empty; some clients end each message by one that is.
    carried: bool,
    /// Control frames, and other empty ones, since they were asked for.
    idle: u32,
    /// Of a control frame that is not complete.
    control: Vec<u8>,
    answer: Option<Answer>,
    closed: bool,
}

impl FrameReader {
    /// Decodes bytes in place: moves the payload of data frames to the front, and says how much
    /// it is. After an error nothing more is to be read.
    pub(crate) fn decode(&mut self, bytes: &mut [u8]) -> Result<usize, FrameFault> {
        let (mut read, mut written) = (0, 0);
        while read < bytes.len() && !self.closed {
            let Some(frame) = &mut self.frame else {
                read += self.take_header(&bytes[read..])?;
                continue;
            };
            let waiting = (bytes.len() - read) as u64;
            let count = usize::try_from(frame.left.min(waiting)).unwrap_or(usize::MAX);
            let payload = &mut bytes[read..read + count];
            unmask(payload, &mut frame.mask);
            frame.left -= count as u64;
            if frame.kind == Kind::Data {
                bytes.copy_within(read..read + count, written);
                written += count;
            } else {
                self.control.extend_from_slice(payload);
            }
            read += count;
            self.finish_frame()?;
        }
        Ok(written)
    }

    /// What has to be answered, once.
    pub(crate) fn take_answer(&mut self) -> Option<Answer> {
        self.answer.take()
    }

    /// How many frames brought nothing, since this was asked last.
    pub(crate) fn take_idle(&mut self) -> u32 {
        std::mem::take(&mut self.idle)
    }

    /// Whether the client has closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bytes kept of frames that are not complete.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held(&self) -> usize {
        self.control.len()
    }

    /// Takes bytes of a header; begins the frame when it is complete.
    fn take_header(&mut self, bytes: &[u8]) -> Result<usize, FrameFault> {
        for (taken, byte) in (1..).zip(bytes) {
            self.header[usize::from(self.header_bytes)] = *byte;
            self.header_bytes += 1;
            if let Some(frame) = self.parse_header()? {
                self.header_bytes = 0;
                self.frame = Some(frame);
                self.finish_frame()?;
                return Ok(taken);
            }
        }
        Ok(bytes.len())
    }

    fn parse_header(&mut self) -> Result<Option<Frame>, FrameFault> {
        let header = &self.header[..usize::from(self.header_bytes)];
        let [first, second, rest @ ..] = header else {
            return Ok(None);
        };
        let kind = self.kind(*first, second & 0x7F)?;
        if second & 0x80 == 0 {
            return Err(FrameFault::Unmasked);
        }
        let (left, mask) = match (second & 0x7F, rest) {
            (126, [a, b, mask @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), mask),
            (127, [a, b, c, d, e, f, g, h, mask @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), mask)
            }
            (126 | 127, _) => return Ok(None),
            (length, mask) => (u64::from(length), mask),
        };
        let shortest = match second & 0x7F {
            126 => 126,
            127 => 1 << 16,
            _ => 0,
        };
        if left < shortest || left >> 63 == 1 {
            return Err(FrameFault::Length);
        }
        let Ok(mask) = mask.try_into() else {
            return Ok(None);
        };
        if kind == Kind::Data {
            self.fragmented = first & 0x80 == 0;
        }
        let carries = kind == Kind::Data && left > 0;
        let is_spare = kind == Kind::Data && std::mem::replace(&mut self.carried, carries);
        self.idle += u32::from(!carries && !is_spare);
        Ok(Some(Frame { kind, left, mask }))
    }

    fn kind(&self, first: u8, length: u8) -> Result<Kind, FrameFault> {
        if first & 0x70 != 0 {
            return Err(FrameFault::Reserved);
        }
        let opcode = first & 0x0F;
        let is_whole = first & 0x80 != 0;
        match opcode {
            0x0 | 0x2 if self.fragmented != (opcode == 0) => Err(FrameFault::Fragments),
            0x0 | 0x2 => Ok(Kind::Data),
            0x1 => Err(FrameFault::Text),
            0x8..=0xA if !is_whole || usize::from(length) > CONTROL_MAX => Err(FrameFault::Control),
            0x8 => Ok(Kind::Close),
            0x9 => Ok(Kind::Ping),
            0xA => Ok(Kind::Pong),
            _ => Err(FrameFault::Reserved),
        }
    }

    /// Ends the frame if all of it has come.
    fn finish_frame(&mut self) -> Result<(), FrameFault> {
        let Some(frame) = self.frame.take_if(|frame| frame.left == 0) else {
            return Ok(());
        };
        if frame.kind == Kind::Data {
            return Ok(());
        }
        let payload = std::mem::take(&mut self.control);
        match frame.kind {
            Kind::Ping => self.answer = Some(Answer::Pong(payload)),
            Kind::Close => {
                let status = match payload[..] {
                    [] => None,
                    [_] => return Err(FrameFault::Control),
                    [high, low, ..] => Some(u16::from_be_bytes([high, low])),
                };
                self.closed = true;
                self.answer = Some(Answer::Close(status));
            }
            Kind::Pong | Kind::Data => {}
        }
        Ok(())
    }
}

/// Takes the mask off, and turns it by as many bytes.
fn unmask(payload: &mut [u8], mask: &mut [u8; 4]) {
    let key = u32::from_ne_bytes(*mask);
    let mut words = payload.chunks_exact_mut(4);
    for word in &mut words {
        let plain = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]) ^ key;
        word.copy_from_slice(&plain.to_ne_bytes());
    }
    let rest = words.into_remainder();
    for (byte, key) in rest.iter_mut().zip(*mask) {
        *byte ^= key;
    }
    mask.rotate_left(rest.len());
}

/// The header of a server's frame that holds `length` bytes of MQTT, and its own length.
pub(crate) fn data_header(length: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = 0x82;
    let bytes = (length as u64).to_be_bytes();
    let size = match length {
        0..=125 => {
            header[1] = bytes[7];
            2
        }
        126..=0xFFFF => {
            header[1] = 126;
            header[2..4].copy_from_slice(&bytes[6..]);
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&bytes);
            10
        }
    };
    (header, size)
}

/// The frame that gives an answer.
pub(crate) fn control_frame(answer: &Answer) -> Vec<u8> {
    let (opcode, payload) = match answer {
        Answer::Pong(payload) => (0x8A, payload.clone()),
        Answer::Close(status) => (
            0x88,
            status.map_or_else(Vec::new, |status| status.to_be_bytes().to_vec()),
        ),
    };
    let length = u8::try_from(payload.len().min(CONTROL_MAX)).unwrap_or(0);
    let mut frame = vec![opcode, length];
    frame.extend_from_slice(&payload[..usize::from(length)]);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let (header, size) = data_header(payload.len());
        let mut frame = header[..size].to_vec();
        frame[0] = first;
        frame[1] |= 0x80;
        frame.extend(MASK);
        frame.extend(
            payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        frame
    }

    /// Feeds bytes in pieces of a size; gives the data that came out.
    fn decoded(
        reader: &mut FrameReader,
        bytes: &[u8],
        piece: usize,
    ) -> Result<Vec<u8>, FrameFault> {
        let mut data = Vec::new();
        for bytes in bytes.chunks(piece) {
            let mut bytes = bytes.to_vec();
            let count = reader.decode(&mut bytes)?;
            data.extend_from_slice(&bytes[..count]);
        }
        Ok(data)
    }

    fn fault(bytes: &[u8]) -> FrameFault {
        decoded(&mut FrameReader::default(), bytes, bytes.len()).expect_err("a fault")
    }

    #[test]
    fn the_example_of_the_rfc_is_read() {
        // RFC 6455, 5.7: "Hello" masked, but in a binary frame.
        let bytes = [
            0x82, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58,
        ];
        let data = decoded(&mut FrameReader::default(), &bytes, bytes.len());
        assert_eq!(data.as_deref(), Ok(&b"Hello"[..]));
    }

    #[test]
    fn payloads_of_every_length_join_to_one_stream_however_they_are_cut() {
        for length in [0, 1, 5, 125, 126, 127, 65_535, 65_536, 70_001] {
            let payload: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let (head, tail) = payload.split_at(length / 3);
            let mut bytes = frame(0x02, head);
            bytes.extend(frame(0x89, b"are you there?"));
            bytes.extend(frame(0x80, tail));
            bytes.extend(frame(0x82, &payload));
            for piece in [1, 2, 7, 1_000, bytes.len()] {
                let mut reader = FrameReader::default();
                let data = decoded(&mut reader, &bytes, piece).expect("well-formed");
                assert!(
                    data == [&payload[..], &payload[..]].concat(),
                    "{length} by {piece}"
                );
                let pong = Answer::Pong(b"are you there?".to_vec());
                assert_eq!(reader.take_answer(), Some(pong));
                assert_eq!(reader.take_answer(), None);
            }
        }
    }

    #[test]
    fn frames_that_carry_nothing_are_counted_but_for_the_empty_end_of_a_message() {
        let mut reader = FrameReader::default();
        let message = [frame(0x02, b"x"), frame(0x80, b"")].concat();
        assert_eq!(decoded(&mut reader, &message, 3), Ok(b"x".to_vec()));
        assert_eq!(reader.take_idle(), 0);
        for idle in [frame(0x82, b""), frame(0x89, b"there?"), frame(0x8A, b"")] {
            assert_eq!(decoded(&mut reader, &idle, 3), Ok(Vec::new()));
            assert_eq!(reader.take_idle(), 1);
        }
    }

    #[test]
    fn closing_is_answered_with_the_same_status_and_ends_the_stream() {
        let mut bytes = frame(0x88, &[0x03, 0xE9, b'x']);
        bytes.extend(frame(0x82, b"late"));
        let mut reader = FrameReader::default();
        assert_eq!(decoded(&mut reader, &bytes, 3), Ok(Vec::new()));
        assert!(reader.is_closed());
        let answer = reader.take_answer().expect("an answer");
        assert_eq!(control_frame(&answer), [0x88, 2, 0x03, 0xE9]);
    }

    #[test]
    fn what_is_not_mqtt_over_websocket_is_refused_by_name() {
        assert_eq!(fault(&frame(0x81, b"text")), FrameFault::Text);
        assert_eq!(fault(&[0x82, 0x01, b'x']), FrameFault::Unmasked);
        assert_eq!(fault(&frame(0xC2, b"x")), FrameFault::Reserved);
        assert_eq!(fault(&frame(0x83, b"x")), FrameFault::Reserved);
        assert_eq!(fault(&frame(0x80, b"x")), FrameFault::Fragments);
        let nested = [frame(0x02, b"x"), frame(0x82, b"y")].concat();
        assert_eq!(fault(&nested), FrameFault::Fragments);
        assert_eq!(fault(&frame(0x09, b"x")), FrameFault::Control);
        assert_eq!(fault(&frame(0x89, &[0; 126])), FrameFault::Control);
        assert_eq!(fault(&frame(0x88, b"x")), FrameFault::Control);
        assert_eq!(fault(&[0x82, 0xFE, 0, 125]), FrameFault::Length);
        assert_eq!(
            fault(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]),
            FrameFault::Length
        );
        assert_eq!(
            fault(&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            FrameFault::Length
        );
    }
}
