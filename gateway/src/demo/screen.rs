//! What the person in front of the demonstration sees. Core: state in, text out.
//!
//! Invariant: no line is wider than 80 columns; without a terminal there is no escape byte.

use std::{collections::VecDeque, fmt::Write, time::Duration};

use super::ledger::{Ledger, Totals};

/// Columns of the screen.
const WIDTH: usize = 80;
/// Points shown; the demonstration has fewer.
const POINTS_MAX: usize = 12;
/// Happenings shown.
const EVENTS_SHOWN: usize = 5;
/// Cells of the bar that shows the backlog.
const BAR_CELLS: usize = 30;
/// Readings that fill the bar.
const BAR_FULL: u64 = 300;

/// Everything there is to see.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Time since the start.
    pub(super) elapsed: Duration,
    /// Readings taken and arrived.
    pub(super) ledger: Ledger,
    /// Where each device hangs: topic level to wire.
    wires: Vec<(&'static str, String)>,
    /// The upstream link in words, and whether it is up.
    pub(super) link: String,
    /// Whether the link is up.
    pub(super) linked: bool,
    /// Messages in the SQLite buffer.
    pub(super) buffered: u64,
    /// How to watch with a client of one's own.
    attach: String,
    events: VecDeque<String>,
}

impl View {
    /// Nothing seen yet.
    pub(super) fn new(wires: Vec<(&'static str, String)>, attach: String) -> View {
        View {
            wires,
            attach,
            ..View::default()
        }
    }

    /// Notes a happening; returns the line, for output without a terminal.
    pub(super) fn happened(&mut self, what: &str) -> String {
        let line = format!("{}  {what}", clock(self.elapsed));
        self.events.push_back(line.clone());
        if self.events.len() > EVENTS_SHOWN {
            self.events.pop_front();
        }
        line
    }

    /// The whole screen, for a terminal.
    pub(super) fn screen(&self) -> String {
        let mut lines = vec![
            bold(&spread(
                &format!("gateway demo   {}", clock(self.elapsed)),
                "Ctrl-C stops",
            )),
            String::new(),
            dim(&format!(
                "{:<34}{:<26}{:>10}{:>10}",
                "WIRE", "POINT", "VALUE", "READINGS"
            )),
        ];
        lines.extend(self.points());
        lines.push(String::new());
        lines.extend(self.flow());
        lines.push(String::new());
        lines.extend(self.events.iter().map(|event| clip(event)));
        lines.extend((self.events.len()..EVENTS_SHOWN).map(|_| String::new()));
        lines.push(String::new());
        lines.push(dim("Watch with a client of your own:"));
        lines.push(format!("  {}", self.attach));
        // No line end after the last: on 24 lines it would push the first one out.
        lines.join("\n")
    }

    fn points(&self) -> Vec<String> {
        let mut previous = "";
        self.ledger
            .topics()
            .take(POINTS_MAX)
            .map(|(topic, account)| {
                let point = topic.trim_start_matches("telemetry/");
                let device = point.split('/').next().unwrap_or(point);
                let wire = if device == previous {
                    ""
                } else {
                    self.wire_of(device)
                };
                previous = device;
                clip(&format!(
                    "{wire:<34}{point:<26}{:>10}{:>10}",
                    account.last, account.taken
                ))
            })
            .collect()
    }

    fn wire_of(&self, device: &str) -> &str {
        self.wires
            .iter()
            .find(|(name, _)| *name == device)
            .map_or("", |(_, wire)| wire)
    }

    fn flow(&self) -> Vec<String> {
        let Totals {
            taken,
            forwarded,
            waiting,
            ..
        } = self.ledger.totals();
        let link = clip(&format!("upstream   {}", self.link));
        vec![
            clip(&format!(
                "buffer     {} {} in SQLite",
                bar(self.buffered),
                self.buffered
            )),
            if self.linked {
                green(&link)
            } else {
                red(&link)
            },
            format!("readings   taken {taken}   forwarded {forwarded}   waiting {waiting}"),
        ]
    }

    /// One line of the same, for a pipe.
    pub(super) fn line(&self) -> String {
        let Totals {
            taken,
            forwarded,
            waiting,
            ..
        } = self.ledger.totals();
        format!(
            "{}  taken {taken}, forwarded {forwarded}, waiting {waiting}, upstream {}",
            clock(self.elapsed),
            self.link
        )
    }

    /// The last words.
    pub(super) fn summary(&self) -> String {
        let Totals {
            taken,
            forwarded,
            waiting,
            repeated,
        } = self.ledger.totals();
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "ran for:            {}", clock(self.elapsed));
        let _infallible = writeln!(text, "readings taken:     {taken}");
        let _infallible = writeln!(text, "readings forwarded: {forwarded}");
        let _infallible = writeln!(text, "sent twice:         {repeated}");
        let _infallible = writeln!(text, "lost: {waiting}");
        text
    }
}

