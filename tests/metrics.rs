//! What Prometheus gets to see: the broker, the buffer and the upstream, in text that its own parser
//! takes.

use anyhow::ensure;
use serde_json::Value;

use crate::harness::{
    Client, Gateway, Mosquitto, PATIENCE, Pki, Plant, gateway, openmetrics,
    plant::{GATEWAY, upstream},
    promise, until,
};

fn metrics_at(port: u16) -> String {
    format!("\n[metrics]\naddress = \"127.0.0.1:{port}\"\n")
}

fn value(samples: &[Value], name: &str) -> Option<f64> {
    let found = samples.iter().find(|sample| sample["name"] == name)?;
    found["value"].as_f64()
}

#[test]
fn prometheus_reads_broker_buffer_and_upstream() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mosquitto = Mosquitto::start(scene, &cloud)?;
        let link = upstream(mosquitto.port, &cloud, &cloud.client(scene, GATEWAY)?);
        let port = scene.free_port()?;
        let config = [plant.config(scene), link, metrics_at(port)].concat();
        let _gateway = Gateway::start(scene, &config, plant.port)?;
        // What a client calls itself must not break the text.
        let mut client = Client::new("a\"b\\c } 1", plant.port).start(scene)?;
        client.event("connected", |_| true)?;
        client.publish("telemetry/press-3/count", "1")?;
        until("the message is counted all the way", PATIENCE, || {
            let samples = openmetrics(port)?;
            let at_least_one = |name| value(&samples, name).is_some_and(|count: f64| count >= 1.0);
            Ok((at_least_one("gateway_buffer_forwarded_total")
                && value(&samples, "gateway_upstream_connected") == Some(1.0))
            .then_some(()))
        })?;
        let samples = openmetrics(port)?;
        ensure!(
            value(&samples, "broker_clients") == Some(1.0),
            "{samples:?}"
        );
        let ours = samples.iter().find(|sample| {
            sample["name"] == "broker_client_messages_received_total"
                && sample["labels"]["client"] == "a\"b\\c } 1"
        });
        ensure!(
            ours.is_some_and(|sample| sample["value"] == 1.0),
            "the client has no series of its own: {samples:?}"
        );
        let undescribed = samples.iter().find(|sample| sample["help"] == "");
        ensure!(undescribed.is_none(), "without a help: {undescribed:?}");
        Ok(())
    });
}

#[test]
fn a_reload_moves_the_metrics_and_an_address_in_use_changes_nothing() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let (first, second) = (scene.free_port()?, scene.free_port()?);
        let without = plant.config(scene);
        let with = |port| [without.clone(), metrics_at(port)].concat();
        let gateway = Gateway::start(scene, &with(first), plant.port)?;
        ensure!(value(&openmetrics(first)?, "gateway_buffer_faulty") == Some(0.0));

        gateway.reload(&with(plant.port))?;
        let told = gateway.says(&["configuration not applied", "cannot serve metrics"])?;
        ensure!(told.contains("reload-refused"), "{told}");
        openmetrics(first)?;

        gateway.reload(&with(second))?;
        gateway.says(&["configuration reloaded", "metrics", "kind=\"reloaded\""])?;
        openmetrics(second)?;
        ensure!(
            openmetrics(first).is_err(),
            "the first address still serves"
        );

        gateway.reload(&without)?;
        until("nothing is served any more", PATIENCE, || {
            Ok(openmetrics(second).is_err().then_some(()))
        })
    });
}

#[test]
fn the_check_warns_of_metrics_that_the_network_can_read() {
    promise(|scene| {
        let text = "[metrics]\naddress = \"0.0.0.0:9883\"\n";
        let file = scene.write("gateway.toml", text)?.display().to_string();
        let output = gateway::run(&["check", "--file-only", "--config", &file])?;
        let said = String::from_utf8(output.stdout)?;
        ensure!(
            said.contains("gateway.toml:2:11: warning: metrics are readable by everyone"),
            "{said}"
        );
        Ok(())
    });
}
