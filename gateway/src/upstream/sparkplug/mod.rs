//! The gateway as a Sparkplug B 3.0 edge node: what waits in the buffer goes up as metrics, births and deaths say who is there.
//!
//! ```text
//!  forwarder ──rows──▶ sample ──▶ metrics ──▶ edge ──births, data, deaths──▶ packer ──QoS 0──▶ host application
//!  local broker ──newest values, states──▶ latest ──▶ edge ◀── command ◀── NCMD, DCMD, STATE
//! ```
//!
//! Rows stay in the buffer as they were published; aliases, sequence numbers and births belong to a session and are
//! made when a row is sent. Invariant: no data goes up that a birth of the same session has not declared. Shell of its cores.

mod wire;

mod datatype;
mod sample;

mod metrics;

mod command;
mod host;

mod edge;

mod fence;

mod latest;

pub(super) use edge::{Edge, Heard, Sent};
pub(super) use fence::Fence;
pub use latest::Latest;
pub(super) use sample::milliseconds;

use self::datatype::DataType;
use crate::config;

/// The devices: what is configured of them, and what they say.
#[derive(Debug)]
pub struct Plant {
    /// Their names and points.
    pub catalog: Catalog,
    /// Their newest readings and states.
    pub latest: Latest,
}

/// What is configured of the devices whose points become metrics.
#[derive(Debug, Clone, Default)]
pub struct Catalog(Vec<Entry>);

#[derive(Debug, Clone)]
struct Entry {
    device: String,
    points: Vec<(String, Option<DataType>, Option<String>)>,
}

impl Catalog {
    /// The devices and points of a configuration. What a serial instrument sends may not be in it; its metrics are
    /// declared with their first value.
    pub fn new(config: &config::Config) -> Catalog {
        let devices = config.devices.iter().map(|device| Entry {
            device: device.name.clone(),
            points: device
                .points
                .iter()
                .map(|point| {
                    let datatype = Some(DataType::of(point));
                    (point.name.clone(), datatype, point.unit.clone())
                })
                .collect(),
        });
        let serials = config.serials.iter().map(|sensor| Entry {
            device: sensor.name.clone(),
            points: sensor
                .points
                .iter()
                .map(|point| {
                    let datatype = point.kind.map(|kind| match kind {
                        config::TextType::Number => DataType::Double,
                        config::TextType::String => DataType::String,
                    });
                    (point.name.clone(), datatype, point.unit.clone())
                })
                .collect(),
        });
        Catalog(devices.chain(serials).collect())
    }
}

#[cfg(test)]
mod tests;
