//! Checksums of serial frames: sums, and the CRCs of the catalogue. A core.
//!
//! Invariant: what [`Check::digits`] writes after bytes, [`Check::take_off`] finds right.

use crc::{Algorithm, Crc, NoTable};

use crate::config::{ByteOrder, Checksum, ChecksumForm, ChecksumKind, ChecksumPlace, ChecksumRule};

/// Why a checksum is not right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckError {
    /// It does not fit the bytes.
    #[error("{kind} checksum is {got}, should be {expected}")]
    Wrong {
        /// Which one.
        kind: &'static str,
        /// What the frame bears, in hexadecimal or as it is written.
        got: String,
        /// What its bytes make.
        expected: String,
    },
    /// There is no room for it.
    #[error("frame of {got} bytes is too short for its checksum")]
    TooShort {
        /// The frame's bytes.
        got: usize,
    },
}

/// A checksum as a line's configuration has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Check {
    rule: ChecksumRule,
}

impl Check {
    /// As configured.
    pub(crate) fn new(checksum: Checksum) -> Check {
        Check {
            rule: checksum.rule(),
        }
    }

    /// Bytes that it takes on the line.
    pub(crate) fn length(self) -> usize {
        let bytes = method(self.rule.kind).1.bytes();
        match self.rule.form {
            ChecksumForm::Binary => bytes,
            ChecksumForm::Hex => 2 * bytes,
        }
    }

    /// Whether it stands behind the delimiter.
    pub(crate) fn follows_delimiter(self) -> bool {
        self.rule.place == ChecksumPlace::AfterDelimiter
    }

    /// Its bytes for a frame that has grown to where it stands; `None` where the frame is shorter
    /// than what is not covered.
    pub(crate) fn digits(self, frame: &[u8]) -> Option<Vec<u8>> {
        let end = frame.len().checked_sub(usize::from(self.rule.skip_end))?;
        let covered = frame.get(usize::from(self.rule.skip)..end)?;
        let (_, method) = method(self.rule.kind);
        let number = method.calculate(covered).to_be_bytes();
        let mut bytes = number[number.len() - method.bytes()..].to_vec();
        if self.order(method.is_reflected()) == ByteOrder::LowFirst {
            bytes.reverse();
        }
        Some(match self.rule.form {
            ChecksumForm::Binary => bytes,
            ChecksumForm::Hex => hex(&bytes).into_bytes(),
        })
    }

    /// Checks the end of a frame and takes it off.
    pub(crate) fn take_off(self, frame: &mut Vec<u8>) -> Result<(), CheckError> {
        let too_short = CheckError::TooShort { got: frame.len() };
        let Some(length) = frame.len().checked_sub(self.length()) else {
            return Err(too_short);
        };
        let (body, got) = frame.split_at(length);
        let Some(expected) = self.digits(body) else {
            return Err(too_short);
        };
        let right = match self.rule.form {
            ChecksumForm::Binary => got == expected,
            ChecksumForm::Hex => got.eq_ignore_ascii_case(&expected),
        };
        if !right {
            return Err(CheckError::Wrong {
                kind: method(self.rule.kind).0,
                got: self.shown(got),
                expected: self.shown(&expected),
            });
        }
        frame.truncate(length);
        Ok(())
    }

    fn order(self, reflected: bool) -> ByteOrder {
        let low_first = reflected && self.rule.form == ChecksumForm::Binary;
        self.rule.order.unwrap_or(if low_first {
            ByteOrder::LowFirst
        } else {
            ByteOrder::HighFirst
        })
    }

