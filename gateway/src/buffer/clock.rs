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

impl RowStamp {
    /// The same moment by a clock that has become right since, in the same boot.
    pub(super) fn corrected(self, now: RowStamp) -> RowStamp {
        if self.clock == ClockState::Synced || now.clock != ClockState::Synced {
            return self;
        }
        let ago_us = (now.monotonic_ns - self.monotonic_ns) / 1000;
        RowStamp {
            wall_us: now.wall_us - ago_us,
            clock: ClockState::Synced,
            ..self
        }
    }
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

    /// The same as a number that stays what it is over versions: FNV-1a of the name.
    pub(crate) fn boot_number(&self) -> i64 {
        let hash = self
            .boot
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        (hash >> 1) as i64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_taken_before_the_clock_was_known_gets_its_time_when_it_is() {
        let stamp = |wall_us, monotonic_ns, clock| RowStamp {
            wall_us,
            monotonic_ns,
            clock,
        };
        let early = stamp(5_000_000, 3_000_000_000, ClockState::Unsynced);
        let later = stamp(1_700_000_000_000_000, 10_000_000_000, ClockState::Synced);
        let corrected = early.corrected(later);
        assert_eq!(corrected.wall_us, 1_700_000_000_000_000 - 7_000_000);
        assert_eq!(corrected.clock, ClockState::Synced);
        let unknown = stamp(9_000_000, 7_000_000_000, ClockState::Unsynced);
        assert_eq!(early.corrected(unknown), early);
        let known = stamp(1, 3_000_000_000, ClockState::Synced);
        assert_eq!(known.corrected(later), known, "a step does not touch it");
    }
}
