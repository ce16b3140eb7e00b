//! Promise: whatever the moment at which the power goes, the next update goes on, and nothing lies on disk that was not
//! verified. On the recorded system calls of real updates; see the crate `powercut`. Layer: tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use powercut::{Call, Ledger, Scene, Stage};
use tuf::directory::Directory;
use tuf::floor::NoFloor;
use tuf::metadata::TopRole;
use tuf::time::Now;
use tuf::verify::Software;
use tuf::{Judges, UpdateError, init, refresh};

use crate::support::{Shelf, Vendor, now, seeded_key};

const PROGRAM: &str = "power_cut::updates_again_and_again_for_the_tests_that_watch_it";

/// Editions that the recorded process follows.
const EDITIONS: usize = 24;

/// Power cuts: each sync is met several times, with other outcomes. `CRASH_SEEDS` asks for another number.
const CUTS: u64 = 480;

#[test]
fn a_power_cut_at_any_moment_leaves_what_the_next_update_goes_on_from() {
    let scene = Scene::new(PROGRAM);
    let calls = scene.record(EDITIONS);
    let syncs = calls.iter().filter(|call| matches!(call, Call::Sync(_)));
    let syncs = syncs.count();
    assert!(syncs > 150, "only {syncs} syncs were recorded");
    let history = History::new();
    let seeds = std::env::var("CRASH_SEEDS").map_or(CUTS, |text| text.parse().unwrap());
    let cuts = powercut::try_cuts(&scene, &calls, (0..seeds).collect(), |image, told| {
        history.verify(image, told)
    });
    let cuts = cuts.unwrap_or_else(|why| panic!("{why}"));
    println!("{} power cuts over {syncs} syncs", cuts.len());
    let behind = cuts.iter().filter(|was_behind| **was_behind);
    assert!(behind.count() > 0, "no cut came before the write of a root");
}

#[test]
fn the_proof_by_power_cuts_finds_files_that_are_not_synced() {
    let scene = Scene::new(PROGRAM);
    let mut calls = scene.record(EDITIONS);
    let is_file = |path: &Path| path.ends_with(".new+");
    calls.retain(|call| !matches!(call, Call::Sync(path) if is_file(path)));
    let history = History::new();
    let found = powercut::try_cuts(&scene, &calls, (0..CUTS).collect(), |image, told| {
        history.verify(image, told)
    });
    assert!(found.is_err(), "torn files were not noticed");
}

/// The child process: follows one edition after the other, and tells so.
#[test]
#[ignore = "a process for the tests beside it"]
fn updates_again_and_again_for_the_tests_that_watch_it() {
    let stage = Stage::open();
    let mut vendor = first_edition();
    start(&stage.disk, &vendor.first_root()).unwrap();
    stage.tell("started");
    for edition in 2..=stage.amount {
        update(&stage.disk, &mut vendor.shelf).unwrap();
        stage.tell(&format!("root {}", vendor.root_version));
        next_edition(&mut vendor, edition);
    }
}

/// What was told before the cut.
#[derive(Debug, Clone, Default)]
struct Told {
    started: bool,
    updates: usize,
    root: u64,
}

impl Ledger for Told {
    fn enter(&mut self, line: &str) {
        match line.strip_prefix("root ") {
            Some(version) => {
                self.updates += 1;
                self.root = version.parse().unwrap();
            }
            None => self.started = true,
        }
    }
}

/// All that the vendor ever published, and what was on the shelf in each edition.
struct History {
    published: BTreeSet<Vec<u8>>,
    editions: Vec<Edition>,
}

struct Edition {
    metadata: BTreeMap<String, Vec<u8>>,
    root: u64,
}

impl History {
    fn new() -> Self {
        let mut vendor = first_edition();
        let mut editions = Vec::new();
        for edition in 2..=EDITIONS {
            editions.push(Edition {
                metadata: vendor.shelf.metadata.clone(),
                root: vendor.root_version,
            });
            next_edition(&mut vendor, edition);
        }
        let files = editions
            .iter()
            .flat_map(|edition| edition.metadata.values());
        Self {
            published: files.cloned().collect(),
            editions,
        }
    }

    /// What is on disk was published; then an update from the shelf of that moment goes to its end. Says whether the
    /// disk still had an older root than the shelf.
    fn verify(&self, image: &Path, told: &Told) -> Result<bool, String> {
        for entry in fs::read_dir(image).unwrap() {
            let path = entry.unwrap().path();
            let is_metadata = path
                .extension()
                .is_some_and(|extension| extension == "json");
            if is_metadata && !self.published.contains(&fs::read(&path).unwrap()) {
                return Err(format!("{} was never published", path.display()));
            }
        }
        let edition = self.editions.get(told.updates).or(self.editions.last());
        let edition = edition.unwrap();
        let root = image.join("root.json");
        if !root.exists() {
            if told.started {
                return Err("the root is gone".into());
            }
            let first = &edition.metadata["1.root.json"];
            start(image, first).map_err(|error| error.to_string())?;
        }
        let before = root_version(&root);
        if before < told.root {
            return Err(format!("root {before} after root {}", told.root));
        }
        let mut shelf = Shelf {
            metadata: edition.metadata.clone(),
            ..Shelf::default()
        };
        update(image, &mut shelf).map_err(|error| error.to_string())?;
        match root_version(&root) {
            version if version == edition.root => Ok(before < version),
            version => Err(format!("the next update ends at root {version}")),
        }
    }
}

fn first_edition() -> Vendor {
    let root_keys = (1..=3).map(seeded_key).collect();
    Vendor::with_keys(root_keys, [4, 5, 6].map(seeded_key), Some(seeded_key(7)))
}

/// By turns: an ordinary one, one with a new root, one by somebody who has stolen the timestamp's and the snapshot's key
/// and moves the versions far ahead, and the recovery with new keys, which moves them back. The spare key stays: what was
/// trusted before would still be signed by it.
fn next_edition(vendor: &mut Vendor, edition: usize) {
    match edition % 4 {
        1 => vendor.publish_root(),
        2 => {
            for role in [TopRole::Timestamp, TopRole::Snapshot, TopRole::Targets] {
                *vendor.versions.get_mut(&role).unwrap() += 1_000_000;
            }
        }
        3 => {
            for role in [TopRole::Timestamp, TopRole::Snapshot, TopRole::Targets] {
                *vendor.versions.get_mut(&role).unwrap() -= 1_000_000;
            }
            let seed = u8::try_from(10 + 2 * edition).unwrap();
            vendor.keys.insert(TopRole::Timestamp, seeded_key(seed));
            vendor.keys.insert(TopRole::Snapshot, seeded_key(seed + 1));
            vendor.publish_root();
        }
        _ => {}
    }
    vendor.publish_next();
}

fn start(folder: &Path, root: &[u8]) -> Result<(), UpdateError> {
    init(&Directory::open(folder)?, root, judges())
}

fn update(folder: &Path, shelf: &mut Shelf) -> Result<(), UpdateError> {
    refresh(&Directory::open(folder)?, shelf, judges(), &mut NoFloor).map(drop)
}

fn judges() -> Judges<'static> {
    static NOW: std::sync::OnceLock<Now> = std::sync::OnceLock::new();
    Judges {
        verifier: &Software,
        clock: NOW.get_or_init(|| Now::Trusted(now())),
    }
}

fn root_version(path: &Path) -> u64 {
    let file: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    file["signed"]["version"].as_u64().unwrap()
}
