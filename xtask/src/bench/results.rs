//! Medians by workload and broker, kept beside the document they are rendered to. A driver, and the arithmetic.
//!
//! Invariant: a row is replaced as a whole, so figures that are compared were measured in the same run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::brokers::{self, Peer};
use super::workloads::Workload;
use crate::command::output;

/// Any of these in a report, and messages went astray; with what is said of it.
const FAULTS: [(&str, &str); 3] = [
    ("lost", "lost"),
    ("misordered", "twice or out of order"),
    ("refused", "refused"),
];

/// What was measured in earlier runs; nothing where there is no file.
pub(crate) fn load<T: Default + DeserializeOwned>(path: &Path) -> Result<T> {
    if !path.exists() {
        return Ok(T::default());
    }
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not what this command wrote", path.display()))
}

/// Keeps what was measured for later runs.
pub(crate) fn save(results: &impl Serialize, path: &Path) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder)?;
    let text = serde_json::to_string_pretty(results)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// All that was measured so far.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: String,
    pub(crate) broker_cores: String,
    /// What the brokers call themselves, by their keys.
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) rows: BTreeMap<String, Row>,
}

/// One workload's medians.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Day of the measurement.
    pub(crate) date: String,
    pub(crate) rounds: usize,
    /// By broker, then by figure.
    pub(crate) medians: BTreeMap<String, BTreeMap<String, f64>>,
    /// What went wrong, by broker.
    pub(crate) faults: BTreeMap<String, String>,
}

impl Results {
    /// Says where and with what this run measures.
    pub(crate) fn describe(&mut self, peers: &[Peer], broker_cores: &str) -> Result<()> {
        self.machine = brokers::machine()?;
        self.broker_cores = broker_cores.to_owned();
        for peer in peers {
            self.versions.insert(peer.name.to_owned(), peer.version()?);
        }
        Ok(())
    }

    /// Enters all runs of a workload.
    pub(crate) fn enter(
        &mut self,
        workload: &Workload,
        runs: Vec<(&'static str, Result<Value>)>,
    ) -> Result<()> {
        let mut row = Row {
            date: output(Command::new("date").arg("+%F"))?.trim().to_owned(),
            ..Row::default()
        };
        let mut by_broker: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (broker, run) in runs {
            let fault = match &run {
                Ok(report) => fault(report),
                Err(failure) => Some(format!("failed: {failure:#}")),
            };
            if let Some(fault) = fault {
                row.faults.insert(broker.to_owned(), fault);
            }
            by_broker.entry(broker).or_default().extend(run);
        }
        for (broker, reports) in by_broker {
            row.rounds = row.rounds.max(reports.len());
            let figures = workload.figures().filter_map(|figure| {
                let values = reports
                    .iter()
                    .filter_map(|report| report.get(figure.key)?.as_f64());
                Some((figure.key.to_owned(), median(values.collect())?))
            });
            row.medians.insert(broker.to_owned(), figures.collect());
        }
        self.rows.insert(workload.name.clone(), row);
        Ok(())
    }

    pub(crate) fn figure(&self, workload: &str, broker: &str, key: &str) -> Option<f64> {
        let row = self.rows.get(workload)?;
        row.medians.get(broker)?.get(key).copied()
    }

    /// The rate for the latency of a workload.
    pub(crate) fn tenth_of_mosquitto(&self, workload: &str) -> Result<u64> {
        match self.figure(workload, "mosquitto", "rate") {
            Some(rate) => Ok((rate / 10.0) as u64),
            None => bail!("the rate comes from workload {workload}: measure that first"),
        }
    }

    /// Fails if our own broker lost anything, wherever it is measured.
    pub(crate) fn check_ours(&self) -> Result<()> {
        let faults = self.rows.iter().filter_map(|(workload, row)| {
            let fault = row.faults.get("ours")?;
            Some(format!("{workload}: {fault}"))
        });
        let faults: Vec<_> = faults.collect();
        if !faults.is_empty() {
            bail!("broker-lite failed\n  {}", faults.join("\n  "));
        }
        Ok(())
    }
}

/// Messages that did not come through as they should have.
fn fault(report: &Value) -> Option<String> {
    let found = FAULTS.iter().filter_map(|(key, meaning)| {
        let count = report.get(key)?.as_u64().filter(|count| *count > 0)?;
        Some(format!("{count} {meaning}"))
    });
    let found: Vec<_> = found.collect();
    (!found.is_empty()).then(|| found.join(", "))
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() {
        0 => return None,
        count if count % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    };
    // In thousandths, which JSON reads back as they were written.
    Some((median * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bench::workloads::{self, Extent};

    #[test]
    fn a_median_is_not_moved_by_one_slow_run() {
        assert_eq!(median(vec![3.0, 100.0, 1.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 2.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_row_holds_each_brokers_medians_and_what_went_wrong() {
        let workload = workloads::all(Extent::Smoke).remove(0);
        let run = |cpu: f64, lost: u32| Ok(json!({"cpu_us": cpu, "lost": lost}));
        let mut results = Results::default();
        let runs = vec![
            ("ours", run(1.0, 0)),
            ("mosquitto", run(5.0, 0)),
            ("ours", run(3.0, 2)),
            ("mosquitto", Err(anyhow::anyhow!("gone"))),
        ];
        results.enter(&workload, runs).unwrap();
        assert_eq!(results.figure(&workload.name, "ours", "cpu_us"), Some(2.0));
        assert_eq!(
            results.figure(&workload.name, "mosquitto", "cpu_us"),
            Some(5.0)
        );
        let faults = &results.rows[&workload.name].faults;
        assert_eq!(faults["ours"], "2 lost");
        assert_eq!(faults["mosquitto"], "failed: gone");
        assert!(results.check_ours().is_err());
    }
}
