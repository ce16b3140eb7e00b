//! Renders the results as docs/benchmarks/broker.md. A value in, a text out.
//!
//! Invariant: the document holds nothing that is not in the results, so it can be written anew at any time.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::results::{Results, Row};
use super::workloads::{self, Extent, Figure, Section, Workload};

/// Brokers in the order of the columns.
const COLUMNS: [(&str, &str); 3] = [
    ("mosquitto", "Mosquitto"),
    ("rumqttd", "rumqttd"),
    ("ours", "broker-lite"),
];

/// A row of the first table: what the best of four peers reached when the goals were set.
struct Goal {
    title: &'static str,
    workload: &'static str,
    key: &'static str,
    best: &'static str,
}

const fn goal(
    title: &'static str,
    workload: &'static str,
    key: &'static str,
    best: &'static str,
) -> Goal {
    Goal {
        title,
        workload,
        key,
        best,
    }
}

const GOALS: [Goal; 11] = [
    goal(
        "CPU µs per message, QoS 0, 1 to 1 at 10,000/s",
        "burst-qos0-1to1-10k",
        "cpu_us",
        "6.1 (Mosquitto 2.0.11)",
    ),
    goal(
        "CPU µs per message, QoS 1, 1 to 1 at 4,000/s",
        "burst-qos1-1to1-4k",
        "cpu_us",
        "21 (Mosquitto 2.1.2)",
    ),
    goal(
        "CPU µs per message, QoS 0, 1 to 20 at 500/s",
        "burst-qos0-1to20-500",
        "cpu_us",
        "4.2 (Mosquitto 2.1.2)",
    ),
    goal(
        "resident at rest, KB",
        "rest",
        "memory_kb",
        "2,900 (NanoMQ 0.25)",
    ),
    goal(
        "KB per idle connection with a subscription",
        "idle-1000-tcp",
        "kb_per_connection",
        "1.7 (Mosquitto 2.0.11)",
    ),
    goal(
        "connections/s, plain, 10 at a time",
        "connects-tcp",
        "rate",
        "10,800 (Mosquitto 2.0.11)",
    ),
    goal(
        "resident after the load, KB",
        "after",
        "memory_kb",
        "46,000 (Mosquitto 2.1.2)",
    ),
    goal(
        "context switches/s when idle",
        "rest",
        "switches_per_s",
        "0 (NanoMQ, rumqttd)",
    ),
    goal(
        "acknowledged QoS 1 lost by SIGKILL, of 200",
        "killed",
        "lost",
        "200 (all)",
    ),
    goal(
        "messages/s saturated, QoS 0, 1 to 1, at least twice Mosquitto's",
        "1to1-qos0-64-tcp",
        "rate",
        "",
    ),
    goal(
        "durable QoS 1 messages/s, at least 50 times Mosquitto's",
        "durable-absent-1to1",
        "rate",
        "",
    ),
];

pub(crate) fn write(results: &Results, path: &Path) -> Result<()> {
    let text = render(results).context("a text can be written")?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn render(results: &Results) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let cores = &results.broker_cores;
    writeln!(
        out,
        "# broker-lite beside Mosquitto and rumqttd\n\n\
         Written by `cargo xtask bench broker`; `--list` names the workloads, each of which can be measured alone. \
         The figures behind this page are in [broker.json](broker.json).\n\n\
         - Machine: {}. Broker on core {cores}, load generator on the last one, loopback between them.\n\
         - Brokers: {}.\n\
         - Method: each run starts its broker afresh; the brokers take turns, round after round, and the medians \
         stand here. Speed varies on a shared machine, and all brokers share that: compare within a row. \"×\" says \
         how many times better broker-lite is than Mosquitto.\n\
         - Configurations: as shipped, with limits raised so far that they do not stop the load; Mosquitto with \
         `set_tcp_nodelay`, without which TLS would measure delayed acknowledgements. Sequence numbers in the \
         payloads show what was lost, came twice or out of order: see the end of this page.\n",
        results.machine,
        results
            .versions
            .values()
            .cloned()
            .collect::<Vec<_>>()
            .join(", "),
    )?;
    let all = workloads::all(Extent::Full);
    goals(&mut out, results, &all)?;
    for section in Section::ALL {
        table(&mut out, results, section, &all)?;
    }
    out.push_str(LIMITS);
    faults(&mut out, results)?;
    Ok(out)
}

/// What the broker is to reach.
fn goals(out: &mut String, results: &Results, all: &[Workload]) -> std::fmt::Result {
    writeln!(out, "## Goals\n")?;
    writeln!(out, "| | best peer when the goal was set |{} × |", titles())?;
    writeln!(out, "|---|---:|{}---:|", "---:|".repeat(COLUMNS.len()))?;
    for goal in &GOALS {
        let workload = all.iter().find(|workload| workload.name == goal.workload);
        let figure = workload.and_then(|workload| workload.figures().find(|it| it.key == goal.key));
        let (Some(row), Some(figure)) = (results.rows.get(goal.workload), figure) else {
            continue;
        };
        write!(out, "| {} | {} |", goal.title, goal.best)?;
        cells(out, row, *figure)?;
        writeln!(out)?;
    }
    writeln!(out)
}

