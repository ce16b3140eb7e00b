//! Process manners: what systemd is told, how the gateway stops, what it writes, how it reloads.

use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Client, Gateway, Ledger, Mosquitto, PATIENCE, Pki, Plant, gateway, messages,
    plant::{GATEWAY, upstream},
    promise, subscriber, until,
};

/// The contract's longest time from SIGTERM to the end.
const STOP_LIMIT: Duration = Duration::from_secs(5);

#[test]
fn systemd_is_told_ready_alive_and_stopping() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let path = scene.path("notify.sock");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let environment = [
            ("NOTIFY_SOCKET", path.display().to_string()),
            ("WATCHDOG_USEC", "1000000".to_owned()),
        ];
        let config = plant.config(scene);
        let mut gateway = Gateway::start_with(scene, &config, plant.port, &[], &environment)?;
        hears(&socket, "READY=1")?;
        let first = Instant::now();
        for _ in 0..4 {
            hears(&socket, "WATCHDOG=1")?;
        }
        let pace = first.elapsed() / 4;
        ensure!(
            pace < Duration::from_secs(1),
            "the watchdog is fed every {pace:?} only"
        );
        gateway.process.signal(Signal::SIGTERM)?;
        hears(&socket, "STOPPING=1")?;
        gateway.process.ended(STOP_LIMIT)?;
        Ok(())
    });
}

#[test]
fn a_stop_takes_less_than_five_seconds_and_loses_nothing_acknowledged() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mut mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        let link = upstream(mosquitto.port, &cloud, &cloud.client(scene, GATEWAY)?);
        let mut gateway = Gateway::start(scene, &[plant.config(scene), link].concat(), plant.port)?;
        let mut press = Client::new("press-3", plant.port).start(scene)?;
        press.event("connected", |_| true)?;
        let topic = "telemetry/press-3/count";
        press.tell(&json!({"do": "stream", "topic": topic, "interval": 0.005}))?;
        press.event("published", |event| event["payload"] == "50")?;
        mosquitto.stop()?;
        press.event("published", |event| event["payload"] == "200")?;

        let (status, took) = gateway.stop()?;
        ensure!(status.code() == Some(0), "it ended with {status}");
        ensure!(took < STOP_LIMIT, "it took {took:?} to stop");
        let acknowledged = press.process()?.events_named("published")?;
        drop(press);

        gateway.restart()?;
        mosquitto.restart()?;
        until("every acknowledged message is upstream", PATIENCE, || {
            let arrived = messages(observer.process()?)?;
            let is_here = |event: &Value| {
                arrived.iter().any(|message| {
                    message.topic == format!("{GATEWAY}/{topic}")
                        && event["payload"] == *message.payload
                })
            };
            Ok(acknowledged.iter().all(is_here).then_some(()))
        })
    });
}

#[test]
fn the_log_is_readable_lines_or_json_as_asked() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let mut gateway = Gateway::start_with(
            scene,
            &plant.config(scene),
            plant.port,
            &["--log", "json"],
            &[],
        )?;
        gateway.stop()?;
        let log = gateway.process.log()?;
        ensure!(!log.trim().is_empty(), "a silent gateway");
        for line in log.lines() {
            let object: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            ensure!(
                object["level"].is_string() && object["timestamp"].is_string(),
                "{object}"
            );
        }
        Ok(())
    });
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let mut gateway = Gateway::start(scene, &plant.config(scene), plant.port)?;
        gateway.stop()?;
        let log = gateway.process.log()?;
        ensure!(
            log.contains("INFO") && !log.contains('\u{1b}'),
            "not plain lines: {log}"
        );
        Ok(())
    });
}