    fn shown(self, bytes: &[u8]) -> String {
        match self.rule.form {
            ChecksumForm::Binary => hex(bytes),
            ChecksumForm::Hex => bytes.escape_ascii().to_string(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// How a kind is calculated.
#[derive(Clone, Copy)]
enum Method {
    Plain { bytes: usize, of: fn(&[u8]) -> u32 },
    Crc8(&'static Algorithm<u8>),
    Crc16(&'static Algorithm<u16>),
    Crc32(&'static Algorithm<u32>),
}

impl Method {
    fn bytes(self) -> usize {
        match self {
            Method::Plain { bytes, .. } => bytes,
            Method::Crc8(_) => 1,
            Method::Crc16(_) => 2,
            Method::Crc32(_) => 4,
        }
    }

    /// Whether the least significant bit comes first on the line, and so its byte.
    fn is_reflected(self) -> bool {
        match self {
            Method::Plain { .. } => false,
            Method::Crc8(algorithm) => algorithm.refout,
            Method::Crc16(algorithm) => algorithm.refout,
            Method::Crc32(algorithm) => algorithm.refout,
        }
    }

    fn calculate(self, bytes: &[u8]) -> u32 {
        match self {
            Method::Plain { of, .. } => of(bytes),
            Method::Crc8(algorithm) => Crc::<u8, NoTable>::new(algorithm).checksum(bytes).into(),
            Method::Crc16(algorithm) => Crc::<u16, NoTable>::new(algorithm).checksum(bytes).into(),
            Method::Crc32(algorithm) => Crc::<u32, NoTable>::new(algorithm).checksum(bytes),
        }
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |sum, byte| sum.wrapping_add(u32::from(*byte)))
}

fn xor(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |xor, byte| xor ^ u32::from(*byte))
}

/// A kind's name and how it is calculated.
fn method(kind: ChecksumKind) -> (&'static str, Method) {
    let plain = |bytes, of| Method::Plain { bytes, of };
    match kind {
        ChecksumKind::Sum => ("sum", plain(1, |bytes| sum(bytes) & 0xff)),
        ChecksumKind::Sum16 => ("16-bit sum", plain(2, |bytes| sum(bytes) & 0xffff)),
        ChecksumKind::Lrc => ("LRC", plain(1, |bytes| sum(bytes).wrapping_neg() & 0xff)),
        ChecksumKind::Xor => ("XOR", plain(1, xor)),
        ChecksumKind::Crc8Smbus => ("CRC-8/SMBUS", Method::Crc8(&crc::CRC_8_SMBUS)),
        ChecksumKind::Crc8MaximDow => ("CRC-8/MAXIM-DOW", Method::Crc8(&crc::CRC_8_MAXIM_DOW)),
        ChecksumKind::Crc16Modbus => ("CRC-16/MODBUS", Method::Crc16(&crc::CRC_16_MODBUS)),
        ChecksumKind::Crc16Arc => ("CRC-16/ARC", Method::Crc16(&crc::CRC_16_ARC)),
        ChecksumKind::Crc16Ibm3740 => ("CRC-16/IBM-3740", Method::Crc16(&crc::CRC_16_IBM_3740)),
        ChecksumKind::Crc16Xmodem => ("CRC-16/XMODEM", Method::Crc16(&crc::CRC_16_XMODEM)),
        ChecksumKind::Crc16Kermit => ("CRC-16/KERMIT", Method::Crc16(&crc::CRC_16_KERMIT)),
        ChecksumKind::Crc16IbmSdlc => ("CRC-16/IBM-SDLC", Method::Crc16(&crc::CRC_16_IBM_SDLC)),
        ChecksumKind::Crc16Mcrf4xx => ("CRC-16/MCRF4XX", Method::Crc16(&crc::CRC_16_MCRF4XX)),
        ChecksumKind::Crc16SpiFujitsu => (
            "CRC-16/SPI-FUJITSU",
            Method::Crc16(&crc::CRC_16_SPI_FUJITSU),
        ),
        ChecksumKind::Crc16Genibus => ("CRC-16/GENIBUS", Method::Crc16(&crc::CRC_16_GENIBUS)),
        ChecksumKind::Crc16Usb => ("CRC-16/USB", Method::Crc16(&crc::CRC_16_USB)),
        ChecksumKind::Crc16Dnp => ("CRC-16/DNP", Method::Crc16(&crc::CRC_16_DNP)),
        ChecksumKind::Crc16En13757 => ("CRC-16/EN-13757", Method::Crc16(&crc::CRC_16_EN_13757)),
        ChecksumKind::Crc32IsoHdlc => ("CRC-32/ISO-HDLC", Method::Crc32(&crc::CRC_32_ISO_HDLC)),
        ChecksumKind::Crc32Mpeg2 => ("CRC-32/MPEG-2", Method::Crc32(&crc::CRC_32_MPEG_2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: serde_json::Value) -> Check {
        Check::new(serde_json::from_value(rule).expect("a checksum"))
    }

    /// The catalogue's check values: of the nine characters `123456789`, high byte first.
    #[test]
    fn each_kind_gives_the_check_value_of_the_catalogue() {
        for (kind, expected) in [
            ("sum", "DD"),
            ("sum-16", "01DD"),
            ("lrc", "23"),
            ("xor", "31"),
            ("crc-8/smbus", "F4"),
            ("crc-8/maxim-dow", "A1"),
            ("crc-16/modbus", "4B37"),
            ("crc-16/arc", "BB3D"),
            ("crc-16/ibm-3740", "29B1"),
            ("crc-16/xmodem", "31C3"),
            ("crc-16/kermit", "2189"),
            ("crc-16/ibm-sdlc", "906E"),
            ("crc-16/mcrf4xx", "6F91"),
            ("crc-16/spi-fujitsu", "E5CC"),
            ("crc-16/genibus", "D64E"),
            ("crc-16/usb", "B4C8"),
            ("crc-16/dnp", "EA82"),
            ("crc-16/en-13757", "C2B7"),
            ("crc-32/iso-hdlc", "CBF43926"),
            ("crc-32/mpeg-2", "0376E6E7"),
        ] {
            let check = check(serde_json::json!({ "kind": kind, "form": "hex" }));
            let digits = check.digits(b"123456789").expect("digits");
            assert_eq!(digits, expected.as_bytes(), "{kind}");
        }
    }

    #[test]
    fn a_right_checksum_is_taken_off() {
        for (rule, frame) in [
            (serde_json::json!("sum"), &b"\x01\xff\x05\x05"[..]),
            (serde_json::json!("xor"), b"\x01\xff\x05\xfb"),
            // Modbus over serial line, the request 02 07 with its CRC 0x1241.
            (serde_json::json!("crc-16/modbus"), b"\x02\x07\x41\x12"),
            (
                serde_json::json!({ "kind": "crc-16/modbus", "order": "high-first" }),
                b"\x02\x07\x12\x41",
            ),
            // NMEA 0183: from after the dollar to before the asterisk.
            (
                serde_json::json!({ "kind": "xor", "form": "hex", "skip": 1, "skip_end": 1 }),
                b"$GPHDT,274.07,T*03",
            ),
            (
                serde_json::json!({ "kind": "crc-16/arc", "form": "hex" }),
                b"123456789bb3d",
            ),
        ] {
            let mut bytes = frame.to_vec();
            assert_eq!(check(rule).take_off(&mut bytes), Ok(()));
            assert!(frame.starts_with(&bytes) && bytes.len() < frame.len());
        }
    }

    #[test]
    fn a_wrong_checksum_is_named_with_what_it_should_be() {
        let modbus = check(serde_json::json!("crc-16/modbus"));
        let error = modbus.take_off(&mut b"\x02\x07\x41\x13".to_vec());
        assert_eq!(
            error.map_err(|error| error.to_string()),
            Err("CRC-16/MODBUS checksum is 4113, should be 4112".to_owned())
        );
        let error = modbus.take_off(&mut vec![1]);
        assert_eq!(error, Err(CheckError::TooShort { got: 1 }));
        let skipping = check(serde_json::json!({ "kind": "sum", "skip": 4 }));
        let error = skipping.take_off(&mut vec![1, 2]);
        assert_eq!(error, Err(CheckError::TooShort { got: 2 }));
    }

    #[test]
    fn binary_checksums_that_differ_in_a_letters_case_differ() {
        let sum = check(serde_json::json!("sum"));
        assert_eq!(sum.take_off(&mut b"\x41A".to_vec()), Ok(()));
        assert!(sum.take_off(&mut b"\x41a".to_vec()).is_err());
    }
}
