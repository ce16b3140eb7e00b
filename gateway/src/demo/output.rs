//! Shows the demonstration: a screen on a terminal, plain lines elsewhere. Driver.
//!
//! Invariant: without a terminal nothing but text and line ends is written.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use super::screen::View;

/// Pause between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Where the demonstration is shown.
pub(super) struct Output {
    terminal: bool,
    next_line: Duration,
}

impl Output {
    /// Standard output, whatever it is.
    pub(super) fn new() -> Output {
        let terminal = io::stdout().is_terminal();
        if terminal {
            write("\x1b[?25l\x1b[2J");
        }
        Output {
            terminal,
            next_line: Duration::ZERO,
        }
    }

    /// Shows the state: redraws the screen, or writes a line now and then.
    pub(super) fn show(&mut self, view: &View) {
        if self.terminal {
            // Each line clears its own rest, so that nothing flickers.
            let screen = view.screen().replace('\n', "\x1b[K\n");
            write(&format!("\x1b[H{screen}\x1b[J"));
        } else if view.elapsed >= self.next_line {
            self.next_line = view.elapsed + LINE_INTERVAL;
            write(&format!("{}\n", view.line()));
        }
    }

    /// A happening; the screen shows it by itself.
    pub(super) fn event(&self, line: &str) {
        if !self.terminal {
            write(&format!("{line}\n"));
        }
    }

    /// The last words, below everything.
    pub(super) fn finish(&self, view: &View) {
        write(&format!("\n{}", view.summary()));
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.terminal {
            write("\x1b[?25h");
        }
    }
}

/// A reader that went away must not end the demonstration with a panic.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _reader_gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
