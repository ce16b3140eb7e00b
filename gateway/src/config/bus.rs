//! Modbus in `gateway.toml`: buses, devices, points. Values.
//!
//! Invariant: a point's register is zero-based and its length follows from its type.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use settings::Period;

use crate::fieldbus::register::Register;

/// A `[[bus]]`: one serial line, or one TCP connection, with the devices behind it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bus {
    /// What devices call it.
    #[schemars(extend("format" = "name"))]
    pub name: String,
    /// Serial port, best by identity: `/dev/serial/by-id/…`. Either this or `tcp`.
    pub port: Option<PathBuf>,
    /// `HOST:PORT` of a Modbus TCP device or gateway. Either this or `port`.
    #[schemars(extend("format" = "host-port"))]
    pub tcp: Option<String>,
    /// Frames on a TCP connection: `tcp` (MBAP, the default) or `rtu` (behind a plain converter).
    pub framing: Option<Framing>,
    /// Line rate in bits per second.
    #[serde(default = "default_baud")]
    #[schemars(range(min = 50, max = 4_000_000))]
    pub baud: u32,
    /// Parity bit.
    #[serde(default = "default_parity")]
    pub parity: Parity,
    /// Stop bits; by default 1, or 2 without parity (Modbus over serial line, 2.5.1).
    #[schemars(range(min = 1, max = 2))]
    pub stop_bits: Option<u8>,
    /// How long a device may take to answer.
    #[serde(default = "default_response_timeout")]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub response_timeout: Period,
}

fn default_baud() -> u32 {
    19_200
}

fn default_parity() -> Parity {
    Parity::Even
}

fn default_response_timeout() -> Period {
    Period::from_secs(1)
}

/// The parity bit of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Parity {
    /// No parity bit.
    None,
    /// Even parity.
    Even,
    /// Odd parity.
    Odd,
}

/// Framing of Modbus on a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// MBAP header, as Modbus TCP demands.
    Tcp,
    /// RTU frames with CRC, as plain serial converters send them.
    Rtu,
}

/// A `[[device]]`: one unit on a bus.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name in topics.
    #[schemars(extend("format" = "name"))]
    pub name: String,
    /// The bus it is on.
    pub bus: String,
    /// Unit identifier: 1 to 247 on a serial line, 0 to 255 over TCP.
    pub unit: u8,
    /// How often its points are read.
    #[serde(default = "default_interval")]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "7d"))]
    pub interval: Period,
    /// One message per point, or one per device and poll.
    #[serde(default)]
    pub publish: Publish,
    /// Most registers that it answers in one request.
    #[serde(default = "default_max_registers")]
    #[schemars(range(min = 1, max = 125))]
    pub max_registers: u16,
    /// Most coils or discrete inputs that it answers in one request.
    #[serde(default = "default_max_bits")]
    #[schemars(range(min = 1, max = 2000))]
    pub max_bits: u16,
    /// What it measures.
    #[serde(rename = "point")]
    #[schemars(length(min = 1, max = 10_000))]
    pub points: Vec<Point>,
}

fn default_interval() -> Period {
    Period::from_secs(1)
}

fn default_max_registers() -> u16 {
    125
}

fn default_max_bits() -> u16 {
    2_000
}

/// How readings become messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Publish {
    /// `telemetry/<device>/<point>`, one message per point.
    #[default]
    Point,
    /// `telemetry/<device>`, one message with all points that a poll brought.
    Device,
}

/// A `[[device.point]]`: one value in a device.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Its name in topics.
    #[schemars(extend("format" = "name"))]
    pub name: String,
    /// `coil:N`, `discrete:N`, `input:N` or `holding:N`, zero-based.
    pub register: Register,
    /// How the registers are read; by default `bool` for coils and discrete inputs, else `u16`.
    #[serde(rename = "type")]
    pub kind: Option<PointType>,
    /// Order of the bytes of a value of two or more registers; `ABCD` is big-endian.
    #[serde(default)]
    pub order: WordOrder,
    /// Registers of a `string` or `raw` value.
    #[schemars(range(min = 1, max = 125))]
    pub length: Option<u16>,
    /// The one bit of a 16-bit register that is the value; 0 is the least significant.
    #[schemars(range(min = 0, max = 15))]
    pub bit: Option<u8>,
    /// Factor applied to the raw number.
    pub scale: Option<f64>,
    /// Added after the factor.
    pub offset: Option<f64>,
    /// Unit of the value after scale and offset, as printed in messages.
    pub unit: Option<String>,
    /// Read at another interval than the device.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "7d"))]
    pub interval: Option<Period>,
    /// Publish only when the value has moved by more than this since the last message.
    #[schemars(range(min = 0.0))]
    pub deadband: Option<f64>,
    /// Whether commands may write it. Only coils and holding registers can be written.
    #[serde(default)]
    pub access: Access,
    /// Least value that a command may write.
    pub min: Option<f64>,
    /// Greatest value that a command may write.
    pub max: Option<f64>,
}

impl Point {
    /// The type as written, or the register table's default.
    pub fn kind(&self) -> PointType {
        self.kind.unwrap_or(if self.register.table.is_bits() {
            PointType::Bool
        } else {
            PointType::U16
        })
    }
}

/// What may be done with a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// It is polled.
    #[default]
    Read,
    /// It is polled, and commands write it.
    ReadWrite,
}

/// How registers are read as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PointType {
    /// One bit, or a register that is not zero.
    Bool,
    /// Unsigned 16 bits.
    U16,
    /// Signed 16 bits.
    I16,
    /// Unsigned 32 bits in two registers.
    U32,
    /// Signed 32 bits in two registers.
    I32,
    /// Unsigned 64 bits in four registers.
    U64,
    /// Signed 64 bits in four registers.
    I64,
    /// IEEE 754 single precision in two registers.
    F32,
    /// IEEE 754 double precision in four registers.
    F64,
    /// Text, two characters a register, trailing NUL and blanks removed.
    String,
    /// Bytes, published in hexadecimal.
    Raw,
}

impl PointType {
    /// Registers that one value takes; `None` where the configuration's `length` says.
    pub fn registers(self) -> Option<u16> {
        match self {
            PointType::Bool | PointType::U16 | PointType::I16 => Some(1),
            PointType::U32 | PointType::I32 | PointType::F32 => Some(2),
            PointType::U64 | PointType::I64 | PointType::F64 => Some(4),
            PointType::String | PointType::Raw => None,
        }
    }
}

/// Order in which a value's bytes arrive; letters name bytes from the most significant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum WordOrder {
    /// Big-endian words and bytes: the Modbus order.
    #[default]
    #[serde(rename = "ABCD")]
    Abcd,
    /// Words swapped.
    #[serde(rename = "CDAB")]
    Cdab,
    /// Bytes swapped within words.
    #[serde(rename = "BADC")]
    Badc,
    /// Words and bytes swapped: little-endian.
    #[serde(rename = "DCBA")]
    Dcba,
}
