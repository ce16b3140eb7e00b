//! Those who keep and forward, and the upstream above them: how each is configured and started. Driver.
//!
//! Invariant: all forward at QoS 1 to the same kind of upstream, a Mosquitto on the last core.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::runs::Peer;
use crate::bench::brokers::free_port;
use crate::bench::process::{Process, pinned};
use crate::command::{output, root};

const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// The programs that take part, and where they run.
pub(crate) struct Programs {
    pub(crate) gateway: PathBuf,
    pub(crate) store_load: PathBuf,
    pub(crate) load: PathBuf,
    /// With what tests/requirements.txt names.
    pub(crate) python: PathBuf,
    /// The ThingsBoard gateway's interpreter, if it takes part.
    pub(crate) thingsboard: Option<PathBuf>,
    /// The Modbus device by libmodbus.
    pub(crate) device: PathBuf,
    /// For configurations and what is stored.
    pub(crate) folder: PathBuf,
    /// Of the store; the rest is on the other one.
    pub(crate) core: usize,
    pub(crate) other_core: usize,
}

/// A store that runs as a process.
pub(crate) struct Store {
    pub(crate) process: Process,
    /// Where it takes messages.
    pub(crate) port: u16,
    /// Where our metrics are; Mosquitto has none.
    pub(crate) metrics: Option<u16>,
}

impl Programs {
    /// An empty place for files.
    pub(crate) fn empty(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// What `store-load` reports; `core`: not on all of them.
    pub(crate) fn store_load(&self, arguments: &[&str], core: Option<usize>) -> Result<Value> {
        let mut command = Command::new(&self.store_load);
        command.args(arguments);
        report(match core {
            Some(core) => pinned(&command, core),
            None => command,
        })
    }

    /// What the storage of the ThingsBoard gateway reports.
    pub(crate) fn thingsboard(&self, work: &str, amount: u64) -> Result<Value> {
        let python = self.thingsboard.as_ref();
        let python = python.context("the ThingsBoard gateway is not installed here")?;
        let mut command = Command::new(python);
        command.arg(root().join("tests/peers/thingsboard_store.py"));
        command.arg(self.empty("thingsboard")?);
        report({
            command.args([work, &amount.to_string(), "100"]);
            command
        })
    }

    /// The upstream, which takes everything and stores nothing.
    pub(crate) fn upstream(&self, port: u16) -> Result<Process> {
        let file = self.folder.join("upstream.conf");
        let text = format!(
            "user root\nlog_dest none\nmax_queued_messages 0\nset_tcp_nodelay true\nsys_interval 1\n\
             listener {port} 127.0.0.1\nallow_anonymous true\n"
        );
        fs::write(&file, text)?;
        let mut command = Command::new(MOSQUITTO);
        let mut process = Process::start(command.arg("-c").arg(&file), self.other_core)?;
        process.wait_listening(port)?;
        Ok(process)
    }

    /// Starts a store with what lies in `folder`; `bus`: the TOML of devices.
    pub(crate) fn start(
        &self,
        peer: Peer,
        folder: &Path,
        upstream: u16,
        bus: &str,
    ) -> Result<Store> {
        match peer {
            Peer::Ours => self.ours(folder, upstream, bus),
            _ => self.mosquitto(folder, upstream),
        }
    }

    fn ours(&self, folder: &Path, upstream: u16, bus: &str) -> Result<Store> {
        let (port, metrics) = (free_port()?, free_port()?);
        let file = folder.join("gateway.toml");
        let shown = folder.display();
        let text = format!(
            "[gateway]\nid = \"bench\"\ncontrol = \"{shown}/control.sock\"\n\
             [buffer]\npath = \"{shown}/buffer.db\"\nmax_size = \"16GiB\"\n\
             [metrics]\naddress = \"127.0.0.1:{metrics}\"\n\
             [[broker.listener]]\naddress = \"127.0.0.1:{port}\"\n\
             [[broker.access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
             [upstream]\nurl = \"mqtt://127.0.0.1:{upstream}\"\nretry = \"100ms\"\nretry_max = \"200ms\"\n\
             [[forward]]\nfilter = \"telemetry/#\"\n\
             [[forward]]\nfilter = \"load/#\"\n{bus}"
        );
        fs::write(&file, text)?;
        let mut command = Command::new(&self.gateway);
        command.arg("run").arg("--config").arg(&file);
        let mut process = Process::start(&command, self.core)?;
        process.wait_listening(port)?;
        process.wait_listening(metrics)?;
        Ok(Store {
            process,
            port,
            metrics: Some(metrics),
        })
    }

    fn mosquitto(&self, folder: &Path, upstream: u16) -> Result<Store> {
        let port = free_port()?;
        let file = folder.join("mosquitto.conf");
        // It gives up root by itself, and could then not read this user's files.
        let text = format!(
            "user root\nlog_dest none\nmax_queued_messages 0\nset_tcp_nodelay true\n\
             persistence true\npersistence_location {}/\n\
             listener {port} 127.0.0.1\nallow_anonymous true\n\
             connection up\naddress 127.0.0.1:{upstream}\ncleansession false\nrestart_timeout 1\n\
             max_inflight_messages 100\n\
             topic telemetry/# out 1 \"\" bench/\ntopic load/# out 1 \"\" bench/\n",
            folder.display()
        );
        fs::write(&file, text)?;
        let mut command = Command::new(MOSQUITTO);
        let mut process = Process::start(command.arg("-c").arg(&file), self.core)?;
        process.wait_listening(port)?;
        Ok(Store {
            process,
            port,
            metrics: None,
        })
    }
}

fn report(mut command: Command) -> Result<Value> {
    // Its command line names folders of this machine, which do not belong into the results.
    let text = output(&mut command)
        .ok()
        .context("it ended, and says why above")?;
    serde_json::from_str(&text).with_context(|| format!("no report but {text:?}"))
}
