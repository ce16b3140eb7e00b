//! Promise: the service's health gate and the root process's slots together keep a release that works, and give up one that does not.
//!
//! The updater is the real one; the test plays the boot loader and the power switch.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    harness::{PATIENCE, Process, Scene, gateway, promise, until},
    installing::{Machine, Vendor, image, status, update},
};

/// Waits until it is remembered that the tank answers.
fn is_remembered(scene: &Scene) -> Result<()> {
    until("it is remembered that the tank answers", PATIENCE, || {
        let text = fs::read_to_string(scene.path("update/baseline.json")).unwrap_or_default();
        Ok(text.contains("tank-1").then_some(()))
    })
}

fn install(scene: &Scene) -> Result<()> {
    let (code, said) = update(scene, &["install", "--restart"])?;
    ensure!(
        code == Some(0) && said.contains("restarts into it"),
        "{said}"
    );
    Ok(())
}

/// Waits until the slot stays without anybody's word, and returns what the updater says then.
fn stays(scene: &Scene, slot: &str, floor_before: u64) -> Result<Value> {
    until(&format!("slot {slot} stays"), PATIENCE, || {
        let status = status(scene)?;
        ensure!(status["trouble"].is_null(), "{status}");
        if !status["trial"].is_null() {
            ensure!(
                status["floor"] == floor_before,
                "it rose on trial: {status}"
            );
            return Ok(None);
        }
        ensure!(status["booted"] == slot, "{status}");
        Ok((status["default"] == slot).then_some(status))
    })
}

#[test]
fn a_healthy_release_commits_itself_and_only_a_higher_epoch_raises_the_floor() {
    promise(|scene| {
        let vendor = Vendor::new(scene)?;
        let mut machine = Machine::start(scene, &vendor)?;
        is_remembered(scene)?;
        let mut floor = status(scene)?["floor"].as_u64().context("a floor")?;
        for (version, rise, slot) in [("1.0", 1, "b"), ("1.1", 0, "a")] {
            let epoch = floor + rise;
            vendor.publish(version, epoch, &image(&[1, 2]))?;
            install(scene)?;
            machine.restart()?;
            let settled = stays(scene, slot, floor)?;
            ensure!(settled["floor"] == epoch, "{settled}");
            ensure!(settled["slots"][slot]["state"] == "good", "{settled}");
            floor = epoch;
        }
        Ok(())
    });
}

#[test]
fn a_release_on_which_a_device_is_silent_is_rolled_back_and_the_slot_before_starts_and_says_why() {
    promise(|scene| {
        let vendor = Vendor::new(scene)?;
        let mut machine = Machine::start(scene, &vendor)?;
        is_remembered(scene)?;
        let floor = status(scene)?["floor"].clone();
        vendor.publish("1.0", 1, &image(&[1, 2]))?;
        install(scene)?;
        let config = fs::read_to_string(scene.path("gateway.toml"))?;
        let hurried = config.replace("deadline = \"5m\"", "deadline = \"4s\"");
        scene.write("gateway.toml", &hurried)?;
        let slot = machine.shut_down()?;
        // Only now, so that what is remembered is how the plant was under the release before.
        machine.plant.tank.kill()?;
        machine.starts(&slot)?;
        let bad = until("slot b is given up", PATIENCE, || {
            let status = status(scene)?;
            let over = status["trial"].is_null() && status["slots"]["b"]["state"] == "bad";
            Ok(over.then_some(status))
        })?;
        let reason = &bad["slots"]["b"]["reason"];
        ensure!(reason.to_string().contains("device tank-1"), "{bad}");
        machine.restart()?;
        let after = status(scene)?;
        ensure!(
            after["booted"] == "a" && after["default"] == "a" && after["trial"].is_null(),
            "{after}"
        );
        ensure!(after["floor"] == floor, "{after}");
        machine
            .gateway
            .says(&["a new release was not healthy in time", "tank-1"])?;
        let told = gateway::ask(scene, &["update", "status"])?;
        ensure!(told["updater"]["slots"]["b"]["reason"] == *reason, "{told}");
        Ok(())
    });
}

/// How far a release in slot B has come.
const STEPS: [&str; 5] = ["empty", "writing", "written", "trying", "good"];

fn step(status: &Value) -> Result<usize> {
    let state = status["slots"]["b"]["state"].as_str();
    let found = STEPS.iter().position(|step| state == Some(step));
    found.with_context(|| format!("slot b is in no step of a good release: {status}"))
}

fn begin_install(scene: &Scene) -> Result<Process> {
    let mut command = Command::new(gateway::binary()?);
    command.args(["update", "install", "--restart", "--config"]);
    command.arg(scene.path("gateway.toml"));
    Process::start("install", &scene.log_path("install"), command)
}

/// Has the release installed, again and again if need be, until it has come so far.
fn comes_to(scene: &Scene, wanted: &str) -> Result<()> {
    let mut installer: Option<Process> = None;
    until(&format!("slot b is {wanted}"), PATIENCE, || {
        let step = step(&status(scene)?)?;
        if STEPS.iter().position(|step| *step == wanted) <= Some(step) {
            return Ok(Some(()));
        }
        let runs = match &mut installer {
            Some(process) => process.is_running()?,
            None => false,
        };
        if !runs {
            installer = Some(begin_install(scene)?);
        }
        Ok(None)
    })
}

#[test]
fn a_machine_that_loses_power_while_it_installs_and_tries_starts_a_whole_release_and_ends_with_the_new_one()
 {
    promise(|scene| {
        let vendor = Vendor::new(scene)?;
        let release = image(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        vendor.publish("1.0", 1, &release)?;
        let mut machine = Machine::start(scene, &vendor)?;
        is_remembered(scene)?;
        let floor = status(scene)?["floor"].as_u64().context("a floor")?;
        for wanted in ["empty", "writing", "written", "trying", "trying"] {
            comes_to(scene, wanted)?;
            let slot = machine.lose_power()?;
            let status = status(scene)?;
            ensure!(status["booted"] == *slot, "{status}");
            ensure!(fs::read(scene.path("slot-a"))?.is_empty(), "slot a changed");
            let whole = fs::read(scene.path("slot-b"))? == release;
            ensure!(slot == "a" || whole && step(&status)? >= 3, "{status}");
        }
        let settled = stays(scene, "b", floor)?;
        ensure!(settled["floor"] == 1, "{settled}");
        Ok(())
    });
}