fn table(
    out: &mut String,
    results: &Results,
    section: Section,
    all: &[Workload],
) -> std::fmt::Result {
    let measured: Vec<_> = all
        .iter()
        .filter(|workload| workload.section == section)
        .filter_map(|workload| Some((workload, results.rows.get(&workload.name)?)))
        .collect();
    if measured.is_empty() {
        return Ok(());
    }
    writeln!(out, "## {}\n\n{}\n", section.title(), section.explanation())?;
    writeln!(out, "| workload | |{} × | measured |", titles())?;
    writeln!(out, "|---|---|{}---:|---|", "---:|".repeat(COLUMNS.len()))?;
    for (workload, row) in measured {
        for figure in workload.figures() {
            write!(out, "| {} | {} |", workload.name, figure.title)?;
            cells(out, row, *figure)?;
            writeln!(out, " {} ({} rounds) |", row.date, row.rounds)?;
        }
    }
    writeln!(out)
}

fn titles() -> String {
    COLUMNS.map(|(_, title)| format!(" {title} |")).concat()
}

/// One figure for each broker, and the ratio of ours to Mosquitto's.
fn cells(out: &mut String, row: &Row, figure: Figure) -> std::fmt::Result {
    let of = |broker: &str| row.medians.get(broker)?.get(figure.key).copied();
    for (broker, _) in COLUMNS {
        match of(broker) {
            Some(value) => write!(out, " {} |", number(value))?,
            None => write!(out, " – |")?,
        }
    }
    match (of("ours"), of("mosquitto")) {
        (Some(ours), Some(theirs)) => {
            let (better, worse) = if figure.more_is_better {
                (ours, theirs)
            } else {
                (theirs, ours)
            };
            match worse {
                0.0 => write!(out, " |"),
                _ => write!(out, " {:.1} |", better / worse),
            }
        }
        _ => write!(out, " |"),
    }
}

/// Three digits that count, thousands apart.
pub(crate) fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let first = digits.len() % 3;
    let mut parts = Vec::new();
    if first > 0 {
        parts.push(&digits[..first]);
    }
    let mut at = first;
    while at < digits.len() {
        parts.push(&digits[at..at + 3]);
        at += 3;
    }
    parts.join(",")
}

/// What keeps the rows below their goals, as profiles on the machine of the results showed.
const LIMITS: &str = "\
## What limits the rows that miss their goal

- *Processor time at a fixed rate.* The kernel's waking and switching is the same for every broker and most of what is
  measured: of the samples of `even-qos0-1to1-10k` 38 % are in switching to the broker, 22 % in waking the receiver. The
  broker's own code takes 1.3 to 2.8 µs per message (Mosquitto 3.6 to 4.7) and 3 system calls (Mosquitto 11). The ratio
  moves between 0.8 and 1.4 from run to run.
- *At rest* (goal: 6 MB). 0.7 MB is data. The rest are touched pages of the program, libc and libm, of which the kernel
  maps neighbours along with each.
- *Per connection* (best peer: 1.7 KB) and *per subscription* (Mosquitto: 274 bytes). A task of its own for each
  connection and its place in the reactor are what a single-threaded loop does not have; a filter stands in the session
  and in the router's tree.
- *Durable* (goal: 50 times Mosquitto). One publisher waits out a flush for each window of 20. With twenty publishers the
  processor is the limit: 5 to 8 µs per message, of which 3 are reading, routing and answering without any storing.

";

fn faults(out: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(out, "## What went wrong\n")?;
    let found = results
        .rows
        .iter()
        .flat_map(|(workload, row)| row.faults.iter().map(move |fault| (workload, fault)));
    let lines: Vec<_> = found
        .map(|(workload, (broker, what))| {
            let titles = COLUMNS.iter().find(|(name, _)| name == broker);
            format!(
                "- {workload}, {}: {what}",
                titles.map_or("?", |(_, title)| title)
            )
        })
        .collect();
    match lines.is_empty() {
        true => writeln!(out, "Nothing: every message came once and in order."),
        false => writeln!(out, "{}", lines.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart_and_small_numbers_keep_a_decimal() {
        for (value, text) in [
            (0.0, "0.0"),
            (6.14, "6.1"),
            (31.6, "32"),
            (999.9, "1,000"),
            (12_345.0, "12,345"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn every_goal_names_a_workload_and_a_figure_that_exist() {
        let all = workloads::all(Extent::Full);
        for goal in &GOALS {
            let workload = all.iter().find(|workload| workload.name == goal.workload);
            let workload = workload.unwrap_or_else(|| panic!("no workload {}", goal.workload));
            assert!(
                workload.figures().any(|figure| figure.key == goal.key),
                "{}",
                goal.title
            );
        }
    }

    #[test]
    fn more_is_better_for_rates_and_less_for_costs() {
        let row = |ours: f64, mosquitto: f64| {
            let of = |value| [("x".to_owned(), value)].into();
            Row {
                medians: [
                    ("ours".to_owned(), of(ours)),
                    ("mosquitto".to_owned(), of(mosquitto)),
                ]
                .into(),
                ..Row::default()
            }
        };
        for (more_is_better, ratio) in [(true, " 4.0 |"), (false, " 0.2 |")] {
            let figure = Figure {
                key: "x",
                title: "",
                more_is_better,
            };
            let mut out = String::new();
            cells(&mut out, &row(8.0, 2.0), figure).unwrap();
            assert!(out.ends_with(ratio), "{out}");
        }
    }
}
