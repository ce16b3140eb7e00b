//! Promises about power cuts and failing disks, on the system calls of a real run. Driver.
//!
//! Invariant: what a receipt called committed before the cut is there after it.
//!
//! A child process works on a buffer under strace. Its recorded calls are replayed onto a modelled
//! disk, the power is cut at a seed's choice of moment and outcome, and the buffer is opened on
//! what the disk then holds. A seed that fails is in the message; `CRASH_SEED` runs it alone.

mod disk;
mod trace;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use broker_lite::{packet::QoS, topic::TopicFilter};
use settings::{Period, Size};
use tempfile::TempDir;

use self::disk::{Call, Disk, Random};
use super::*;
use crate::config::{Forward, Priority};

/// Power cuts per run of the tests; `CRASH_SEEDS` asks for another number.
const SEEDS: u64 = 5000;
const THREADS: u64 = 2;
/// Long enough for the longest pause between two attempts to write, and a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the child process works.
const DIRECTORY: &str = "GATEWAY_CRASH_DIRECTORY";
/// How many commits it waits for between two restarts of the buffer.
const ROUNDS: &str = "GATEWAY_CRASH_ROUNDS";
const CHILD: &str = "buffer::crash::works_on_a_buffer_for_the_tests_that_watch_it";
const TOPICS: usize = 5;

#[test]
fn a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    let scene = Scene::new();
    let calls = scene.recorded(40);
    let syncs = syncs(&calls).len();
    assert!(syncs > 100, "only {syncs} syncs were recorded");
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (chosen, cuts) = (number("CRASH_SEED"), number("CRASH_SEEDS").unwrap_or(SEEDS));
    let tally = thread::scope(|scope| {
        let (scene, calls) = (&scene, &calls);
        let threads: Vec<_> = (0..THREADS)
            .map(|part| {
                let seeds = (part..cuts).step_by(THREADS as usize);
                let seeds = seeds.filter(move |seed| chosen.is_none_or(|chosen| chosen == *seed));
                scope.spawn(move || cut_power(scene, calls, seeds.collect()))
            })
            .collect();
        threads.into_iter().fold(Tally::default(), |tally, thread| {
            let part = thread.join().expect("no panic but the test's own");
            tally.and(&part.unwrap_or_else(|why| panic!("{why}")))
        })
    });
    println!("{cuts} power cuts over {syncs} syncs: 0 acknowledged messages lost; {tally:?}");
    assert!(tally.acknowledged > 0, "no cut came after a receipt");
}

#[test]
fn the_proof_by_power_cuts_finds_a_log_that_is_not_synced() {
    let scene = Scene::new();
    let mut calls = scene.recorded(10);
    let is_log = |path: &Path| path.to_string_lossy().ends_with("-wal");
    calls.retain(|call| !matches!(call, Call::Sync(path) if is_log(path)));
    let found = cut_power(&scene, &calls, (0..SEEDS).collect());
    let found = found.expect_err("a seed that loses what was acknowledged");
    assert!(found.starts_with("CRASH_SEED="), "{found}");
}

#[test]
fn a_write_that_fails_once_loses_nothing() {
    let calm = Scene::new();
    calm.run(4, &[]);
    let log = fs::read_to_string(calm.log()).unwrap();
    let count = |name: &str| log.matches(&format!(" {name}(")).count();
    let mut cases = Vec::new();
    for (call, errors) in [
        ("pwrite64", &["ENOSPC", "EIO"][..]),
        ("fdatasync", &["EIO"]),
        ("ftruncate", &["EIO"]),
    ] {
        for nth in 1..=count(call) {
            cases.extend(
                errors
                    .iter()
                    .map(|error| format!("inject={call}:error={error}:when={nth}")),
            );
        }
    }
    assert!(cases.len() > 50, "only {} calls can fail", cases.len());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scene = Scene::new();
                    scene.run(4, std::slice::from_ref(case));
                    let told = fs::read_to_string(scene.ledger()).unwrap();
                    let ledger = Ledger::of(told.lines());
                    assert!(!ledger.acknowledged.is_empty(), "{case}: nothing was kept");
                    verify(&scene.disk(), &ledger).unwrap_or_else(|why| panic!("{case}: {why}"));
                }
            });
        }
    });
    println!(
        "{} failing calls: 0 acknowledged messages lost",
        cases.len()
    );
}

/// The child process: keeps, deletes, closes and opens again, and tells what it was promised.
#[test]
#[ignore = "a process for the tests beside it"]
fn works_on_a_buffer_for_the_tests_that_watch_it() {
    let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) else {
        panic!("{DIRECTORY} names the directory");
    };
    let rounds: usize = env::var(ROUNDS).unwrap().parse().unwrap();
    let ledger = Arc::new(File::create(directory.join("ledger")).unwrap());
    let mut random = Random(7);
    let mut number = 0;
    for _ in 0..3 {
        let buffer = open(&directory.join("disk/buffer.db"));
        for _ in 0..rounds {
            let answers: Vec<_> = (0..1 + random.below(12))
                .map(|_| {
                    number += 1;
                    keep(&buffer, number, random.below(900), &ledger)
                })
                .collect();
            for answer in answers {
                assert_eq!(answer.recv_timeout(PATIENCE), Ok(Kept::Committed));
            }
            if random.below(3) == 0 {
                delete_some(&buffer, random.below(40), &ledger);
            }
        }
        buffer.0.close();
    }
}

/// The upstream acknowledges the oldest.
fn delete_some(buffer: &Buffer, count: usize, ledger: &File) {
    // A read that is in the way of a failing write is asked again by the forwarder.
    let rows = buffer.read(&Cursor::default(), count, usize::MAX);
    for row in rows.unwrap_or_default() {
        tell(ledger, "gone", number_of(&row));
        buffer.delete([row.id]);
    }
}

