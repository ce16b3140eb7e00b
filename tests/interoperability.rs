//! Other people's Modbus understands ours: the gateway reads and writes servers by pymodbus and libmodbus, and mbpoll
//! reads and writes the devices of `gateway simulate`.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::harness::{
    Client, Gateway, PATIENCE, Pki, Process, Scene,
    gateway::binary,
    peers::{libmodbus, register_server},
    promise, until,
};

/// What every server here holds: unit 1, input and holding registers that are 1000 + address.
const POINTS: &str = r#"
[[device]]
name = "peer"
bus = "line"
unit = 1
interval = "200ms"
point = [
  { name = "input", register = "input:5" },
  { name = "pair", register = "input:6", type = "u32" },
  { name = "holding", register = "holding:7" },
  { name = "discrete", register = "discrete:3" },
  { name = "setpoint", register = "holding:20", access = "read-write" },
  { name = "wide", register = "holding:30", type = "u32", access = "read-write" },
  { name = "switch", register = "coil:4", access = "read-write" },
]
"#;

/// Reads every table of the server on `bus` and writes coils and registers, once the gateway runs.
fn is_understood(scene: &Scene, bus: &str) -> Result<()> {
    let port = scene.free_port()?;
    let config = format!(
        "[gateway]\ncontrol = \"{}\"\n[buffer]\npath = \"{}\"\n\
         [[broker.listener]]\naddress = \"127.0.0.1:{port}\"\n\
         [[broker.access]]\npublish = [\"command/#\"]\nsubscribe = [\"#\"]\n{bus}{POINTS}",
        scene.path("control.sock").display(),
        scene.path("buffer.db").display(),
    );
    let _gateway = Gateway::start(scene, &config, port)?;
    let filters = ["telemetry/#", "state/#", "result/#"];
    let mut client = Client::new("panel", port)
        .start(scene)?
        .subscribed(&filters)?;
    let shows = |client: &Client, point: &str, value: serde_json::Value| -> Result<()> {
        let is = |payload: &str| {
            let payload: serde_json::Value = serde_json::from_str(payload).unwrap_or_default();
            payload["value"] == value && payload["quality"] == "good"
        };
        client
            .message(&format!("telemetry/peer/{point}"), is)
            .map(drop)
    };
    shows(&client, "input", json!(1005))?;
    shows(&client, "pair", json!(1006 * 65_536 + 1007))?;
    shows(&client, "holding", json!(1007))?;
    shows(&client, "discrete", json!(true))?;
    for (point, value) in [
        ("setpoint", json!(4_711)),
        ("wide", json!(305_419_896)),
        ("switch", json!(true)),
    ] {
        let topic = format!("command/peer/{point}");
        client.publish(&topic, &json!({ "value": value }).to_string())?;
        let result = client.message(&format!("result/peer/{point}"), |_| true)?;
        ensure!(result.contains("executed"), "{point}: {result}");
        shows(&client, point, value)?;
    }
    Ok(())
}

fn serial(link: &Path) -> String {
    format!("[[bus]]\nname = \"line\"\nport = \"{}\"\n", link.display())
}

fn tcp(port: u16, more: &str) -> String {
    format!("[[bus]]\nname = \"line\"\ntcp = \"127.0.0.1:{port}\"\n{more}\n")
}

#[test]
fn pymodbus_over_rtu_is_read_and_written() {
    promise(|scene| {
        let link = scene.path("ttyPeer");
        let _server = register_server(scene, &["--link", &link.display().to_string()])?;
        is_understood(scene, &serial(&link))
    });
}

#[test]
fn pymodbus_over_tcp_is_read_and_written() {
    promise(|scene| {
        let port = scene.free_port()?;
        let _server = register_server(scene, &["--tcp", &port.to_string()])?;
        is_understood(scene, &tcp(port, ""))
    });
}

