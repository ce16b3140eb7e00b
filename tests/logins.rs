//! Logging in with passwords: those of a password file, whoever hashed them, sent or proved.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::harness::{Client, Gateway, Plant, Scene, promise, scram};

/// MQTT 5 reason code "Not authorized".
const NOT_AUTHORIZED: u64 = 0x87;

/// A listener that asks for passwords, and the file they are in.
fn asking(port: u16, file: &Path) -> String {
    format!(
        r#"
[broker]
password_file = "{}"

[[broker.listener]]
address = "127.0.0.1:{port}"
anonymous = false
"#,
        file.display()
    )
}

/// A line as Mosquitto's own tool writes it.
fn hashed_by_mosquitto(scene: &Scene, user: &str, password: &str) -> Result<String> {
    let path = scene.write_secret(&format!("{user}.plain"), &format!("{user}:{password}\n"))?;
    let status = Command::new("mosquitto_passwd")
        .arg("-U")
        .arg(&path)
        .status()?;
    ensure!(status.success(), "mosquitto_passwd failed");
    std::fs::read_to_string(&path).context("mosquitto_passwd wrote nothing")
}

#[test]
fn a_password_file_of_mosquitto_goes_on_to_work_and_a_reload_ends_what_it_takes_away() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let port = scene.free_port()?;
        let ann_line = hashed_by_mosquitto(scene, "ann", "secret")?;
        let bob_line = hashed_by_mosquitto(scene, "bob", "geheim")?;
        let file = scene.write_secret("passwords", &format!("{ann_line}{bob_line}"))?;
        let config = [plant.config(scene), asking(port, &file)].concat();
        let gateway = Gateway::start(scene, &config, plant.port)?;
        let login = |id: &str, user: &str, password: &str| {
            Client::new(id, port)
                .with("--username", user)
                .with("--password", password)
                .start(scene)
        };
        let refused = login("guesser", "ann", "geheim")?;
        refused.event("refused", |_| true)?;
        let (ann, bob) = (login("a", "ann", "secret")?, login("b", "bob", "geheim")?);
        ann.event("connected", |_| true)?;
        let mut bob = bob.subscribed(&["telemetry/#"])?;
        scene.write_secret("passwords", &bob_line)?;
        gateway.reload(&config)?;
        ann.event("disconnected", |_| true)?;
        bob.publish("telemetry/of/bob", "still here")?;
        let connections = bob.process()?.events_named("connected")?.len();
        ensure!(connections == 1, "bob was disconnected too");
        Ok(())
    });
}

#[test]
fn a_client_of_another_scram_library_is_let_in_and_sees_that_the_broker_knows_it() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let port = scene.free_port()?;
        let line = format!("ann:{}\n", scram::keys("correct horse")?);
        let file = scene.write_secret("passwords", &line)?;
        let config = [plant.config(scene), asking(port, &file)].concat();
        let _gateway = Gateway::start(scene, &config, plant.port)?;
        let events = scram::connect(port, "ann", "correct horse", None)?;
        ensure!(
            events == told(&[("connected", 0), ("proved again", 0)]),
            "{events:?}"
        );
        let events = scram::connect(port, "ann", "correct horse", Some("battery"))?;
        ensure!(
            events == told(&[("connected", 0), ("sent away", NOT_AUTHORIZED)]),
            "{events:?}"
        );
        for (user, password) in [("ann", "battery"), ("nobody", "correct horse")] {
            let events = scram::connect(port, user, password, None)?;
            ensure!(
                events == told(&[("refused", NOT_AUTHORIZED)]),
                "{user}: {events:?}"
            );
        }
        Ok(())
    });
}

fn told(events: &[(&str, u64)]) -> Vec<(String, u64)> {
    let event = |(name, code): &(&str, u64)| ((*name).to_owned(), *code);
    events.iter().map(event).collect()
}
