//! When a release on trial has had its time. Driver: owns the clock.
//!
//! The time runs from the first look in this start of the machine, however often the updater itself is started again: it
//! stands in a file that a start of the machine clears away.
//!
//! Invariant: nothing but a commit or a roll-back stops it.

use std::{fs, path::PathBuf, time::Duration};

use nix::time::{ClockId, clock_gettime};
use tracing::warn;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// See the module's description.
#[derive(Debug)]
pub(super) struct Deadline {
    file: PathBuf,
    patience: Duration,
    /// Since the machine was started.
    ends: Option<Duration>,
}

impl Deadline {
    /// `folder` is empty after a start of the machine.
    pub(super) fn new(folder: PathBuf, patience: Duration) -> Deadline {
        Deadline {
            file: folder.join("trial"),
            patience,
            ends: None,
        }
    }

    /// The release on trial runs.
    pub(super) fn begin(&mut self) {
        if self.ends.is_some() {
            return;
        }
        let since = self.noted().unwrap_or_else(|| {
            let now = now();
            let note = format!("{} {}", boot_id(), now.as_secs());
            if let Err(error) = fs::write(&self.file, note) {
                warn!(%error, file = %self.file.display(), "a restart of the updater begins the trial's time anew");
            }
            now
        });
        self.ends = Some(since + self.patience);
    }

    /// It was committed or rolled back.
    pub(super) fn end(&mut self) {
        self.ends = None;
        // A later trial of this start has its own time.
        let _ = fs::remove_file(&self.file);
    }

    /// What is left of it, while there is a trial.
    pub(super) fn left(&self) -> Option<Duration> {
        Some(self.ends?.saturating_sub(now()))
    }

    /// How long it was, once it has passed.
    pub(super) fn passed(&self) -> Option<Duration> {
        (self.left()?.is_zero()).then_some(self.patience)
    }

    /// When the trial began, by a note of this very start.
    fn noted(&self) -> Option<Duration> {
        let text = fs::read_to_string(&self.file).ok()?;
        let (id, seconds) = text.split_once(' ')?;
        (id == boot_id()).then(|| seconds.trim().parse().ok().map(Duration::from_secs))?
    }
}

fn boot_id() -> String {
    let id = fs::read_to_string(BOOT_ID).unwrap_or_default();
    id.trim().to_owned()
}

/// Since the machine was started, in whatever state it slept meanwhile.
fn now() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    now.expect("every Linux since 2.6.39 has this clock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_updater_that_is_started_again_does_not_give_a_release_more_time() {
        let folder = tempfile::tempdir().unwrap();
        let deadline = |patience| {
            let mut deadline = Deadline::new(folder.path().to_owned(), patience);
            deadline.begin();
            deadline
        };
        let first = deadline(Duration::from_secs(1000)).ends;
        assert_eq!(
            deadline(Duration::from_secs(1000)).ends.unwrap().as_secs(),
            first.unwrap().as_secs()
        );
        let mut over = deadline(Duration::ZERO);
        assert!(over.passed().is_some());
        over.end();
        assert!(over.passed().is_none());
        assert!(!folder.path().join("trial").exists());
    }

    #[test]
    fn a_note_of_an_earlier_start_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("trial"), "other-start 0").unwrap();
        let mut deadline = Deadline::new(folder.path().to_owned(), Duration::from_secs(60));
        deadline.begin();
        assert!(deadline.passed().is_none());
    }
}
