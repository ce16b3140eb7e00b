//! Device profiles: what is known of a kind of device, described once in TOML. Values.
//!
//! ```text
//!  profiles/NAME.toml ─check─▶ Profile ─┐
//!                                       ├─complete─▶ Device, as if written out
//!  [[device]] profile = "NAME" ─────────┘
//! ```
//!
//! Invariant: a profile's points are `[[device.point]]` key by key, so that what may be written
//! there may be written here, and overridden there.

mod check;
mod complete;
mod keys;

pub(crate) mod library;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{Device, Parity, Point};
use crate::fieldbus::register::Register;

pub(super) use check::check;
pub use complete::Places;
pub(super) use complete::complete;
pub(crate) use keys::{DeviceKeys, Table, WrittenDevice};

/// Where profiles are kept on a machine, unless the configuration says otherwise.
pub(crate) const DIRECTORY: &str = "/etc/gateway/profiles";

/// A kind of device: what it is, where that is documented, and its points.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Who makes it.
    #[schemars(length(min = 1))]
    pub maker: String,
    /// The model, or the series whose registers are the same.
    #[schemars(length(min = 1))]
    pub model: String,
    /// What it is.
    pub kind: Kind,
    /// What an installer has to know: settings that the registers depend on, what is left out.
    pub note: Option<String>,
    /// Points of a device that names none; `*` at the end stands for any ending. By default all.
    #[serde(default)]
    pub default: Vec<String>,
    /// Where its registers are documented.
    pub source: Source,
    /// What its serial line can be set to; absent: it has none, or its document does not say.
    pub line: Option<Line>,
    /// Keys of `[[device]]` that hold for every such device, such as `max_registers`.
    #[serde(default)]
    pub(crate) device: DeviceKeys,
    /// What it measures and takes, as `[[device.point]]`.
    #[serde(rename = "point")]
    #[schemars(with = "Vec<Point>", length(min = 1, max = 1_000))]
    pub(crate) points: Vec<Table>,
    /// Registers and what they decode to, as tests of the profile.
    #[serde(rename = "example")]
    #[schemars(length(min = 1, max = 1_000))]
    pub examples: Vec<Example>,
}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Measures electrical energy.
    EnergyMeter,
    /// Measures heat or cold.
    HeatMeter,
    /// Feeds direct current into a grid, or charges from it.
    Inverter,
    /// A battery or its management.
    Battery,
    /// An uninterruptible power supply.
    PowerSupply,
    /// A programmable controller.
    Controller,
    /// Inputs and outputs.
    Io,
    /// Measures the weather.
    Weather,
    /// Measures temperature, humidity, gas, soil, pressure.
    Sensor,
    /// Drives a motor.
    Drive,
    /// A pump with its own controller.
    Pump,
    /// A valve or its actuator.
    Valve,
    /// Weighs.
    Scale,
    /// A heat pump, ventilation or boiler.
    Hvac,
}

/// Where a device's registers are documented.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The document's title.
    #[schemars(length(min = 1))]
    pub title: String,
    /// Its number, version or date, as it bears them.
    pub version: Option<String>,
    /// Where it can be had.
    #[schemars(length(min = 1))]
    pub url: String,
    /// What the points were taken from.
    pub basis: Basis,
    /// Open programs that the points were compared with.
    #[serde(default)]
    pub compared: Vec<String>,
}

/// What a profile's points were taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The maker's document.
    Document,
    /// An open transcription of it, beside which the document was not read.
    Transcript,
    /// Open programs that read the device; the maker's document was not at hand.
    Implementation,
}

/// What a device's serial line can be set to, each list beginning with how it leaves the factory.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Line rates in bits per second.
    #[schemars(length(min = 1))]
    pub baud: Vec<u32>,
    /// Parity bits.
    #[schemars(length(min = 1))]
    pub parity: Vec<Parity>,
    /// Stop bits, where the device lets choose or does not follow the parity.
    #[serde(default)]
    pub stop_bits: Vec<u8>,
}

/// One read's answer and what it says.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// Whose example it is.
    pub origin: Origin,
    /// Where in the source: a page or section, and what is described there.
    #[schemars(length(min = 1))]
    pub place: String,
    /// The first register or bit.
    pub at: Register,
    /// The registers, four hexadecimal digits each; of coils and discrete inputs, a digit each.
    #[schemars(extend("format" = "hex-words"))]
    pub hex: String,
    /// What points in it print as, with their unit: `"230.2 V"`, or `"no value"`.
    #[schemars(length(min = 1))]
    pub values: BTreeMap<String, String>,
}

/// Whose example it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The document gives these registers with these values.
    Document,
    /// Made from what the document says of types, factors and names.
    Derived,
}

impl Profile {
    /// A device of this kind with all of its points.
    ///
    /// # Errors
    /// What the schema could not say: the path in the profile, and why.
    pub(crate) fn as_device(&self, name: &str) -> Result<Device, (String, String)> {
        let mut keys = self.device.0.clone();
        let own = [
            ("name", json!(name)),
            ("bus", json!("")),
            ("unit", json!(1)),
        ];
        keys.extend(own.map(|(key, value)| (key.to_owned(), value)));
        let mut device = keys::device(keys).map_err(|why| ("device".to_owned(), why))?;
        for (index, point) in self.points.iter().enumerate() {
            let point = keys::point(point)
                .map_err(|fault| (format!("point[{index}]{}", fault.key()), fault.why))?;
            device.points.push(point);
        }
        Ok(device)
    }

    /// The names of the points.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.points.iter().map(keys::name)
    }
}

impl Kind {
    /// The word in profiles and lists.
    pub fn word(self) -> &'static str {
        match self {
            Kind::EnergyMeter => "energy-meter",
            Kind::HeatMeter => "heat-meter",
            Kind::Inverter => "inverter",
            Kind::Battery => "battery",
            Kind::PowerSupply => "power-supply",
            Kind::Controller => "controller",
            Kind::Io => "io",
            Kind::Weather => "weather",
            Kind::Sensor => "sensor",
            Kind::Drive => "drive",
            Kind::Pump => "pump",
            Kind::Valve => "valve",
            Kind::Scale => "scale",
            Kind::Hvac => "hvac",
        }
    }
}

impl Example {
    /// The registers in [`Example::hex`], or its bits as zeros and ones.
    pub(crate) fn words(&self) -> Vec<u16> {
        words(&self.hex, self.at.table.is_bits()).unwrap_or_default()
    }
}

/// Reads `4366 3334`, and `0 1 1` of bits; blanks are free.
pub(super) fn words(text: &str, bits: bool) -> Option<Vec<u16>> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let size = if bits { 1 } else { 4 };
    if digits.is_empty() || !digits.len().is_multiple_of(size) {
        return None;
    }
    let word = |digits: &[char]| {
        let value =
            |value: u16, digit: &char| Some(value << 4 | u16::try_from(digit.to_digit(16)?).ok()?);
        digits.iter().try_fold(0, value)
    };
    let words: Option<Vec<u16>> = digits.chunks_exact(size).map(word).collect();
    words.filter(|words| !bits || words.iter().all(|bit| *bit < 2))
}

#[cfg(test)]
mod tests;
