//! Whom the gateway talks to besides the upstream: simulated devices and MQTT clients.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Identity, PATIENCE, Pki, Process, Scene, gateway::build_directory, plant::GATEWAY, until,
};

/// The RTU device: unit 17 on a serial wire whose far end appears at `link`.
pub(crate) fn meter(scene: &Scene, link: &Path) -> Result<Process> {
    let mut command = script("modbus_device.py")?;
    command.arg("--link").arg(link).args(["--unit", "17"]);
    for quantity in [
        "voltage=input:0:f:ABCD:230.4:0.1",
        "current=input:2:f:CDAB:1.25:0.25",
        "temperature=input:10:h:ABCD:-50:1",
        "energy=input:20:Q:DCBA:9007199254740993:1",
        "label=input:30:8s:ABCD:MTR-7:0",
        "setpoint=holding:100:H:ABCD:5:0",
    ] {
        command.args(["--quantity", quantity]);
    }
    ready(Process::start("meter", &scene.log_path("meter"), command)?)
}

/// The TCP device: unit 1 on loopback.
pub(crate) fn tank(scene: &Scene, port: u16) -> Result<Process> {
    let mut command = script("modbus_device.py")?;
    command.arg("--tcp").arg(port.to_string());
    for quantity in [
        "level=input:0:i:CDAB:-100000:7",
        "door=discrete:3:?:ABCD:0:1",
        "valve=coil:5:?:ABCD:0:0",
    ] {
        command.args(["--quantity", quantity]);
    }
    ready(Process::start("tank", &scene.log_path("tank"), command)?)
}

/// The updater's end of `updater.sock`, over the slots in `slots.json`.
pub(crate) fn updater(scene: &Scene) -> Result<Process> {
    let mut command = script("updater.py")?;
    command.arg("--socket").arg(scene.path("updater.sock"));
    command.arg("--status").arg(scene.path("slots.json"));
    ready(Process::start(
        "updater",
        &scene.log_path("updater"),
        command,
    )?)
}

/// A TCP device of these quantities, unit 1 on loopback, that does not know some function codes.
pub(crate) fn controller(
    scene: &Scene,
    port: u16,
    quantities: &[&str],
    unknown: &[u8],
) -> Result<Process> {
    let mut command = script("modbus_device.py")?;
    command.arg("--tcp").arg(port.to_string());
    for quantity in quantities {
        command.args(["--quantity", quantity]);
    }
    for function in unknown {
        command.args(["--unknown", &function.to_string()]);
    }
    ready(Process::start(
        "controller",
        &scene.log_path("controller"),
        command,
    )?)
}

/// A device with Modbus/TCP Security: unit 1 on loopback, which wants a certificate of `clients`.
pub(crate) fn vault(
    scene: &Scene,
    port: u16,
    clients: &Path,
    identity: &Identity,
) -> Result<Process> {
    let mut command = script("modbus_device.py")?;
    command.arg("--tcp").arg(port.to_string());
    command.arg("--tls").arg(clients);
    command.args([&identity.certificate, &identity.key]);
    command.args(["--quantity", "level=input:0:i:CDAB:-100000:7"]);
    ready(Process::start("vault", &scene.log_path("vault"), command)?)
}

/// A Modbus server by pymodbus with registers that are 1000 + address.
pub(crate) fn register_server(scene: &Scene, arguments: &[&str]) -> Result<Process> {
    let mut command = script("modbus_registers.py")?;
    command.args(arguments);
    ready(Process::start(
        "pymodbus",
        &scene.log_path("pymodbus"),
        command,
    )?)
}

/// The same by libmodbus, compiled in the scene.
pub(crate) fn libmodbus(scene: &Scene, arguments: &[&str]) -> Result<Process> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/libmodbus_server.c");
    let program = scene.path("libmodbus_server");
    let output = Command::new("cc")
        .args(["-Wall", "-O2", "-I/usr/include/modbus", "-o"])
        .args([&program, &source])
        .arg("-lmodbus")
        .output()
        .context("cannot start cc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "libmodbus' server (Debian package libmodbus-dev): {said}"
    );
    let mut command = Command::new(program);
    command.args(arguments);
    ready(Process::start(
        "libmodbus",
        &scene.log_path("libmodbus"),
        command,
    )?)
}

