//! The moment that it is, on both clocks. Driver.
//!
//! Whether the wall clock is disciplined is read from the marker that systemd-timesyncd leaves
//! once it has set the clock: `adjtimex` itself has no safe wrapper in the crates used here, and
//! this crate forbids unsafe code. Another time service lets its start-up touch the second marker
//! (`ExecStartPost=/usr/bin/touch /run/gateway/clock-synchronized` beside `chronyc waitsync`).
//!
//! Invariant: a look at the clock costs no system call beyond the two clocks, but once a second.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::reading::{ClockState, Stamp};

/// Any of these exists once the wall clock has been set from a time service.
const SYNCHRONIZED_MARKERS: [&str; 2] = [
    "/run/systemd/timesync/synchronized",
    "/run/gateway/clock-synchronized",
];
/// How long the answer is kept.
const STATE_KEPT: Duration = Duration::from_secs(1);

static STATE: Mutex<Option<(Instant, ClockState)>> = Mutex::new(None);

/// The moment that it is.
pub(crate) fn now() -> Stamp {
    let monotonic = Instant::now();
    Stamp {
        wall: Timestamp::now(),
        monotonic,
        clock: state(monotonic),
    }
}

fn state(now: Instant) -> ClockState {
    let mut kept = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    match *kept {
        Some((at, state)) if now.saturating_duration_since(at) < STATE_KEPT => state,
        _ => {
            let state = look(&SYNCHRONIZED_MARKERS.map(Path::new));
            *kept = Some((now, state));
            state
        }
    }
}

fn look(markers: &[&Path]) -> ClockState {
    if markers.iter().any(|marker| marker.exists()) {
        ClockState::Synced
    } else {
        ClockState::Unsynced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_as_synced_once_a_time_service_says_so() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let marker = directory.path().join("synchronized");
        assert_eq!(look(&[&marker]), ClockState::Unsynced);
        std::fs::write(&marker, "").expect("a marker");
        assert_eq!(look(&[&marker]), ClockState::Synced);
    }

    #[test]
    fn both_clocks_run_forward() {
        let (before, after) = (now(), now());
        assert!(before.monotonic <= after.monotonic);
        assert!(before.wall <= after.wall);
    }
}
