//! What was acknowledged to the publishers against what the upstream acknowledged to the gateway.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};

use crate::harness::recorder::Passage;

use super::{
    observer::Heard,
    publishers::{self, Ledger, MOST_WAITING, TOPICS, UNPROMISED, WINDOW},
};

/// Messages under way at once (`upstream.in_flight`): so many may come twice when a link is cut.
const IN_FLIGHT: usize = 100;
/// Messages that the upstream had acknowledged and that a killed gateway had not yet deleted on disk: deletions are
/// committed when 1,024 of them wait, and while one commit runs, no more can gather than messages waited at its begin.
const NOT_YET_DELETED: usize = 1_024 + MOST_WAITING + TOPICS.len() * WINDOW;
/// Between a publisher's clock and the broker's, which are the same clock read by two processes.
const GRAIN: Duration = Duration::from_millis(100);

/// Upstream, a topic stands below the gateway's name.
pub(super) const BELOW: &str = "plant-7/";

/// A message by its topic and number within it, as it passed first.
struct Stored<'a> {
    first: &'a Passage,
    number: u32,
    acknowledged_by: Option<u32>,
}

/// The record, in an order that can be judged.
pub(super) struct Verdict<'a> {
    topics: BTreeMap<&'a str, BTreeMap<u64, Stored<'a>>>,
    /// Passages that repeated an earlier one, by link.
    repeated: BTreeMap<u32, usize>,
}

/// For the record.
#[derive(Debug, Default)]
pub(super) struct Summary {
    acknowledged: usize,
    stored_again: usize,
    repeated: usize,
    most_after_cut: usize,
    most_after_kill: usize,
    lost_by_upstream: usize,
}

