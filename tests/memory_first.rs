//! Telemetry of a memory-first rule goes up without touching the card, and is on it when the power
//! is about to fail.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Client, Gateway, Mosquitto, PATIENCE, Pki, Plant, Scene,
    gateway::ask,
    plant::{GATEWAY, upstream},
    promise, until,
};

const COUNT: &str = "telemetry/press-3/count";
const UPSTREAM_COUNT: &str = "plant-7/telemetry/press-3/count";

fn buffer(scene: &Scene) -> Result<Value> {
    Ok(ask(scene, &["buffer", "stats"])?["buffer"].clone())
}

fn count(client: &mut Client, number: u32) -> Result<()> {
    client.tell(&json!({
        "do": "publish", "topic": COUNT, "payload": number.to_string(), "qos": 0
    }))
}

#[test]
fn telemetry_in_memory_survives_a_power_cut_that_is_announced() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mut mosquitto = Mosquitto::start(scene, &cloud)?;
        let link = upstream(mosquitto.port, &cloud, &cloud.client(scene, GATEWAY)?).replace(
            "filter = \"telemetry/#\"",
            "filter = \"telemetry/#\"\nstore = \"memory-first\"",
        );
        let base = plant.base(scene).replace(
            "[buffer]",
            "[buffer]\nspill_after = \"1h\"\nspill_offline_after = \"1h\"",
        );
        let config = [base, link].concat();
        let mut gateway = Gateway::start(scene, &config, plant.port)?;
        let observer = mosquitto.observer(&cloud)?;
        let mut press = Client::new("press-3", plant.port).start(scene)?;
        press.event("connected", |_| true)?;

        for number in 1..=20 {
            count(&mut press, number)?;
        }
        observer.message(UPSTREAM_COUNT, |payload| payload == "20")?;
        let stats = until("everything is acknowledged", PATIENCE, || {
            let stats = buffer(scene)?;
            Ok((stats["messages"] == 0 && stats["forwarded"] == 20).then_some(stats))
        })?;
        ensure!(stats["spilled"] == 0, "{stats}");
        ensure!(stats["wear"]["payload_bytes"] == 31, "{stats}");

        mosquitto.stop()?;
        for number in 21..=30 {
            count(&mut press, number)?;
        }
        until("ten wait in memory", PATIENCE, || {
            Ok((buffer(scene)?["in_memory"] == 10).then_some(()))
        })?;
        gateway.process.signal(Signal::SIGPWR)?;
        let stats = until("nothing waits in memory", PATIENCE, || {
            let stats = buffer(scene)?;
            Ok((stats["in_memory"] == 0).then_some(stats))
        })?;
        ensure!(stats["messages"] == 10 && stats["spilled"] == 10, "{stats}");
        gateway.process.kill()?;

        mosquitto.restart()?;
        gateway.restart()?;
        observer.message(UPSTREAM_COUNT, |payload| payload == "30")?;
        until("the press is back", PATIENCE, || {
            let connected = press.process()?.events_named("connected")?;
            Ok((connected.len() > 1).then_some(()))
        })?;
        count(&mut press, 31)?;
        observer.message(UPSTREAM_COUNT, |payload| payload == "31")?;
        let arrived = observer.process()?.events_named("message")?;
        let ours = arrived
            .iter()
            .filter(|event| event["topic"] == UPSTREAM_COUNT);
        let numbers = ours.filter_map(|event| event["payload"].as_str()?.parse::<u32>().ok());
        let later: Vec<_> = numbers.filter(|number| *number > 20).collect();
        ensure!(later == (21..=31).collect::<Vec<_>>(), "{later:?}");
        // Nothing was lost, and so nothing is announced as lost.
        let gap = format!("plant-7/alert/gap/{COUNT}");
        let silent = arrived.iter().all(|event| event["topic"] != gap.as_str());
        ensure!(silent, "{arrived:?}");
        Ok(())
    });
}
