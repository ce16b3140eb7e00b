//! Promises about power cuts and failing disks, on the system calls of a real run. Driver.
//!
//! Invariant: what a receipt called committed before the cut is there after it.
//!
//! A child process works on a buffer under strace; see `powercut` for what is done with its calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use powercut::{Call, Ledger as _, Random, Scene, Stage};
use settings::{Period, Size};

use super::*;
use crate::config::Forward;

/// Long enough for the longest pause between two attempts to write, and a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAM: &str = "buffer::crash::works_on_a_buffer_for_the_tests_that_watch_it";
const TOPICS: usize = 5;

#[test]
fn a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    let scene = Scene::new(PROGRAM);
    let calls = scene.record(40);
    let tallies = powercut::cut(&scene, &calls, verify);
    let tally = tallies.iter().fold(Tally::default(), Tally::and);
    println!("{tally:?}");
    assert!(tally.acknowledged > 0, "no cut came after a receipt");
}

#[test]
fn the_proof_by_power_cuts_finds_a_log_that_is_not_synced() {
    let scene = Scene::new(PROGRAM);
    let mut calls = scene.record(10);
    let is_log = |path: &Path| path.to_string_lossy().ends_with("-wal");
    calls.retain(|call| !matches!(call, Call::Sync(path) if is_log(path)));
    let found = powercut::try_cuts(&scene, &calls, (0..powercut::SEEDS).collect(), verify);
    let found = found.expect_err("a seed that loses what was acknowledged");
    assert!(found.starts_with("CRASH_SEED="), "{found}");
}

#[test]
fn a_write_that_fails_once_loses_nothing() {
    let count = Scene::fail(PROGRAM, 4, 1, |disk, told| {
        let ledger = Ledger::of(told);
        if ledger.acknowledged.is_empty() {
            return Err("nothing was kept".to_owned());
        }
        verify(disk, &ledger).map(drop)
    });
    assert!(count > 50, "only {count} calls can fail");
    println!("{count} failing calls: 0 acknowledged messages lost");
}

/// The child process: keeps, deletes, closes and opens again, and tells what it was promised.
#[test]
#[ignore = "a process for the tests beside it"]
fn works_on_a_buffer_for_the_tests_that_watch_it() {
    let stage = Arc::new(Stage::open());
    let mut random = Random(7);
    let mut number = 0;
    for _ in 0..3 {
        let buffer = open(&stage.disk.join("buffer.db"));
        for _ in 0..stage.amount {
            let answers: Vec<_> = (0..1 + random.below(12))
                .map(|_| {
                    number += 1;
                    keep(&buffer, number, random.below(900), &stage)
                })
                .collect();
            for answer in answers {
                assert_eq!(answer.recv_timeout(PATIENCE), Ok(Kept::Committed));
            }
            if random.below(3) == 0 {
                delete_some(&buffer, random.below(40), &stage);
            }
        }
        buffer.0.close();
    }
}

/// The upstream acknowledges the oldest.
fn delete_some(buffer: &Buffer, count: usize, stage: &Stage) {
    // A read that is in the way of a failing write is asked again by the forwarder.
    let rows = buffer.read(&Cursor::default(), count, usize::MAX);
    for row in rows.unwrap_or_default() {
        stage.tell(&format!("gone {}", number_of(&row)));
        buffer.delete([row.id]);
    }
}

fn keep(
    buffer: &Buffer,
    number: usize,
    padding: usize,
    stage: &Arc<Stage>,
) -> mpsc::Receiver<Kept> {
    let topic = TopicName::parse(&format!("t/{}", number % TOPICS)).unwrap();
    let payload = format!("{number} {}", "x".repeat(padding));
    let (answer, answered) = mpsc::channel();
    let stage = Arc::clone(stage);
    let receipt = Receipt::new(move |kept| {
        if kept == Kept::Committed {
            stage.tell(&format!("kept {number}"));
        }
        let _unheard = answer.send(kept);
    });
    buffer.keep(&Message::new(topic, payload.into_bytes()), receipt);
    answered
}

fn open(path: &Path) -> Buffer {
    let config = config::Buffer {
        path: path.to_owned(),
        // The log is cut at a quarter of it, which brings many checkpoints.
        max_size: Size::from_mib(1),
        commit_delay: Period::from_millis(1),
        ..config::Buffer::default()
    };
    Buffer::open(&config, &[Forward::example("#")]).unwrap()
}

fn number_of(row: &Row) -> usize {
    let text = str::from_utf8(&row.payload).expect("the payloads are text");
    text.split(' ').next().unwrap().parse().unwrap()
}

/// What the child was promised up to a moment.
#[derive(Debug, Default, Clone)]
struct Ledger {
    acknowledged: BTreeSet<usize>,
    gone: BTreeSet<usize>,
}

impl powercut::Ledger for Ledger {
    fn enter(&mut self, line: &str) {
        let (what, number) = line.split_once(' ').expect("a word and a number");
        let number = number.parse().expect("a number");
        match what {
            "kept" => self.acknowledged.insert(number),
            _ => self.gone.insert(number),
        };
    }
}

/// What the cuts brought, for the record.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    /// Messages that had to be there and were.
    acknowledged: usize,
    /// Messages that had left and came back: the upstream gets them twice.
    back_again: usize,
    /// Messages that were there before their receipt was given.
    early: usize,
}

impl Tally {
    fn and(self, other: &Tally) -> Tally {
        Tally {
            acknowledged: self.acknowledged + other.acknowledged,
            back_again: self.back_again + other.back_again,
            early: self.early + other.early,
        }
    }
}

/// Opens the buffer and compares what it holds with what was promised.
fn verify(directory: &Path, ledger: &Ledger) -> Result<Tally, String> {
    let buffer = open(&directory.join("buffer.db"));
    let status = buffer.status();
    if let Some(salvaged) = status.salvaged {
        return Err(format!("it took a salvage: {}", salvaged.damage));
    }
    let rows = super::tests::read_all(&buffer);
    buffer.0.close();
    let mut found = BTreeSet::new();
    let mut last: BTreeMap<TopicName, (usize, u64)> = BTreeMap::new();
    for row in &rows {
        let number = number_of(row);
        if !found.insert(number) {
            return Err(format!("message {number} is there twice"));
        }
        if row.topic.as_str() != format!("t/{}", number % TOPICS) {
            return Err(format!("message {number} changed its topic"));
        }
        let before = last.insert(row.topic.clone(), (number, row.seq));
        if before.is_some_and(|(before, seq)| before >= number || seq >= row.seq) {
            return Err(format!("message {number} is out of order"));
        }
    }
    let wanted: BTreeSet<_> = ledger.acknowledged.difference(&ledger.gone).collect();
    if let Some(lost) = wanted.iter().find(|number| !found.contains(number)) {
        return Err(format!("message {lost} was acknowledged and is lost"));
    }
    Ok(Tally {
        acknowledged: wanted.len(),
        back_again: found.intersection(&ledger.gone).count(),
        early: found.difference(&ledger.acknowledged).count(),
    })
}
