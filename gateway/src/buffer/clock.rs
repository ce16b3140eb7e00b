//! Stamps each row with both clocks, the boot it belongs to and what the wall clock was worth.
//!
//! Invariant: the monotonic part never steps, so that rows taken under a wrong wall clock can be
//! put right later. Layer: driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use crate::{clock, reading::ClockState};

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
}

impl Clock {
    pub(crate) fn new() -> Clock {
        // Without it every start counts as a boot of its own, which only costs precision.
        let boot = fs::read_to_string(BOOT_ID).map_or_else(
            |_| format!("start-{}", clock::now().wall.as_microsecond()),
            |id| id.trim().to_owned(),
        );
        Clock { boot }
    }

    /// The kernel's name for this boot.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Now.
    pub(crate) fn stamp(&self) -> RowStamp {
        let now = clock::now();
        RowStamp {
            wall_us: now.wall.as_microsecond(),
            monotonic_ns: clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
                i64::try_from(Duration::from(time).as_nanos()).unwrap_or(i64::MAX)
            }),
            clock: now.clock,
        }
    }
}

/// The clock of time-outs.
pub(crate) fn now() -> Instant {
    Instant::now()
}
