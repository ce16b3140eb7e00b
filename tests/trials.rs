//! Promise: a new release stays once the plant works as before it, and goes when it does not; the upstream learns why.
//!
//! The updater's place is taken by `peers/updater.py`, and the test plays the boot loader.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Gateway, Mosquitto, PATIENCE, Pki, Plant, Process, Scene, gateway,
    peers::updater,
    plant::{GATEWAY, upstream},
    promise, until,
};

/// Longer than any of these plants needs, so that only an unhealthy release meets it.
const LONG: &str = "10m";

/// A plant, its gateway and upstream, and an updater over two slots.
struct Site<'a> {
    scene: &'a Scene,
    plant: Plant,
    cloud: Pki,
    mosquitto: Mosquitto<'a>,
    updater: Process,
    gateway: Gateway<'a>,
}

impl<'a> Site<'a> {
    /// Slot A runs, and slot B is empty.
    fn start(scene: &'a Scene) -> Result<Site<'a>> {
        let plant = Plant::new(scene)?;
        let cloud = Pki::new(scene, "cloud")?;
        let mosquitto = Mosquitto::start(scene, &cloud)?;
        let status = json!({
            "booted": "a", "default": "a", "trial": null, "floor": 3,
            "slots": {"a": {"state": "good", "release": release("2.4.0", 3)}, "b": {"state": "empty"}},
            "work": {"idle": {}}, "trouble": null,
        });
        scene.write("slots.json", &status.to_string())?;
        let updater = updater(scene)?;
        let config = config(scene, &plant, &mosquitto, &cloud, LONG)?;
        let gateway = Gateway::start(scene, &config, plant.port)?;
        Ok(Site {
            scene,
            plant,
            cloud,
            mosquitto,
            updater,
            gateway,
        })
    }

    /// Waits until so many devices answer, the link is up, and that was looked at for a while.
    fn is_remembered(&self, devices: usize) -> Result<()> {
        let mut since = None;
        until(
            &format!("{devices} devices and the link have been up for a while"),
            PATIENCE,
            || {
                let status = gateway::ask(self.scene, &["status"])?;
                let of_buses = status["buses"].as_array().into_iter().flatten();
                let of_buses =
                    of_buses.flat_map(|bus| bus["devices"].as_array().into_iter().flatten());
                let lines = status["serials"].as_array().into_iter().flatten();
                let online = of_buses
                    .chain(lines)
                    .filter(|device| device["online"] == true)
                    .count();
                let uptime = status["uptime_s"].as_u64().context("an uptime")?;
                if online != devices || status["upstream"]["connected"] != true {
                    since = None;
                    return Ok(None);
                }
                let held = uptime.saturating_sub(*since.get_or_insert(uptime));
                Ok((held >= 2 && self.scene.path("update/baseline.json").exists()).then_some(()))
            },
        )
    }

    /// Restarts the machine, `first` between its end and its start, into what the boot loader then starts.
    fn restart(&mut self, first: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let (status, _) = self.gateway.stop()?;
        ensure!(status.success(), "the gateway ended with {status}");
        first(self)?;
        self.gateway.restart()
    }

    /// What a boot loader does with a fresh release in slot B.
    fn put_on_trial(&self) -> Result<()> {
        let mut slots = self.slots()?;
        slots["booted"] = json!("b");
        slots["trial"] = json!({"slot": "b", "left": 2, "seconds_left": 600});
        slots["slots"]["b"] = json!({"state": "trying", "release": release("2.5.0", 4)});
        self.scene.write("slots.json", &slots.to_string()).map(drop)
    }

    /// What it does when nothing is on trial.
    fn start_default(&self) -> Result<()> {
        let mut slots = self.slots()?;
        slots["booted"] = slots["default"].clone();
        self.scene.write("slots.json", &slots.to_string()).map(drop)
    }

    fn with_deadline(&self, deadline: &str) -> Result<()> {
        let config = config(
            self.scene,
            &self.plant,
            &self.mosquitto,
            &self.cloud,
            deadline,
        )?;
        self.scene.write("gateway.toml", &config).map(drop)
    }

    fn slots(&self) -> Result<Value> {
        let text = fs::read_to_string(self.path())?;
        serde_json::from_str(&text).context("the slots' file holds JSON")
    }

    fn path(&self) -> PathBuf {
        self.scene.path("slots.json")
    }

    fn waits_for_state(&self, slot: &str, state: &str) -> Result<Value> {
        until(&format!("slot {slot} is {state}"), PATIENCE, || {
            let slots = self.slots()?;
            let found = slots["slots"][slot].clone();
            Ok((found["state"] == state).then_some(found))
        })
    }

    fn asked(&self) -> Result<Vec<Value>> {
        self.updater.events_named("asked")
    }
}

fn release(version: &str, epoch: u64) -> Value {
    json!({"version": version, "epoch": epoch, "root": format!("{epoch}{epoch}").repeat(32)})
}

fn config(
    scene: &Scene,
    plant: &Plant,
    mosquitto: &Mosquitto<'_>,
    cloud: &Pki,
    deadline: &str,
) -> Result<String> {
    let path = |name: &str| scene.path(name).display().to_string();
    let update = format!(
        r##"
[[forward]]
filter = "alert/#"

[update]
repository = "http://127.0.0.1:1/"
target = "stable"
hardware = "test"
directory = "{directory}"
updater_directory = "{own}"
socket = "{socket}"
slots = {{ a = "{a}", b = "{b}", boot = {{ files = "{boot}" }} }}
staging = {{ directory = "{staging}" }}
health = {{ hold = "2s", deadline = "{deadline}", polls = 50 }}
"##,
        directory = path("update"),
        own = "/nonexistent/updater",
        socket = path("updater.sock"),
        a = path("slot-a"),
        b = path("slot-b"),
        boot = path("boot"),
        staging = path("staging"),
    );
    let link = upstream(mosquitto.port, cloud, &cloud.client(scene, GATEWAY)?);
    Ok([plant.config(scene), link, update].concat())
}

#[test]
fn a_release_under_which_the_plant_works_as_before_stays_and_its_receipt_goes_up() {
    promise(|scene| {
        let mut site = Site::start(scene)?;
        let observer = site.mosquitto.observer(&site.cloud)?;
        site.is_remembered(3)?;
        site.restart(|site| site.put_on_trial())?;
        let told = |state: &'static str| {
            move |payload: &str| payload.contains(&format!("\"state\":\"{state}\",\"tries"))
        };
        observer.message("plant-7/state/gateway/update", told("trial"))?;
        site.waits_for_state("b", "good")?;
        observer.message("plant-7/state/gateway/update", told("settled"))?;
        let signed =
            |payload: &str| payload.contains("statement") && payload.contains(&"44".repeat(32));
        observer.message("plant-7/state/gateway/receipt", signed)?;
        let status = gateway::ask(scene, &["update", "status"])?;
        ensure!(status["updater"]["default"] == "b", "{status}");
        ensure!(
            status["receipt"]["statement"]
                .to_string()
                .contains(&"44".repeat(32)),
            "{status}"
        );
        Ok(())
    });
}

