//! Modbus in `gateway.toml`: buses and devices. Values.
//!
//! Invariant: a bus has one wire, and a device one unit on it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use settings::Period;

use crate::fieldbus::register::RegisterRange;

use super::{Point, url};

/// A `[[bus]]`: one serial line, or one TCP connection, with the devices behind it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bus {
    /// What devices call it.
    #[schemars(extend("format" = "name"))]
    pub name: String,
    /// Serial port, best by identity: `/dev/serial/by-id/…`. Either this or `tcp`.
    pub port: Option<PathBuf>,
    /// `HOST` or `HOST:PORT` of a Modbus TCP device or gateway; port 502, or 802 with `tls`. Either
    /// this or `port`.
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
    /// Requests under way at once to a Modbus TCP device that answers them all; most take one.
    #[serde(default = "default_pipeline")]
    #[schemars(range(min = 1, max = 16))]
    pub pipeline: u8,
    /// Lets the kernel turn the port's RS-485 transceiver around. Only for a UART whose driver can;
    /// USB adapters and most boards with a transceiver do it in hardware.
    pub rs485: Option<Rs485>,
    /// Whether the adapter returns what is sent: found out by default.
    #[serde(default)]
    pub echo: Echo,
    /// Modbus/TCP Security: TLS on the connection, with a certificate of ours.
    pub tls: Option<BusTls>,
    /// Takes requests that people write down themselves, on `modbus/<bus>/request`, for
    /// commissioning. Whoever may publish there reads and writes every register of the bus.
    #[serde(default)]
    pub raw_requests: bool,
    /// How long a device may take to answer.
    #[serde(default = "default_response_timeout")]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub response_timeout: Period,
    /// Start although the points ask for more than the bus can carry: slow ones give way.
    #[serde(default)]
    pub allow_overload: bool,
}

impl Bus {
    /// Transactions that may be under way at once: one wherever frames have no number.
    pub fn window(&self) -> usize {
        let numbered = self.tcp.is_some() && self.framing != Some(Framing::Rtu);
        if numbered {
            usize::from(self.pipeline).max(1)
        } else {
            1
        }
    }

    /// Whether units hang on a serial line, here or behind a converter: unit 0 is all of them.
    pub fn is_line(&self) -> bool {
        self.port.is_some() || self.framing == Some(Framing::Rtu)
    }

    /// Host and port of a network bus.
    pub fn address(&self) -> Option<String> {
        let tcp = self.tcp.as_deref()?;
        let default = if self.tls.is_some() { 802 } else { 502 };
        Some(match url::split_port(tcp) {
            Ok((_, None)) => format!("{tcp}:{default}"),
            _ => tcp.to_owned(),
        })
    }
}

/// How the kernel turns an RS-485 transceiver around (`TIOCSRS485`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rs485 {
    /// RTS is high while sending and low otherwise; `false`: the other way round.
    pub rts_on_send: bool,
    /// From turning to the first bit, in whole milliseconds.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "100ms"))]
    pub delay_before_send: Period,
    /// From the last bit to turning back, in whole milliseconds.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "100ms"))]
    pub delay_after_send: Period,
    /// The receiver stays on while sending: four wires, or an echo.
    pub rx_during_tx: bool,
    /// Switches the port's terminating resistor on, where it has one.
    pub terminate: bool,
}

impl Default for Rs485 {
    fn default() -> Self {
        Rs485 {
            rts_on_send: true,
            delay_before_send: Period::from_millis(0),
            delay_after_send: Period::from_millis(0),
            rx_during_tx: false,
            terminate: false,
        }
    }
}

/// Whether an adapter returns what is sent through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Echo {
    /// Found out from reads: a device never answers one with the request itself.
    #[default]
    Auto,
    /// It does: an answer counts only behind the echo.
    On,
    /// It does not.
    Off,
}

/// Modbus/TCP Security (MODBUS/TCP Security Protocol Specification): TLS 1.2 or 1.3.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BusTls {
    /// Certificates of the authorities that the device's certificate may come from, in PEM.
    pub ca: PathBuf,
    /// Our certificate and those between it and the authority, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// The name in the device's certificate, if it is not the host of `tcp`.
    pub server_name: Option<String>,
}

fn default_baud() -> u32 {
    19_200
}

fn default_parity() -> Parity {
    Parity::Even
}

fn default_pipeline() -> u8 {
    1
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

impl Parity {
    /// The word in configuration and messages.
    pub fn word(self) -> &'static str {
        match self {
            Parity::None => "none",
            Parity::Even => "even",
            Parity::Odd => "odd",
        }
    }
}

impl Parity {
    /// Two where no parity bit stands (Modbus over serial line, 2.5.1).
    pub(crate) fn usual_stop_bits(self) -> u8 {
        if self == Parity::None { 2 } else { 1 }
    }
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
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "7d"))]
    pub interval: Period,
    /// How long a value may be overdue before the last one is published once more, as stale. By
    /// default two intervals of the point, and at least ten seconds.
    #[schemars(extend("x-minimum" = "0s", "x-maximum" = "7d"))]
    pub stale_after: Option<Period>,
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
    /// How one coil or one register is written: by function codes 5 and 6, or as several are, by 15
    /// and 16. By default the device is tried and its way remembered.
    #[serde(default)]
    pub write_single: WriteSingle,
    /// Bits of a register are written by function code 22. Without it, as with a device that
    /// answers that it does not know it, the register is read and written whole.
    #[serde(default = "default_mask_write")]
    pub mask_write: bool,
    /// Registers are written and read back in one transaction, by function code 23.
    #[serde(default)]
    pub read_write: bool,
    /// It answers requests for coils and discrete inputs only if they begin at address 0.
    #[serde(default)]
    pub bits_from_zero: bool,
    /// It answers one value per request: no two points are read together.
    #[serde(default)]
    pub one_value_per_request: bool,
    /// Registers that are read in one request, all of them, such as a meter's snapshot:
    /// `["input:0..17"]`, both ends included. Others may be read along.
    #[serde(default)]
    pub read_together: Vec<RegisterRange>,
    /// The same, and nothing else is read along: the request is exactly this range.
    #[serde(default)]
    pub read_alone: Vec<RegisterRange>,
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

fn default_mask_write() -> bool {
    true
}

/// How one coil or one register is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WriteSingle {
    /// By function codes 5 and 6, and by 15 and 16 once the device says that it does not know those.
    #[default]
    Auto,
    /// Always by 5 and 6: the device knows no others, and several at once are refused.
    Always,
    /// Always by 15 and 16.
    Never,
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
