//! Renders the results as docs/benchmarks/fieldbus.md. A value in, a text out.
//!
//! Invariant: the page holds nothing that is not in the results, so it can be written anew at any time.

use std::fmt::{self, Write};

use super::runs::{self, Load};
use crate::bench::figures::Results;
use crate::bench::page::{self, goal};
use crate::bench::results::Row;
use crate::bench::table::{self, Column, of};
use crate::bench::workloads::Figure;

const OTHERS: [Column; 3] = [
    ("pymodbus", "pymodbus' client"),
    ("mbpoll", "mbpoll"),
    ("thingsboard", "ThingsBoard gateway"),
];
const SATURATED: [Column; 3] = [
    ("every-poll", "gateway, every poll"),
    ("on-change", "gateway, on change"),
    ("pipelined", "gateway, on change, pipelined"),
];
const PACED: [Column; 5] = [
    ("thingsboard", "ThingsBoard gateway"),
    ("every-poll", "gateway, every poll"),
    ("subscribed", "and all delivered to a client"),
    ("devices", "one message per device"),
    ("on-change", "on change"),
];

const METHOD: &str = "\
Written by `cargo xtask bench fieldbus`; `--list` names the runs, each of which can be measured alone. The figures behind
this page are in [fieldbus.json](fieldbus.json).

- The device counts requests and registers itself. A value of a gateway counts when it is published: our broker's count,
  and for ThingsBoard that of a client of Mosquitto. pymodbus' client and mbpoll publish nothing, and their
  values are neither scaled, compared nor given a time: they count as read.
- Each round starts device and peer afresh, the device on the last core, the peer alone on core 0; the peers take turns,
  and the medians stand here. Speed varies on a shared machine: compare within a row.
- \"Every poll\" publishes one MQTT message per point and poll, with value, time and quality; \"on change\" the points that
  changed, which is one in each read: the device counts in register 0. Both send one request at a time, \"pipelined\" up to 16,
  not beside pymodbus' server, whose answers then nearly stopped. \"On change\" counts polls of the point that changes: where a device takes
  several requests, the others may be some per cent behind, as the registers read show.
  \"×\" is the best of ours by the best of the others.
- Ours polls each point every millisecond, the shortest interval there is: one device cannot be polled more than 1,000
  times a second, whatever it can.
- pymodbus' client is a program with one `await client.read_holding_registers()` per contiguous range, so one per point
  where they are scattered. mbpoll reads one range, and waits at least 10 ms between two polls. The ThingsBoard gateway sends
  one request per tag; it has a poll period of 100 ms, at which it delivered most of 125 values: at 10 to 70 ms it read more
  and delivered less. It sends nothing until its platform has told it the limits of its session, so a small program
  (`tests/peers/thingsboard.py`) grants that.
- Telegraf is in neither Debian 12 nor PyPI, npm or crates.io, and not compared.
";

const LIMITS: &str = "\
Where registers are scattered or many units share a connection, what counts is how few requests are sent, and how many at
once. Of one device with contiguous registers ours is held by its shortest interval, not by its processor: 1,000 polls a
second, in which a client that only reads and keeps nothing is several times faster.

An interval that means \"as fast as it answers\" would not reach five times such a client's rate, and is not offered. That client has
one request of the greatest length under way at any moment: its rate is the device's own, which nobody exceeds who does not send
several at once, and devices answer those one after the other. At best ours would come level with it, at about a microsecond of
one core for each value to decode, compare and judge, and two to five more to publish: most of a core spent on
values that no process changes that often. Beside the other gateway, which does the same work, the goal is met on each row.
";

