//! What the upstream will never take is put aside and named, whatever way it says so; and whoever
//! wants to hold back the rest can.

use std::{fs::OpenOptions, io::Write};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{
    Client, Gateway, Mosquitto, PATIENCE, Pki, Plant, Scene, gateway,
    plant::{GATEWAY, upstream},
    promise, until,
};

const PICTURE: &str = "telemetry/press-3/picture";
const COUNT: &str = "telemetry/press-3/count";

/// What `gateway buffer ACTION --json` prints.
fn buffer(scene: &Scene, action: &str) -> Result<Value> {
    let config = scene.path("gateway.toml").display().to_string();
    let output = gateway::run(&["buffer", action, "--json", "--config", &config])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "buffer {action}: {said}");
    serde_json::from_slice(&output.stdout).context("buffer prints no JSON")
}

/// An upstream that closes the link of a client with MQTT 3.1.1 over a packet above 1000 bytes.
fn limited<'a>(scene: &'a Scene, cloud: &Pki) -> Result<Mosquitto<'a>> {
    let mut mosquitto = Mosquitto::start(scene, cloud)?;
    mosquitto.stop()?;
    let path = scene.path("mosquitto.conf");
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(b"max_packet_size 1000\n")?;
    mosquitto.restart()?;
    Ok(mosquitto)
}

#[test]
fn a_lone_message_over_which_the_upstream_closes_the_link_is_put_aside_and_named() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mosquitto = limited(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        let link = upstream(mosquitto.port, &cloud, &cloud.client(scene, GATEWAY)?)
            .replace("[upstream]", "[upstream]\nprotocol = \"3.1.1\"");
        let config = [plant.base(scene), link].concat();
        let _gateway = Gateway::start(scene, &config, plant.port)?;
        let mut press = Client::new("press-3", plant.port).start(scene)?;
        press.event("connected", |_| true)?;

        press.publish(PICTURE, &"x".repeat(5000))?;
        let stats = until("the picture is a dead letter", PATIENCE, || {
            let stats = buffer(scene, "stats")?;
            Ok((stats["dead_letters"]["kept"] == 1).then_some(stats))
        })?;
        let letter = &stats["dead_letters"]["newest"][0];
        ensure!(letter["topic"] == PICTURE, "{letter}");
        ensure!(letter["bytes"] == 5000, "{letter}");
        let reason = letter["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("closed the link over it"), "{letter}");
        ensure!(stats["buffer"]["dead_letters"] == 1, "{stats}");
        let gap = format!("plant-7/alert/gap/{PICTURE}");
        observer.message(&gap, |payload| payload.contains("dead-letter"))?;

        press.publish(COUNT, "1")?;
        observer.message(&format!("plant-7/{COUNT}"), |payload| payload == "1")?;
        Ok(())
    });
}

#[test]
fn forwarding_pauses_on_demand_until_it_is_resumed_or_the_gateway_starts_anew() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        let link = upstream(mosquitto.port, &cloud, &cloud.client(scene, GATEWAY)?);
        let config = [plant.base(scene), link].concat();
        let mut gateway = Gateway::start(scene, &config, plant.port)?;
        let (below, paused) = (format!("plant-7/{COUNT}"), |stats: &Value| {
            stats["buffer"]["paused"] == true && stats["waiting"]["normal"] == 1
        });

        for number in ["1", "2"] {
            ensure!(buffer(scene, "pause")?["buffer"]["paused"] == true);
            let mut press = Client::new("press-3", plant.port).start(scene)?;
            press.event("connected", |_| true)?;
            press.publish(COUNT, number)?;
            until("it waits", PATIENCE, || {
                Ok(paused(&buffer(scene, "stats")?).then_some(()))
            })?;
            if number == "1" {
                // A new link does not end the pause.
                gateway.reload(&config.replace("retry_max = \"1s\"", "retry_max = \"2s\""))?;
                gateway.says(&["reload", "upstream"])?;
                ensure!(paused(&buffer(scene, "stats")?), "the pause is over");
                buffer(scene, "resume")?;
            } else {
                gateway.process.kill()?;
                gateway.restart()?;
            }
            observer.message(&below, |payload| payload == number)?;
        }
        ensure!(buffer(scene, "stats")?["buffer"]["paused"] == false);
        Ok(())
    });
}