impl<'a> Verdict<'a> {
    /// Sorts the passages; each topic must begin with number 1, leave none out, and repeat only what is the same. What
    /// nobody was promised, and what is said of it, is only there to stand in the way.
    pub(super) fn of(passages: &'a [Passage]) -> Result<Verdict<'a>> {
        let mut verdict = Verdict {
            topics: BTreeMap::new(),
            repeated: BTreeMap::new(),
        };
        let is_promised = |passage: &&Passage| !passage.topic.contains(UNPROMISED);
        for passage in passages.iter().filter(is_promised) {
            verdict
                .enter(passage)
                .with_context(|| format!("{} {:?}", passage.topic, passage.seq))?;
        }
        Ok(verdict)
    }

    fn enter(&mut self, passage: &'a Passage) -> Result<()> {
        let seq = passage.seq.with_context(|| {
            let text = String::from_utf8_lossy(&passage.payload);
            format!("a message of the gateway itself: {text}")
        })?;
        let number = publishers::number(&passage.payload).context("a payload nobody sent")?;
        ensure!(
            passage.payload == publishers::payload(number).as_bytes(),
            "the payload of {number} was changed"
        );
        let topic = self.topics.entry(passage.topic.as_str()).or_default();
        let expected = topic.len() as u64 + 1;
        match topic.get_mut(&seq) {
            None => {
                ensure!(seq == expected, "{expected} should have come");
                let stored = Stored {
                    first: passage,
                    number,
                    acknowledged_by: passage.acknowledged_by,
                };
                topic.insert(seq, stored);
            }
            Some(stored) => {
                let first = stored.first;
                ensure!(first.link < passage.link, "twice over one link");
                ensure!(
                    (&first.payload, &first.time) == (&passage.payload, &passage.time),
                    "{passage:?} repeats {first:?}"
                );
                stored.acknowledged_by = stored.acknowledged_by.or(passage.acknowledged_by);
                *self.repeated.entry(passage.link).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Numbers of `topic` that were acknowledged to their publisher and not by the upstream.
    pub(super) fn missing(&self, topic: &str, ledger: &Ledger) -> Vec<u32> {
        let upstream = format!("{BELOW}{topic}");
        let stored = self.topics.get(upstream.as_str());
        let there: BTreeSet<u32> = stored
            .iter()
            .flat_map(|stored| stored.values())
            .filter(|stored| stored.acknowledged_by.is_some())
            .map(|stored| stored.number)
            .collect();
        let acknowledged = (1..)
            .zip(ledger)
            .filter(|(_, sent)| sent.acknowledged.is_some());
        let numbers = acknowledged.map(|(number, _)| number);
        numbers.filter(|number| !there.contains(number)).collect()
    }

    /// Numbers in the order in which they were sent, and each with the time at which the broker took it.
    pub(super) fn in_order_and_time(&self, topic: &str, ledger: &Ledger) -> Result<usize> {
        let upstream = format!("{BELOW}{topic}");
        let stored = self.topics.get(upstream.as_str()).context("nothing came")?;
        let (mut highest, mut last_time) = (0, Timestamp::UNIX_EPOCH);
        let mut again = 0;
        for (seq, stored) in stored {
            let what = || format!("{topic} #{seq}, its publisher's {}", stored.number);
            if stored.number <= highest {
                let back = (highest - stored.number) as usize;
                ensure!(back < WINDOW, "{}: {back} back", what());
                again += 1;
            } else {
                ensure!(stored.number == highest + 1, "{} after {highest}", what());
                highest = stored.number;
            }
            let time: Timestamp = stored.first.time.as_ref().with_context(what)?.parse()?;
            ensure!(time >= last_time, "{}: its time runs backwards", what());
            last_time = time;
            let sent = ledger.get(stored.number as usize - 1).with_context(what)?;
            let grain = SignedDuration::try_from(GRAIN)?;
            ensure!(
                time >= sent.first - grain,
                "{}: {time} is before {sent:?}",
                what()
            );
            let taken = sent.acknowledged.is_none_or(|at| time <= at + grain);
            ensure!(taken, "{}: {time} is after {sent:?}", what());
        }
        Ok(again)
    }

    /// What was sent again over each link is bounded by what the link before it left behind.
    pub(super) fn repetitions_are_bounded(
        &self,
        processes: &BTreeMap<u32, u32>,
        summary: &mut Summary,
    ) -> Result<()> {
        let mut before = None;
        for (link, process) in processes {
            let repeated = self.repeated.get(link).copied().unwrap_or_default();
            let (most, bound) = if before == Some(process) {
                (&mut summary.most_after_cut, IN_FLIGHT)
            } else {
                (&mut summary.most_after_kill, IN_FLIGHT + NOT_YET_DELETED)
            };
            ensure!(
                repeated <= bound,
                "link {link} repeated {repeated} messages"
            );
            *most = repeated.max(*most);
            summary.repeated += repeated;
            before = Some(process);
        }
        Ok(())
    }

    /// What the upstream acknowledged in its last life, and in those before it.
    pub(super) fn acknowledged(&self, last_life: u32) -> (Heard, Heard) {
        let (mut last, mut before) = (Heard::new(), Heard::new());
        for (topic, stored) in &self.topics {
            for stored in stored.values() {
                let message = ((*topic).to_owned(), stored.number);
                match stored.acknowledged_by {
                    Some(life) if life == last_life => last.insert(message),
                    Some(_) => before.insert(message),
                    None => continue,
                };
            }
        }
        (last, before)
    }
}

impl Summary {
    /// A topic's share.
    pub(super) fn enter(&mut self, ledger: &Ledger, again: usize) {
        let acknowledged = ledger.iter().filter(|sent| sent.acknowledged.is_some());
        self.acknowledged += acknowledged.count();
        self.stored_again += again;
    }

    /// What Mosquitto acknowledged and was killed before it delivered.
    pub(super) fn lost_by_upstream(&mut self, count: usize) {
        self.lost_by_upstream = count;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages acknowledged to their publishers, 0 lost, 0 out of order, 0 gaps; {} sent upstream again \
             (at most {} after a cut of the link, {} after a kill of the gateway), {} stored again because a publisher \
             had not heard its acknowledgement; {} acknowledged by Mosquitto and lost when it was killed",
            self.acknowledged,
            self.repeated,
            self.most_after_cut,
            self.most_after_kill,
            self.stored_again,
            self.lost_by_upstream
        )
    }
}
