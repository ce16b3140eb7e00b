//! Who may do what: nothing without an identity off loopback, and nothing beyond the rules.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::harness::{
    Client, Gateway, Identity, PATIENCE, Pki, Plant, Scene, plant::tls_listener, promise,
    subscriber, until,
};

/// MQTT 5 reason code "Not authorized" [MQTT-3.4.2, 3.9.3].
const NOT_AUTHORIZED: u64 = 0x87;

#[test]
fn nobody_is_anonymous_off_loopback() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let open = scene.free_port()?;
        let password = scene.write_secret("operator.password", "correct horse\n")?;
        let listener = format!(
            r#"
[[broker.listener]]
address = "0.0.0.0:{open}"

[[broker.user]]
name = "operator"
password = {{ file = "{}" }}
"#,
            password.display()
        );
        let _gateway =
            Gateway::start(scene, &[plant.config(scene), listener].concat(), plant.port)?;
        let stranger = Client::new("stranger", open).start(scene)?;
        is_refused(&stranger)?;
        let guesser = Client::new("guesser", open)
            .with("--username", "operator")
            .with("--password", "battery staple")
            .start(scene)?;
        is_refused(&guesser)?;
        let operator = Client::new("operator", open)
            .with("--username", "operator")
            .with("--password", "correct horse")
            .start(scene)?;
        operator.event("connected", |_| true)?;
        let neighbour = Client::new("neighbour", plant.port).start(scene)?;
        neighbour.event("connected", |_| true)?;
        Ok(())
    });
}

#[test]
fn the_tls_listener_serves_only_clients_of_its_authority() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let (ours, theirs) = (Pki::new(scene, "ours")?, Pki::new(scene, "theirs")?);
        let port = scene.free_port()?;
        let config = [
            plant.config(scene),
            tls_listener(port, &ours, &ours.server(scene)?),
        ];
        let _gateway = Gateway::start(scene, &config.concat(), plant.port)?;
        let nameless = Client::new("nameless", port)
            .trusting(&ours.ca)
            .start(scene)?;
        is_refused(&nameless)?;
        let forged = theirs.client(scene, "recorder")?;
        is_refused(&tls_client(scene, "forger", port, &ours, &forged)?)?;
        let genuine = ours.client(scene, "recorder")?;
        tls_client(scene, "recorder", port, &ours, &genuine)?.event("connected", |_| true)?;
        Ok(())
    });
}

#[test]
fn rules_bound_what_a_client_publishes_and_receives() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let ours = Pki::new(scene, "ours")?;
        let port = scene.free_port()?;
        let rules = r#"
[[broker.access]]
user = "press-9"
publish = ["telemetry/%u/#"]
subscribe = ["command/%u/#"]
"#;
        // Before the plant's own rules, of which the last is for everyone.
        let config = [
            rules.to_owned(),
            plant.config(scene),
            tls_listener(port, &ours, &ours.server(scene)?),
        ];
        let _gateway = Gateway::start(scene, &config.concat(), plant.port)?;
        let mut press = tls_client(scene, "nine", port, &ours, &ours.client(scene, "press-9")?)?;
        press.event("connected", |_| true)?;
        let mut recorder = tls_client(scene, "all", port, &ours, &ours.client(scene, "recorder")?)?
            .subscribed(&["#"])?;

        let allowed = press.publish("telemetry/press-9/count", "1")?;
        ensure!(
            allowed < 0x80,
            "its own topic was refused with {allowed:#x}"
        );
        ensure!(press.publish("telemetry/press-8/count", "2")? == NOT_AUTHORIZED);
        ensure!(press.publish("$SYS/broker/uptime", "3")? == NOT_AUTHORIZED);
        ensure!(press.subscribe("command/press-9/#")? < 0x80);
        ensure!(press.subscribe("command/press-8/#")? == NOT_AUTHORIZED);
        ensure!(press.subscribe("#")? == NOT_AUTHORIZED);
        ensure!(recorder.publish("telemetry/press-9/last", "4")? == NOT_AUTHORIZED);

        recorder.message("telemetry/press-9/count", |payload| payload == "1")?;
        let heard = recorder.process()?.log()?;
        ensure!(
            !heard.contains("press-8"),
            "a refused message was delivered"
        );
        Ok(())
    });
}

#[test]
fn an_mqtt_3_client_is_told_that_a_subscription_failed() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let _gateway = Gateway::start(scene, &plant.config(scene), plant.port)?;
        let spy = subscriber(scene, plant.port, &["$SYS/#"])?;
        until("mosquitto_sub tells that it was denied", PATIENCE, || {
            let log = spy.log()?.to_lowercase();
            Ok((log.contains("denied") || log.contains("not authori")).then_some(()))
        })
    });
}

fn tls_client(
    scene: &Scene,
    name: &str,
    port: u16,
    trusted: &Pki,
    identity: &Identity,
) -> Result<Client> {
    Client::new(name, port)
        .over_tls(&trusted.ca, identity)
        .start(scene)
}

/// The client was turned away at least once, and never let in.
fn is_refused(client: &Client) -> Result<()> {
    until("the client is turned away", PATIENCE, || {
        let events = client.process()?.events()?;
        ensure!(
            events.iter().all(|event| event["event"] != "connected"),
            "it was let in"
        );
        let away = |event: &Value| event["event"] == "refused" || event["event"] == "disconnected";
        Ok(events.iter().any(away).then_some(()))
    })
}
