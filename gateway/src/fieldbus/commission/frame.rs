//! One frame as it stood on a wire: whose it is, whether it is whole, what it says. A core.
//!
//! Invariant: a frame is shown whatever is in it; what cannot be read is said to be so.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fieldbus::crc::{SHORTEST, crc};

use super::pdu_text;

/// Bytes of an MBAP header with the unit identifier (Modbus TCP 3.1.3).
const MBAP: usize = 7;

/// Bytes on a bus as the running service tells of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Who sent them.
    #[serde(rename = "what")]
    pub(crate) direction: Direction,
    /// When the last of them was seen.
    pub(crate) time: Timestamp,
    /// Time from the first to the last of them, in microseconds.
    pub(crate) took_us: u64,
    /// CRC or MBAP header included, in hexadecimal.
    #[serde(with = "hexadecimal")]
    pub(crate) bytes: Vec<u8>,
}

/// A frame and when it was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Frame {
    /// When its last byte was seen.
    pub(crate) time: Timestamp,
    /// Silence since the frame before, in microseconds; absent for the first.
    pub(crate) gap_us: Option<u64>,
    /// Time from its first to its last byte, in microseconds.
    pub(crate) took_us: u64,
    /// Who sent it.
    pub(crate) direction: Direction,
    /// How its bytes are wrapped.
    pub(crate) framing: Wrapping,
    /// CRC or MBAP header included, in hexadecimal.
    #[serde(with = "hexadecimal")]
    pub(crate) bytes: Vec<u8>,
}

/// Who sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    /// The client.
    Request,
    /// The server.
    Response,
    /// The client, heard back by an adapter that hears itself.
    Echo,
    /// Nobody can tell: noise, or a late answer.
    Stray,
}

/// How a PDU is wrapped on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wrapping {
    /// Unit identifier and CRC.
    Rtu,
    /// MBAP header.
    Tcp,
}

/// Whether a frame is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Good,
    /// The CRC is another one than that of the bytes before it.
    WrongCrc {
        /// As it stood in the frame.
        found: u16,
        /// As the bytes demand.
        expected: u16,
    },
    /// Too few bytes for a frame, or another number than the MBAP header says.
    WrongLength,
}

impl Frame {
    /// The frame that `seen` is, after one that ended at `before`.
    pub(crate) fn of(seen: Seen, framing: Wrapping, before: Option<Timestamp>) -> Frame {
        let first = seen.time.as_microsecond() - i64::try_from(seen.took_us).unwrap_or(i64::MAX);
        let gap = before.map(|before| u64::try_from(first - before.as_microsecond()).unwrap_or(0));
        Frame {
            time: seen.time,
            gap_us: gap,
            took_us: seen.took_us,
            direction: seen.direction,
            framing,
            bytes: seen.bytes,
        }
    }

    /// Whether it is whole.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.framing {
            Wrapping::Rtu => rtu_verdict(&self.bytes),
            Wrapping::Tcp => tcp_verdict(&self.bytes),
        }
    }

    /// Unit identifier and PDU; none of what is not whole.
    pub(crate) fn content(&self) -> Option<(u8, &[u8])> {
        if self.verdict() != Verdict::Good {
            return None;
        }
        match self.framing {
            Wrapping::Rtu => {
                let (unit, rest) = self.bytes.split_first()?;
                Some((*unit, rest.get(..rest.len().checked_sub(2)?)?))
            }
            Wrapping::Tcp => Some((*self.bytes.get(MBAP - 1)?, self.bytes.get(MBAP..)?)),
        }
    }

    /// What it says: `unit 1 read holding registers 0-9`. `request` is the PDU that it answers.
    pub(crate) fn says(&self, request: Option<&[u8]>) -> String {
        let Some((unit, pdu)) = self.content() else {
            return "not a frame".to_owned();
        };
        let said = match self.direction {
            Direction::Response => pdu_text::response(pdu, request),
            Direction::Request | Direction::Echo => pdu_text::request(pdu),
            Direction::Stray => format!("function code {}", pdu.first().unwrap_or(&0)),
        };
        let whom = if unit == 0 && self.framing == Wrapping::Rtu {
            "all units".to_owned()
        } else {
            format!("unit {unit}")
        };
        format!("{whom} {said}")
    }

    /// The frame in one line: time, gap, direction, bytes, verdict, meaning.
    pub(crate) fn line(&self, request: Option<&[u8]>) -> String {
        let gap = self.gap_us.map_or_else(String::new, |gap| {
            format!("+{}", milliseconds(Duration::from_micros(gap)))
        });
        format!(
            "{:.6}  {gap:>11}  {} {:<6}  {:<26}  {}",
            self.time,
            self.direction,
            self.verdict().word(self.framing),
            spaced(&self.bytes),
            self.says(request),
        )
    }
}

