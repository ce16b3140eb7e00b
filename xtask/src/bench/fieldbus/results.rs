//! Medians by run and peer, kept beside the page they are rendered to. A driver, and the arithmetic.
//!
//! Invariant: a row is replaced as a whole, so figures that are compared were measured in the same run.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::runs::{Peer, Run};
use crate::bench::results::{Row, median};
use crate::bench::workloads::Figure;
use crate::command::output;

/// The figures of one run of one peer, by their keys.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// All that was measured so far.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: String,
    /// Cargo profile of our gateway.
    pub(crate) profile: String,
    /// What the peers call themselves.
    pub(crate) versions: Vec<String>,
    pub(crate) rows: BTreeMap<String, Row>,
}

impl Results {
    /// One peer's median.
    pub(crate) fn get(&self, run: &str, peer: &str, figure: Figure) -> Option<f64> {
        let row = self.rows.get(run)?;
        row.medians.get(peer)?.get(figure.key).copied()
    }

    /// Enters all rounds of a run.
    pub(crate) fn enter(&mut self, run: &Run, rounds: Vec<(Peer, Result<Figures>)>) -> Result<()> {
        let mut row = Row {
            date: output(Command::new("date").arg("+%F"))?.trim().to_owned(),
            ..Row::default()
        };
        let mut by_peer: BTreeMap<&str, Vec<Figures>> = BTreeMap::new();
        for (peer, figures) in rounds {
            match figures {
                Ok(figures) => by_peer.entry(peer.key()).or_default().push(figures),
                Err(failure) => {
                    row.faults
                        .insert(peer.key().to_owned(), format!("{failure:#}"));
                }
            }
        }
        for (peer, rounds) in by_peer {
            row.rounds = row.rounds.max(rounds.len());
            let medians = run.figures().iter().filter_map(|figure| {
                let values = rounds.iter().filter_map(|one| one.get(figure.key).copied());
                Some((figure.key.to_owned(), median(values.collect())?))
            });
            row.medians.insert(peer.to_owned(), medians.collect());
        }
        self.rows.insert(run.name.clone(), row);
        Ok(())
    }

    /// Fails if a peer could not be measured.
    pub(crate) fn check(&self) -> Result<()> {
        let faults = self.rows.iter().flat_map(|(run, row)| {
            let faults = row.faults.iter();
            faults.map(move |(peer, fault)| format!("{run}, {peer}: {fault}"))
        });
        let faults: Vec<_> = faults.collect();
        if !faults.is_empty() {
            bail!(
                "not everything could be measured\n  {}",
                faults.join("\n  ")
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fieldbus::runs;

    #[test]
    fn a_row_holds_each_peers_medians_and_what_went_wrong() {
        let run = runs::few().remove(0);
        let figures = |rate: f64| Ok(Figures::from([("points_per_s", rate)]));
        let mut results = Results::default();
        let rounds = vec![
            (Peer::Pymodbus, figures(1.0)),
            (Peer::Mbpoll, Err(anyhow::anyhow!("gone"))),
            (Peer::Pymodbus, figures(3.0)),
        ];
        results.enter(&run, rounds).unwrap();
        let row = &results.rows[&run.name];
        assert_eq!(row.medians["pymodbus"]["points_per_s"], 2.0);
        assert_eq!(row.faults["mbpoll"], "gone");
        assert!(results.check().is_err());
    }
}
