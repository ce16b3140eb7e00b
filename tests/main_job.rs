//! The main job: what the sensors say arrives upstream, whatever happens on the way, and commands
//! come back down exactly once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{
    Client, Entry, Gateway, Ledger, Mosquitto, PATIENCE, Pki, Plant, Process, Scene, Served,
    messages,
    plant::{GATEWAY, MOVING, WIND_SPEED, tls_listener, upstream},
    promise, subscriber, until,
};

/// Upstream, a topic stands below the gateway's name.
const BELOW: &str = "plant-7/";

/// Readings awaited in each phase.
const SOME: u64 = 5;

/// What was published this shortly before a SIGKILL may not be on disk yet: the group commit's
/// delay, and the way to the disk and to the subscriber on a busy machine. No client was told that
/// it is safe.
const UNCOMMITTED_S: f64 = 0.3;

/// Messages under way at once (`upstream.in_flight`): so many may come twice after each of the
/// two cuts, of the link and of the process.
const MOST_REPEATED: usize = 2 * 100;

/// A plant, a gateway, an upstream, and everyone who listens.
struct Job<'a> {
    plant: Plant,
    mosquitto: Mosquitto<'a>,
    gateway: Gateway<'a>,
    /// MQTT 5, upstream, mutual TLS.
    observer: Client,
    /// MQTT 5, local, mutual TLS.
    recorder: Client,
    /// MQTT 3.1.1, local, plain.
    subscriber: Process,
}

