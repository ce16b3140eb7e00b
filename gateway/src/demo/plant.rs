//! The simulated plant: a meter on a serial line, a controller on the network, a weather station.
//! Driver.
//!
//! Invariant: the devices speak their real protocols over a pseudo-terminal or a socket; the
//! appliance cannot tell.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{GATEWAY, pki::Pki, station};
use crate::{
    config::{self, Config},
    fieldbus::simulate::{self, Device, Kind},
};

/// Device and point that the demonstration's commands write.
pub(super) const SETPOINT: &str = "pump/setpoint";

/// The devices; they end when it is dropped.
pub(super) struct Plant {
    line: PathBuf,
    network: SocketAddr,
    weather: PathBuf,
    _running: DropGuard,
}

impl Plant {
    /// Starts the devices.
    ///
    /// # Errors
    /// The machine has no pseudo-terminal or no port left.
    pub(super) async fn start() -> anyhow::Result<Plant> {
        let running = CancellationToken::new();
        let meter = Device::new(Kind::Meter, 1);
        let pump = Device::new(Kind::Controller, 1);
        let line = simulate::on_serial(vec![meter], running.clone())
            .context("cannot simulate the serial meter")?;
        let network = simulate::on_tcp(vec![pump], running.clone())
            .await
            .context("cannot simulate the network controller")?;
        let weather = station::nmea_station(running.clone())
            .context("cannot simulate the weather station")?;
        Ok(Plant {
            line,
            network,
            weather,
            _running: running.drop_guard(),
        })
    }

    /// Devices and the wires they hang on, for people.
    pub(super) fn wires(&self) -> Vec<(&'static str, String)> {
        vec![
            ("meter", "Modbus RTU, serial line 19200".to_owned()),
            ("pump", format!("Modbus TCP, {}", self.network)),
            ("weather", "NMEA 0183, serial line 4800".to_owned()),
        ]
    }

    /// The configuration that reads these devices and forwards to `upstream`, written and read as
    /// an operator's would be.
    ///
    /// # Errors
    /// The text is not valid: our own mistake.
    pub(super) fn configuration(
        &self,
        directory: &Path,
        pki: &Pki,
        upstream: SocketAddr,
        port: u16,
    ) -> anyhow::Result<Config> {
        let text = TEMPLATE
            .replace("@gateway@", GATEWAY)
            .replace("@directory@", &directory.display().to_string())
            .replace("@port@", &port.to_string())
            .replace("@line@", &self.line.display().to_string())
            .replace("@network@", &self.network.to_string())
            .replace("@weather@", &self.weather.display().to_string())
            .replace("@upstream@", &upstream.to_string())
            .replace("@ca@", &pki.ca.display().to_string())
            .replace(
                "@certificate@",
                &pki.client.certificate.display().to_string(),
            )
            .replace("@key@", &pki.client.key.display().to_string());
        let loaded =
            config::parse("demo.toml", &text).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        Ok(loaded.value)
    }
}

const TEMPLATE: &str = include_str!("demo.toml");
