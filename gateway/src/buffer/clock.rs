//! Stamps each row with both clocks, the boot it belongs to and what the wall clock was worth.
//!
//! Invariant: the monotonic part never steps, so that rows taken under a wrong wall clock can be
//! put right later. Layer: driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::reading::ClockState;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A moment as a row remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowStamp {
    /// Wall clock, microseconds since 1970.
    pub(crate) wall_us: i64,
    /// Since boot, suspended time included.
    pub(crate) monotonic_ns: i64,
    /// What the wall clock was worth.
    pub(crate) clock: ClockState,
}

/// This machine's clocks.
#[derive(Debug)]
pub(crate) struct Clock {
    boot: String,
    synced: AtomicBool,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        // Without it every start counts as a boot of its own, which only costs precision.
        let boot = fs::read_to_string(BOOT_ID).map_or_else(
            |_| format!("start-{}", wall_us()),
            |id| id.trim().to_owned(),
        );
        Clock {
            boot,
            synced: AtomicBool::new(false),
        }
    }

    /// The kernel's name for this boot.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Says what the wall clock is worth from now on.
    pub(crate) fn set_state(&self, state: ClockState) {
        self.synced
            .store(state == ClockState::Synced, Ordering::Relaxed);
    }

    /// The wall clock.
    pub(crate) fn timestamp(&self) -> Timestamp {
        Timestamp::from_microsecond(wall_us()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Now.
    pub(crate) fn stamp(&self) -> RowStamp {
        RowStamp {
            wall_us: wall_us(),
            monotonic_ns: clock_gettime(ClockId::CLOCK_BOOTTIME)
                .map_or(0, |time| Duration::from(time).as_nanos() as i64),
            clock: if self.synced.load(Ordering::Relaxed) {
                ClockState::Synced
            } else {
                ClockState::Unsynced
            },
        }
    }
}

/// The clock of time-outs.
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn wall_us() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        })
}