/// The NMEA 0183 wind sensor on a serial wire whose far end appears at `link`.
pub(crate) fn wind(scene: &Scene, link: &Path) -> Result<Process> {
    let mut command = script("nmea_talker.py")?;
    command.arg("--link").arg(link);
    ready(Process::start("wind", &scene.log_path("wind"), command)?)
}

/// A weighing scale that answers when asked, on a serial wire whose far end appears at `link`.
pub(crate) fn scale(scene: &Scene, link: &Path, arguments: &[&str]) -> Result<Process> {
    let mut command = script("scale.py")?;
    command.arg("--link").arg(link).args(arguments);
    ready(Process::start("scale", &scene.log_path("scale"), command)?)
}

/// A Sparkplug host application named `scada`, which listens to the edge node of the gateway in the group `plant`.
pub(crate) fn host(scene: &Scene, port: u16, pki: &Pki) -> Result<Process> {
    let identity = pki.client(scene, "observer")?;
    let mut command = script("sparkplug_host.py")?;
    command.args(["--port", &port.to_string(), "--id", "scada"]);
    command.args(["--group", "plant", "--node", GATEWAY, "--ca"]);
    command
        .arg(&pki.ca)
        .arg("--cert")
        .arg(&identity.certificate);
    command.arg("--key").arg(&identity.key);
    let process = Process::start("scada", &scene.log_path("scada"), command)?;
    until("the host application listens", PATIENCE, || {
        Ok(process.events_named("connected")?.first().map(drop))
    })?;
    Ok(process)
}

/// `mosquitto_sub`, MQTT 3.1.1 without TLS, from the local broker; one JSON object per message.
pub(crate) fn subscriber(scene: &Scene, port: u16, filters: &[&str]) -> Result<Process> {
    let mut command = Command::new("mosquitto_sub");
    command.args([
        "-h",
        "127.0.0.1",
        "-V",
        "mqttv311",
        "-q",
        "1",
        "-F",
        "%j",
        "-p",
    ]);
    command.arg(port.to_string());
    for filter in filters {
        command.args(["-t", filter]);
    }
    Process::start("subscriber", &scene.log_path("subscriber"), command)
}

