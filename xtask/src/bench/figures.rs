//! Medians by run and peer, for the field bus and the store, kept beside the page they are rendered to. A driver, and the
//! arithmetic.
//!
//! Invariant: a row is replaced as a whole, so figures that are compared were measured in the same run.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::results::{Row, median};
use super::workloads::Figure;
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

    /// Measures a run, in whose rounds the peers take turns.
    pub(crate) fn measure<P: Copy>(
        &mut self,
        run: &str,
        figures: &[Figure],
        peers: &[P],
        rounds: u32,
        measure: impl Fn(P) -> (&'static str, Result<Figures>),
    ) -> Result<()> {
        println!("==> {run}");
        let mut all = Vec::new();
        for _ in 0..rounds {
            for peer in peers {
                let (peer, measured) = measure(*peer);
                match &measured {
                    Ok(figures) => println!("    {peer:<12} {figures:.1?}"),
                    Err(failure) => println!("    {peer:<12} {failure:#}"),
                }
                all.push((peer, measured));
            }
        }
        self.enter(run, figures, all)
    }

    /// Enters all rounds of a run.
    fn enter(
        &mut self,
        run: &str,
        figures: &[Figure],
        rounds: Vec<(&'static str, Result<Figures>)>,
    ) -> Result<()> {
        let mut row = Row {
            date: output(Command::new("date").arg("+%F"))?.trim().to_owned(),
            ..Row::default()
        };
        let mut by_peer: BTreeMap<&str, Vec<Figures>> = BTreeMap::new();
        for (peer, measured) in rounds {
            match measured {
                Ok(measured) => by_peer.entry(peer).or_default().push(measured),
                Err(failure) => {
                    row.faults.insert(peer.to_owned(), format!("{failure:#}"));
                }
            }
        }
        for (peer, rounds) in by_peer {
            row.rounds = row.rounds.max(rounds.len());
            let medians = figures.iter().filter_map(|figure| {
                let values = rounds.iter().filter_map(|one| one.get(figure.key).copied());
                Some((figure.key.to_owned(), median(values.collect())?))
            });
            row.medians.insert(peer.to_owned(), medians.collect());
        }
        self.rows.insert(run.to_owned(), row);
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

    #[test]
    fn a_row_holds_each_peers_medians_and_what_went_wrong() {
        let rate = Figure {
            key: "rate",
            title: "messages/s",
            more_is_better: true,
        };
        let figures = |rate: f64| Ok(Figures::from([("rate", rate)]));
        let mut results = Results::default();
        let rounds = vec![
            ("one", figures(1.0)),
            ("other", Err(anyhow::anyhow!("gone"))),
            ("one", figures(3.0)),
        ];
        results.enter("run", &[rate], rounds).unwrap();
        let row = &results.rows["run"];
        assert_eq!(row.medians["one"]["rate"], 2.0);
        assert_eq!(row.faults["other"], "gone");
        assert!(results.check().is_err());
    }
}
