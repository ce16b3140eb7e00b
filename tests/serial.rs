//! Promise: an instrument that answers only when asked is read as often as it should be, and a
//! command reaches it once and comes back with its answer.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Plant, Process, Scene, promise, scale};

/// Readings awaited.
const SOME: usize = 20;

/// How long the scale may take to answer, in the configuration.
const RESPONSE_TIMEOUT: &str = "200ms";

/// How late every fifth answer comes.
const LATE: [&str; 4] = ["--late", "5", "--delay", "0.3"];

fn config(port: &Path) -> String {
    format!(
        r#"
[[serial]]
name = "scale-1"
port = "{port}"
frame = {{ delimiter = "\r\n" }}
response_timeout = "{RESPONSE_TIMEOUT}"
decode = {{ regex = "^S +(?P<weight>[0-9.]+) kg" }}

[[serial.request]]
send = "W\r\n"
interval = "50ms"

[[serial.point]]
name = "weight"
unit = "kg"

[[serial.point]]
name = "limit"
access = "read-write"
write = "L {{value:07.2}}\r\n"
confirm = "^OK"
min = 0
max = 150
"#,
        port = port.display()
    )
}

/// A gateway with a scale, and a client that hears of it.
fn start<'a>(
    scene: &'a Scene,
    plant: &Plant,
    arguments: &[&str],
) -> Result<(Process, Gateway<'a>, Client)> {
    let link = scene.path("ttyScale");
    let scale = scale(scene, &link, arguments)?;
    let config = [plant.base(scene), config(&link)].concat();
    let gateway = Gateway::start(scene, &config, plant.port)?;
    let filters = ["telemetry/scale-1/#", "result/scale-1/#", "state/scale-1"];
    let panel = Client::new("panel", plant.port)
        .start(scene)?
        .subscribed(&filters)?;
    Ok((scale, gateway, panel))
}

/// The weights published so far, in their order.
fn weights(panel: &Client) -> Result<Vec<f64>> {
    let messages = crate::harness::messages(panel.process()?)?;
    let weight = |payload: &str| -> Result<f64> {
        let reading: Value = serde_json::from_str(payload)?;
        reading["value"].as_f64().context("no number")
    };
    let of_weight = messages
        .iter()
        .filter(|message| message.topic == "telemetry/scale-1/weight");
    of_weight.map(|message| weight(&message.payload)).collect()
}

fn number_after(panel: &Client, count: usize) -> Result<Vec<f64>> {
    crate::harness::until(
        &format!("{count} weights arrive"),
        crate::harness::PATIENCE,
        || {
            let weights = weights(panel)?;
            Ok((weights.len() >= count).then_some(weights))
        },
    )
}

#[test]
fn a_scale_that_answers_when_asked_is_read_and_takes_a_limit() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let (scale, _gateway, mut panel) = start(scene, &plant, &[])?;
        let weights = number_after(&panel, SOME)?;
        ensure!(
            weights.windows(2).all(|pair| pair[0] < pair[1]),
            "a weight came twice or out of order: {weights:?}"
        );
        panel.publish("command/scale-1/limit", r#"{"value": 42.5, "id": "a"}"#)?;
        let result = panel.message("result/scale-1/limit", |text| text.contains("\"a\""))?;
        let result: Value = serde_json::from_str(&result)?;
        ensure!(result["result"] == "executed", "{result}");
        ensure!(result["value"] == json!(42.5), "{result}");
        panel.publish("command/scale-1/limit", r#"{"value": 150.5, "id": "b"}"#)?;
        let refused = panel.message("result/scale-1/limit", |text| text.contains("\"b\""))?;
        ensure!(
            refused.contains("greatest permitted value 150"),
            "{refused}"
        );
        let written = scale.events_named("written")?;
        ensure!(
            written.len() == 1 && written[0]["value"] == "0042.50",
            "{written:?}"
        );
        Ok(())
    });
}

#[test]
fn a_scales_late_answer_is_never_published_as_the_next_weight() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let (_scale, _gateway, panel) = start(scene, &plant, &LATE)?;
        let weights = number_after(&panel, SOME)?;
        // The scale says which weights were late: each fifth that it was asked for.
        let asked = |weight: &f64| ((weight - 10.0) * 100.0).round() % 5.0;
        ensure!(
            weights.iter().all(|weight| asked(weight) != 0.0),
            "a late weight was published: {weights:?}"
        );
        Ok(())
    });
}
