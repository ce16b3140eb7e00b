//! Those who poll: how each is configured and started, and how its values are counted. Driver.
//!
//! Invariant: a value of a gateway counts when it is with its broker; one of a client when the device has served it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::device::number;
use super::runs::{Layout, Mode, Peer};
use crate::bench::brokers::free_port;
use crate::bench::process::{Answerer, Process, metric};
use crate::command::root;

/// The shortest interval that a point of ours may have.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);
/// mbpoll takes no shorter one.
const MBPOLL_SHORTEST_MS: &str = "10";
/// The interval at which the ThingsBoard gateway delivers most of 125 values: at shorter ones it reads more and delivers
/// less.
const THINGSBOARD: Duration = Duration::from_millis(100);

/// Messages that a gateway's broker has taken.
const MESSAGES: &str = "broker_messages_received_total";

/// The programs that take part.
pub(crate) struct Programs {
    pub(crate) gateway: PathBuf,
    /// With what tests/requirements.txt names.
    pub(crate) python: PathBuf,
    /// The ThingsBoard gateway's interpreter, if it takes part.
    pub(crate) thingsboard: Option<PathBuf>,
    /// For configurations and what is stored.
    pub(crate) folder: PathBuf,
    /// Of the peers; the rest is on the other one.
    pub(crate) core: usize,
    pub(crate) other_core: usize,
}

/// A peer that polls.
pub(crate) struct Polling {
    process: Process,
    counts: Counts,
    /// Who else runs for it: ends with it.
    _helpers: Vec<Process>,
}

enum Counts {
    /// The device's registers are its values.
    Device,
    /// Each message bears so many values, or stands for so many.
    Messages { metrics: u16, values: f64 },
    /// The platform's count.
    Platform(Box<Answerer>),
}

impl Polling {
    /// Values that have arrived so far, if the peer tells; else the device does.
    pub(crate) fn values(&mut self) -> Result<Option<f64>> {
        self.process.check()?;
        match &mut self.counts {
            Counts::Device => Ok(None),
            Counts::Messages { metrics, values } => Ok(Some(metric(*metrics, MESSAGES)? * *values)),
            Counts::Platform(platform) => Ok(Some(number(&platform.ask()?, "values")?)),
        }
    }

    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        Ok(self.process.cpu()?.as_secs_f64())
    }

    /// Clients just end; gateways have more to start.
    pub(crate) fn warm_up(&self) -> Duration {
        match self.counts {
            Counts::Platform(_) => Duration::from_secs(5),
            Counts::Device | Counts::Messages { .. } => Duration::from_millis(1_500),
        }
    }
}

impl Programs {
    /// Starts `peer` polling the device on `port`; `interval`: not as fast as it can.
    pub(crate) fn start(
        &self,
        peer: Peer,
        layout: Layout,
        interval: Option<Duration>,
        port: u16,
    ) -> Result<Polling> {
        match peer {
            Peer::Pymodbus => self.client(&self.pymodbus(layout, port)),
            Peer::Mbpoll => self.client(&mbpoll(layout, port)),
            Peer::ThingsBoard => self.thingsboard(layout, interval.unwrap_or(THINGSBOARD), port),
            Peer::Ours(mode) => {
                let bus = format!(
                    "tcp = \"127.0.0.1:{port}\"\npipeline = {}\nallow_overload = true",
                    if mode == Mode::Pipelined { 16 } else { 1 }
                );
                self.ours(mode, layout, interval.unwrap_or(SHORTEST), &bus)
            }
        }
    }

    fn client(&self, command: &Command) -> Result<Polling> {
        Ok(Polling {
            process: Process::start(command, self.core)?,
            counts: Counts::Device,
            _helpers: Vec::new(),
        })
    }

    fn pymodbus(&self, layout: Layout, port: u16) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(root().join("tests/peers/bench_client.py"));
        command.arg(port.to_string());
        for unit in 1..=layout.units {
            if layout.stride == 1 {
                command.arg(format!("{unit}:0:{}", layout.points));
            } else {
                command.args(layout.addresses().map(|at| format!("{unit}:{at}:1")));
            }
        }
        command
    }

    /// Our gateway with one bus.
    pub(crate) fn ours(
        &self,
        mode: Mode,
        layout: Layout,
        interval: Duration,
        bus: &str,
    ) -> Result<Polling> {
        let (metrics, broker) = (free_port()?, free_port()?);
        let config = configuration(mode, layout, interval, bus, metrics, broker, &self.folder);
        let file = self.folder.join("gateway.toml");
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = Command::new(&self.gateway);
        command.arg("run").arg("--config").arg(&file);
        let mut process = Process::start(&command, self.core)?;
        process.wait_listening(metrics)?;
        process.wait_listening(broker)?;
        let mut helpers = Vec::new();
        if mode == Mode::Subscribed {
            let mut reader = Command::new("mosquitto_sub");
            reader.args(["-p", &broker.to_string(), "-t", "telemetry/#"]);
            helpers.push(Process::start(&reader, self.other_core)?);
        }
        let values = match mode {
            Mode::EveryPoll | Mode::Subscribed => 1,
            // Register 0 changes with every request, so each read of a device is worth one message.
            Mode::Devices | Mode::OnChange | Mode::Pipelined => layout.points,
        };
        let values = f64::from(values);
        Ok(Polling {
            process,
            counts: Counts::Messages { metrics, values },
            _helpers: helpers,
        })
    }

    /// It sends nothing before its platform has told it the session's limits: a small program does, through Mosquitto.
    fn thingsboard(&self, layout: Layout, interval: Duration, port: u16) -> Result<Polling> {
        let python = self.thingsboard.as_ref();
        let python = python.context("the ThingsBoard gateway is not installed here")?;
        let folder = self.folder.join("thingsboard");
        fs::create_dir_all(&folder)?;
        let broker = free_port()?;
        let mosquitto = folder.join("mosquitto.conf");
        let text = format!(
            "user root\nlog_dest none\nmax_queued_messages 0\nlistener {broker} 127.0.0.1\nallow_anonymous true\n"
        );
        fs::write(&mosquitto, text)?;
        let mut command = Command::new("/usr/sbin/mosquitto");
        let mut helper = Process::start(command.arg("-c").arg(&mosquitto), self.other_core)?;
        helper.wait_listening(broker)?;
        let mut platform = Command::new(&self.python);
        platform.arg(root().join("tests/peers/thingsboard.py"));
        let platform = Answerer::start(platform.arg(broker.to_string()), self.other_core)?;
        write_thingsboard(&folder, layout, interval, port, broker)?;
        let mut command = Command::new(python);
        command
            .args(["-m", "thingsboard_gateway.tb_gateway"])
            .env("TB_GW_CONFIG_DIR", &folder)
            .current_dir(&folder);
        Ok(Polling {
            process: Process::start(&command, self.core)?,
            counts: Counts::Platform(Box::new(platform)),
            _helpers: vec![helper],
        })
    }
}

