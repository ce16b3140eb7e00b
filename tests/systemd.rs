//! Promise: under systemd, the gateway says when it is ready, reloads, comes back when killed, and stops in time.

#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::machine::Machine;

/// What the contract gives an orderly stop.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

const CONFIGURATION: &str = r#"
[gateway]
id = "plant-7"

[[broker.listener]]
address = "127.0.0.1:1883"
"#;

/// Nobody listens there: the service is ready without its buses.
const ANOTHER_BUS: &str = r#"
[[bus]]
name = "hall-2"
tcp = "127.0.0.1:502"
"#;

#[test]
fn the_installed_unit_verifies_and_the_service_becomes_ready() -> Result<()> {
    let machine = Machine::boot(CONFIGURATION)?;
    machine.wait_until_ready()?;
    let units =
        "gateway.service gateway-updater.service gateway-updater.socket gateway-restart.service";
    let verify = format!("systemd-analyze verify {units} 2>&1");
    let findings = machine.run(&["sh", "-c", &verify])?;
    ensure!(
        !findings.contains("gateway"),
        "systemd-analyze verify: {findings}"
    );
    Ok(())
}

#[test]
fn its_journal_entries_have_fields() -> Result<()> {
    let machine = Machine::boot(CONFIGURATION)?;
    machine.wait_until_ready()?;
    machine.wait_for("an entry with its module and level as fields", |machine| {
        machine.journal().is_ok_and(|entries| {
            entries.iter().any(|entry| {
                entry["_TRANSPORT"] == "journal"
                    && entry["SYSLOG_IDENTIFIER"] == "gateway"
                    && entry["TARGET"]
                        .as_str()
                        .is_some_and(|target| target.starts_with("gateway"))
                    && entry["PRIORITY"].is_string()
            })
        })
    })
}

#[test]
fn its_journal_entries_are_explained() -> Result<()> {
    /// CONNECT of MQTT 3.1.1 by client `desk`, in the printf of a shell.
    const CONNECT: &str = r"\x10\x10\x00\x04MQTT\x04\x02\x00\x0a\x00\x04desk";
    let machine = Machine::boot(CONFIGURATION)?;
    machine.wait_until_ready()?;
    machine.run(&["journalctl", "--update-catalog"])?;
    let connect = format!("printf '{CONNECT}' > /dev/tcp/127.0.0.1/1883");
    machine.run(&["bash", "-c", &connect])?;
    // No rule speaks for it.
    machine.wait_for("the explanation of a refusal", |machine| {
        let said = machine.run(&["journalctl", "--no-pager", "-x", "-u", "gateway.service"]);
        said.is_ok_and(|said| {
            said.contains("Subject: authentication: desk at") && said.contains("What to do:")
        })
    })?;
    let known = machine.run(&["journalctl", "--no-pager", "--list-catalog"])?;
    ensure!(
        known.contains("gateway: command-failed"),
        "commands are not explained: {known}"
    );
    Ok(())
}

#[test]
fn a_reload_applies_the_changed_file_in_the_same_process() -> Result<()> {
    let machine = Machine::boot(CONFIGURATION)?;
    machine.wait_until_ready()?;
    let process = machine.property("MainPID")?;
    machine.write(
        "/etc/gateway/gateway.toml",
        &format!("{CONFIGURATION}{ANOTHER_BUS}"),
    )?;
    machine.run(&["systemctl", "reload", "gateway.service"])?;
    machine.wait_for("an entry that tells the changes", |machine| {
        machine.journal().is_ok_and(|entries| {
            entries.iter().any(|entry| {
                entry["CHANGES"]
                    .as_str()
                    .is_some_and(|changes| changes.contains("hall-2"))
            })
        })
    })?;
    machine.wait_until_ready()?;
    ensure!(
        machine.property("MainPID")? == process,
        "another process runs after the reload"
    );
    Ok(())
}

#[test]
fn a_killed_service_is_started_again() -> Result<()> {
    let machine = Machine::boot(CONFIGURATION)?;
    machine.wait_until_ready()?;
    let process = machine.property("MainPID")?;
    machine.run(&["kill", "-KILL", &process])?;
    machine.wait_for("a restart", |machine| {
        machine
            .property("NRestarts")
            .is_ok_and(|count| count == "1")
    })?;
    machine.wait_until_ready()?;
    ensure!(
        machine.property("MainPID")? != process,
        "the killed process still runs"
    );
    Ok(())
}

#[test]
fn a_stop_is_orderly_and_in_time() -> Result<()> {
    let machine = Machine::boot(CONFIGURATION)?;
    machine.wait_until_ready()?;
    let start = Instant::now();
    machine.run(&["systemctl", "stop", "gateway.service"])?;
    let took = start.elapsed();
    ensure!(took < STOPS_WITHIN, "stopping took {took:?}");
    ensure!(
        machine.property("Result")? == "success",
        "ended with {}",
        machine.property("Result")?
    );
    ensure!(
        machine.property("ExecMainStatus")? == "0",
        "exit code {}",
        machine.property("ExecMainStatus")?
    );
    Ok(())
}

#[test]
fn a_wrong_configuration_fails_once_and_says_where() -> Result<()> {
    let machine = Machine::boot("[gateway]\nidd = \"plant-7\"\n")?;
    machine.wait_for("the service to fail", |machine| {
        machine
            .property("ActiveState")
            .is_ok_and(|state| state == "failed")
    })?;
    ensure!(
        machine.property("ExecMainStatus")? == "2",
        "exit code {}",
        machine.property("ExecMainStatus")?
    );
    ensure!(
        machine.property("NRestarts")? == "0",
        "it was started again on the same file"
    );
    let entries = machine.journal()?;
    let says_where = entries.iter().any(|entry| {
        entry["MESSAGE"]
            .as_str()
            .is_some_and(|message| message.contains("gateway.toml:2:1") && message.contains("idd"))
    });
    ensure!(says_where, "no entry says where: {entries:#?}");
    Ok(())
}

#[test]
fn it_can_write_its_own_directories_and_nothing_else() -> Result<()> {
    let machine = Machine::boot(CONFIGURATION)?;
    machine.wait_until_ready()?;
    let process = machine.property("MainPID")?;
    // Root in the service's mount namespace: what it cannot write there, no file permission lets the service write.
    let touch =
        |path: &str| machine.run(&["nsenter", "--target", &process, "--mount", "touch", path]);
    for own in ["/var/lib/gateway/probe", "/run/gateway/probe"] {
        touch(own).with_context(|| format!("{own} cannot be written"))?;
    }
    for foreign in [
        "/etc/gateway/probe",
        "/var/probe",
        "/etc/probe",
        "/usr/probe",
    ] {
        ensure!(touch(foreign).is_err(), "{foreign} can be written");
    }
    Ok(())
}
