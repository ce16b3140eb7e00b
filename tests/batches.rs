//! Several messages in one packet, and compressed ones: each message arrives with its topic, number and time, readable by
//! ordinary tools, also after an outage.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{
    Client, Gateway, Mosquitto, PATIENCE, Pki, Plant, Scene,
    plant::{GATEWAY, upstream},
    promise, until,
};

const COUNT: &str = "telemetry/press-3/count";
const NOTE: &str = "telemetry/press-3/note";
const MESSAGES: usize = 60;

/// The plant's configuration with its rule for telemetry batched and compressed.
fn batching(
    scene: &Scene,
    plant: &Plant,
    port: u16,
    cloud: &Pki,
    protocol: &str,
) -> Result<String> {
    let link = upstream(port, cloud, &cloud.client(scene, GATEWAY)?)
        .replace(
            "[upstream]",
            &format!("[upstream]\nprotocol = \"{protocol}\""),
        )
        .replace(
            "filter = \"telemetry/#\"",
            "filter = \"telemetry/#\"\ntopic = \"{gateway}/batch\"\nbatch = { messages = 20, delay = \"200ms\" }\n\
             compress = \"zstd\"",
        );
    ensure!(
        link.contains("batch ="),
        "the plant's rule has changed: {link}"
    );
    Ok([plant.base(scene), link].concat())
}

/// Counts up on one topic, with a note that is no JSON after each.
fn publish(press: &mut Client, numbers: std::ops::Range<usize>) -> Result<()> {
    for number in numbers {
        press.publish(COUNT, &number.to_string())?;
        press.publish(NOTE, &format!("note {number}"))?;
    }
    Ok(())
}

/// Payloads that have arrived, by topic and number there.
type Arrived = BTreeMap<(String, u64), String>;

fn arrived(observer: &Client) -> Result<(Arrived, usize)> {
    let (mut arrived, mut packets) = (Arrived::new(), 0);
    for event in observer.process()?.events()? {
        if event["event"] != "message" || event["topic"] != format!("{GATEWAY}/batch") {
            continue;
        }
        ensure!(event["compressed"] == true, "{event}");
        packets += 1;
        let text = event["payload"].as_str().context("no payload")?;
        for entry in serde_json::from_str::<Vec<Value>>(text)? {
            let topic = entry["topic"].as_str().context("no topic")?.to_owned();
            let seq = entry["seq"].as_u64().context("no seq")?;
            let time = entry["time"].as_str().context("no time")?;
            ensure!(time.ends_with('Z'), "{entry}");
            let message = match topic.as_str() {
                COUNT => entry["payload"].to_string(),
                _ => entry["text"].as_str().context("no text")?.to_owned(),
            };
            arrived.insert((topic, seq), message);
        }
    }
    Ok((arrived, packets))
}

#[test]
fn batches_lose_nothing_over_an_outage_and_are_read_by_zstd_and_any_json() {
    for protocol in ["5", "3.1.1"] {
        promise(|scene| {
            let cloud = Pki::new(scene, "cloud")?;
            let plant = Plant::new(scene)?;
            let mut mosquitto = Mosquitto::start(scene, &cloud)?;
            let observer = mosquitto.observer(&cloud)?;
            let config = batching(scene, &plant, mosquitto.port, &cloud, protocol)?;
            let _gateway = Gateway::start(scene, &config, plant.port)?;
            let mut press = Client::new("press-3", plant.port).start(scene)?;
            press.event("connected", |_| true)?;

            publish(&mut press, 0..MESSAGES / 2)?;
            until("some arrive", PATIENCE, || {
                Ok((arrived(&observer)?.1 > 0).then_some(()))
            })?;
            mosquitto.stop()?;
            publish(&mut press, MESSAGES / 2..MESSAGES)?;
            mosquitto.restart()?;
            let (messages, packets) = until("all arrive", PATIENCE, || {
                let (messages, packets) = arrived(&observer)?;
                Ok((messages.len() == 2 * MESSAGES).then_some((messages, packets)))
            })?;
            ensure!(
                packets < MESSAGES,
                "{packets} packets for {} messages",
                2 * MESSAGES
            );
            for number in 0..MESSAGES {
                let seq = number as u64 + 1;
                let at = |topic: &str| messages.get(&(topic.to_owned(), seq)).map(String::as_str);
                ensure!(at(COUNT) == Some(&number.to_string()), "{messages:?}");
                ensure!(at(NOTE) == Some(&format!("note {number}")), "{messages:?}");
            }
            Ok(())
        });
    }
}
