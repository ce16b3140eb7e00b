//! The plant that most promises use: three devices, and the gateway's configuration for them.
//!
//! A configuration is pieces of TOML that a test joins, so that it can leave one out or add one.

use std::path::PathBuf;

use anyhow::Result;

use super::{Identity, Pki, Process, Scene, meter, tank, wind};

/// The gateway's name in topics, and the common name of its certificate upstream.
pub(crate) const GATEWAY: &str = "plant-7";

/// Topics of the readings that change each time, with the device's name of the quantity.
pub(crate) const MOVING: [(&str, &str); 6] = [
    ("telemetry/meter-1/voltage", "voltage"),
    ("telemetry/meter-1/current", "current"),
    ("telemetry/meter-1/temperature", "temperature"),
    ("telemetry/meter-1/energy", "energy"),
    ("telemetry/tank-1/level", "level"),
    ("telemetry/tank-1/door", "door"),
];

/// Topic of the wind sensor's speed.
pub(crate) const WIND_SPEED: &str = "telemetry/wind-1/wind-speed-relative";

/// Three devices that run, and the gateway's ports.
pub(crate) struct Plant {
    /// Modbus RTU.
    pub(crate) meter: Process,
    /// Modbus TCP.
    pub(crate) tank: Process,
    /// NMEA 0183.
    pub(crate) wind: Process,
    /// Where the gateway serves plain MQTT.
    pub(crate) port: u16,
    tank_port: u16,
    meter_link: PathBuf,
    wind_link: PathBuf,
}

impl Plant {
    /// Starts the devices.
    pub(crate) fn new(scene: &Scene) -> Result<Plant> {
        let tank_port = scene.free_port()?;
        let (meter_link, wind_link) = (scene.path("ttyMeter"), scene.path("ttyWind"));
        Ok(Plant {
            meter: meter(scene, &meter_link)?,
            tank: tank(scene, tank_port)?,
            wind: wind(scene, &wind_link)?,
            port: scene.free_port()?,
            tank_port,
            meter_link,
            wind_link,
        })
    }

    /// A gateway with all three devices and a broker, without upstream.
    pub(crate) fn config(&self, scene: &Scene) -> String {
        [
            &self.base(scene),
            &self.meter_config("500ms"),
            &self.tank_config("500ms"),
            &self.wind_config(),
        ]
        .map(String::as_str)
        .concat()
    }

    /// The gateway itself, its local broker and its buffer.
    pub(crate) fn base(&self, scene: &Scene) -> String {
        let access = r##"
[[broker.access]]
user = "recorder"
subscribe = ["#"]

[[broker.access]]
publish = ["command/#", "telemetry/press-3/#"]
subscribe = ["telemetry/#", "state/#", "result/#", "response/#"]
"##;
        gateway(scene, self.port) + access
    }

    /// The Modbus RTU device.
    pub(crate) fn meter_config(&self, interval: &str) -> String {
        format!(
            r#"
[[bus]]
name = "rs485-0"
port = "{port}"
baud = 19200
parity = "none"

[[device]]
name = "meter-1"
bus = "rs485-0"
unit = 17
interval = "{interval}"
point = [
  {{ name = "voltage", register = "input:0", type = "f32", unit = "V" }},
  {{ name = "current", register = "input:2", type = "f32", order = "CDAB", unit = "A" }},
  {{ name = "temperature", register = "input:10", type = "i16", scale = 0.1, offset = 2.0, unit = "°C" }},
  {{ name = "energy", register = "input:20", type = "u64", order = "DCBA", unit = "Wh" }},
  {{ name = "label", register = "input:30", type = "string", length = 4 }},
  {{ name = "setpoint", register = "holding:100", access = "read-write", min = 0, max = 1000 }},
]
"#,
            port = self.meter_link.display(),
        )
    }

    /// The Modbus TCP device.
    pub(crate) fn tank_config(&self, interval: &str) -> String {
        format!(
            r#"
[[bus]]
name = "hall-2"
tcp = "127.0.0.1:{port}"

[[device]]
name = "tank-1"
bus = "hall-2"
unit = 1
interval = "{interval}"
point = [
  {{ name = "level", register = "input:0", type = "i32", order = "CDAB", unit = "mm" }},
  {{ name = "door", register = "discrete:3" }},
  {{ name = "valve", register = "coil:5", access = "read-write" }},
]
"#,
            port = self.tank_port,
        )
    }

    /// The NMEA 0183 sensor.
    pub(crate) fn wind_config(&self) -> String {
        format!(
            r#"
[[serial]]
name = "wind-1"
port = "{port}"
baud = 4800
decode = {{ nmea = ["MWV"] }}
"#,
            port = self.wind_link.display(),
        )
    }
}

/// A gateway with its files in the scene, to which nobody has access.
fn gateway(scene: &Scene, port: u16) -> String {
    format!(
        r#"
[gateway]
id = "{GATEWAY}"
control = "{control}"

[buffer]
path = "{buffer}"

[[broker.listener]]
address = "127.0.0.1:{port}"
"#,
        control = scene.path("control.sock").display(),
        buffer = scene.path("buffer.db").display(),
    )
}

/// A gateway without devices below a plain upstream, which it tries again soon. It ends in `[upstream]`; a test adds what
/// is forwarded.
pub(crate) fn without_devices(scene: &Scene, port: u16, upstream: u16) -> String {
    let link = format!(
        r##"
[[broker.access]]
publish = ["telemetry/#"]

[upstream]
url = "mqtt://127.0.0.1:{upstream}"
retry = "20ms"
retry_max = "100ms"
"##
    );
    gateway(scene, port) + &link
}

/// A TLS listener that demands certificates of `pki`.
pub(crate) fn tls_listener(port: u16, pki: &Pki, server: &Identity) -> String {
    format!(
        r#"
[[broker.listener]]
address = "127.0.0.1:{port}"
tls = {{ certificate = "{certificate}", key = "{key}", client_ca = "{ca}" }}
"#,
        certificate = server.certificate.display(),
        key = server.key.display(),
        ca = pki.ca.display(),
    )
}

/// The link to the upstream, trying again soon, and what travels over it.
pub(crate) fn upstream(port: u16, pki: &Pki, identity: &Identity) -> String {
    format!(
        r#"
[upstream]
url = "mqtts://127.0.0.1:{port}"
ca = "{ca}"
certificate = "{certificate}"
key = "{key}"
retry = "200ms"
retry_max = "1s"

[[forward]]
filter = "telemetry/#"

[[forward]]
filter = "result/#"

[[forward]]
filter = "state/#"

[[receive]]
filter = "command/#"
"#,
        ca = pki.ca.display(),
        certificate = identity.certificate.display(),
        key = identity.key.display(),
    )
}