#[test]
fn an_unhealthy_release_that_does_not_poll_is_rolled_back_and_the_upstream_learns_why() {
    promise(|scene| {
        let mut site = Site::start(scene)?;
        let observer = site.mosquitto.observer(&site.cloud)?;
        site.is_remembered(3)?;
        site.with_deadline("4s")?;
        site.restart(|site| {
            site.plant.tank.kill()?;
            site.put_on_trial()
        })?;
        let bad = site.waits_for_state("b", "bad")?;
        let reason = bad["reason"].as_str().context("a reason")?;
        ensure!(reason.contains("device tank-1"), "{reason}");
        // The upstream is away while the machine comes back: the buffer keeps the word for it.
        site.mosquitto.stop()?;
        site.restart(|site| site.start_default())?;
        site.gateway
            .says(&["a new release was not healthy in time"])?;
        site.mosquitto.restart()?;
        let told = |payload: &str| payload.contains("device tank-1") && payload.contains("2.5.0");
        observer.message("plant-7/alert/update/rolled-back", told)?;
        let output = gateway::run(&[
            "update",
            "status",
            "--config",
            &scene.path("gateway.toml").display().to_string(),
        ])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            text.contains("release 2.4.0 in slot a")
                && text.contains("slot b: 2.5.0, rolled back: after"),
            "{text}"
        );
        Ok(())
    });
}

#[test]
fn what_did_not_work_before_is_asked_of_no_release() {
    promise(|scene| {
        let mut site = Site::start(scene)?;
        site.plant.tank.kill()?;
        site.is_remembered(2)?;
        site.restart(|site| site.put_on_trial())?;
        site.waits_for_state("b", "good")?;
        Ok(())
    });
}

#[test]
fn a_trial_survives_the_gateways_own_deaths() {
    promise(|scene| {
        let mut site = Site::start(scene)?;
        site.is_remembered(3)?;
        site.restart(|site| site.put_on_trial())?;
        for life in [50, 400, 1_200] {
            site.gateway.process.kill()?;
            site.gateway.start_and_kill(Duration::from_millis(life))?;
        }
        ensure!(
            site.slots()?["trial"]["slot"] == "b",
            "it was decided within a hold"
        );
        site.gateway.restart()?;
        site.waits_for_state("b", "good")?;
        let asked = site.asked()?;
        let decided = asked
            .iter()
            .filter(|event| event["ask"].get("receipt").is_none());
        ensure!(decided.count() == 1, "{asked:?}");
        Ok(())
    });
}

#[test]
fn a_person_may_decide_before_the_plant_does_and_is_named() {
    promise(|scene| {
        let mut site = Site::start(scene)?;
        site.is_remembered(3)?;
        site.restart(|site| {
            site.plant.tank.kill()?;
            site.put_on_trial()
        })?;
        let file = scene.path("gateway.toml").display().to_string();
        let waits = until("it is told what is waited for", PATIENCE, || {
            let status = gateway::ask(scene, &["update", "status"])?;
            let waits = status["health"]["waiting_for"].to_string();
            Ok(waits.contains("tank-1").then_some(waits))
        })?;
        ensure!(waits.contains("device tank-1"), "{waits}");
        let words = [
            "update",
            "rollback",
            "--reason",
            "the pumps stand still",
            "--config",
            &file,
        ];
        let output = gateway::run(&words)?;
        ensure!(output.status.success(), "{output:?}");
        let bad = site.waits_for_state("b", "bad")?;
        let reason = bad["reason"].as_str().context("a reason")?;
        ensure!(
            reason.starts_with("by hand, by ") && reason.ends_with(": the pumps stand still"),
            "{reason}"
        );
        let again = gateway::run(&["update", "commit", "--config", &file])?;
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        ensure!(
            again.status.code() == Some(1) && said.contains("nothing is on trial"),
            "{said}"
        );
        site.updater.signal(Signal::SIGTERM)?;
        site.updater.ended(PATIENCE)?;
        let gone = gateway::run(&["update", "commit", "--config", &file])?;
        ensure!(gone.status.code() == Some(4), "{gone:?}");
        Ok(())
    });
}
