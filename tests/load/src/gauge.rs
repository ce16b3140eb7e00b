//! The broker's process as the kernel accounts for it: processor time, memory, wake-ups. Driver.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use nix::{
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// A process that is watched.
pub(crate) struct Gauge {
    pid: i32,
    clock: ClockId,
}

impl Gauge {
    pub(crate) fn of(pid: i32) -> Result<Gauge> {
        let clock = clock_getcpuclockid(Pid::from_raw(pid))
            .with_context(|| format!("there is no process {pid} to measure"))?;
        Ok(Gauge { pid, clock })
    }

    /// Processor time that all its threads have used, kernel included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(clock_gettime(self.clock)
            .context("the broker ended while it was measured")?
            .into())
    }

    /// Resident memory.
    pub(crate) fn memory_kb(&self) -> Result<u64> {
        number(&format!("/proc/{}/status", self.pid), "VmRSS:")
    }

    /// How often its threads began or ceased to run.
    pub(crate) fn switches(&self) -> Result<u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid))?;
        tasks
            .map(|task| {
                let status = task?.path().join("status").display().to_string();
                let voluntary = number(&status, "voluntary_ctxt_switches:")?;
                Ok(voluntary + number(&status, "nonvoluntary_ctxt_switches:")?)
            })
            .sum()
    }
}

/// Processor time of this process.
pub(crate) fn own_cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// The number behind a key of a `/proc` file.
fn number(path: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .with_context(|| format!("{path} has no number behind {key}"))
}
