//! The Modbus device that all peers poll. Driver.
//!
//! Invariant: it counts what it served itself, whoever asks.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::runs::Answering;
use crate::bench::process::Answerer;
use crate::command::{root, run};

/// A device that answers on a port of loopback.
pub(crate) struct Device {
    answerer: Answerer,
}

/// What a device has served since its start.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    pub(crate) requests: f64,
    pub(crate) registers: f64,
    pub(crate) cpu_seconds: f64,
}

/// Builds the one by libmodbus as `program`.
pub(crate) fn compile(program: &Path) -> Result<()> {
    run(Command::new("gcc")
        .args(["-O2", "-Wall", "-Werror", "-I/usr/include/modbus", "-o"])
        .arg(program)
        .arg(root().join("tests/peers/bench_device.c"))
        .arg("-lmodbus"))
}

impl Device {
    /// Starts one on `core`, and waits until it answers. `compiled` is the one by libmodbus.
    pub(crate) fn start(
        answering: Answering,
        compiled: &Path,
        python: &Path,
        port: u16,
        core: usize,
    ) -> Result<Device> {
        let mut command = match answering {
            Answering::Libmodbus => Command::new(compiled),
            Answering::Pymodbus => {
                let mut command = Command::new(python);
                command.arg(root().join("tests/peers/bench_device.py"));
                command
            }
        };
        let mut answerer = Answerer::start(command.arg(port.to_string()), core)?;
        answerer.process.wait_listening(port)?;
        Ok(Device { answerer })
    }

    pub(crate) fn served(&mut self) -> Result<Served> {
        let counts = self.answerer.ask()?;
        let cpu_seconds = self.answerer.process.cpu()?.as_secs_f64();
        Ok(Served {
            requests: number(&counts, "requests")?,
            registers: number(&counts, "registers")?,
            cpu_seconds,
        })
    }
}

/// A number of what an [`Answerer`] answered.
pub(super) fn number(counts: &Value, key: &str) -> Result<f64> {
    let number = counts.get(key).and_then(Value::as_f64);
    number.with_context(|| format!("{counts} has no {key}"))
}
