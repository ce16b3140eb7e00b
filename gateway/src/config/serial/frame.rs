//! How the bytes of a serial line are cut into frames, and what checks them. Values.
//!
//! Invariant: a character is one byte on the line, `\xFF` too.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use settings::Period;

/// Text of the file as bytes on a line: one byte for each character, up to U+00FF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Characters(pub Vec<u8>);

impl FromStr for Characters {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Characters, &'static str> {
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        bytes
            .map(Characters)
            .map_err(|_| "a character beyond \\xFF is not one byte")
    }
}

impl<'de> Deserialize<'de> for Characters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// How the byte stream is cut: one of delimiter, length, prefix and silence, with or without a
/// start.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Frame {
    /// Characters that a frame begins with, such as `"\x02"` (STX); what stands before is skipped.
    #[schemars(with = "String", length(min = 1, max = 16), extend("format" = "characters"))]
    pub start: Option<Characters>,
    /// Characters that end a frame. Default: `"\n"`, a carriage return before it removed.
    #[schemars(with = "String", length(min = 1, max = 16), extend("format" = "characters"))]
    pub delimiter: Option<Characters>,
    /// Every frame has this many bytes, its start among them.
    #[schemars(range(min = 1, max = 4096))]
    pub length: Option<u16>,
    /// A number in the frame says how many bytes follow it.
    pub prefix: Option<Prefix>,
    /// A silence this long ends a frame.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1m"))]
    pub silence: Option<Period>,
}

/// Where a frame says how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Prefix {
    /// Bytes of the frame before the number, its start among them.
    #[schemars(range(min = 0, max = 64))]
    pub at: u8,
    /// Bytes of the number.
    #[schemars(range(min = 1, max = 2))]
    pub bytes: u8,
    /// Which of two bytes comes first.
    pub order: ByteOrder,
    /// Bytes after the number that it does not count; negative where it counts more, such as
    /// itself.
    #[schemars(range(min = -64, max = 64))]
    pub plus: i8,
}

impl Default for Prefix {
    fn default() -> Self {
        Prefix {
            at: 0,
            bytes: 1,
            order: ByteOrder::HighFirst,
            plus: 0,
        }
    }
}

/// Which byte of a number comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ByteOrder {
    /// The most significant byte.
    HighFirst,
    /// The least significant byte.
    LowFirst,
}

/// The check of a frame: its kind, or all that is to be said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Checksum {
    /// In the last bytes of the frame, over all before them.
    Kind(ChecksumKind),
    /// Somewhere else, in another form, or over less.
    Rule(ChecksumRule),
}

impl Checksum {
    /// The whole of it.
    pub fn rule(self) -> ChecksumRule {
        match self {
            Checksum::Rule(rule) => rule,
            Checksum::Kind(kind) => ChecksumRule {
                kind,
                place: ChecksumPlace::End,
                form: ChecksumForm::Binary,
                order: None,
                skip: 0,
                skip_end: 0,
            },
        }
    }
}

/// Kind, place and form of a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChecksumRule {
    /// How it is calculated.
    pub kind: ChecksumKind,
    /// Where it stands.
    #[serde(default)]
    pub place: ChecksumPlace,
    /// As bytes, or as hexadecimal digits.
    #[serde(default)]
    pub form: ChecksumForm,
    /// Which byte comes first; by default the low one of a reflected CRC in binary, else the high
    /// one.
    pub order: Option<ByteOrder>,
    /// Bytes at the beginning of the frame, its start among them, that it does not cover.
    #[serde(default)]
    #[schemars(range(min = 0, max = 64))]
    pub skip: u8,
    /// Bytes just before it that it does not cover.
    #[serde(default)]
    #[schemars(range(min = 0, max = 64))]
    pub skip_end: u8,
}

/// Where a checksum stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChecksumPlace {
    /// At the end of the frame, before its delimiter.
    #[default]
    End,
    /// After the delimiter, which it covers.
    AfterDelimiter,
}

/// How a checksum is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChecksumForm {
    /// As bytes.
    #[default]
    Binary,
    /// As two hexadecimal digits for each byte; sent in capitals, read in either case.
    Hex,
}

/// Sums, and cyclic redundancy checks by their names in the catalogue of CRC algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ChecksumKind {
    /// The sum of the bytes, modulo 256.
    #[serde(rename = "sum")]
    Sum,
    /// The sum of the bytes, modulo 65,536.
    #[serde(rename = "sum-16")]
    Sum16,
    /// What makes the sum of all bytes zero (two's complement), as Modbus ASCII has it.
    #[serde(rename = "lrc")]
    Lrc,
    /// The exclusive or of the bytes; also called BCC, and LRC by ISO 1155.
    #[serde(rename = "xor")]
    Xor,
    /// CRC-8/SMBUS.
    #[serde(rename = "crc-8/smbus")]
    Crc8Smbus,
    /// CRC-8/MAXIM-DOW.
    #[serde(rename = "crc-8/maxim-dow")]
    Crc8MaximDow,
    /// CRC-16/MODBUS.
    #[serde(rename = "crc-16/modbus")]
    Crc16Modbus,
    /// CRC-16/ARC, the "CRC-16" of many manuals.
    #[serde(rename = "crc-16/arc")]
    Crc16Arc,
    /// CRC-16/IBM-3740, also called CCITT-FALSE.
    #[serde(rename = "crc-16/ibm-3740")]
    Crc16Ibm3740,
    /// CRC-16/XMODEM, also called CCITT with zero.
    #[serde(rename = "crc-16/xmodem")]
    Crc16Xmodem,
    /// CRC-16/KERMIT, the CCITT of ITU-T V.41 reflected.
    #[serde(rename = "crc-16/kermit")]
    Crc16Kermit,
    /// CRC-16/IBM-SDLC, also called X-25.
    #[serde(rename = "crc-16/ibm-sdlc")]
    Crc16IbmSdlc,
    /// CRC-16/MCRF4XX.
    #[serde(rename = "crc-16/mcrf4xx")]
    Crc16Mcrf4xx,
    /// CRC-16/SPI-FUJITSU, also called AUG-CCITT.
    #[serde(rename = "crc-16/spi-fujitsu")]
    Crc16SpiFujitsu,
    /// CRC-16/GENIBUS.
    #[serde(rename = "crc-16/genibus")]
    Crc16Genibus,
    /// CRC-16/USB.
    #[serde(rename = "crc-16/usb")]
    Crc16Usb,
    /// CRC-16/DNP.
    #[serde(rename = "crc-16/dnp")]
    Crc16Dnp,
    /// CRC-16/EN-13757, of wireless M-Bus.
    #[serde(rename = "crc-16/en-13757")]
    Crc16En13757,
    /// CRC-32/ISO-HDLC, of Ethernet and ZIP.
    #[serde(rename = "crc-32/iso-hdlc")]
    Crc32IsoHdlc,
    /// CRC-32/MPEG-2.
    #[serde(rename = "crc-32/mpeg-2")]
    Crc32Mpeg2,
}
