//! A Sparkplug B host application with Eclipse Tahu's decoder understands the gateway: births, data by alias, commands,
//! rebirths, deaths; and an outage leaves no hole in what it has.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{
    Client, Gateway, Mosquitto, PATIENCE, Pki, Plant, Process, Scene, host,
    plant::{GATEWAY, upstream},
    promise, until,
};

const COUNT: &str = "telemetry/press-3/count";

/// A plant whose gateway is an edge node, and the host application that it reports to.
struct Scada<'a> {
    gateway: Gateway<'a>,
    host: Process,
    plant: Plant,
    mosquitto: Mosquitto<'a>,
}

impl<'a> Scada<'a> {
    fn start(scene: &'a Scene, of_sparkplug: &str) -> Result<Scada<'a>> {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mut mosquitto = Mosquitto::start(scene, &cloud)?;
        mosquitto.stop()?;
        let acl = scene.path("mosquitto.acl");
        let rules = fs::read_to_string(&acl)?;
        let own = format!("user {GATEWAY}\ntopic readwrite spBv1.0/#\n");
        fs::write(&acl, [own, rules].concat())?;
        mosquitto.restart()?;
        let host = host(scene, mosquitto.port, &cloud)?;
        let link = upstream(mosquitto.port, &cloud, &cloud.client(scene, GATEWAY)?);
        let sparkplug = format!("[upstream.sparkplug]\ngroup = \"plant\"\n{of_sparkplug}\n");
        let link = link.replacen("[[forward]]", &format!("{sparkplug}\n[[forward]]"), 1);
        let config = [
            plant.base(scene),
            plant.meter_config("200ms"),
            plant.tank_config("200ms"),
            plant.wind_config(),
            link,
        ];
        let gateway = Gateway::start(scene, &config.concat(), plant.port)?;
        Ok(Scada {
            gateway,
            host,
            plant,
            mosquitto,
        })
    }

    fn press(&self, scene: &Scene, name: &str) -> Result<Client> {
        let press = Client::new(name, self.plant.port).start(scene)?;
        press.event("connected", |_| true)?;
        Ok(press)
    }

    /// Waits for a message of this kind behind the first `seen` events.
    fn told(&self, kind: &str, seen: usize, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        until(&format!("the host is told {kind}"), PATIENCE, || {
            let events = self.host.events()?;
            let mut behind = events.into_iter().skip(seen);
            Ok(behind.find(|event| event["event"] == kind && fits(event)))
        })
    }

    /// Waits for a value of a metric behind the first `seen` events.
    fn value(
        &self,
        device: &str,
        name: &str,
        seen: usize,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let kind = if device.is_empty() { "NDATA" } else { "DDATA" };
        let found = |event: &Value| {
            let metrics = event["metrics"].as_array()?;
            let mut of_name = metrics.iter().filter(|metric| metric["name"] == name);
            of_name.find(|metric| fits(metric)).cloned()
        };
        let event = self.told(kind, seen, |event| {
            event["device"] == device && found(event).is_some()
        })?;
        found(&event).context("found before")
    }

    /// Numbers of the press that have arrived.
    fn counted(&self) -> Result<BTreeSet<u64>> {
        let mut numbers = BTreeSet::new();
        for event in self.host.events()? {
            let data = event["metrics"].as_array().into_iter().flatten();
            let births = event["metrics"]
                .as_object()
                .and_then(|metrics| metrics.get(COUNT));
            let values = data.filter(|metric| metric["name"] == COUNT).chain(births);
            numbers.extend(
                values
                    .filter_map(|metric| metric["value"].as_f64())
                    .map(|value| value as u64),
            );
        }
        Ok(numbers)
    }

    fn seen(&self) -> Result<usize> {
        Ok(self.host.events()?.len())
    }

    fn broke_no_rule(&self) -> Result<()> {
        let violations = self.host.events_named("violation")?;
        ensure!(violations.is_empty(), "{violations:#?}");
        Ok(())
    }
}

#[test]
fn a_host_sees_births_and_data_commands_devices_and_asks_for_births_again() {
    promise(|scene| {
        let mut scada = Scada::start(scene, "")?;
        let birth = scada.told("DBIRTH", 0, |event| event["device"] == "meter-1")?;
        let types = [
            ("voltage", "Float"),
            ("temperature", "Double"),
            ("energy", "UInt64"),
            ("label", "String"),
            ("setpoint", "UInt16"),
        ];
        for (name, datatype) in types {
            ensure!(
                birth["metrics"][name]["type"] == datatype,
                "{name}: {birth}"
            );
        }
        scada.told("DBIRTH", 0, |event| {
            event["metrics"]["level"]["type"] == "Int32"
        })?;
        scada.value("tank-1", "level", 0, |metric| {
            metric["value"].as_i64().is_some_and(|value| value < 0)
        })?;
        scada.value("meter-1", "energy", 0, |metric| {
            metric["value"].as_u64() > Some(1 << 53)
        })?;
        // No configuration names what the wind sensor sends.
        scada.told("DBIRTH", 0, |event| {
            event["device"] == "wind-1" && event["metrics"]["wind-speed-relative"].is_object()
        })?;

        let valve = json!({ "name": "valve", "type": "Boolean", "value": true });
        scada
            .host
            .tell(&json!({ "do": "dcmd", "device": "tank-1", "metrics": [valve] }))?;
        scada.value("tank-1", "valve", 0, |metric| metric["value"] == true)?;
        let setpoint = json!({ "alias": "setpoint", "type": "UInt16", "value": 77 });
        let too_much = json!({ "alias": "setpoint", "type": "UInt16", "value": 1001 });
        scada
            .host
            .tell(&json!({ "do": "dcmd", "device": "meter-1", "metrics": [setpoint, too_much] }))?;
        scada.value("meter-1", "setpoint", 0, |metric| metric["value"] == 77)?;
        // Results of commands are the node's; what is beyond the range was refused on the way all commands take.
        scada.value("", "result/meter-1/setpoint", 0, |metric| {
            metric["value"]
                .as_str()
                .is_some_and(|result| result.contains("refused"))
        })?;

        let seen = scada.seen()?;
        scada.host.tell(&json!({ "do": "rebirth" }))?;
        let births = scada.told("NBIRTH", seen, |_| true)?;
        ensure!(births["bd_seq"] == 0, "{births}");
        for device in ["meter-1", "tank-1", "wind-1"] {
            let birth = scada.told("DBIRTH", seen, |event| event["device"] == device)?;
            let metrics = birth["metrics"].as_object().context("no metrics")?;
            ensure!(
                metrics.values().any(|metric| !metric["value"].is_null()),
                "{birth}"
            );
        }

        let seen = scada.seen()?;
        scada.plant.tank.kill()?;
        scada.told("DDEATH", seen, |event| event["device"] == "tank-1")?;
        scada.gateway.stop()?;
        scada.told("NDEATH", seen, |event| event["bd_seq"] == 0)?;
        scada.broke_no_rule()
    });
}

#[test]
fn while_its_host_is_offline_everything_waits_and_comes_as_history_behind_the_births() {
    promise(|scene| {
        let mut scada = Scada::start(scene, "primary_host = \"scada\"")?;
        let mut press = scada.press(scene, "press-3")?;
        for number in 0..20 {
            press.publish(COUNT, &number.to_string())?;
        }
        ensure!(
            scada.host.events_named("NBIRTH")?.is_empty(),
            "born before its host"
        );
        scada.host.tell(&json!({ "do": "state", "online": true }))?;
        let numbers = |scada: &Scada<'_>, count: u64| {
            until("all numbers arrive", PATIENCE, || {
                Ok((scada.counted()? == (0..count).collect()).then_some(()))
            })
        };
        numbers(&scada, 20)?;

        let seen = scada.seen()?;
        scada
            .host
            .tell(&json!({ "do": "state", "online": false }))?;
        scada.told("NDEATH", seen, |_| true)?;
        let dead = scada.seen()?;
        for number in 20..60 {
            press.publish(COUNT, &number.to_string())?;
        }
        let silent = scada.host.events()?;
        ensure!(silent.len() == dead, "{:?}", &silent[dead..]);
        scada.host.tell(&json!({ "do": "state", "online": true }))?;
        numbers(&scada, 60)?;
        scada.told("NBIRTH", dead, |event| event["bd_seq"].as_u64() > Some(0))?;
        scada.value("", COUNT, dead, |metric| metric["historical"] == true)?;
        scada.value("meter-1", "voltage", dead, |metric| {
            metric["historical"] == true
        })?;
        scada.value("meter-1", "voltage", dead, |metric| {
            metric["historical"] == false
        })?;
        scada.broke_no_rule()
    });
}

