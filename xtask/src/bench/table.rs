//! Tables of runs and peers, and what could not be measured, as the pages of the field bus and the store show them. Values.

use std::fmt::{Result, Write};

use super::figures::Results;
use super::report::number;
use super::results::Row;
use super::workloads::Figure;

/// A peer's key in the results, and its column's title.
pub(crate) type Column = (&'static str, &'static str);

/// How many times better ours is, where that says something.
pub(crate) type Ratio = fn(&Row, Figure) -> Option<f64>;

/// One line per run and figure, one column per peer.
pub(crate) fn write<'r>(
    out: &mut String,
    results: &Results,
    runs: impl Iterator<Item = (&'r str, &'r [Figure])>,
    columns: &[Column],
    ratio: Option<Ratio>,
) -> Result {
    let titles: String = columns
        .iter()
        .map(|(_, title)| format!(" {title} |"))
        .collect();
    let (head, line) = match ratio {
        Some(_) => (" × |", "---:|"),
        None => ("", ""),
    };
    writeln!(out, "| run | |{titles}{head} measured |")?;
    writeln!(out, "|---|---|{}{line}---|", "---:|".repeat(columns.len()))?;
    for (run, figures) in runs {
        let Some(row) = results.rows.get(run) else {
            continue;
        };
        for figure in figures {
            write!(out, "| {run} | {} |", figure.title)?;
            for (peer, _) in columns {
                match of(row, peer, *figure) {
                    Some(value) => write!(out, " {} |", number(value))?,
                    None => write!(out, " – |")?,
                }
            }
            if let Some(ratio) = ratio {
                let ratio = ratio(row, *figure).map(number);
                write!(out, " {} |", ratio.unwrap_or_default())?;
            }
            writeln!(out, " {} ({} rounds) |", row.date, row.rounds)?;
        }
    }
    writeln!(out)
}

/// One peer's median.
pub(crate) fn of(row: &Row, peer: &str, figure: Figure) -> Option<f64> {
    row.medians.get(peer)?.get(figure.key).copied()
}

/// Who could not be measured, and why.
pub(crate) fn faults(out: &mut String, results: &Results) -> Result {
    let faults = results.rows.iter().flat_map(|(run, row)| {
        let faults = row.faults.iter();
        faults.map(move |(peer, fault)| format!("- {run}, {peer}: {fault}"))
    });
    let faults: Vec<_> = faults.collect();
    if faults.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "## What could not be measured\n\n{}",
        faults.join("\n")
    )
}