fn clock(elapsed: Duration) -> String {
    format!(
        "{:02}:{:02}",
        elapsed.as_secs() / 60,
        elapsed.as_secs() % 60
    )
}

fn bar(count: u64) -> String {
    let filled =
        usize::try_from(count.min(BAR_FULL) * BAR_CELLS as u64 / BAR_FULL).unwrap_or(BAR_CELLS);
    let filled = filled.max(usize::from(count > 0));
    format!("{}{}", "█".repeat(filled), "░".repeat(BAR_CELLS - filled))
}

fn spread(left: &str, right: &str) -> String {
    let gap = WIDTH.saturating_sub(left.chars().count() + right.chars().count());
    format!("{left}{}{right}", " ".repeat(gap))
}

fn clip(line: &str) -> String {
    line.chars().take(WIDTH).collect()
}

fn bold(text: &str) -> String {
    format!("\x1b[1m{text}\x1b[0m")
}

fn dim(text: &str) -> String {
    format!("\x1b[2m{text}\x1b[0m")
}

fn green(text: &str) -> String {
    format!("\x1b[32m{text}\x1b[0m")
}

fn red(text: &str) -> String {
    format!("\x1b[31m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy_view() -> View {
        let mut view = View {
            elapsed: Duration::from_secs(65),
            link: "down since 6 s: cannot connect to 127.0.0.1:38883: connection refused, trying again in 4 s".to_owned(),
            buffered: 4_711,
            wires: vec![("meter-1", "rs485-0  Modbus RTU 19200 8E1".to_owned())],
            ..View::default()
        };
        for sequence in 1..=50 {
            view.ledger.taken(
                "telemetry/meter-1/a-point-with-quite-a-long-name",
                sequence,
                "-12345.678901 kvarh".to_owned(),
            );
        }
        for event in 0..20 {
            view.happened(&format!("{event} {}", "something happened ".repeat(8)));
        }
        view
    }

    fn visible(line: &str) -> String {
        let mut text = String::new();
        let mut escape = false;
        for character in line.chars() {
            match (escape, character) {
                (false, '\x1b') => escape = true,
                (true, 'm') => escape = false,
                (true, _) => {}
                (false, character) => text.push(character),
            }
        }
        text
    }

    #[test]
    fn the_screen_fits_a_terminal_of_80_columns_and_24_lines() {
        let screen = busy_view().screen();
        assert!(
            screen.lines().count() <= 24,
            "{} lines",
            screen.lines().count()
        );
        for line in screen.lines() {
            assert!(visible(line).chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn output_for_a_pipe_has_no_escape_bytes() {
        let view = busy_view();
        assert!(!view.line().contains('\x1b'));
        assert!(!view.summary().contains('\x1b'));
    }

    #[test]
    fn a_small_backlog_still_shows_in_the_bar() {
        assert!(bar(1).starts_with('█'));
        assert!(!bar(0).contains('█'));
        assert_eq!(
            bar(u64::MAX).chars().filter(|cell| *cell == '█').count(),
            BAR_CELLS
        );
    }
}