#[test]
fn an_outage_of_its_broker_leaves_no_hole_and_history_comes_behind_the_births() {
    promise(|scene| {
        let mut scada = Scada::start(scene, "primary_host = \"scada\"")?;
        let mut press = scada.press(scene, "press-3")?;
        scada.host.tell(&json!({ "do": "state", "online": true }))?;
        scada.told("NBIRTH", 0, |_| true)?;
        for number in 0..20 {
            press.publish(COUNT, &number.to_string())?;
        }
        until("what was sent before the outage arrives", PATIENCE, || {
            Ok((scada.counted()? == (0..20).collect()).then_some(()))
        })?;

        // Killed, it forgets that the host was there: nothing is born before the host can hear it.
        scada.mosquitto.process.kill()?;
        let dead = scada.seen()?;
        for number in 20..60 {
            press.publish(COUNT, &number.to_string())?;
        }
        scada.mosquitto.restart()?;
        until("the host is back", PATIENCE, || {
            Ok((scada.host.events_named("connected")?.len() == 2).then_some(()))
        })?;
        scada.host.tell(&json!({ "do": "state", "online": true }))?;
        until("what came meanwhile arrives", PATIENCE, || {
            Ok((scada.counted()? == (0..60).collect()).then_some(()))
        })?;
        scada.told("NBIRTH", dead, |event| event["bd_seq"].as_u64() > Some(0))?;
        scada.value("", COUNT, dead, |metric| metric["historical"] == true)?;
        scada.value("meter-1", "voltage", dead, |metric| {
            metric["historical"] == true
        })?;
        scada.broke_no_rule()
    });
}

#[test]
fn a_killed_gateway_is_told_dead_by_its_will_and_loses_nothing_that_was_acknowledged() {
    promise(|scene| {
        let mut scada = Scada::start(scene, "")?;
        scada.told("NBIRTH", 0, |_| true)?;
        let mut acknowledged = 0;
        for round in 0..3 {
            let mut press = scada.press(scene, &format!("press-{round}"))?;
            for _ in 0..20 {
                press.publish(COUNT, &acknowledged.to_string())?;
                acknowledged += 1;
            }
            let seen = scada.seen()?;
            scada.gateway.process.kill()?;
            scada.told("NDEATH", seen, |_| true)?;
            scada.gateway.restart()?;
            scada.told("NBIRTH", seen, |_| true)?;
        }
        until("all numbers arrive", PATIENCE, || {
            Ok((scada.counted()? == (0..acknowledged).collect()).then_some(()))
        })?;
        scada.broke_no_rule()
    });
}
