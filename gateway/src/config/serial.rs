//! Serial lines that are not Modbus, in `gateway.toml`. Values.
//!
//! Invariant: exactly one framing per line and one decoder per request, checked beside the types.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use settings::Period;

use super::{Access, Deadband, Parity, Report, Rs485, point};

mod exchange;
mod frame;

pub use exchange::{SerialRequest, TextType};

pub use frame::{
    ByteOrder, Characters, Checksum, ChecksumForm, ChecksumKind, ChecksumPlace, ChecksumRule,
    Frame, Prefix,
};

/// A `[[serial]]`: an instrument that talks by itself or answers requests, frame by frame.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SerialSensor {
    /// Its name in topics.
    #[schemars(extend("format" = "name"))]
    pub name: String,
    /// Serial port, best by identity.
    pub port: PathBuf,
    /// Line rate in bits per second.
    #[serde(default = "default_baud")]
    #[schemars(range(min = 50, max = 4_000_000))]
    pub baud: u32,
    /// Parity bit.
    #[serde(default = "default_parity")]
    pub parity: Parity,
    /// Data bits.
    #[serde(default = "default_data_bits")]
    #[schemars(range(min = 7, max = 8))]
    pub data_bits: u8,
    /// Stop bits.
    #[serde(default = "default_stop_bits")]
    #[schemars(range(min = 1, max = 2))]
    pub stop_bits: u8,
    /// Lets the kernel turn the port's RS-485 transceiver around; see `[[bus]]`.
    pub rs485: Option<Rs485>,
    /// Where one message of the instrument ends and the next begins. Default: lines.
    #[serde(default)]
    pub frame: Frame,
    /// How a message becomes values; may be left out where each request says it.
    #[serde(default)]
    pub decode: Decode,
    /// The check that each message carries: a kind such as `"xor"`, or a table that says where it
    /// stands. NMEA sentences carry their own.
    pub checksum: Option<Checksum>,
    /// Silence after which an instrument that talks by itself counts as offline.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "7d"))]
    pub timeout: Period,
    /// What is sent each time the port is opened, one after the other.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub init: Vec<String>,
    /// What it is asked; without any it talks by itself.
    #[serde(default, rename = "request")]
    #[schemars(length(max = 256))]
    pub requests: Vec<SerialRequest>,
    /// How long it may take to answer a request or a command.
    #[serde(default = "default_response_timeout")]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub response_timeout: Period,
    /// Least silence between an answer and the next request.
    #[serde(default = "default_pause")]
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "10s"))]
    pub pause: Period,
    /// Requests in a row without a good answer after which it counts as offline.
    #[serde(default = "default_offline_after")]
    #[schemars(range(min = 1, max = 100))]
    pub offline_after: u32,
    /// Whether what we send comes back before the answer, as on some two-wire lines.
    #[serde(default)]
    pub echo: bool,
    /// The check that `{checksum}` stands for in what is sent; by default `checksum`.
    pub send_checksum: Option<Checksum>,
    /// An instrument that is asked also speaks by itself, as when somebody presses its print key:
    /// what `decode` reads then counts, too.
    #[serde(default)]
    pub unasked: bool,
    /// Units and deadbands of decoded values, by name. What is not listed is published as it is.
    #[serde(default, rename = "point")]
    pub points: Vec<SerialPoint>,
}

fn default_baud() -> u32 {
    9_600
}

fn default_parity() -> Parity {
    Parity::None
}

fn default_data_bits() -> u8 {
    8
}

fn default_stop_bits() -> u8 {
    1
}

fn default_timeout() -> Period {
    Period::from_secs(30)
}

fn default_response_timeout() -> Period {
    Period::from_secs(1)
}

fn default_pause() -> Period {
    Period::from_millis(20)
}

fn default_offline_after() -> u32 {
    3
}

/// How a frame becomes values; exactly one key.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Decode {
    /// NMEA 0183 sentence types to take, such as `["GGA", "MWV"]`; empty: every known one.
    pub nmea: Option<Vec<String>>,
    /// A pattern whose named groups are the values: `(?P<weight>[-0-9.]+) kg`.
    #[schemars(extend("format" = "regex"))]
    pub regex: Option<String>,
    /// Columns of a separated line.
    pub csv: Option<CsvDecode>,
    /// Values of a JSON object, by their keys; empty: all numbers, texts and booleans in it.
    pub json: Option<Vec<String>>,
    /// The frame as one value in hexadecimal, under this name.
    pub raw: Option<String>,
}

/// A separated line.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvDecode {
    /// Between the columns. Default: a comma.
    #[serde(default = "default_separator")]
    pub separator: char,
    /// Names of the columns in order; an empty name skips one.
    pub columns: Vec<String>,
}

fn default_separator() -> char {
    ','
}

/// What is known of one decoded value.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SerialPoint {
    /// The decoder's name for it.
    #[schemars(extend("format" = "name"))]
    pub name: String,
    /// What it is; by default what looks like a number is one, and the rest is text.
    #[serde(rename = "type")]
    pub kind: Option<TextType>,
    /// Factor applied to a number.
    pub scale: Option<f64>,
    /// Added after the factor.
    pub offset: Option<f64>,
    /// Decimals that a number is rounded to.
    #[schemars(range(min = 0, max = 15))]
    pub round: Option<u8>,
    /// Unit, as printed in messages.
    pub unit: Option<String>,
    /// When a value is published; by default with every frame, with a deadband on change.
    pub report: Option<Report>,
    /// Publish only when the value has moved by more than this: a number, or a share of the last
    /// value such as `"2%"`; around zero `{ percent = 2, at_least = 0.1 }`.
    pub deadband: Option<Deadband>,
    /// Publish at least so often, changed or not, while frames come.
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "7d"))]
    pub heartbeat: Option<Period>,
    /// Whether commands may write it, with what `write` says.
    #[serde(default)]
    pub access: Access,
    /// What a command sends: `"SP {value:06.1}\\r\\n"`; without `{value}` it is a button, which
    /// takes `true`.
    #[schemars(extend("format" = "template"))]
    pub write: Option<String>,
    /// The answer by which the instrument says that it did so, as a pattern.
    #[schemars(extend("format" = "regex"))]
    pub confirm: Option<String>,
    /// Where the instrument does not answer commands: its request is asked right after one, which
    /// is executed when the value is what was written.
    #[serde(default)]
    pub read_back: bool,
    /// Least value that a command may write.
    pub min: Option<f64>,
    /// Greatest value that a command may write.
    pub max: Option<f64>,
}

impl SerialPoint {
    /// By how much a value has to move to be published; `None`: every frame is.
    pub fn publishes_on(&self) -> Option<Deadband> {
        point::deadband(self.report, self.deadband)
    }
}
