//! Where the broker runs, and how it is started and killed.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a packet before a client looks at what else is to be done.
pub(crate) const GLANCE: Duration = Duration::from_millis(2);

const PROGRAM: &str = env!("CARGO_BIN_EXE_broker-lite");

/// The broker as a process.
pub(crate) struct Broker(Child);

impl Broker {
    /// Started, and perhaps not listening yet.
    fn begin(place: &Place) -> Broker {
        let words = place.within.iter().map(String::as_str);
        let mut words = words.chain([PROGRAM]);
        let child = Command::new(words.next().unwrap_or(PROGRAM))
            .args(words)
            .arg("--config")
            .arg(place.config())
            .stdout(Stdio::null())
            .spawn();
        Broker(child.unwrap())
    }

    /// Has the broker read its configuration again; it does so while we go on.
    pub(crate) fn reload(&self) {
        let told = Command::new("kill")
            .args(["-HUP", &self.0.id().to_string()])
            .status();
        assert!(told.unwrap().success());
    }
}

impl Drop for Broker {
    /// SIGKILL: no last words.
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A folder with a configuration, and a port for it.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    /// The command, if any, that runs the broker in its place.
    within: Vec<String>,
}

impl Place {
    pub(crate) fn new(database: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let text = format!(
            "control = {:?}\n[log]\nlevel = \"error\"\n\
             [[listener]]\naddress = \"127.0.0.1:{port}\"\n\
             [[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
             [persistence]\npath = {:?}\n\
             [limits]\nqueued_messages = 10000000\nqueued_bytes = \"1GiB\"\nsubscriptions = 10000\nmemory = \"2GiB\"\n",
            folder.path().join("control.sock"),
            folder.path().join(database)
        );
        fs::write(folder.path().join("broker.toml"), text).unwrap();
        let within = Vec::new();
        Place {
            folder,
            port,
            within,
        }
    }

    /// The broker is run by this command from now on; it must become the broker.
    pub(crate) fn run_within(&mut self, command: Vec<String>) {
        self.within = command;
    }

    /// What `broker-lite status` says about the broker, as JSON.
    pub(crate) fn status(&self) -> String {
        let output = Command::new(PROGRAM)
            .args(["status", "--json", "--config"])
            .arg(self.config())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("broker.toml")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("broker.db")
    }

    pub(crate) fn start(&self) -> Broker {
        let broker = Broker::begin(self);
        wait_until("the broker listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
        broker
    }

    /// A start that is killed after so many milliseconds, whatever it does then.
    pub(crate) fn start_and_kill(&self, milliseconds: u64) {
        let broker = Broker::begin(self);
        thread::sleep(Duration::from_millis(milliseconds));
        drop(broker);
    }

    pub(crate) fn check_permissions(&self) {
        let mode = fs::metadata(self.database()).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may not read the messages");
    }
}

/// A port that stays free while the broker is dead: no outgoing connection is given one below 32768,
/// and no other test of this process gets the same.
fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = 16_384 + (process::id() % 16_000) as u16;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let ports = std::iter::repeat_with(|| first + GIVEN.fetch_add(1, Ordering::Relaxed));
    ports.take(100).find(is_free).unwrap()
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < PATIENCE,
            "waited {PATIENCE:?} until {what}"
        );
        thread::sleep(GLANCE);
    }
}