impl Verdict {
    fn word(self, framing: Wrapping) -> &'static str {
        match (self, framing) {
            (Verdict::Good, Wrapping::Rtu) => "CRC ok",
            (Verdict::Good, Wrapping::Tcp) => "ok",
            (Verdict::WrongCrc { .. }, _) => "CRC BAD",
            (Verdict::WrongLength, _) => "BROKEN",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Request => "-->",
            Direction::Response => "<--",
            Direction::Echo => "~~>",
            Direction::Stray => "???",
        })
    }
}

fn rtu_verdict(bytes: &[u8]) -> Verdict {
    let (SHORTEST.., Some((body, found))) = (bytes.len(), bytes.split_last_chunk::<2>()) else {
        return Verdict::WrongLength;
    };
    let (found, expected) = (u16::from_le_bytes(*found), crc(body));
    if found == expected {
        Verdict::Good
    } else {
        Verdict::WrongCrc { found, expected }
    }
}

fn tcp_verdict(bytes: &[u8]) -> Verdict {
    match bytes {
        [_, _, 0, 0, high, low, rest @ ..]
            if rest.len() >= 2 && rest.len() == usize::from(u16::from_be_bytes([*high, *low])) =>
        {
            Verdict::Good
        }
        _ => Verdict::WrongLength,
    }
}

/// `01 03 00 00`.
pub(crate) fn spaced(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(" ")
}

/// `1.250 ms`.
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1_000.0)
}

/// Bytes as a text of hexadecimal digits.
pub(crate) mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(
            &bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
        )
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        bytes(&text).ok_or_else(|| de::Error::custom("hexadecimal digits in pairs are wanted"))
    }

    /// The bytes that pairs of digits name.
    pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
            .collect();
        let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
        Some(
            digits
                .chunks_exact(2)
                .map(|pair| pair[0] << 4 | pair[1])
                .collect(),
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A frame of these bytes with its CRC.
    pub(crate) fn rtu(direction: Direction, body: &[u8]) -> Frame {
        let mut bytes = body.to_vec();
        bytes.extend(crc(body).to_le_bytes());
        Frame {
            time: Timestamp::UNIX_EPOCH,
            gap_us: Some(4_010),
            took_us: 0,
            direction,
            framing: Wrapping::Rtu,
            bytes,
        }
    }

    #[test]
    fn a_line_tells_when_who_what_and_whether_it_is_whole() {
        let mut frame = rtu(Direction::Request, &[1, 3, 0, 0, 0, 10]);
        assert_eq!(
            frame.line(None),
            "1970-01-01T00:00:00.000000Z    +4.010 ms  --> CRC ok  01 03 00 00 00 0a c5 cd     \
             unit 1 read holding registers 0-9"
        );
        frame.bytes[7] ^= 1;
        assert!(frame.line(None).contains("CRC BAD"), "{}", frame.line(None));
        let expected = Verdict::WrongCrc {
            found: 0xccc5,
            expected: 0xcdc5,
        };
        assert_eq!(frame.verdict(), expected);
        frame.bytes.truncate(2);
        assert_eq!(frame.verdict(), Verdict::WrongLength);
    }

    #[test]
    fn an_mbap_header_tells_the_length() {
        let frame = |bytes: &[u8]| Frame {
            framing: Wrapping::Tcp,
            bytes: bytes.to_vec(),
            ..rtu(Direction::Response, &[])
        };
        let whole = frame(&[0, 7, 0, 0, 0, 3, 17, 0x83, 2]);
        assert_eq!(whole.content(), Some((17, &[0x83, 2][..])));
        let says = whole.says(Some(&[3, 0, 0, 0, 1]));
        assert_eq!(says, "unit 17 exception 02 illegal data address");
        assert_eq!(
            frame(&[0, 7, 0, 0, 0, 4, 17, 0x83, 2]).verdict(),
            Verdict::WrongLength
        );
    }

    #[test]
    fn what_the_service_tells_becomes_a_frame_with_the_silence_before_it() {
        let json = r#"{"what":"response","time":"1970-01-01T00:00:00.009Z","took_us":4000,"bytes":"018302c0f1"}"#;
        let seen: Seen = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&seen).unwrap(), json);
        let frame = Frame::of(seen, Wrapping::Rtu, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(
            (frame.gap_us, frame.verdict()),
            (Some(5_000), Verdict::Good)
        );
        assert_eq!(hexadecimal::bytes("0g"), None);
        assert_eq!(hexadecimal::bytes("012"), None);
    }
}
