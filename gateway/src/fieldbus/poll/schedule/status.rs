//! What is known of a bus at a glance. Values.
//!
//! Invariant: counters only rise; the utilisation is that of the last full window.

use std::time::{Duration, Instant};

use crate::reading::Stamp;

use crate::fieldbus::{DeviceState, poll::device::Device, transaction::Reply, watch::PointStatus};

use super::load::Late;

/// Over which time the utilisation is taken.
const WINDOW: Duration = Duration::from_secs(10);

/// The state of a bus.
#[derive(Debug, Clone, PartialEq)]
pub struct BusStatus {
    /// Its name in the configuration.
    pub name: String,
    /// The serial port, or `HOST:PORT`.
    pub port: String,
    /// Why the wire cannot be used; `None`: it can.
    pub down: Option<String>,
    /// Since when it is so.
    pub since: Stamp,
    /// Requests sent.
    pub requests: u64,
    /// Requests without an answer in time.
    pub time_outs: u64,
    /// Requests answered by an exception.
    pub exceptions: u64,
    /// Answers that were none: noise, another unit, another length.
    pub garbled: u64,
    /// Whether the adapter returns what is sent, which is taken off; `None`: not known yet, or the
    /// wire is none that can.
    pub echo: Option<bool>,
    /// Bytes received that belonged to no answer: noise, late answers, another client's frames.
    pub stray_bytes: u64,
    /// Share of time that the requests book by what they took lately; above 1 they cannot all
    /// keep their intervals.
    pub load: f64,
    /// What is read later than its interval, the fastest first.
    pub late: Vec<Late>,
    /// Share of time that the bus was busy lately.
    pub utilisation: f64,
    /// The devices in the order of the configuration.
    pub devices: Vec<DeviceStatus>,
}

/// The state of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its unit identifier.
    pub unit: u8,
    /// What was last told of it and since when; `None` before the first answer.
    pub state: Option<(DeviceState, Stamp)>,
    /// Points that answer with an exception and are asked more rarely.
    pub parked: Vec<String>,
    /// How long it thinks before it answers, once that has been measured.
    pub turnaround: Option<Duration>,
    /// Requests of its plan.
    pub requests: usize,
    /// Requests of its plan that were answered with values.
    pub good_polls: u64,
    /// Its points in the order of the configuration.
    pub points: Vec<PointStatus>,
}

impl DeviceStatus {
    pub(super) fn of(device: &Device) -> DeviceStatus {
        let parked = device.points.iter().filter(|point| point.parked.is_some());
        DeviceStatus {
            name: device.name.to_string(),
            unit: device.unit,
            state: device.told.clone(),
            parked: parked.map(|point| point.name.to_string()).collect(),
            turnaround: device.turnaround(),
            requests: device.polls.len(),
            good_polls: device.good_polls,
            points: device
                .points
                .iter()
                .map(|point| point.watch.status())
                .collect(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Counters {
    pub(super) since: Stamp,
    pub(super) requests: u64,
    pub(super) time_outs: u64,
    pub(super) exceptions: u64,
    pub(super) garbled: u64,
    window_start: Instant,
    busy: Duration,
    /// Since when at least one transaction is under way and not counted as busy yet.
    busy_from: Option<Instant>,
    last_utilisation: Option<f64>,
}

impl Counters {
    pub(super) fn new(now: Stamp) -> Counters {
        Counters {
            since: now,
            requests: 0,
            time_outs: 0,
            exceptions: 0,
            garbled: 0,
            window_start: now.monotonic,
            busy: Duration::ZERO,
            busy_from: None,
            last_utilisation: None,
        }
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.requests += 1;
        self.busy_from.get_or_insert(now);
    }

    /// A transaction has ended; `idle`: it was the last one under way.
    pub(super) fn ended(&mut self, idle: bool, now: Instant) {
        if let Some(from) = self.busy_from.take() {
            self.busy += now.saturating_duration_since(from);
        }
        self.busy_from = (!idle).then_some(now);
    }

    pub(super) fn replied(&mut self, reply: &Reply, now: Instant) {
        match reply {
            Reply::Answer(_) => {}
            Reply::TimedOut => self.time_outs += 1,
            Reply::Exception(_) => self.exceptions += 1,
            Reply::Garbled(_) => self.garbled += 1,
        }
        if now.saturating_duration_since(self.window_start) >= WINDOW {
            self.last_utilisation = Some(self.share(now));
            self.window_start = now;
            self.busy = Duration::ZERO;
        }
    }

    pub(super) fn utilisation(&self, now: Instant) -> f64 {
        self.last_utilisation.unwrap_or_else(|| self.share(now))
    }

    fn share(&self, now: Instant) -> f64 {
        let window = now.saturating_duration_since(self.window_start);
        if window.is_zero() {
            return 0.0;
        }
        (self.busy.as_secs_f64() / window.as_secs_f64()).min(1.0)
    }
}
