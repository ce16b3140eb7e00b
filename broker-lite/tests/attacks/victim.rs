//! The broker under attack: the real program, with a healthy client beside the attacker.
//!
//! Invariant: after every attack the same broker process serves, its memory never passed the
//! bound, and the healthy client lost nothing and waited for nothing longer than [`LONGEST_WAIT`].

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::bytes_on_the_wire::Client;

/// What the broker's limits add up to, in MiB.
const BOUND_MIB: u64 = 128;

/// What the process takes before the first client, in an unoptimised build, in MiB.
const BASE_MIB: u64 = 24;

/// Longest round trip of the healthy client, on a machine that runs other tests meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The healthy client publishes this often.
const BEAT: Duration = Duration::from_millis(20);

/// A broker process that is attacked.
pub(crate) struct Victim {
    process: Child,
    /// In the order of the configuration.
    addresses: Vec<SocketAddr>,
    _folder: tempfile::TempDir,
}

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
        fs::write(&path, config).unwrap();
        let mut process = spawn(&path);
        let listeners = config.matches("[[listener]]").count();
        let addresses = addresses(&mut process, listeners);
        Victim {
            process,
            addresses,
            _folder: folder,
        }
    }

    /// Where the healthy client goes.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
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
        let bound = (BOUND_MIB + BASE_MIB) * 1024;
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

/// Reads the broker's log until it has said where it listens; the rest is read and dropped, so that
/// a full pipe holds up nobody.
fn addresses(process: &mut Child, listeners: usize) -> Vec<SocketAddr> {
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let (mut addresses, mut said) = (Vec::new(), String::new());
    while addresses.len() < listeners {
        let Some(Ok(line)) = log.next() else {
            panic!("the broker did not start:\n{said}");
        };
        addresses.extend(listening(&line));
        said += &(line + "\n");
    }
    thread::spawn(move || log.map_while(Result::ok).for_each(drop));
    addresses
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
            Client::connected(address, "newcomer").round_trip_of_its_own("healthy/newcomer");
            longest.max(start.elapsed())
        });
        Healthy { stop, thread }
    }

    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the healthy client was served")
    }
}