#[test]
fn pymodbus_over_rtu_frames_on_tcp_is_read_and_written() {
    promise(|scene| {
        let port = scene.free_port()?;
        let _server = register_server(scene, &["--tcp", &port.to_string(), "--rtu"])?;
        is_understood(scene, &tcp(port, "framing = \"rtu\""))
    });
}

#[test]
fn pymodbus_over_tls_with_client_certificates_is_read_and_written() {
    promise(|scene| {
        let pki = Pki::new(scene, "plc")?;
        let (server, client) = (pki.server(scene)?, pki.client(scene, "gateway")?);
        let port = scene.free_port()?;
        let text = |path: &Path| path.display().to_string();
        let arguments = [
            "--tcp",
            &port.to_string(),
            "--tls",
            &text(&pki.ca),
            &text(&server.certificate),
            &text(&server.key),
        ];
        let _server = register_server(scene, &arguments)?;
        let tls = format!(
            "tls = {{ ca = {:?}, certificate = {:?}, key = {:?} }}",
            pki.ca, client.certificate, client.key
        );
        is_understood(scene, &tcp(port, &tls))
    });
}

#[test]
fn libmodbus_over_rtu_is_read_and_written() {
    promise(|scene| {
        let (near, far) = (scene.path("ttyNear"), scene.path("ttyFar"));
        let _wire = wire(scene, &near, &far)?;
        let _server = libmodbus(scene, &["rtu", &near.display().to_string(), "19200"])?;
        is_understood(scene, &serial(&far))
    });
}

#[test]
fn libmodbus_over_tcp_is_read_and_written() {
    promise(|scene| {
        let port = scene.free_port()?;
        let _server = libmodbus(scene, &["tcp", &port.to_string()])?;
        is_understood(scene, &tcp(port, ""))
    });
}

#[test]
fn mbpoll_reads_and_writes_every_table_of_simulated_devices_over_rtu() {
    promise(|scene| {
        let folder = scene.path("wires");
        let _devices = simulated(scene, &["--folder", &folder.display().to_string()])?;
        let line = folder.join("line").display().to_string();
        mbpoll_understands(&["-m", "rtu", "-b", "19200", "-P", "even"], &line)
    });
}

#[test]
fn mbpoll_reads_and_writes_every_table_of_simulated_devices_over_tcp() {
    promise(|scene| {
        let port = scene.free_port()?;
        let _devices = simulated(scene, &["--tcp", &format!("127.0.0.1:{port}")])?;
        mbpoll_understands(&["-m", "tcp", "-p", &port.to_string()], "127.0.0.1")
    });
}

#[test]
fn a_simulated_fault_reaches_another_client_and_goes_when_it_is_cleared() {
    promise(|scene| {
        let port = scene.free_port()?;
        let mut devices = simulated(
            scene,
            &[
                "--tcp",
                &format!("127.0.0.1:{port}"),
                "--fault",
                "unit-2=exception:6 at input:3",
            ],
        )?;
        let port = port.to_string();
        let wire = ["-m", "tcp", "-p", &port];
        let read = |unit| {
            mbpoll(
                &wire,
                &["-a", unit, "-t", "3", "-r", "3", "-c", "4"],
                "127.0.0.1",
            )
        };
        ensure!(read("1").is_ok());
        let refused = read("2").expect_err("an exception").to_string();
        ensure!(
            refused.contains("Slave device or server is busy"),
            "{refused}"
        );
        devices.say("unit-2 clear")?;
        until("the fault is gone", PATIENCE, || Ok(read("2").ok()))?;
        devices.say("unit-1 silent")?;
        until("unit 1 is silent", PATIENCE, || Ok(read("1").err()))?;
        ensure!(read("2").is_ok());
        Ok(())
    });
}