fn mbpoll(layout: Layout, port: u16) -> Command {
    let mut command = Command::new("mbpoll");
    command
        .args(["-m", "tcp", "-p", &port.to_string(), "-0", "-r", "0"])
        .args(["-a", &format!("1:{}", layout.units)])
        .args(["-c", &layout.points.to_string(), "-t", "4"])
        .args(["-l", MBPOLL_SHORTEST_MS, "127.0.0.1"]);
    command
}

/// `gateway.toml` for a bus with the layout's devices.
pub(crate) fn configuration(
    mode: Mode,
    layout: Layout,
    interval: Duration,
    bus: &str,
    metrics: u16,
    broker: u16,
    folder: &Path,
) -> String {
    let folder = folder.display();
    let mut text = format!(
        "[gateway]\nid = \"bench\"\ncontrol = \"{folder}/control.sock\"\n\
         [buffer]\npath = \"{folder}/buffer.db\"\n\
         [metrics]\naddress = \"127.0.0.1:{metrics}\"\n\
         [[broker.listener]]\naddress = \"127.0.0.1:{broker}\"\n\
         [[broker.access]]\nsubscribe = [\"#\"]\n\
         [broker.limits]\nqueued_messages = 1000000\n\
         [[bus]]\nname = \"bus\"\n{bus}\n"
    );
    let report = match mode {
        Mode::OnChange | Mode::Pipelined => "change",
        Mode::EveryPoll | Mode::Devices | Mode::Subscribed => "poll",
    };
    let publish = match mode {
        Mode::Devices => "device",
        _ => "point",
    };
    for unit in 1..=layout.units {
        let points = layout.addresses().map(|at| {
            format!("  {{ name = \"p{at}\", register = \"holding:{at}\", type = \"u16\", report = \"{report}\" }},\n")
        });
        // Writing to a text cannot fail.
        let _written = write!(
            text,
            "[[device]]\nname = \"d{unit}\"\nbus = \"bus\"\nunit = {unit}\ninterval = \"{}ms\"\n\
             publish = \"{publish}\"\npoint = [\n{}]\n",
            interval.as_millis(),
            points.collect::<String>()
        );
    }
    text
}

fn write_thingsboard(
    folder: &Path,
    layout: Layout,
    interval: Duration,
    port: u16,
    broker: u16,
) -> Result<()> {
    let tags: Vec<Value> = layout
        .addresses()
        .map(|at| {
            json!({"tag": format!("p{at}"), "type": "16uint", "functionCode": 3, "objectsCount": 1, "address": at})
        })
        .collect();
    let slave = |unit: u16| {
        json!({
            "host": "127.0.0.1", "port": port, "type": "tcp", "method": "socket", "unitId": unit,
            "deviceName": format!("d{unit}"), "deviceType": "default", "timeout": 5,
            "byteOrder": "BIG", "wordOrder": "BIG", "retries": true,
            "pollPeriod": u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
            "connectAttemptTimeMs": 500, "connectAttemptCount": 5, "waitAfterFailedAttemptsMs": 30_000,
            "attributes": [], "timeseries": tags, "attributeUpdates": [], "rpc": [],
        })
    };
    let slaves: Vec<Value> = (1..=layout.units).map(slave).collect();
    let gateway = json!({
        "thingsboard": {
            "host": "127.0.0.1", "port": broker, "remoteShell": false, "remoteConfiguration": false,
            "statistics": {"enable": false}, "checkConnectorsConfigurationInSeconds": 60,
            "minPackSendDelayMS": 50, "minPackSizeToSend": 500, "maxPayloadSizeBytes": 65_000,
            "security": {"type": "accessToken", "accessToken": "bench"}, "qos": 1,
            "reportStrategy": {"type": "ON_RECEIVED"},
        },
        "storage": {"type": "memory", "read_records_count": 100, "max_records_count": 100_000},
        "grpc": {"enabled": false},
        "connectors": [{"type": "modbus", "name": "modbus", "configuration": "modbus.json"}],
    });
    let logs = json!({"version": 1, "disable_existing_loggers": true});
    for (name, content) in [
        ("modbus.json", json!({"master": {"slaves": slaves}})),
        ("tb_gateway.json", gateway),
        ("logs.json", logs),
    ] {
        fs::write(folder.join(name), content.to_string())?;
    }
    Ok(())
}
