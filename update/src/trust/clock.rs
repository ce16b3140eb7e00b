//! What time it is, for the expiry of release metadata. Driver.
//!
//! Invariant: a time is trusted only once a time service set the clock, and never when it is earlier than what is known
//! to have passed; all else is a lower bound, by which nothing expires.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tuf::time::{Clock, Now, lower_bound};

/// Any of these exists once the wall clock has been set from a time service: systemd-timesyncd leaves the first one,
/// and another service's start-up touches the second.
pub const SYNCHRONIZED_MARKERS: [&str; 2] = [
    "/run/systemd/timesync/synchronized",
    "/run/gateway/clock-synchronized",
];

/// The last time that a signature of the vendor told.
const SIGNED_FILE: &str = "signed-time";
/// Bytes of it that are read.
const SIGNED_MAX: usize = 64;

/// The device's clock as far as it can be believed.
#[derive(Debug, Clone)]
pub struct DeviceClock {
    build: Timestamp,
    signed: Option<Timestamp>,
    markers: Vec<PathBuf>,
}

impl DeviceClock {
    /// The clock of a program built at `build`, with the last signed time that `state` remembers. One that does not
    /// read is none: it would only have made the bound later.
    pub fn load(build: Timestamp, state: &Path) -> DeviceClock {
        DeviceClock {
            build,
            signed: read_signed(&state.join(SIGNED_FILE)),
            markers: SYNCHRONIZED_MARKERS.map(PathBuf::from).to_vec(),
        }
    }

    /// The same with other markers, for tests.
    #[must_use]
    pub fn with_markers(mut self, markers: &[&Path]) -> DeviceClock {
        self.markers = markers.iter().map(|path| path.to_path_buf()).collect();
        self
    }

    /// What the wall clock says is the chip's time until a time service sets it.
    fn at(&self, wall: Timestamp) -> Now {
        let bound = lower_bound(self.build, self.signed, Some(wall));
        let is_set = self.markers.iter().any(|marker| marker.exists());
        // A clock that was set and is behind the bound was set wrongly.
        match is_set && bound == wall {
            true => Now::Trusted(wall),
            false => Now::AtLeast(bound),
        }
    }
}

impl Clock for DeviceClock {
    fn now(&self) -> Now {
        self.at(Timestamp::now())
    }
}

/// Remembers a time that stands in something the vendor signed and this device verified. It never goes back.
///
/// # Errors
/// The file cannot be written.
pub fn remember_signed(state: &Path, time: Timestamp) -> io::Result<()> {
    let path = state.join(SIGNED_FILE);
    if read_signed(&path).is_some_and(|before| before >= time) {
        return Ok(());
    }
    tuf::directory::replace_file(&path, |file| writeln!(file, "{time}"))
}

fn read_signed(path: &Path) -> Option<Timestamp> {
    let text = fs::read_to_string(path).ok()?;
    text.get(..text.len().min(SIGNED_MAX))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_is_trusted_only_when_it_was_set_and_is_not_behind_what_is_known() {
        let state = tempfile::tempdir().unwrap();
        let marker = state.path().join("synchronized");
        let build = at("2026-01-01T00:00:00Z");
        remember_signed(state.path(), at("2026-06-01T00:00:00Z")).unwrap();
        let clock = DeviceClock::load(build, state.path()).with_markers(&[&marker]);
        let (early, late) = (at("2026-02-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
        assert_eq!(clock.at(late), Now::AtLeast(late));
        assert_eq!(
            clock.at(Timestamp::UNIX_EPOCH),
            Now::AtLeast(at("2026-06-01T00:00:00Z"))
        );
        fs::write(&marker, "").unwrap();
        assert_eq!(clock.at(late), Now::Trusted(late));
        assert_eq!(clock.at(early), Now::AtLeast(at("2026-06-01T00:00:00Z")));
    }

    #[test]
    fn a_signed_time_never_goes_back_and_maxint_is_not_believed() {
        let state = tempfile::tempdir().unwrap();
        let build = at("2026-01-01T00:00:00Z");
        let later = at("2026-06-01T00:00:00Z");
        remember_signed(state.path(), later).unwrap();
        remember_signed(state.path(), build).unwrap();
        let bound = |state: &Path| {
            DeviceClock::load(build, state)
                .with_markers(&[])
                .at(Timestamp::UNIX_EPOCH)
        };
        assert_eq!(bound(state.path()), Now::AtLeast(later));
        fs::write(state.path().join(SIGNED_FILE), "9999-12-30T00:00:00Z").unwrap();
        assert_eq!(bound(state.path()), Now::AtLeast(build));
        fs::write(state.path().join(SIGNED_FILE), "torn").unwrap();
        assert_eq!(bound(state.path()), Now::AtLeast(build));
    }
}
