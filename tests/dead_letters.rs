//! What the upstream will never take is put aside and named, whatever way it says so; and whoever
//! wants to hold back the rest can.

use std::{fs::OpenOptions, io::Write};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{
    Client, Gateway, Mosquitto, PATIENCE, Pki, Plant, Scene,
    gateway::ask,
    plant::{GATEWAY, upstream},
    promise, until,
};

const PICTURE: &str = "telemetry/press-3/picture";
const COUNT: &str = "telemetry/press-3/count";

fn buffer(scene: &Scene, action: &str) -> Result<Value> {
    ask(scene, &["buffer", action])
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
fn a_message_that_was_refused_is_sent_again_on_demand_once_it_is_allowed() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mut mosquitto = Mosquitto::start(scene, &cloud)?;
        let allowed = "user observer\ntopic readwrite #\npattern readwrite %u/#\n";
        let refused = allowed.replace("%u/#", "%u/alert/#");
        permit(scene, &mut mosquitto, &refused)?;
        let observer = mosquitto.observer(&cloud)?;
        let link = upstream(mosquitto.port, &cloud, &cloud.client(scene, GATEWAY)?);
        let config = [plant.base(scene), link].concat();
        let gateway = Gateway::start(scene, &config, plant.port)?;
        let mut press = Client::new("press-3", plant.port).start(scene)?;
        press.event("connected", |_| true)?;

        press.publish(COUNT, "1")?;
        let id = only_letter(scene, "")?;
        // Refused again it is put aside anew, and nobody sends it again by himself.
        ensure!(dead(scene, &["resend", &id])?["done"][0].to_string() == id);
        let again = only_letter(scene, &id)?;
        let letter = dead(scene, &["list"])?["newest"][0].clone();
        ensure!(letter["topic"] == COUNT && letter["seq"] == 1, "{letter}");

        permit(scene, &mut mosquitto, allowed)?;
        press.publish(COUNT, "2")?;
        let below = format!("plant-7/{COUNT}");
        observer.message(&below, |payload| payload == "2")?;
        ensure!(dead(scene, &["resend", "--all"])?["done"][0].to_string() == again);
        let arrived = observer.event("message", |message| {
            message["topic"] == below && message["payload"] == "1"
        })?;
        let said = |name: &str| {
            let properties = arrived["properties"]["UserProperty"].as_array();
            let pair = properties.and_then(|all| all.iter().find(|pair| pair[0] == name));
            pair.and_then(|pair| pair[1].as_str()).map(str::to_owned)
        };
        ensure!(said("seq").as_deref() == Some("1"), "{arrived}");
        // The list shows whole seconds.
        let received = letter["received"].as_str().context("no time")?;
        let second = received.trim_end_matches('Z');
        let time = said("time").context("no time")?;
        ensure!(time.starts_with(second), "{time} is not {received}");
        ensure!(dead(scene, &["list"])?["kept"] == 0);
        gateway.says(&["dead-letters-resent", "1 done, 0 left"])?;
        Ok(())
    });
}

#[test]
fn a_dead_letter_is_dropped_only_when_that_is_confirmed() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mut mosquitto = Mosquitto::start(scene, &cloud)?;
        permit(scene, &mut mosquitto, "pattern readwrite %u/alert/#\n")?;
        let link = upstream(mosquitto.port, &cloud, &cloud.client(scene, GATEWAY)?);
        let config = [plant.base(scene), link].concat();
        let gateway = Gateway::start(scene, &config, plant.port)?;
        let mut press = Client::new("press-3", plant.port).start(scene)?;
        press.event("connected", |_| true)?;
        press.publish(COUNT, "1")?;
        let id = only_letter(scene, "")?;

        let unasked = dead(scene, &["drop", &id]).err().context("it is gone")?;
        ensure!(unasked.to_string().contains("--yes"), "{unasked}");
        ensure!(dead(scene, &["list"])?["kept"] == 1);
        ensure!(dead(scene, &["drop", &id, "--yes"])?["done"][0].to_string() == id);
        ensure!(dead(scene, &["list"])?["kept"] == 0);
        let unknown = dead(scene, &["resend", &id]).err().context("it is back")?;
        ensure!(
            unknown.to_string().contains("nothing was done"),
            "{unknown}"
        );
        gateway.says(&["dead-letters-dropped", "1 done, 0 left"])?;
        Ok(())
    });
}

/// The upstream under other permissions.
fn permit(scene: &Scene, mosquitto: &mut Mosquitto<'_>, permissions: &str) -> Result<()> {
    mosquitto.stop()?;
    scene.write("mosquitto.acl", permissions)?;
    mosquitto.restart()
}

fn dead(scene: &Scene, words: &[&str]) -> Result<Value> {
    ask(scene, &[&["buffer", "dead"], words].concat())
}

/// Waits for the id of the only dead letter, which is not the one known before.
fn only_letter(scene: &Scene, before: &str) -> Result<String> {
    until("there is one dead letter", PATIENCE, || {
        let letters = dead(scene, &["list"])?;
        let id = letters["newest"][0]["id"].to_string();
        Ok((letters["kept"] == 1 && id != before).then_some(id))
    })
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
