//! The broker under attack: the real program, with a healthy client beside the attacker.
//!
//! Invariant: after every attack the same broker process serves, its memory never passed the
//! bound, and the healthy client lost nothing and waited for nothing longer than [`LONGEST_WAIT`].

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use broker_lite::packet::Version;

use crate::bytes_on_the_wire::{Client, PATIENCE, connect};

/// What the broker under attack is allowed.
const MEMORY: &str = "memory = \"64MiB\"\nretained_bytes = \"32MiB\"\n";

/// The same, in MiB.
const BOUND_MIB: u64 = 64;

/// What the process takes beside it (`docs/decisions/0015`), in MiB.
const BASE_MIB: u64 = 16;

/// Each of the two passwords checked at once takes so much for a moment, in MiB.
const PASSWORD_MIB: u64 = 19;

/// Longest round trip of the healthy client, on a machine that runs other tests meanwhile.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The healthy client publishes this often.
const BEAT: Duration = Duration::from_millis(20);

/// A broker process that is attacked.
pub(crate) struct Victim {
    process: Child,
    /// In the order of the configuration.
    addresses: Vec<SocketAddr>,
    folder: tempfile::TempDir,
    log: Log,
    /// Beside the bound, in MiB.
    base_mib: u64,
}

/// What the broker has said lately.
type Log = Arc<Mutex<VecDeque<String>>>;

/// Lines of the log that are kept.
const LOG_LINES: usize = 1_000;

impl Victim {
    /// Anonymous clients on loopback may do everything.
    pub(crate) fn open_to_all() -> Victim {
        Victim::with("[[access]]\npublish = [\"#\"]\nsubscribe = [\"#\", \"$SYS/#\"]\n")
    }

    /// One plain listener on loopback, with more configuration.
    pub(crate) fn with(more: &str) -> Victim {
        let folder = tempfile::tempdir().unwrap();
        Victim::start(
            folder,
            &format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{more}"),
        )
    }

    /// With a whole configuration, whose files are in `folder`. The first listener is the one
    /// that the healthy client uses.
    pub(crate) fn start(folder: tempfile::TempDir, config: &str) -> Victim {
        let path = folder.path().join("broker.toml");
        fs::write(&path, completed(config, folder.path())).unwrap();
        let mut process = spawn(&path);
        let listeners = config.matches("[[listener]]").count();
        let (addresses, log) = addresses(&mut process, listeners);
        let hashes = config.contains("password_file");
        Victim {
            process,
            addresses,
            folder,
            log,
            base_mib: BASE_MIB + if hashes { 2 * PASSWORD_MIB } else { 0 },
        }
    }

    /// Has the broker read this configuration and its files, and waits for what it says to it.
    pub(crate) fn reload(&self, config: &str, answer: &str) -> String {
        let text = completed(config, self.folder.path());
        fs::write(self.path("broker.toml"), text).unwrap();
        self.log.lock().unwrap().clear();
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(sent.success());
        self.says(answer)
    }

    /// Waits for a line of the log.
    pub(crate) fn says(&self, what: &str) -> String {
        let start = Instant::now();
        loop {
            let log = self.log.lock().unwrap();
            if let Some(line) = log.iter().find(|line| line.contains(what)) {
                return line.clone();
            }
            assert!(start.elapsed() < PATIENCE, "never said {what:?}: {log:?}");
            drop(log);
            thread::sleep(BEAT);
        }
    }

    /// A file in the broker's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the healthy client goes.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Of another listener, in the order of the configuration.
    pub(crate) fn address_of(&self, listener: usize) -> SocketAddr {
        self.addresses[listener]
    }

    /// Attacks, then says and checks what it took.
    pub(crate) fn survives(mut self, name: &str, attack: impl FnOnce(&Victim)) {
        let healthy = Healthy::start(self.address());
        attack(&self);
        let wait = healthy.stop();
        assert!(
            self.process.try_wait().unwrap().is_none(),
            "{name}: the broker ended"
        );
        let peak = self.memory_peak_kib();
        println!(
            "attack {name}: peak {:.1} MiB, healthy client waited {wait:?} at most",
            peak as f64 / 1024.0
        );
        assert!(
            wait < LONGEST_WAIT,
            "{name}: a healthy client waited {wait:?}"
        );
        let bound = (BOUND_MIB + self.base_mib) * 1024;
        assert!(peak < bound, "{name}: the broker took {peak} KiB");
    }

    fn memory_peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let number = line.split_whitespace().nth(1).unwrap();
        number.parse().unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// The configuration with the bound on memory, and a control socket in the folder.
fn completed(config: &str, folder: &Path) -> String {
    let config = format!("control = {:?}\n{config}", folder.join("control.sock"));
    match config.split_once("[limits]\n") {
        Some((before, after)) => format!("{before}[limits]\n{MEMORY}{after}"),
        None => format!("{config}\n[limits]\n{MEMORY}"),
    }
}

fn spawn(config: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_broker-lite"))
        .arg("--config")
        .arg(config)
        .env("RUST_LOG", "info")
        .env_remove("JOURNAL_STREAM")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads the broker's log until it has said where it listens; goes on reading, for a full pipe would
/// hold it up.
fn addresses(process: &mut Child, listeners: usize) -> (Vec<SocketAddr>, Log) {
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let (mut addresses, mut said) = (Vec::new(), String::new());
    while addresses.len() < listeners {
        let Some(Ok(line)) = log.next() else {
            panic!("the broker did not start:\n{said}");
        };
        addresses.extend(listening(&line));
        said += &(line + "\n");
    }
    let kept = Log::default();
    let lines = Arc::clone(&kept);
    thread::spawn(move || {
        for line in log.map_while(Result::ok) {
            let mut lines = lines.lock().unwrap();
            lines.push_back(line);
            if lines.len() > LOG_LINES {
                lines.pop_front();
            }
        }
    });
    (addresses, kept)
}

/// The address in `… listening address=127.0.0.1:40123 tls=false`.
fn listening(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("listening address=")?;
    after.split_whitespace().next()?.parse().ok()
}

/// A client that does nothing wrong, and measures what it waits for.
struct Healthy {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Healthy {
    fn start(address: SocketAddr) -> Healthy {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let mut client = Client::connected(address, "healthy");
        client.subscribe("healthy/beat");
        let thread = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !told.load(Ordering::Relaxed) {
                let start = Instant::now();
                client.round_trip("healthy/beat");
                longest = longest.max(start.elapsed());
                thread::sleep(BEAT);
            }
            // A new client is served too.
            let start = Instant::now();
            newcomer(address).round_trip_of_its_own("healthy/newcomer");
            longest.max(start.elapsed())
        });
        Healthy { stop, thread }
    }

    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the healthy client was served")
    }
}

/// A new client, as soon as it is let in: what attackers have let go of takes a moment to be free.
fn newcomer(address: SocketAddr) -> Client {
    let start = Instant::now();
    loop {
        match Client::try_connected(address, connect("newcomer", Version::V5)) {
            Ok(client) => return client,
            Err(refused) => assert!(start.elapsed() < PATIENCE, "newcomer: {refused:?}"),
        }
        thread::sleep(BEAT);
    }
}
