//! From the wire to readings, and from commands to the wire.
//!
//! ```text
//!  wire ──▶ modbus ──▶ decode ──▶ Reading ─┐
//!   ▲         ▲ schedule ◀── plan          ├──▶ Event
//!   └─────────┴── Command                  │
//!  wire ──▶ serial ──▶ line ──▶ Reading ───┘
//! ```
//!
//! `plan`, `schedule`, `decode`, `line` are cores; `wire`, `modbus`, `serial` drive them.
//! Invariant: one task owns a bus, and one bus' trouble is never another's.

pub mod register;

pub(crate) mod decimal;
mod number;

mod crc;
pub(crate) mod transaction;

mod wire;

pub(crate) mod raw;

mod decode;
pub(crate) mod example;
mod report;
mod watch;

pub mod poll;

pub(crate) mod lessons;

pub mod modbus;

pub mod serial;

pub mod simulate;

pub(crate) mod commission;

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::reading::{Reading, Stamp};

pub use watch::PointStatus;
pub(crate) use wire::usb::latency as latency_timer;

/// What the field tells the rest of the appliance.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// What one answer or one sentence brought; all of one device.
    Readings(Vec<Reading>),
    /// A device came or went; told once per change.
    Device {
        /// The device's name.
        device: Arc<str>,
        /// What it is now.
        state: DeviceState,
        /// Since when.
        stamp: Stamp,
    },
    /// A device is no longer configured: what was told of its state is no longer true.
    Removed {
        /// The device's name.
        device: Arc<str>,
    },
    /// What became of a command.
    Result(CommandResult),
}

/// Whether a device answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceState {
    /// It answers.
    Online,
    /// It does not, and why: as the operator reads it.
    Offline {
        /// `no answer in 1s`, `port /dev/ttyUSB0: no such file or directory`.
        reason: String,
    },
}

/// A value to be written to a point, or values to several points of a device at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The device's name.
    pub device: Arc<str>,
    /// The point's name; `None`: the value is an object of points.
    pub point: Option<Arc<str>>,
    /// The value as the sender wrote it, in the point's unit.
    pub value: serde_json::Value,
    /// Not to be executed when this long has passed since `received`.
    pub expires: Option<Duration>,
    /// When the command reached this process.
    pub received: Stamp,
    /// Given back with the result: MQTT 5 correlation data, or the payload's `id`.
    pub correlation: Option<Bytes>,
    /// Where the sender wants the result, besides `result/<device>/<point>`.
    pub response_topic: Option<Arc<str>>,
    /// Who sent it, where that is known.
    pub sender: Option<Arc<Sender>>,
}

/// Who sent a command, as he was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// User name, or the certificate's name; `None`: he did not say.
    pub user: Option<Arc<str>>,
    /// What his connection calls itself.
    pub client: Arc<str>,
    /// Where he connected from.
    pub address: IpAddr,
}

/// A command that is not executed, with as much of it as could be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// The command, so that its sender gets a result.
    pub command: Command,
    /// What is wrong with it and what to write instead.
    pub reason: String,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandResult {
    /// The command.
    pub command: Command,
    /// Executed, refused or failed.
    pub outcome: Outcome,
    /// When that was known.
    pub stamp: Stamp,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Written, read back and found equal; the value as read back.
    Executed(crate::reading::Value),
    /// The same for several points in one request.
    ExecutedAll(Vec<(Arc<str>, crate::reading::Value)>),
    /// Not sent to the device: unknown point, not writable, out of range, expired.
    Refused(String),
    /// Sent, and the device did not confirm it. It may or may not have been executed.
    Failed(String),
}