#[test]
fn a_reload_restarts_what_changed_and_does_not_pause_the_rest() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let config = plant.config(scene);
        let gateway = Gateway::start(scene, &config, plant.port)?;
        let heard = subscriber(scene, plant.port, &["telemetry/#"])?;
        let ledger = || Ledger::read(&heard, "");
        has(&ledger, "telemetry/tank-1/level", 3)?;
        has(&ledger, "telemetry/meter-1/voltage", 3)?;

        let changed = config.replace(r#"name = "level""#, r#"name = "height""#);
        gateway.reload(&changed)?;
        has(&ledger, "telemetry/tank-1/height", 3)?;
        let levels = ledger()?.entries("telemetry/tank-1/level").len();
        has(&ledger, "telemetry/tank-1/height", 6)?;
        ensure!(
            ledger()?.entries("telemetry/tank-1/level").len() == levels,
            "the old point lives"
        );
        never_paused(&ledger()?, "telemetry/meter-1/voltage", 0.5)?;

        let logged = gateway.process.log()?.len();
        gateway.reload(&changed.replace("unit = 17", "unit = 999"))?;
        gateway.says_since(logged, &["gateway.toml:", "unit"])?;
        has(&ledger, "telemetry/tank-1/height", 12)?;
        never_paused(&ledger()?, "telemetry/meter-1/voltage", 0.5)
    });
}

#[test]
fn a_second_instance_says_what_is_in_its_way() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let mut first = Gateway::start(scene, &plant.config(scene), plant.port)?;
        let second = plant
            .config(scene)
            .replace("buffer.db", "second.db")
            .replace("control.sock", "second.sock");
        let config = scene.write("second.toml", &second)?.display().to_string();
        let (code, said) = gateway::refusal(scene, &["run", "--config", &config])?;
        ensure!(code == Some(1), "it ended with {code:?}");
        ensure!(
            said.contains(&format!("127.0.0.1:{}", plant.port)),
            "{said}"
        );
        ensure!(first.process.is_running()?, "the first one was disturbed");
        Ok(())
    });
}

#[test]
fn status_tells_what_works_and_is_unreachable_when_nothing_runs() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let mut gateway = Gateway::start(scene, &plant.config(scene), plant.port)?;
        let config = scene.path("gateway.toml").display().to_string();
        let ask = || gateway::run(&["status", "--config", &config, "--json"]);
        let told = until("the status names every device", PATIENCE, || {
            let output = ask()?;
            ensure!(output.status.success(), "{output:?}");
            let told = String::from_utf8(output.stdout)?;
            let all = ["meter-1", "tank-1", "wind-1"]
                .iter()
                .all(|name| told.contains(name));
            Ok(all.then_some(told))
        })?;
        serde_json::from_str::<Value>(&told)?;
        gateway.stop()?;
        ensure!(ask()?.status.code() == Some(4), "status without a gateway");
        Ok(())
    });
}

/// Waits for a notification that contains this line.
fn hears(socket: &UnixDatagram, line: &str) -> Result<()> {
    let mut buffer = [0; 4096];
    until(
        &format!("systemd is told {line}"),
        PATIENCE,
        || match socket.recv(&mut buffer) {
            Ok(length) => {
                let told = String::from_utf8_lossy(&buffer[..length]);
                Ok(told.lines().any(|one| one == line).then_some(()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        },
    )
}

/// Waits until a topic has brought so many readings.
fn has(ledger: &impl Fn() -> Result<Ledger>, topic: &str, count: u64) -> Result<()> {
    until(&format!("{count} readings of {topic}"), PATIENCE, || {
        let ledger = ledger()?;
        Ok((u64::try_from(ledger.entries(topic).len())? >= count).then_some(()))
    })
}

/// Readings follow each other without a gap, none more than three intervals after the last.
fn never_paused(ledger: &Ledger, topic: &str, interval_s: f64) -> Result<()> {
    let readings = ledger.in_order(topic)?;
    for pair in readings.windows(2) {
        let pause = pair[1].seconds()? - pair[0].seconds()?;
        ensure!(
            pause <= 3.0 * interval_s,
            "{topic} paused {pause} s at {:?}",
            pair[1]
        );
    }
    Ok(())
}
