//! The committed corpus, and small changes to it, through every target: what a fuzzer has found
//! once stays found. A driver's tests.
//!
//! `FUZZ_MUTATIONS` is how many changed inputs each target gets; `cargo xtask test fuzz` sets it.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use super::{TARGETS, Target};
use crate::broker::simulation::Dice;

/// In an ordinary run of the tests: a second or two.
const MUTATIONS: u64 = 400;
/// Longer inputs only take longer.
const INPUT_MAX: usize = 4_096;

struct Input {
    path: PathBuf,
    bytes: Vec<u8>,
}

#[test]
fn the_corpus_finds_nothing() {
    for target in TARGETS {
        for input in corpus(target) {
            try_one(target, &input.bytes, &input.path.display().to_string());
        }
    }
}

#[test]
fn changes_to_the_corpus_find_nothing() {
    let count = std::env::var("FUZZ_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    for target in TARGETS {
        let corpus = corpus(target);
        for seed in 1..=count {
            let mut dice = Dice::of(seed);
            let bytes = changed(&corpus, &mut dice);
            try_one(target, &bytes, &format!("mutation {seed}"));
        }
    }
}

/// The inputs of a target, in an order that does not depend on the machine.
fn corpus(target: &Target) -> Vec<Input> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target.name);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(
        paths.len() >= 10,
        "{} holds {} inputs",
        folder.display(),
        paths.len()
    );
    let read = |path: PathBuf| Input {
        bytes: fs::read(&path).unwrap(),
        path,
    };
    paths.into_iter().map(read).collect()
}

/// One input with some bytes changed, cut, repeated, or taken from another.
fn changed(corpus: &[Input], dice: &mut Dice) -> Vec<u8> {
    let pick = |dice: &mut Dice| &corpus[dice.roll(corpus.len() as u64) as usize].bytes;
    let mut bytes = pick(dice).clone();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len() as u64 + 1) as usize;
        let end = (at + 1 + dice.roll(16) as usize).min(bytes.len());
        match dice.roll(6) {
            0 if at < bytes.len() => bytes[at] = dice.roll(256) as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            2 => bytes.insert(at, dice.roll(256) as u8),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.extend_from_within(at..end),
            5 => {
                let other = pick(dice);
                let from = dice.roll(other.len() as u64 + 1) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {}
        }
    }
    bytes.truncate(INPUT_MAX);
    bytes
}

fn try_one(target: &Target, bytes: &[u8], what: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    if let Err(panic) = outcome {
        eprintln!("target {}, {what}: {bytes:02x?}", target.name);
        std::panic::resume_unwind(panic);
    }
}
