//! Where a program under test works, and how it is watched. Driver.
//!
//! Invariant: every scene is a folder of its own, gone with its owner.

use std::{
    collections::BTreeMap,
    env, fs,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use tempfile::TempDir;

use crate::{Call, trace};

/// Where the program works.
const DIRECTORY: &str = "POWERCUT_DIRECTORY";
/// How much it does.
const AMOUNT: &str = "POWERCUT_AMOUNT";
/// Programs with a failing call at once: they mostly wait.
const PROGRAMS: usize = 4;

/// A folder with the program's files, in memory where there is such a place.
#[derive(Debug)]
pub struct Scene {
    folder: TempDir,
    program: &'static str,
}

/// The program's own view of its scene.
#[derive(Debug)]
pub struct Stage {
    /// Where its files are to be.
    pub disk: PathBuf,
    /// How much it is to do.
    pub amount: usize,
    ledger: File,
}

impl Stage {
    /// For the program: the test binary itself, started for one ignored test.
    pub fn open() -> Stage {
        let Some(folder) = env::var_os(DIRECTORY).map(PathBuf::from) else {
            panic!("{DIRECTORY} names the folder");
        };
        Stage {
            disk: folder.join("disk"),
            amount: env::var(AMOUNT).unwrap().parse().unwrap(),
            ledger: File::create(folder.join("ledger")).unwrap(),
        }
    }

    /// Tells the watcher a line, in one call.
    pub fn tell(&self, line: &str) {
        (&self.ledger)
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }
}

impl Scene {
    /// `program` is the path of an ignored test in this binary.
    pub fn new(program: &'static str) -> Scene {
        let memory = Path::new("/dev/shm");
        let root = match memory.is_dir() {
            true => memory.to_owned(),
            false => env::temp_dir(),
        };
        let folder = TempDir::new_in(root).unwrap();
        fs::create_dir(folder.path().join("disk")).unwrap();
        Scene { folder, program }
    }

    /// The calls of a run that meets no failure.
    pub fn record(&self, amount: usize) -> Vec<Call> {
        self.run(amount, &[]);
        trace::read(&self.log(), &self.disk(), &self.ledger())
    }

    /// Lets calls fail, one in each run: every `step`-th that a calm run of this amount makes.
    /// `verify` is given the files, and the lines that were told. Returns how many failed.
    pub fn fail(
        program: &'static str,
        amount: usize,
        step: usize,
        verify: impl Fn(&Path, &str) -> Result<(), String> + Sync,
    ) -> usize {
        let calm = Scene::new(program);
        calm.run(amount, &[]);
        let cases: Vec<String> = calm.failures().into_iter().step_by(step).collect();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..PROGRAMS {
                scope.spawn(|| {
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let scene = Scene::new(program);
                        scene.run(amount, std::slice::from_ref(case));
                        let told = fs::read_to_string(scene.ledger()).unwrap();
                        verify(&scene.disk(), &told).unwrap_or_else(|why| panic!("{case}: {why}"));
                    }
                });
            }
        });
        cases.len()
    }

    /// Every call of a run that a disk can let fail, as strace is told of it.
    fn failures(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log()).unwrap();
        let count = |name: &str| log.matches(&format!(" {name}(")).count();
        let mut cases = Vec::new();
        for (call, errors) in [
            ("pwrite64", &["ENOSPC", "EIO"][..]),
            ("fdatasync", &["EIO"]),
            ("ftruncate", &["EIO"]),
        ] {
            for nth in 1..=count(call) {
                let case = |error| format!("inject={call}:error={error}:when={nth}");
                cases.extend(errors.iter().map(case));
            }
        }
        cases
    }

    /// Writes what a power cut has left, and says where.
    pub(crate) fn image(&self, name: &str, files: BTreeMap<PathBuf, Vec<u8>>) -> PathBuf {
        let image = self.folder.path().join(name);
        fs::create_dir(&image).unwrap();
        for (path, content) in files {
            let name = path.strip_prefix(self.disk()).unwrap();
            // The log's index is made anew after a power cut.
            if !name.to_string_lossy().ends_with("-shm") {
                let path = image.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
        }
        image
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("calls")
    }

    fn run(&self, amount: usize, with: &[String]) {
        let binary = env::current_exe().unwrap();
        let binary = binary.to_str().expect("a path in UTF-8");
        let command = [
            binary,
            "--exact",
            self.program,
            "--ignored",
            "--test-threads=1",
        ];
        let done = trace::watched(&self.log(), with, &command)
            .env(DIRECTORY, self.folder.path())
            .env(AMOUNT, amount.to_string())
            .output()
            .expect("strace is installed: cargo xtask setup");
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(done.status.success(), "{with:?}: {said}");
    }
}
