//! How far a long command is: a bar on a terminal, plain lines elsewhere. Shell.
//!
//! Invariant: it goes to standard error, so that what is printed for programs stays clean.
#![expect(clippy::print_stderr, reason = "progress stands beside the output")]

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

/// Characters of the bar.
const BAR: usize = 30;
/// Plain lines are printed once per so many hundredths.
const PLAIN_STEP: usize = 10;

/// The progress of one command.
pub(super) struct Progress {
    terminal: bool,
    told: Option<usize>,
}

impl Progress {
    /// Progress that has not begun; none is shown when `quiet`.
    pub(super) fn new() -> Progress {
        Progress {
            terminal: io::stderr().is_terminal(),
            told: None,
        }
    }

    /// Shows how much is done and what the rest takes.
    pub(super) fn show(&mut self, (done, all): (usize, usize), left: Duration, doing: &str) {
        let percent = done * 100 / all.max(1);
        if self.terminal {
            eprint!(
                "\r\x1b[K{} {percent:>3} %  {doing}, about {} left",
                bar(percent),
                time(left)
            );
            return;
        }
        let step = percent / PLAIN_STEP;
        if self.told != Some(step) {
            self.told = Some(step);
            eprintln!("{percent} %: {doing}, about {} left", time(left));
        }
    }

    /// Says something that stays.
    pub(super) fn say(&mut self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn bar(percent: usize) -> String {
    let full = percent.min(100) * BAR / 100;
    format!("[{}{}]", "#".repeat(full), ".".repeat(BAR - full))
}

/// `3 min 20 s`.
fn time(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_bars_read_well() {
        assert_eq!(time(Duration::from_millis(300)), "1 s");
        assert_eq!(time(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(time(Duration::from_secs(7300)), "2 h 1 min");
        assert_eq!(bar(50), "[###############...............]");
    }
}