/// Whether the JSON Schema accepts the TOML file; the answer of an independent validator.
pub(crate) fn accepts(schema: &Path, document: &Path) -> Result<Option<String>> {
    let output = script("accepts.py")?.arg(schema).arg(document).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok(None),
        Some(1) => Ok(Some(said)),
        _ => anyhow::bail!("no verdict: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// The samples that Prometheus' own parser finds at `/metrics` of this loopback port.
pub(crate) fn openmetrics(port: u16) -> Result<Vec<Value>> {
    let url = format!("http://127.0.0.1:{port}/metrics");
    let output = script("openmetrics.py")?.arg(url).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "no metrics: {said}");
    let lines = String::from_utf8(output.stdout)?;
    let samples = lines.lines().map(serde_json::from_str);
    Ok(samples.collect::<Result<_, _>>()?)
}

/// An MQTT client by paho, driven by this test.
pub(crate) struct Client {
    name: String,
    port: u16,
    arguments: Vec<String>,
    /// Whether the broker keeps its session.
    pub(crate) persistent: bool,
    process: Option<Process>,
}

impl Client {
    /// An MQTT 5 client of the broker on this loopback port, not yet started.
    pub(crate) fn new(name: &str, port: u16) -> Client {
        Client {
            name: name.to_owned(),
            port,
            arguments: Vec::new(),
            persistent: false,
            process: None,
        }
    }

    /// With TLS and a client certificate.
    pub(crate) fn over_tls(self, ca: &Path, identity: &Identity) -> Client {
        let certificate = identity.certificate.display().to_string();
        let key = identity.key.display().to_string();
        self.trusting(ca)
            .with("--cert", &certificate)
            .with("--key", &key)
    }

    /// With TLS, checking the server against `ca`.
    pub(crate) fn trusting(self, ca: &Path) -> Client {
        let ca = ca.display().to_string();
        self.with("--ca", &ca)
    }

    /// With another argument of the client program.
    pub(crate) fn with(mut self, argument: &str, value: &str) -> Client {
        self.arguments
            .extend([argument.to_owned(), value.to_owned()]);
        self
    }

    /// Starts the client; it connects by itself, again and again.
    pub(crate) fn start(mut self, scene: &Scene) -> Result<Client> {
        let mut command = script("mqtt_client.py")?;
        command.args(["--port", &self.port.to_string(), "--client-id", &self.name]);
        if self.persistent {
            command.arg("--persistent");
        }
        command.args(&self.arguments);
        let log = scene.log_path(&format!("client-{}", self.name));
        self.process = Some(Process::start(&self.name, &log, command)?);
        Ok(self)
    }

    /// Waits for the connection, subscribes, and waits until the broker has granted it.
    pub(crate) fn subscribed(mut self, filters: &[&str]) -> Result<Client> {
        self.event("connected", |_| true)?;
        for &filter in filters {
            let codes = self.subscribe(filter)?;
            ensure!(
                codes < 0x80,
                "subscription to {filter} refused with {codes:#x}"
            );
        }
        Ok(self)
    }

    /// Subscribes; the reason code that the broker answered.
    pub(crate) fn subscribe(&mut self, filter: &str) -> Result<u64> {
        self.tell(&json!({"do": "subscribe", "filter": filter, "qos": 1}))?;
        let event = self.event("subscribed", |event| event["filter"] == filter)?;
        event["codes"][0].as_u64().context("no reason code")
    }

    /// Publishes with QoS 1; the reason code of the acknowledgement.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str) -> Result<u64> {
        self.tell(&json!({"do": "publish", "topic": topic, "payload": payload}))?;
        let ours = |event: &Value| event["topic"] == topic && event["payload"] == payload;
        let event = self.event("published", ours)?;
        event["code"].as_u64().context("no reason code")
    }

    /// Tells the client what to do, without waiting.
    pub(crate) fn tell(&mut self, line: &Value) -> Result<()> {
        self.process
            .as_mut()
            .context("the client is not started")?
            .tell(line)
    }

    /// Waits for an event of this name that fits.
    pub(crate) fn event(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        until(
            &format!("client {} tells {name}", self.name),
            PATIENCE,
            || Ok(self.process()?.events_named(name)?.into_iter().find(&fits)),
        )
    }

    /// Waits for a message on this topic that fits; its payload.
    pub(crate) fn message(&self, topic: &str, fits: impl Fn(&str) -> bool) -> Result<String> {
        let payload = |event: &Value| event["payload"].as_str().unwrap_or_default().to_owned();
        let event = self.event("message", |event| {
            event["topic"] == topic && fits(&payload(event))
        })?;
        Ok(payload(&event))
    }

    /// The process, once started.
    pub(crate) fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("the client is not started")
    }
}

pub(crate) fn script(name: &str) -> Result<Command> {
    let python = python()?;
    ensure!(
        python.is_file(),
        "no Python at {}: make it with `python3 -m venv target/venv` and \
         `target/venv/bin/pip install -r tests/requirements.txt`, or set TEST_PYTHON",
        python.display()
    );
    let mut command = Command::new(python);
    command.arg(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("peers")
            .join(name),
    );
    Ok(command)
}

fn python() -> Result<PathBuf> {
    if let Some(path) = env::var_os("TEST_PYTHON") {
        return Ok(path.into());
    }
    let target = build_directory()?;
    let target = target
        .parent()
        .context("a build directory lies in the target directory")?;
    Ok(target.join("venv/bin/python"))
}

/// Waits until a peer says that it is.
pub(crate) fn ready(process: Process) -> Result<Process> {
    until("the device is ready", PATIENCE, || {
        Ok(process.events_named("ready")?.pop())
    })?;
    Ok(process)
}