impl<'a> Job<'a> {
    fn start(scene: &'a Scene) -> Result<Job<'a>> {
        let (cloud, local) = (Pki::new(scene, "cloud")?, Pki::new(scene, "local")?);
        let plant = Plant::new(scene)?;
        let mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        let tls_port = scene.free_port()?;
        let config = [
            plant.config(scene),
            tls_listener(tls_port, &local, &local.server(scene)?),
            upstream(mosquitto.port, &cloud, &cloud.client(scene, GATEWAY)?),
        ];
        let gateway = Gateway::start(scene, &config.concat(), plant.port)?;
        let recorder = Client::new("recorder", tls_port)
            .over_tls(&local.ca, &local.client(scene, "recorder")?)
            .start(scene)?
            .subscribed(&["telemetry/#", "state/#", "result/#"])?;
        let subscriber = subscriber(scene, plant.port, &["telemetry/#", "state/#", "result/#"])?;
        Ok(Job {
            plant,
            mosquitto,
            gateway,
            observer,
            recorder,
            subscriber,
        })
    }

    fn heard_locally(&self) -> Result<Ledger> {
        Ledger::read(self.recorder.process()?, "")
    }

    fn heard_upstream(&self) -> Result<Ledger> {
        Ledger::read(self.observer.process()?, BELOW)
    }

    /// Waits until every moving point has come `SOME` readings further than `before`.
    fn advances(
        &self,
        whose: &str,
        before: &Ledger,
        look: impl Fn() -> Result<Ledger>,
    ) -> Result<()> {
        let topics = || MOVING.iter().map(|&(topic, _)| topic).chain([WIND_SPEED]);
        until(
            &format!("{SOME} more readings of each point {whose}"),
            PATIENCE,
            || {
                let now = look()?;
                let enough = topics().all(|topic| now.last(topic) >= before.last(topic) + SOME);
                Ok(enough.then_some(()))
            },
        )
    }
}

#[test]
fn readings_arrive_decoded_at_every_kind_of_client_and_upstream() {
    promise(|scene| {
        let job = Job::start(scene)?;
        let nothing = Ledger::default();
        job.advances("by MQTT 3.1.1", &nothing, || {
            Ledger::read(&job.subscriber, "")
        })?;
        job.advances("by MQTT 5 over TLS", &nothing, || job.heard_locally())?;
        job.advances("upstream", &nothing, || job.heard_upstream())?;
        for ledger in [
            Ledger::read(&job.subscriber, "")?,
            job.heard_locally()?,
            job.heard_upstream()?,
        ] {
            values_are_the_devices(&job.plant, &ledger, 0)?;
        }
        units_and_states_are_told(&job)
    });
}

#[test]
fn no_reading_is_lost_while_the_upstream_is_away_and_the_process_is_killed() {
    promise(|scene| {
        let mut job = Job::start(scene)?;
        let mut press = Client::new("press-3", job.plant.port).start(scene)?;
        press.event("connected", |_| true)?;
        press
            .tell(&json!({"do": "stream", "topic": "telemetry/press-3/count", "interval": 0.02}))?;
        job.advances("upstream", &Ledger::default(), || job.heard_upstream())?;

        job.mosquitto.stop()?;
        job.advances("while the upstream is away", &job.heard_locally()?, || {
            job.heard_locally()
        })?;
        let killed = seconds_now()?;
        job.gateway.process.kill()?;
        job.gateway.restart()?;
        job.advances("after the kill", &job.heard_locally()?, || {
            job.heard_locally()
        })?;
        job.mosquitto.restart()?;
        let local = job.heard_locally()?;
        until("the upstream has caught up", PATIENCE, || {
            Ok(job.heard_upstream()?.has_caught_up(&local).then_some(()))
        })?;
        job.advances(
            "after the upstream's return",
            &job.heard_upstream()?,
            || job.heard_upstream(),
        )?;

        every_reading_arrived(&job, &local, killed)?;
        every_acknowledged_message_arrived(&job, &press)
    });
}

#[test]
fn a_command_is_executed_exactly_once_and_its_result_comes_back() {
    promise(|scene| {
        let mut job = Job::start(scene)?;
        job.advances("upstream", &Ledger::default(), || job.heard_upstream())?;

        // QoS 2: the upstream must not take it twice when the sender's own link breaks.
        let command = json!({"value": 742, "id": "from-above"}).to_string();
        job.observer.tell(&json!({"do": "publish", "qos": 2,
            "topic": "plant-7/command/meter-1/setpoint", "payload": command}))?;
        let result = result_of(
            &job.observer,
            "plant-7/result/meter-1/setpoint",
            "from-above",
        )?;
        ensure!(result["result"] == "executed", "{result}");
        ensure!(result["value"] == 742, "the value read back: {result}");

        let mut panel = Client::new("panel", job.plant.port)
            .start(scene)?
            .subscribed(&["result/#"])?;
        let command = json!({"value": true, "id": "from-beside"}).to_string();
        panel.publish("command/tank-1/valve", &command)?;
        let result = result_of(&panel, "result/tank-1/valve", "from-beside")?;
        ensure!(result["result"] == "executed", "{result}");

        panel.subscribe("response/#")?;
        panel.tell(
            &json!({"do": "publish", "topic": "command/tank-1/valve", "payload": "false",
            "correlation": "c-17", "response_topic": "response/panel"}),
        )?;
        let answer = panel.event("message", |event| event["topic"] == "response/panel")?;
        let correlation = &answer["properties"]["CorrelationData"];
        ensure!(
            *correlation == "632d3137",
            "c-17 in hexadecimal, not {answer}"
        );

        for (point, value) in [("setpoint", 1001), ("voltage", 1), ("nowhere", 1)] {
            let command = json!({"value": value, "id": point}).to_string();
            panel.publish(&format!("command/meter-1/{point}"), &command)?;
            let result = result_of(&panel, &format!("result/meter-1/{point}"), point)?;
            ensure!(result["result"] == "refused", "{point}: {result}");
            ensure!(
                result["reason"].as_str().is_some_and(|why| !why.is_empty()),
                "{result}"
            );
        }

        ensure!(written(&job.plant.meter)? == [("holding".to_owned(), 100, vec![742])]);
        ensure!(
            written(&job.plant.tank)?
                == [
                    ("coil".to_owned(), 5, vec![1]),
                    ("coil".to_owned(), 5, vec![0])
                ]
        );
        Ok(())
    });
}

fn values_are_the_devices(plant: &Plant, ledger: &Ledger, missing: usize) -> Result<()> {
    for (topic, quantity) in MOVING {
        let device = if topic.contains("tank-1") {
            &plant.tank
        } else {
            &plant.meter
        };
        let readings = ledger.in_order(topic)?;
        let scale = |raw: &Value| match (quantity, raw.as_f64()) {
            ("temperature", Some(raw)) => json!(raw * 0.1 + 2.0),
            _ => raw.clone(),
        };
        let served = Served::read(device, quantity)?;
        served
            .became(&readings, missing, scale)
            .with_context(|| topic.to_owned())?;
    }
    let readings = ledger.in_order(WIND_SPEED)?;
    let said = Served::read(&plant.wind, "speed")?;
    said.became(&readings, missing, Value::clone)
        .context(WIND_SPEED)?;
    let label = ledger.entries("telemetry/meter-1/label").first();
    ensure!(
        label.is_some_and(|entry| entry.value == "MTR-7"),
        "label: {label:?}"
    );
    Ok(())
}

fn units_and_states_are_told(job: &Job<'_>) -> Result<()> {
    let heard = messages(&job.subscriber)?;
    let voltage = heard
        .iter()
        .find(|message| message.topic == "telemetry/meter-1/voltage");
    let voltage: Value = serde_json::from_str(&voltage.context("no voltage")?.payload)?;
    ensure!(
        voltage["unit"] == "V" && voltage["quality"] == "good",
        "{voltage}"
    );
    ensure!(
        ["synced", "unsynced"].contains(&voltage["clock"].as_str().unwrap_or("")),
        "{voltage}"
    );
    for device in ["meter-1", "tank-1", "wind-1"] {
        let topic = format!("state/{device}");
        let state = heard
            .iter()
            .filter(|message| message.topic == topic)
            .find(|state| state.payload.contains("online"));
        ensure!(state.is_some(), "{topic} never said online");
    }
    Ok(())
}

fn every_reading_arrived(job: &Job<'_>, local: &Ledger, killed: f64) -> Result<()> {
    let upstream = job.heard_upstream()?;
    for topic in upstream.topics() {
        let readings = upstream.in_order(topic)?;
        let times: Vec<f64> = readings
            .iter()
            .map(|entry| entry.seconds())
            .collect::<Result<_>>()?;
        ensure!(times.is_sorted(), "{topic}: times run backwards");
    }
    let in_flight_at_the_kill = |entry: &Entry| {
        Ok((killed - UNCOMMITTED_S..=killed + UNCOMMITTED_S).contains(&entry.seconds()?))
    };
    upstream.holds_all_of(local, in_flight_at_the_kill)?;
    // The wire was busy with one more answer for each of a device's requests when the kill came,
    // and the wind sensor talked to a gateway that was away.
    values_are_the_devices(&job.plant, &upstream, 4)?;
    let repeated = upstream.repetitions();
    ensure!(
        repeated <= MOST_REPEATED,
        "{repeated} readings came more than once"
    );
    Ok(())
}

/// A publisher that was told "I have it" can forget the message: it is upstream by now.
fn every_acknowledged_message_arrived(job: &Job<'_>, press: &Client) -> Result<()> {
    let counts = |process: &Process| -> Result<Vec<String>> {
        let topic = "plant-7/telemetry/press-3/count";
        let heard = messages(process)?
            .into_iter()
            .filter(|message| message.topic == topic);
        Ok(heard.map(|message| message.payload).collect())
    };
    let acknowledged = press.process()?.events_named("published")?;
    ensure!(
        !acknowledged.is_empty(),
        "the press was never told anything"
    );
    until("every acknowledged message is upstream", PATIENCE, || {
        let arrived = counts(job.observer.process()?)?;
        let is_here = |event: &Value| arrived.iter().any(|count| event["payload"] == **count);
        Ok(acknowledged.iter().all(is_here).then_some(()))
    })?;
    Ok(())
}

fn result_of(client: &Client, topic: &str, id: &str) -> Result<Value> {
    let payload = client.message(topic, |payload| payload.contains(id))?;
    let result: Value = serde_json::from_str(&payload)?;
    ensure!(result["id"] == id, "{result}");
    Ok(result)
}

/// Every write that reached a device.
fn written(device: &Process) -> Result<Vec<(String, u64, Vec<u64>)>> {
    let as_write = |event: Value| {
        let values = event["values"]
            .as_array()?
            .iter()
            .filter_map(Value::as_u64)
            .collect();
        Some((
            event["table"].as_str()?.to_owned(),
            event["address"].as_u64()?,
            values,
        ))
    };
    Ok(device
        .events_named("written")?
        .into_iter()
        .filter_map(as_write)
        .collect())
}

fn seconds_now() -> Result<f64> {
    let now: Duration = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(now.as_secs_f64())
}