fn keep(
    buffer: &Buffer,
    number: usize,
    padding: usize,
    ledger: &Arc<File>,
) -> mpsc::Receiver<Kept> {
    let topic = TopicName::parse(&format!("t/{}", number % TOPICS)).unwrap();
    let payload = format!("{number} {}", "x".repeat(padding));
    let (answer, answered) = mpsc::channel();
    let ledger = Arc::clone(ledger);
    let receipt = Receipt::new(move |kept| {
        if kept == Kept::Committed {
            tell(&ledger, "kept", number);
        }
        let _unheard = answer.send(kept);
    });
    buffer.keep(&Message::new(topic, payload.into_bytes()), receipt);
    answered
}

/// One call, so that the watcher sees one line.
fn tell(mut ledger: &File, what: &str, number: usize) {
    let line = format!("{what} {number}\n");
    ledger.write_all(line.as_bytes()).unwrap();
}

fn open(path: &Path) -> Buffer {
    let config = config::Buffer {
        path: path.to_owned(),
        // The log is cut at a quarter of it, which brings many checkpoints.
        max_size: Size::from_mib(1),
        commit_delay: Period::from_millis(1),
        ..config::Buffer::default()
    };
    let rule = Forward {
        filter: TopicFilter::parse("#").unwrap(),
        topic: "{topic}".to_owned(),
        qos: QoS::AtLeastOnce,
        priority: Priority::Normal,
        quota: None,
    };
    Buffer::open(&config, &[rule]).unwrap()
}

fn number_of(row: &Row) -> usize {
    let text = str::from_utf8(&row.payload).expect("the payloads are text");
    text.split(' ').next().unwrap().parse().unwrap()
}

/// A directory with the child's files, in memory where there is such a place.
struct Scene(TempDir);

impl Scene {
    fn new() -> Scene {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() {
            memory.to_owned()
        } else {
            env::temp_dir()
        };
        let scene = Scene(TempDir::new_in(root).unwrap());
        fs::create_dir(scene.disk()).unwrap();
        scene
    }

    fn disk(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    fn ledger(&self) -> PathBuf {
        self.0.path().join("ledger")
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("calls")
    }

    /// The calls of a child that meets no failure.
    fn recorded(&self, rounds: usize) -> Vec<Call> {
        self.run(rounds, &[]);
        trace::read(&self.log(), &self.disk(), &self.ledger())
    }

    fn run(&self, rounds: usize, with: &[String]) {
        let program = env::current_exe().unwrap();
        let program = program.to_str().expect("a path in UTF-8");
        let command = [program, "--exact", CHILD, "--ignored", "--test-threads=1"];
        let done = trace::watched(&self.log(), with, &command)
            .env(DIRECTORY, self.0.path())
            .env(ROUNDS, rounds.to_string())
            .output()
            .expect("strace is installed: cargo xtask setup");
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(done.status.success(), "{with:?}: {said}");
    }
}

/// What the child was promised up to a moment.
#[derive(Debug, Default, Clone)]
struct Ledger {
    acknowledged: BTreeSet<usize>,
    gone: BTreeSet<usize>,
}

impl Ledger {
    fn of<'a>(lines: impl Iterator<Item = &'a str>) -> Ledger {
        let mut ledger = Ledger::default();
        lines.for_each(|line| ledger.enter(line));
        ledger
    }

    fn enter(&mut self, line: &str) {
        let (what, number) = line.trim().split_once(' ').expect("a word and a number");
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

/// Cuts the power once per seed; the calls are gone through once, so the cuts are sorted.
fn cut_power(scene: &Scene, calls: &[Call], seeds: Vec<u64>) -> Result<Tally, String> {
    let syncs = syncs(calls);
    let mut cuts: BTreeMap<usize, Vec<(u64, Random)>> = BTreeMap::new();
    for seed in seeds {
        let mut random = Random(seed);
        // Each boundary in turn: just before it holds, or somewhere on the way to it.
        let boundary = seed as usize % syncs.len();
        let before = boundary.checked_sub(1).map_or(0, |index| syncs[index]);
        let at = match random.below(2) {
            0 => syncs[boundary],
            _ => before + random.below(syncs[boundary] - before + 1),
        };
        cuts.entry(at).or_default().push((seed, random));
    }
    let (mut disk, mut ledger, mut tally) = (Disk::default(), Ledger::default(), Tally::default());
    for (index, call) in calls.iter().enumerate() {
        for (seed, mut random) in cuts.remove(&index).unwrap_or_default() {
            let image = scene.0.path().join(format!("seed-{seed}"));
            write_image(&image, &scene.disk(), disk.power_cut(&mut random));
            let found = verify(&image, &ledger);
            fs::remove_dir_all(&image).unwrap();
            tally = tally.and(&found.map_err(|why| {
                format!("CRASH_SEED={seed}, power cut before call {index}: {why}")
            })?);
        }
        disk.apply(call);
        if let Call::Told(line) = call {
            ledger.enter(line);
        }
    }
    Ok(tally)
}

/// Where in the calls something was made to last.
fn syncs(calls: &[Call]) -> Vec<usize> {
    (0..calls.len())
        .filter(|index| matches!(calls[*index], Call::Sync(_)))
        .collect()
}

fn write_image(image: &Path, disk: &Path, files: BTreeMap<PathBuf, Vec<u8>>) {
    fs::create_dir(image).unwrap();
    for (path, content) in files {
        let name = path.strip_prefix(disk).unwrap();
        // The log's index is made anew after a power cut.
        if !name.to_string_lossy().ends_with("-shm") {
            fs::write(image.join(name), content).unwrap();
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