/// The whole page.
pub(crate) fn render(results: &Results) -> Result<String, fmt::Error> {
    let mut out = String::new();
    page::head(&mut out, "The field bus beside others", METHOD, results)?;
    let all = runs::all();
    goals(&mut out, results)?;
    writeln!(out, "## What limits it\n\n{LIMITS}")?;
    let saturated: Vec<Column> = OTHERS.into_iter().chain(SATURATED).collect();
    let is = |wanted: fn(&Load) -> bool| {
        let wanted = all.iter().filter(move |run| wanted(&run.load));
        wanted.map(|run| (run.name.as_str(), run.figures()))
    };
    writeln!(
        out,
        "## Over Modbus TCP, as fast as it goes\n\n\
         Against libmodbus' server in C, and pymodbus' in Python, which needs about ten times the processor time for \
         a request: who waits for each answer before the next request waits for that.\n"
    )?;
    let rows = is(|load| matches!(load, Load::Saturated(..)));
    table::write(&mut out, results, rows, &saturated, Some(by_the_best))?;
    writeln!(
        out,
        "## At a fixed rate\n\n100 points of one device by libmodbus, every 100 ms and every 10 ms.\n"
    )?;
    let rows = is(|load| matches!(load, Load::Paced(..)));
    table::write(&mut out, results, rows, &PACED, None)?;
    table::faults(&mut out, results)?;
    Ok(out)
}

/// What was to be reached, and whether it was.
fn goals(out: &mut String, results: &Results) -> fmt::Result {
    page::goals(out)?;
    for rate in ["1000", "10000"] {
        for (peer, title) in [("every-poll", "every poll"), ("on-change", "on change")] {
            let run = format!("paced-{rate}-1x100-contiguous");
            if let Some(value) = results.get(&run, peer, runs::CPU) {
                let title = format!("CPU µs per point at {rate} points/s, {title}");
                goal(out, &title, "under 10", value, value < 10.0)?;
            }
        }
    }
    for run in runs::all() {
        let Some(row) = results.rows.get(&run.name) else {
            continue;
        };
        for (peers, who) in [
            (&OTHERS[..], "the best peer's"),
            (&OTHERS[2..], "the ThingsBoard gateway's"),
        ] {
            if let (Load::Saturated(..), Some(ratio)) = (&run.load, ratio(row, peers, runs::POINTS))
            {
                let title = format!("points/s by {who}, {}", run.name);
                goal(out, &title, "at least 5", ratio, ratio >= 5.0)?;
            }
        }
    }
    writeln!(out)
}

/// Not of what the device does.
fn by_the_best(row: &Row, figure: Figure) -> Option<f64> {
    ratio(row, &OTHERS, figure).filter(|_| figure.key != runs::DEVICE.key)
}

/// How many times better the best of ours is than the best of these others.
fn ratio(row: &Row, others: &[Column], figure: Figure) -> Option<f64> {
    let best = |columns: &[Column]| {
        let values = columns.iter().filter_map(|(peer, _)| of(row, peer, figure));
        match figure.more_is_better {
            true => values.reduce(f64::max),
            false => values.reduce(f64::min),
        }
    };
    let (ours, theirs) = (best(&SATURATED)?, best(others)?);
    Some(match figure.more_is_better {
        true => ours / theirs,
        false => theirs / ours,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_ours_is_compared_with_the_best_of_the_others() {
        let of = |value: f64| {
            let figures = [("points_per_s", value), ("cpu_us", value)];
            figures.map(|(key, value)| (key.to_owned(), value)).into()
        };
        let peers = [
            ("pymodbus", 4.0),
            ("mbpoll", 2.0),
            ("every-poll", 8.0),
            ("pipelined", 20.0),
        ];
        let row = Row {
            medians: peers
                .map(|(peer, value)| (peer.to_owned(), of(value)))
                .into(),
            ..Row::default()
        };
        assert_eq!(ratio(&row, &OTHERS, runs::POINTS), Some(5.0));
        assert_eq!(ratio(&row, &OTHERS, runs::CPU), Some(0.25));
    }

    #[test]
    fn every_peer_of_a_run_has_a_column() {
        for run in runs::all() {
            let columns: Vec<Column> = match run.load {
                Load::Saturated(..) => OTHERS.into_iter().chain(SATURATED).collect(),
                Load::Paced(..) => PACED.to_vec(),
            };
            for peer in &run.peers {
                let has_one = columns.iter().any(|(key, _)| *key == peer.key());
                assert!(has_one, "{} in {}", peer.key(), run.name);
            }
        }
    }
}
