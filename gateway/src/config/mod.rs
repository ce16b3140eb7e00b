//! The types of `gateway.toml`. Values only: what may be written, its defaults, its words.
//!
//! Invariant: the JSON Schema, the checks and the documents all derive from these types.
//! What one key says about another is checked in `check`.

mod bus;
mod order;
mod point;
mod serial;

pub mod profile;

mod drain;
mod link;

mod clients;

mod identity;

mod tpm;

mod update;

pub mod url;

mod check;

mod load;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

pub use bus::{Bus, BusTls, Device, Echo, Framing, Parity, Publish, Rs485, WriteSingle};
pub use clients::Clients;
pub(crate) use clients::OWN;
pub use drain::{Budget, Drain, Hold, PING_BYTES, Window};
pub use identity::{Est, Identity, Renew, RenewCommand};
pub(crate) use link::DEFAULT_TOPIC;
pub use link::{
    Batch, Buffer, Compression, Forward, KeyPlace, Order, Priority, Protocol, Receive, Sparkplug,
    Store, Upstream, Url, Urls, WhenFull,
};
pub use load::{Loaded, load, parse, schema};
pub use order::WordOrder;
pub use point::{Access, BitRange, Byte, Clamp, Deadband, Names, Point, PointType, Report, Trim};
pub(crate) use point::{Form, Sentinel};
use profile::{Places, WrittenDevice};
pub use serial::{
    ByteOrder, Characters, Checksum, ChecksumForm, ChecksumKind, ChecksumPlace, ChecksumRule,
    CsvDecode, Decode, Frame, Prefix, SerialPoint, SerialRequest, SerialSensor, TextType,
};
pub use tpm::Tpm;
pub use update::{BootLoader, Health, Slots, Staging, TrybootPlace, Update, When};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The gateway itself.
    pub gateway: Gateway,
    /// The local MQTT broker.
    pub broker: broker_lite::config::Config,
    /// Clients of the local broker that `gateway client` adds.
    pub clients: Clients,
    /// OpenMetrics over HTTP; absent: none.
    pub metrics: Option<broker_lite::config::Metrics>,
    /// Modbus lines and connections.
    #[serde(rename = "bus")]
    pub buses: Vec<Bus>,
    /// Modbus devices as written.
    #[serde(rename = "device")]
    pub(crate) written: Vec<WrittenDevice>,
    /// Modbus devices and their points, as written and as their profiles say.
    #[serde(skip)]
    pub devices: Vec<Device>,
    /// Where the points of the devices stand in the file.
    #[serde(skip)]
    pub places: Places,
    /// Serial lines that speak something else than Modbus.
    #[serde(rename = "serial")]
    pub serials: Vec<SerialSensor>,
    /// Where messages wait for the upstream.
    pub buffer: Buffer,
    /// The gateway's own key and certificate, where `[upstream] identity` names them.
    pub identity: Identity,
    /// The broker in the cloud or the control room; none: the plant keeps to itself.
    pub upstream: Option<Upstream>,
    /// The TPM that keeps the device's keys; absent: they are files.
    pub tpm: Option<Tpm>,
    /// Releases of this system: where they come from, and where they go; absent: none.
    pub update: Option<Update>,
    /// What is sent upstream.
    #[serde(rename = "forward")]
    pub forwards: Vec<Forward>,
    /// What is taken from upstream and published locally, commands above all. None by default.
    #[serde(rename = "receive")]
    pub receives: Vec<Receive>,
}

/// The `[gateway]` table.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// The gateway's name in upstream topics; by default `gw-` and the start of the machine id.
    #[schemars(extend("format" = "name"))]
    pub id: Option<String>,
    /// Where the control socket stands, for `gateway status`.
    pub control: PathBuf,
    /// Directory of device profiles, `NAME.toml` each, beside those built in.
    pub profiles: PathBuf,
    /// File of what devices have taught: holes, refused points, turnarounds. By default
    /// `lessons.json` beside the buffer.
    pub lessons: Option<PathBuf>,
}

impl Config {
    /// The file of what devices have taught.
    pub fn lessons(&self) -> PathBuf {
        let beside = || self.buffer.path.with_file_name("lessons.json");
        self.gateway.lessons.clone().unwrap_or_else(beside)
    }

    /// Whether the upstream is told of the devices, beside what they measure.
    pub(crate) fn has_sparkplug(&self) -> bool {
        let upstream = self.upstream.as_ref();
        upstream.is_some_and(|upstream| upstream.sparkplug.is_some())
    }

    /// Whether devices and instruments are those of the other.
    pub(crate) fn same_plant(&self, other: &Config) -> bool {
        (&self.devices, &self.serials) == (&other.devices, &other.serials)
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Gateway {
            id: None,
            control: "/run/gateway/control.sock".into(),
            profiles: profile::DIRECTORY.into(),
            lessons: None,
        }
    }
}
