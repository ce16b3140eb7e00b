//! One real process: its output goes to a log file, and it ends with the test.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;

use super::until;

/// A started process.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; standard output and error are appended to `log`.
    pub(crate) fn start(name: &str, log: &Path, mut command: Command) -> Result<Process> {
        let output = File::options().create(true).append(true).open(log)?;
        // Started by this test, not by the service manager that may have started the test.
        let child = command
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}: {:?}", command.get_program()))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// The process identifier.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(Pid::from_raw(i32::try_from(self.id())?), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        until(&what, limit, || Ok(self.child.try_wait()?))
    }

    /// Kills the process at once (SIGKILL) and waits for its end.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// All that it has written so far.
    pub(crate) fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The JSON objects among its lines; a line that is not whole yet is left for later.
    pub(crate) fn events(&self) -> Result<Vec<Value>> {
        let log = self.log()?;
        let objects = log.lines().filter(|line| line.starts_with('{'));
        Ok(objects
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// The events of one name.
    pub(crate) fn events_named(&self, name: &str) -> Result<Vec<Value>> {
        let mut events = self.events()?;
        events.retain(|event| event["event"] == name);
        Ok(events)
    }

    /// Writes one JSON line to its standard input.
    pub(crate) fn tell(&mut self, line: &Value) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its input is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("{} no longer listens", self.name))
    }

    /// Writes one line of text to its standard input.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its input is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("{} no longer listens", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already: both calls then fail, and nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
