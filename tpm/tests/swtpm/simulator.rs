//! A TPM of one's own: swtpm on a Unix socket, with state that outlives it.

use std::{
    fs::File,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tpm::{Address, Tpm};

const START: Duration = Duration::from_secs(20);

/// A running swtpm; stopped with its owner.
pub(crate) struct Simulator {
    directory: TempDir,
    process: Option<Child>,
}

impl Simulator {
    /// A factory-new TPM.
    pub(crate) fn new() -> Simulator {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        let mut simulator = Simulator {
            directory,
            process: None,
        };
        simulator.power_on();
        simulator
    }

    /// Where its socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Where a test may keep files beside it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn address(&self) -> Address {
        Address::Unix(self.socket())
    }

    pub(crate) fn open(&self) -> Tpm {
        Tpm::open(&self.address()).unwrap()
    }

    /// Kills it, as a power cut does.
    pub(crate) fn power_off(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it with the state that it left.
    pub(crate) fn power_on(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let state = self.directory.path().join("state");
        let log = File::create(self.directory.path().join("log")).unwrap();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", self.socket().display()))
            // The tools' library talks to it too.
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}.ctrl", self.socket().display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("swtpm is installed (Debian package swtpm)");
        self.process = Some(child);
        let end = Instant::now() + START;
        while UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < end, "swtpm does not listen");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn power_cycle(&mut self) {
        self.power_off();
        self.power_on();
    }

    /// What one of tpm2-tools prints, an independent reader.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.directory.path())
            .env(
                "TPM2TOOLS_TCTI",
                format!("swtpm:path={}", self.socket().display()),
            )
            .output()
            .expect("tpm2-tools are installed (Debian package tpm2-tools)");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.power_off();
    }
}
