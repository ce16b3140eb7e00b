//! What every promise needs: a scene, real processes in it, and waiting for conditions.
//!
//! ```text
//!  modbus_device.py ─pty/TCP─┐            ┌─▶ mosquitto_sub, mqtt_client.py  ─▶ Ledger
//!  nmea_talker.py ───pty─────┴▶ Gateway ──┴─▶ Mosquitto (mutual TLS) ─▶ mqtt_client.py ─▶ Ledger
//! ```
//!
//! Invariant: nothing here links the product; it is known by its binary, files and sockets only.

mod wait;
pub(crate) use wait::{PATIENCE, until};

mod process;
pub(crate) use process::Process;

mod scene;
pub(crate) use scene::{Scene, promise};

mod pki;
pub(crate) use pki::{Identity, Pki};

pub(crate) mod gateway;
pub(crate) use gateway::Gateway;

mod mosquitto;
pub(crate) use mosquitto::Mosquitto;

pub(crate) mod peers;
pub(crate) use peers::{
    Client, accepts, controller, host, meter, openmetrics, scale, subscriber, tank, vault, wind,
};

pub(crate) mod scram;

pub(crate) mod plant;
pub(crate) use plant::Plant;

pub(crate) mod mqtt;

pub(crate) mod recorder;
pub(crate) use recorder::Recorder;

mod ledger;
pub(crate) use ledger::{Entry, Ledger, Served, messages};
