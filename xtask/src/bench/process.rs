//! A program that takes part: started on a core of its own, its processor time, its end. Driver.
//!
//! Invariant: it ends with its owner.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;

/// A program that does not listen after this many looks never will.
const LOOKS: u32 = 200;
const LOOK: Duration = Duration::from_millis(50);

/// The machine's last core, for what is not measured; the first is for what is.
pub(crate) fn last_core() -> Result<usize> {
    let cores = available_parallelism()?.get();
    ensure!(
        cores > 1,
        "what is measured and what measures need a core each; this machine has one"
    );
    Ok(cores - 1)
}

/// A running program.
pub(crate) struct Process {
    name: String,
    child: Child,
    clock: ClockId,
}

impl Process {
    /// Starts `command` on `core`; it is not heard.
    pub(crate) fn start(command: &Command, core: usize) -> Result<Process> {
        Self::with(
            pinned(command, core)
                .stdin(Stdio::null())
                .stdout(Stdio::null()),
        )
    }

    fn with(command: &mut Command) -> Result<Process> {
        let name = crate::command::line(command);
        let child = command
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        let pid = i32::try_from(child.id())?;
        let clock = clock_getcpuclockid(Pid::from_raw(pid))
            .with_context(|| format!("`{name}` ended at its start"))?;
        Ok(Process { name, child, clock })
    }

    /// Its identifier.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory.
    pub(crate) fn memory_kb(&self) -> Result<f64> {
        self.proc("status", "VmRSS:")
    }

    /// Bytes that it has had written to storage.
    pub(crate) fn written_bytes(&self) -> Result<f64> {
        self.proc("io", "write_bytes:")
    }

    fn proc(&self, file: &str, key: &str) -> Result<f64> {
        let path = format!("/proc/{}/{file}", self.id());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.and_then(|word| word.parse().ok())
            .with_context(|| format!("{path} has no number behind {key}"))
    }

    /// Processor time that all its threads have used, kernel included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let used = clock_gettime(self.clock)
            .with_context(|| format!("`{}` ended while it was measured", self.name))?;
        Ok(used.into())
    }

    /// Waits until it takes connections.
    pub(crate) fn wait_listening(&mut self, port: u16) -> Result<()> {
        for _ in 0..LOOKS {
            self.check()?;
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(());
            }
            sleep(LOOK);
        }
        bail!("`{}` does not listen", self.name)
    }

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("`{}` ended with {status}", self.name),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A program that answers each line with one of JSON.
pub(crate) struct Answerer {
    pub(crate) process: Process,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Answerer {
    pub(crate) fn start(command: &Command, core: usize) -> Result<Answerer> {
        let mut command = pinned(command, core);
        let mut process = Process::with(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let pipes = (process.child.stdin.take(), process.child.stdout.take());
        let (Some(questions), Some(answers)) = pipes else {
            bail!("`{}` has no pipes", process.name);
        };
        Ok(Answerer {
            process,
            questions,
            answers: BufReader::new(answers),
        })
    }

    /// The numbers that it tells now.
    pub(crate) fn ask(&mut self) -> Result<Value> {
        self.questions.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line)
            .with_context(|| format!("`{}` answered {line:?}", self.process.name))
    }
}

/// A number that the metrics on this port of loopback tell.
pub(crate) fn metric(port: u16, name: &str) -> Result<f64> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    connection.read_to_string(&mut page)?;
    ensure!(page.starts_with("HTTP/1.1 200"), "no metrics: {page}");
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("the metrics do not tell {name}"))?;
    Ok(value.parse()?)
}

/// The same command on one core.
pub(crate) fn pinned(command: &Command, core: usize) -> Command {
    let mut pinned = Command::new("taskset");
    pinned
        .args(["--cpu-list", &core.to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        pinned.env(key, value.unwrap_or_default());
    }
    if let Some(folder) = command.get_current_dir() {
        pinned.current_dir(folder);
    }
    pinned
}
