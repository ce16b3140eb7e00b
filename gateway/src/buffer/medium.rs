//! Feeds the account of wear with what the kernel counts, and tells what comes of it. Driver.
//!
//! Invariant: looking costs the medium nothing; the account is written with a commit that takes
//! place anyway.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use broker_lite::observe::written;

use super::{
    clock::Clock,
    device::Device,
    wear::{ASSUMED_ENDURANCE, Book, Cost, OwnEstimate, Projection, Sample},
};

/// See the module's description.
#[derive(Debug)]
pub(super) struct Medium {
    device: Option<Device>,
    /// Bytes that can be written to it, by configuration.
    endurance: Option<u64>,
    book: Mutex<Book>,
}

/// What storing has cost, and what that means for the device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wear {
    /// Payload bytes kept since the start.
    pub payload: u64,
    /// Bytes written to the medium for the buffer's files since the start.
    pub written: u64,
    /// Payload bytes kept since the file was made.
    pub life_payload: u64,
    /// Bytes written to the medium for the buffer's files since then.
    pub life_written: u64,
    /// The device that holds the files, where the kernel knows one.
    pub device: Option<DeviceWear>,
}

/// What the device has taken from everybody.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceWear {
    /// The kernel's name, such as `mmcblk0`.
    pub name: String,
    /// Bytes that it holds.
    pub size: u64,
    /// Bytes written to it while it was watched.
    pub written: u64,
    /// For how long it was watched.
    pub observed: Duration,
    /// Bytes a day, averaged over days.
    pub per_day: Option<u64>,
    /// Bytes that can be written to it.
    pub endurance: u64,
    /// Whether that is our guess and not the configuration's word.
    pub assumed: bool,
    /// Days until the endurance is used up at this pace.
    pub days_left: Option<u64>,
    /// What it says itself.
    pub own: Option<OwnEstimate>,
}

impl Medium {
    /// Of the device that holds the file.
    pub(super) fn holding(file: &Path, endurance: Option<u64>) -> Medium {
        Medium {
            device: file.parent().and_then(Device::below),
            endurance,
            book: Mutex::default(),
        }
    }

    /// Takes over the account of earlier runs.
    pub(super) fn recall(&self, read: impl Fn(&str) -> Option<i64>) {
        self.lock().recall(read);
    }

    /// Payloads were kept.
    pub(super) fn kept(&self, bytes: u64) {
        self.lock().kept(bytes);
    }

    /// Asks the kernel what the calling thread, the only one that writes, has written.
    pub(super) fn wrote(&self) {
        if let Some(written) = written::by_this_thread() {
            self.lock().wrote(written);
        }
    }

    /// Looks at the device, and gives the account as it is to be written down.
    pub(super) fn account(&self, clock: &Clock) -> Vec<(&'static str, i64)> {
        let sample = self.sample(clock);
        let mut book = self.lock();
        if let Some(sample) = sample {
            book.observe(sample);
        }
        book.marks()
    }

    /// What it has come to, as of now.
    pub(super) fn wear(&self, clock: &Clock) -> Wear {
        let mut book = self.lock().clone();
        if let Some(sample) = self.sample(clock) {
            book.observe(sample);
        }
        let Cost { payload, written } = book.since_start();
        let life = book.life();
        Wear {
            payload,
            written,
            life_payload: life.payload,
            life_written: life.written,
            device: self
                .device
                .as_ref()
                .map(|device| self.project(device, &book)),
        }
    }

    fn project(&self, device: &Device, book: &Book) -> DeviceWear {
        let assumed = device.size.saturating_mul(ASSUMED_ENDURANCE);
        let endurance = self.endurance.unwrap_or(assumed);
        let Projection {
            written,
            observed,
            per_day,
            days_left,
        } = book.project(endurance);
        DeviceWear {
            name: device.name.clone(),
            size: device.size,
            written,
            observed,
            per_day,
            endurance,
            assumed: self.endurance.is_none(),
            days_left,
            own: device.own_estimate(),
        }
    }

    fn sample(&self, clock: &Clock) -> Option<Sample> {
        let device = self.device.as_ref()?;
        let uptime_ns = clock.stamp().monotonic_ns;
        Some(Sample {
            boot: clock.boot_number(),
            uptime: Duration::from_nanos(u64::try_from(uptime_ns).unwrap_or(0)),
            written: device.written()?,
            size: device.size,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
