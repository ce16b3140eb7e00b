//! Promise: under systemd, the broker alone says when it is ready, keeps what it acknowledged when it is killed, and
//! can write nothing but its own directories.

#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::machine::{Machine, Service};

/// What the contract gives an orderly stop.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

const CONFIGURATION: &str = r##"
[[listener]]
address = "127.0.0.1:1883"

[[access]]
publish = ["#"]
subscribe = ["#"]

[persistence]
path = "/var/lib/broker-lite/broker.db"
"##;

fn boot() -> Result<Machine> {
    let machine = Machine::boot_with(Service::BrokerLite, CONFIGURATION)?;
    machine.wait_until_ready()?;
    Ok(machine)
}

#[test]
fn the_brokers_unit_verifies_and_it_serves_clients() -> Result<()> {
    let machine = boot()?;
    let findings = machine.run(&[
        "sh",
        "-c",
        "systemd-analyze verify broker-lite.service 2>&1",
    ])?;
    ensure!(
        !findings.contains("broker-lite"),
        "systemd-analyze verify: {findings}"
    );
    machine.run(&["mosquitto_pub", "-t", "a", "-m", "21.5", "-q", "1", "-r"])?;
    let received = machine.run(&["mosquitto_sub", "-t", "a", "-C", "1", "-W", "20"])?;
    ensure!(received.trim() == "21.5", "the subscriber got {received:?}");
    Ok(())
}

#[test]
fn a_killed_broker_is_started_again_with_what_it_acknowledged() -> Result<()> {
    let machine = boot()?;
    machine.run(&["mosquitto_pub", "-t", "a", "-m", "kept", "-q", "1", "-r"])?;
    let process = machine.property("MainPID")?;
    machine.run(&["kill", "-KILL", &process])?;
    machine.wait_for("a restart", |machine| {
        machine
            .property("NRestarts")
            .is_ok_and(|count| count == "1")
    })?;
    machine.wait_until_ready()?;
    let received = machine.run(&["mosquitto_sub", "-t", "a", "-C", "1", "-W", "20"])?;
    ensure!(received.trim() == "kept", "the subscriber got {received:?}");
    Ok(())
}

#[test]
fn the_broker_stops_in_order_and_in_time() -> Result<()> {
    let machine = boot()?;
    let start = Instant::now();
    machine.run(&["systemctl", "stop", "broker-lite.service"])?;
    let took = start.elapsed();
    ensure!(took < STOPS_WITHIN, "stopping took {took:?}");
    let result = machine.property("Result")?;
    ensure!(result == "success", "ended with {result}");
    Ok(())
}

#[test]
fn a_wrong_configuration_stops_the_broker_once_and_for_all() -> Result<()> {
    let machine = Machine::boot_with(Service::BrokerLite, "[limits]\nconections = 5\n")?;
    machine.wait_for("the service to fail", |machine| {
        machine
            .property("ActiveState")
            .is_ok_and(|state| state == "failed")
    })?;
    let (status, restarts) = (
        machine.property("ExecMainStatus")?,
        machine.property("NRestarts")?,
    );
    ensure!(
        (status.as_str(), restarts.as_str()) == ("2", "0"),
        "exit code {status}, {restarts} restarts"
    );
    Ok(())
}

#[test]
fn the_broker_can_write_its_own_directories_and_nothing_else() -> Result<()> {
    let machine = boot()?;
    let process = machine.property("MainPID")?;
    // Root in the service's mount namespace: what it cannot write there, no file permission lets the service write.
    let touch =
        |path: &str| machine.run(&["nsenter", "--target", &process, "--mount", "touch", path]);
    for own in ["/var/lib/broker-lite/probe", "/run/broker-lite/probe"] {
        touch(own).with_context(|| format!("{own} cannot be written"))?;
    }
    for foreign in ["/etc/broker-lite/probe", "/var/probe", "/usr/probe"] {
        ensure!(touch(foreign).is_err(), "{foreign} can be written");
    }
    Ok(())
}
