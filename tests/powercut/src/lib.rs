//! Power cuts and failing disks, tried on the recorded system calls of a real run; for tests.
//!
//! ```text
//!  Scene::record ── strace ── a test's own program, working on files ──▶ calls, and what it was promised
//!  cut ── calls ──▶ Disk ── a seed's moment and outcome ──▶ files ──▶ the test's own verdict
//!  Scene::fail ── strace that lets one call fail ── the program ──▶ the test's own verdict
//! ```
//!
//! Invariant: nothing is replaced for the proof; the program under test runs on its own file layer.
//! A seed that fails is in the message; `CRASH_SEED` runs it alone. Driver.
#![expect(clippy::unwrap_used, reason = "for tests")]
#![expect(clippy::print_stdout, reason = "a test says what it has tried")]

mod disk;
mod scene;
mod trace;

use std::{collections::BTreeMap, env, fs, path::Path, thread};

pub use disk::{Call, Disk, Random};
pub use scene::{Scene, Stage};

/// Power cuts per run of the tests; `CRASH_SEEDS` asks for another number.
pub const SEEDS: u64 = 5000;
const THREADS: u64 = 2;

/// What the program was promised up to a moment, from the lines that it tells.
pub trait Ledger: Clone + Default {
    /// Takes in one line.
    fn enter(&mut self, line: &str);

    /// Everything that a whole run has told.
    fn of(lines: &str) -> Self {
        let mut ledger = Self::default();
        lines.lines().for_each(|line| ledger.enter(line));
        ledger
    }
}

/// Cuts the power once per seed, at each sync and between them, and asks `verify` about the files
/// that are left. Panics with the first seed whose files break a promise; returns what it found.
pub fn cut<L: Ledger, T: Send>(
    scene: &Scene,
    calls: &[Call],
    verify: impl Fn(&Path, &L) -> Result<T, String> + Sync,
) -> Vec<T> {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let chosen = number("CRASH_SEED");
    let seeds = number("CRASH_SEEDS").unwrap_or(SEEDS);
    let syncs = syncs(calls).len();
    assert!(syncs > 100, "only {syncs} syncs were recorded");
    let found: Vec<T> = thread::scope(|scope| {
        let verify = &verify;
        let threads: Vec<_> = (0..THREADS)
            .map(|part| {
                let seeds = (part..seeds).step_by(THREADS as usize);
                let seeds = seeds.filter(move |seed| chosen.is_none_or(|chosen| chosen == *seed));
                scope.spawn(move || try_cuts(scene, calls, seeds.collect(), verify))
            })
            .collect();
        let parts = threads.into_iter().map(|thread| {
            let part = thread.join().expect("no panic but the test's own");
            part.unwrap_or_else(|why| panic!("{why}"))
        });
        parts.flatten().collect()
    });
    println!(
        "{} power cuts over {syncs} syncs: nothing promised was lost",
        found.len()
    );
    found
}

/// The same on one thread, and with the first broken promise as an error: shows that a proof can
/// fail. The calls are gone through once, so the cuts are sorted.
pub fn try_cuts<L: Ledger, T>(
    scene: &Scene,
    calls: &[Call],
    seeds: Vec<u64>,
    verify: impl Fn(&Path, &L) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut cuts = moments(&syncs(calls), seeds);
    let (mut disk, mut ledger, mut found) = (Disk::default(), L::default(), Vec::new());
    for (index, call) in calls.iter().enumerate() {
        for (seed, mut random) in cuts.remove(&index).unwrap_or_default() {
            let image = scene.image(&format!("seed-{seed}"), disk.power_cut(&mut random));
            let verdict = verify(&image, &ledger);
            fs::remove_dir_all(&image).unwrap();
            found.push(verdict.map_err(|why| {
                format!("CRASH_SEED={seed}, power cut before call {index}: {why}")
            })?);
        }
        disk.apply(call);
        if let Call::Told(line) = call {
            ledger.enter(line.trim_end());
        }
    }
    Ok(found)
}

/// Each sync in turn: just before it holds, or somewhere on the way to it.
fn moments(syncs: &[usize], seeds: Vec<u64>) -> BTreeMap<usize, Vec<(u64, Random)>> {
    let mut cuts: BTreeMap<usize, Vec<(u64, Random)>> = BTreeMap::new();
    for seed in seeds {
        let mut random = Random(seed);
        let boundary = seed as usize % syncs.len();
        let before = boundary.checked_sub(1).map_or(0, |index| syncs[index]);
        let at = match random.below(2) {
            0 => syncs[boundary],
            _ => before + random.below(syncs[boundary] - before + 1),
        };
        cuts.entry(at).or_default().push((seed, random));
    }
    cuts
}

/// Where in the calls something was made to last.
fn syncs(calls: &[Call]) -> Vec<usize> {
    let is_sync = |index: &usize| matches!(calls[*index], Call::Sync(_));
    (0..calls.len()).filter(is_sync).collect()
}
