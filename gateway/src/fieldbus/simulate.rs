//! Simulated Modbus devices, on pseudo-terminals and over TCP, with faults on demand. Driver.
//!
//! ```text
//!  wires ── bytes ──▶ exchange ──▶ frame ── Request ──▶ unit ──▶ memory ◀── points, signal
//!    ▲                   ▲                               │ faults, chance
//!    └── bytes when due ─┴───────────── Reply ───────────┘
//! ```
//!
//! The framing is written here a second time on purpose: a device that shared the client's
//! library would share its mistakes.
//!
//! Invariant: a device answers only whole requests with a right checksum, as a real one does.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

mod chance;
mod faults;

mod frame;

mod exchange;

mod memory;

mod signal;

mod points;

mod instrument;

mod identity;

mod unit;

mod talk;

mod terminal;

mod wires;

mod command;

mod plant;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use instrument::Instrument;
use unit::{Reply, Unit};

pub use command::{Command, Deed, HELP, Target};
pub use faults::{Fault, LineFault, Misbehaviour};
pub use instrument::Kind;
pub use plant::{Place, Plant, Registers};
pub use talk::Talk;
pub(crate) use talk::weather;
pub use wires::{Line, on_serial, on_tcp, serve_tcp};

/// The faults that tests ask for most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// It does not answer at all.
    pub silent: bool,
    /// It answers so much later than usual.
    pub late: Duration,
}

/// A simulated device; clones are the same device.
#[derive(Debug, Clone)]
pub struct Device(Arc<Mutex<Unit>>);

impl Device {
    /// A device of this kind that answers to one unit identifier.
    pub fn new(kind: Kind, unit: u8) -> Device {
        let instrument = Instrument::of(kind);
        Device::of(Unit::new("simulated", unit, instrument, 0, Instant::now()))
    }

    fn of(unit: Unit) -> Device {
        Device(Arc::new(Mutex::new(unit)))
    }

    /// Makes it misbehave in these ways alone, or behave again.
    pub fn misbehave(&self, faults: Faults) {
        let mut unit = self.unit();
        unit.behave();
        if faults.silent {
            unit.misbehave(Fault::Silent.into());
        }
        if !faults.late.is_zero() {
            unit.misbehave(Fault::Late(faults.late).into());
        }
    }

    /// Adds something that goes wrong.
    pub fn add(&self, wrong: impl Into<Misbehaviour>) {
        self.unit().misbehave(wrong.into());
    }

    /// What it takes for itself before it answers.
    pub fn set_turnaround(&self, turnaround: Duration) {
        self.unit().turnaround = turnaround;
    }

    /// A holding register as it is now.
    pub fn holding(&self, address: u16) -> Option<u16> {
        self.unit().holding(address)
    }

    /// The requests that it got, as protocol data units, the latest 10,000.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.unit().requests().cloned().collect()
    }

    fn unit(&self) -> MutexGuard<'_, Unit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the devices answer to a request that has arrived at `now`; to a broadcast nothing.
fn answers(devices: &[Device], unit: u8, pdu: &[u8], broadcast: bool, now: Instant) -> Vec<Reply> {
    let mut replies = Vec::new();
    for device in devices {
        let mut device = device.unit();
        if device.id == unit {
            replies.extend(device.answer(pdu, now));
        } else if broadcast {
            device.hear_broadcast(pdu, now);
        }
    }
    replies
}
