//! Renders the results as docs/benchmarks/store.md. A value in, a text out.
//!
//! Invariant: the page holds nothing that is not in the results, so it can be written anew at any time.

use std::fmt::{self, Write};

use super::runs;
use crate::bench::figures::Results;
use crate::bench::page::{self, goal};
use crate::bench::results::Row;
use crate::bench::table::{self, Column, of};
use crate::bench::workloads::Figure;

const COLUMNS: [Column; 4] = [
    ("bare", "rumqttc alone"),
    ("mosquitto", "Mosquitto with a bridge"),
    ("thingsboard", "ThingsBoard gateway's storage"),
    ("ours", "gateway"),
];

const METHOD: &str = "\
Written by `cargo xtask bench store`; `--list` names the runs, each of which can be measured alone, `--full` adds ten million
waiting messages. The figures behind this page are in [store.json](store.json).

- Payloads are of 100 bytes. The upstream is a Mosquitto that stores nothing, on the last core; the store is alone on core 0,
  but for `append-library`, which may use all cores. Everything is sent at QoS 1 with 100 messages under way.
- `append-library` counts receipts, each given after the commit that holds the message, with 50,000 messages waiting for
  theirs at most; of the ThingsBoard gateway's storage, rows that another connection sees, which is before they are on disk:
  it commits without a sync. `append-mqtt` counts PUBACKs of four publishers while the upstream is away. Mosquitto's come before anything is on disk: as shipped it saves every half an
  hour, and what it has written by the end of the run is what stands here.
- `drain` counts what the upstream has acknowledged: by our metrics, by rumqttc's PUBACKs, and for Mosquitto's bridge by the
  upstream's own count, which comes once a second. The ThingsBoard gateway's storage is read and emptied without sending
  anything, with 100,000 messages.
- `latency` is from a publisher's clock, or from the moment of a Modbus answer as the reading bears it, in milliseconds, to
  a subscriber behind the upstream; `load` adds 5,000 other messages a second. `memory` is two seconds after a start with
  so many messages in the buffer and the upstream away.
- Bytes written are the kernel's account of the process (`write_bytes` of `/proc/PID/io`), so before whatever the device makes
  of them. The peers take turns, and the medians stand here: compare within a row. \"×\" is ours by the better of the two
  other stores.
";

/// The whole page.
pub(crate) fn render(results: &Results) -> Result<String, fmt::Error> {
    let mut out = String::new();
    page::head(&mut out, "The buffer beside others", METHOD, results)?;
    goals(&mut out, results)?;
    writeln!(out, "## All figures\n")?;
    let all = runs::all();
    let rows = all.iter().map(|run| (run.name.as_str(), run.figures()));
    table::write(&mut out, results, rows, &COLUMNS, Some(ratio))?;
    table::faults(&mut out, results)?;
    Ok(out)
}

/// What was to be reached, and whether it was.
fn goals(out: &mut String, results: &Results) -> fmt::Result {
    page::goals(out)?;
    let ours = |run: &str, figure| results.get(run, "ours", figure);
    if let Some(rate) = ours("append-library-100", runs::RATE) {
        let title = "durable appends/s at 100 bytes";
        goal(out, title, "at least 100,000", rate, rate >= 1e5)?;
    }
    let drain = "drain-1000000";
    if let (Some(rate), Some(bare)) = (
        ours(drain, runs::RATE),
        results.get(drain, "bare", runs::RATE),
    ) {
        let share = rate / bare * 100.0;
        let title =
            "drain of 1,000,000 messages, % of what the upstream accepts from rumqttc alone";
        goal(out, title, "at least 80", share, share >= 80.0)?;
    }
    if let Some(p99) = ours("latency-sensor-rest", runs::P99) {
        let title = "99th percentile from sensor to upstream at rest, ms";
        goal(out, title, "under 20", p99, p99 < 20.0)?;
    }
    if let Some(empty) = ours("memory-0", runs::MEMORY) {
        for (run, rows) in [
            ("memory-1000000", "1,000,000"),
            ("memory-10000000", "10,000,000"),
        ] {
            if let Some(full) = ours(run, runs::MEMORY) {
                let title = format!("resident with {rows} waiting messages, % of that with none");
                let share = full / empty * 100.0;
                goal(out, &title, "at most 110", share, share <= 110.0)?;
            }
        }
    }
    writeln!(out)
}

/// How many times better ours is than the better of the other stores.
fn ratio(row: &Row, figure: Figure) -> Option<f64> {
    let ours = of(row, "ours", figure)?;
    let theirs = ["mosquitto", "thingsboard"];
    let theirs = theirs.iter().filter_map(|peer| of(row, peer, figure));
    let (better, worse) = match figure.more_is_better {
        true => (ours, theirs.reduce(f64::max)?),
        false => (theirs.reduce(f64::min)?, ours),
    };
    (worse > 0.0).then(|| better / worse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figure: Figure, values: &[(&str, f64)]) -> Row {
        let of = |value: f64| [(figure.key.to_owned(), value)].into();
        let medians = values.iter();
        Row {
            medians: medians
                .map(|(peer, value)| ((*peer).to_owned(), of(*value)))
                .collect(),
            ..Row::default()
        }
    }

    #[test]
    fn ours_is_compared_with_the_better_store_and_not_with_no_store_at_all() {
        let values = [
            ("bare", 100.0),
            ("mosquitto", 10.0),
            ("thingsboard", 5.0),
            ("ours", 20.0),
        ];
        let rate = row(runs::RATE, &values);
        assert_eq!(ratio(&rate, runs::RATE), Some(2.0));
        let memory = row(runs::MEMORY, &values);
        assert_eq!(ratio(&memory, runs::MEMORY), Some(0.25));
    }

    #[test]
    fn a_goal_that_is_missed_is_called_so() {
        let mut results = Results::default();
        for (run, value) in [("memory-0", 100.0), ("memory-1000000", 120.0)] {
            let row = row(runs::MEMORY, &[("ours", value)]);
            results.rows.insert(run.to_owned(), row);
        }
        let mut out = String::new();
        goals(&mut out, &results).unwrap();
        assert!(out.contains("| at most 110 | 120 | missed |"), "{out}");
    }

    #[test]
    fn every_peer_of_a_run_has_a_column() {
        for run in runs::all() {
            for peer in &run.peers {
                let has_one = COLUMNS.iter().any(|(key, _)| *key == peer.key());
                assert!(has_one, "{} in {}", peer.key(), run.name);
            }
        }
    }
}
