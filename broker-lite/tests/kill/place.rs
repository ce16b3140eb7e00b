//! Where the broker runs, and how it is started and killed.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a packet before a client looks at what else is to be done.
pub(crate) const GLANCE: Duration = Duration::from_millis(2);

/// The broker as a process.
pub(crate) struct Broker(Child);

impl Broker {
    /// Started, and perhaps not listening yet.
    fn begin(config: &Path) -> Broker {
        let child = Command::new(env!("CARGO_BIN_EXE_broker-lite"))
            .arg("--config")
            .arg(config)
            .env("RUST_LOG", "error")
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
}

impl Place {
    pub(crate) fn new(database: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:{port}\"\n\
             [[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
             [persistence]\npath = \"{}\"\n\
             [limits]\nqueued_messages = 10000000\nqueued_bytes = \"1GiB\"\nsubscriptions = 10000\nmemory = \"2GiB\"\n",
            folder.path().join(database).display()
        );
        fs::write(folder.path().join("broker.toml"), text).unwrap();
        Place { folder, port }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("broker.toml")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("broker.db")
    }

    pub(crate) fn start(&self) -> Broker {
        let broker = Broker::begin(&self.config());
        wait_until("the broker listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
        broker
    }

    /// A start that is killed after so many milliseconds, whatever it does then.
    pub(crate) fn start_and_kill(&self, milliseconds: u64) {
        let broker = Broker::begin(&self.config());
        thread::sleep(Duration::from_millis(milliseconds));
        drop(broker);
    }

    pub(crate) fn check_permissions(&self) {
        let mode = fs::metadata(self.database()).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may not read the messages");
    }
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