/// Two simulated devices with bare registers in every table.
fn simulated(scene: &Scene, arguments: &[&str]) -> Result<Process> {
    let mut command = Command::new(binary()?);
    command.args(["simulate", "--unit", "1", "--unit", "2"]);
    for registers in ["input:0-99", "holding:0-99", "discrete:0-99", "coil:0-99"] {
        command.args(["--registers", registers]);
    }
    command.args(arguments);
    let process = Process::start("devices", &scene.log_path("devices"), command)?;
    until("the devices are ready", PATIENCE, || {
        Ok(process.log()?.contains("ready").then_some(()))
    })?;
    Ok(process)
}

fn mbpoll_understands(wire: &[&str], at: &str) -> Result<()> {
    let holds = |arguments: &[&str], wanted: &str| -> Result<()> {
        let told = mbpoll(wire, arguments, at)?;
        let told = told.replace([' ', '\t'], "");
        ensure!(told.contains(wanted), "{arguments:?}: {told}, not {wanted}");
        Ok(())
    };
    // mbpoll counts from one; types 0, 1, 3, 4 are coils, discrete inputs, input and holding registers.
    holds(&["-a", "1", "-t", "3", "-r", "1", "-c", "100"], "[100]:")?;
    holds(&["-a", "2", "-t", "1", "-r", "1", "-c", "100"], "[100]:")?;
    mbpoll(
        wire,
        &["-a", "1", "-t", "4", "-r", "8"],
        &format!("{at} 4711"),
    )?;
    holds(&["-a", "1", "-t", "4", "-r", "8"], "[8]:4711")?;
    mbpoll(
        wire,
        &["-a", "1", "-t", "4", "-r", "9"],
        &format!("{at} 1 2 3"),
    )?;
    holds(
        &["-a", "1", "-t", "4", "-r", "8", "-c", "4"],
        "[8]:4711\n[9]:1\n[10]:2\n[11]:3",
    )?;
    holds(&["-a", "2", "-t", "4", "-r", "8"], "[8]:0")?;
    mbpoll(wire, &["-a", "1", "-t", "0", "-r", "5"], &format!("{at} 1"))?;
    mbpoll(
        wire,
        &["-a", "1", "-t", "0", "-r", "7"],
        &format!("{at} 1 0 1"),
    )?;
    holds(
        &["-a", "1", "-t", "0", "-r", "5", "-c", "5"],
        "[5]:1\n[6]:0\n[7]:1\n[8]:0\n[9]:1",
    )?;
    holds(&["-a", "2", "-u"], "unit-2").or_else(|error| match wire[1] {
        // It asks who a device is over RTU alone.
        "tcp" => Ok(()),
        _ => Err(error),
    })?;
    let beyond = mbpoll(wire, &["-a", "1", "-t", "4", "-r", "101"], at);
    let refused = beyond
        .err()
        .context("there is no register 100")?
        .to_string();
    ensure!(refused.contains("Illegal data address"), "{refused}");
    Ok(())
}

/// One round of mbpoll; what it printed. The values to write stand behind the wire in `at`.
fn mbpoll(wire: &[&str], arguments: &[&str], at: &str) -> Result<String> {
    let output = Command::new("mbpoll")
        .args(wire)
        .args(["-1", "-q", "-o", "2"])
        .args(arguments)
        .args(at.split(' '))
        .output()
        .context("cannot start mbpoll (Debian package mbpoll)")?;
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    ensure!(
        output.status.success() && !told.contains("failed"),
        "{told}"
    );
    Ok(told)
}

/// Two pseudo-terminals by socat, joined.
fn wire(scene: &Scene, near: &Path, far: &Path) -> Result<Process> {
    let mut command = Command::new("socat");
    for end in [near, far] {
        command.arg(format!("pty,raw,echo=0,link={}", end.display()));
    }
    let process = Process::start("wire", &scene.log_path("wire"), command)?;
    until("the wire is laid", PATIENCE, || {
        Ok((near.exists() && far.exists()).then_some(()))
    })?;
    Ok(process)
}
