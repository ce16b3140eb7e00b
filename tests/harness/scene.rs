//! Where one promise is played: a directory of its own, free ports, and the logs shown on failure.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Lines shown of each process' log when a promise is broken.
const TAIL: usize = 40;

/// Ports are taken from below the range from which the kernel serves outgoing connections.
const FIRST_PORT: u16 = 21_000;
const LAST_PORT: u16 = 31_999;

/// The next port to try; starts at another place in each process.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// A directory with everything that one promise's processes read and write.
pub(crate) struct Scene {
    directory: TempDir,
}

/// Plays one promise in a scene of its own; a broken one shows the tail of every log.
pub(crate) fn promise(play: impl FnOnce(&Scene) -> Result<()>) {
    let directory = TempDir::with_prefix("promise-").expect("a temporary directory");
    let scene = Scene { directory };
    if let Err(error) = play(&scene) {
        panic!("{error:#}");
    }
}

impl Scene {
    /// A path in the scene.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where a process' output goes.
    pub(crate) fn log_path(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write_secret(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.write(name, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// A port on loopback that nobody listens on, given out once.
    pub(crate) fn free_port(&self) -> Result<u16> {
        let span = LAST_PORT - FIRST_PORT;
        let start = u16::try_from(std::process::id() * 97 % u32::from(span))?;
        for _ in 0..span {
            let step = NEXT_PORT.fetch_add(1, Ordering::Relaxed) % span;
            let port = FIRST_PORT + (start + step) % span;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(port);
            }
        }
        anyhow::bail!("no free port from {FIRST_PORT} to {LAST_PORT}")
    }

    fn show_logs(&self) {
        let Ok(entries) = fs::read_dir(self.directory.path()) else {
            return;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        // The gateway's own last: it is read first.
        paths.sort_by_key(|path| (path.ends_with("gateway.log"), path.clone()));
        let is_log = |path: &&PathBuf| path.extension().is_some_and(|end| end == "log");
        paths.iter().filter(is_log).for_each(|path| show_tail(path));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

#[expect(clippy::print_stderr, reason = "the test runner captures it")]
fn show_tail(path: &Path) {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.len().saturating_sub(TAIL);
    let name = path.file_name().unwrap_or_default().display();
    eprintln!(
        "--- {name}, last {} of {} lines",
        lines.len() - tail,
        lines.len()
    );
    lines.iter().skip(tail).for_each(|line| eprintln!("{line}"));
}
