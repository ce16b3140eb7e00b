//! Who saw which reading: taken in the plant, arrived in the cloud. Core.
//!
//! Invariant: a reading counts as forwarded once, however often it arrives.

use std::collections::{BTreeMap, BTreeSet};

/// What was taken, what arrived, and what each point said last.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    topics: BTreeMap<String, Topic>,
}

/// One topic's account.
#[derive(Debug, Default)]
pub(super) struct Topic {
    /// Readings taken.
    pub(super) taken: u64,
    /// The value last taken, as printed.
    pub(super) last: String,
    taken_through: u64,
    waiting: BTreeSet<u64>,
    early: BTreeSet<u64>,
    forwarded: u64,
    repeated: u64,
}

/// Sums over all topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    /// Readings published in the plant.
    pub(super) taken: u64,
    /// Of those, arrived in the cloud.
    pub(super) forwarded: u64,
    /// Taken, not yet arrived.
    pub(super) waiting: u64,
    /// Arrived a second time: allowed by QoS 1 after a cut.
    pub(super) repeated: u64,
}

impl Ledger {
    /// Books a reading as published in the plant.
    pub(super) fn taken(&mut self, topic: &str, sequence: u64, value: String) {
        let account = self.topics.entry(topic.to_owned()).or_default();
        account.taken += 1;
        account.taken_through = sequence;
        account.last = value;
        // The two observers race: the cloud may have seen it first.
        if account.early.remove(&sequence) {
            account.forwarded += 1;
        } else {
            account.waiting.insert(sequence);
        }
    }

    /// Books a reading as arrived in the cloud.
    pub(super) fn arrived(&mut self, topic: &str, sequence: u64) {
        let account = self.topics.entry(topic.to_owned()).or_default();
        if account.waiting.remove(&sequence) {
            account.forwarded += 1;
        } else if sequence <= account.taken_through {
            account.repeated += 1;
        } else {
            account.early.insert(sequence);
        }
    }

    /// Every topic with its account, in order.
    pub(super) fn topics(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.topics
            .iter()
            .map(|(name, topic)| (name.as_str(), topic))
    }

    /// The sums.
    pub(super) fn totals(&self) -> Totals {
        self.topics
            .values()
            .fold(Totals::default(), |sum, topic| Totals {
                taken: sum.taken + topic.taken,
                forwarded: sum.forwarded + topic.forwarded,
                waiting: sum.waiting + topic.waiting.len() as u64,
                repeated: sum.repeated + topic.repeated,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_counts_once_whoever_sees_it_first_and_however_often() {
        let mut ledger = Ledger::default();
        ledger.taken("t", 1, "a".to_owned());
        ledger.arrived("t", 1);
        ledger.arrived("t", 2);
        ledger.taken("t", 2, "b".to_owned());
        ledger.arrived("t", 1);
        ledger.taken("t", 3, "c".to_owned());
        assert_eq!(
            ledger.totals(),
            Totals {
                taken: 3,
                forwarded: 2,
                waiting: 1,
                repeated: 1
            }
        );
    }
}
