//! The whole appliance on loopback, for people to watch. Shell.
//!
//! ```text
//!  plant (simulated devices) ─▶ the real appliance ─▶ mutual TLS ─▶ cloud (a second broker)
//!                                       └──── ledger: taken here, arrived there ────┘
//! ```
//!
//! Invariant: nothing outside its temporary directory and the loopback is touched.

#![expect(
    clippy::disallowed_methods,
    reason = "driver: owns the clock of the demonstration"
)]

mod cloud;
mod ledger;
mod output;
mod pki;
mod plant;
mod screen;
mod script;
mod station;

use std::time::{Duration, Instant};

use anyhow::Context;
use broker_lite::{
    message::Message,
    packet::QoS,
    server::{Delivery, LocalClient},
    topic::{TopicFilter, TopicName},
};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::appliance::Appliance;
use cloud::Cloud;
use ledger::Totals;
use output::Output;
use pki::Pki;
use plant::Plant;
use screen::View;
use script::{Act, Script};

/// The gateway's name in the demonstration.
const GATEWAY: &str = "demo";
/// Pause between two looks at the clock and the screen.
const TICK: Duration = Duration::from_millis(200);
/// How long the last readings may take to arrive at the end.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// What the person asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// End after this long; otherwise at Ctrl-C.
    pub length: Option<Duration>,
    /// Port of the local broker; 0 takes a free one.
    pub port: u16,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Readings published in the plant.
    pub taken: u64,
    /// Readings that arrived in the cloud.
    pub forwarded: u64,
    /// Taken, and not arrived when everything had time to drain.
    pub lost: u64,
}

/// Runs the demonstration to its end.
///
/// # Errors
/// A simulated device, a broker or the appliance does not start.
pub async fn run(options: Options) -> anyhow::Result<Summary> {
    let directory = tempfile::Builder::new()
        .prefix("gateway-demo-")
        .tempdir()
        .context("cannot make a temporary directory")?;
    let pki = Pki::create(directory.path(), GATEWAY)?;
    let (cloud, observer) = Cloud::start(&pki, GATEWAY).await?;
    let plant = Plant::start().await?;
    let config = plant.configuration(directory.path(), &pki, cloud.address(), options.port)?;
    let appliance = Appliance::start(config).await?;
    let script = Script::new(options.length);
    Demo::new(appliance, cloud, observer, plant, script)?
        .play()
        .await
}

struct Demo {
    appliance: Appliance,
    cloud: Cloud,
    /// Keeps the simulated devices alive.
    _plant: Plant,
    in_plant: LocalClient,
    in_cloud: Option<LocalClient>,
    script: Script,
    view: View,
    output: Output,
    started: Instant,
    setpoint: u16,
    mended_at: Option<Instant>,
}

impl Demo {
    fn new(
        appliance: Appliance,
        cloud: Cloud,
        observer: LocalClient,
        plant: Plant,
        script: Script,
    ) -> anyhow::Result<Demo> {
        let in_plant = appliance.broker().local("demo-observer");
        for filter in ["telemetry/#", "result/#"] {
            in_plant.subscribe(TopicFilter::parse(filter)?, QoS::AtLeastOnce);
        }
        let local = appliance
            .broker()
            .addresses()
            .first()
            .context("the local broker has no listener")?
            .address
            .clone();
        let attach = format!(
            "mosquitto_sub -h 127.0.0.1 -p {} -t 'telemetry/#' -v",
            local.port()
        );
        let view = View::new(plant.wires(), attach.clone());
        let output = Output::new();
        output.event(&format!("watch with: {attach}"));
        Ok(Demo {
            in_cloud: Some(observer),
            appliance,
            cloud,
            _plant: plant,
            in_plant,
            script,
            view,
            output,
            started: Instant::now(),
            setpoint: 40,
            mended_at: None,
        })
    }

    async fn play(mut self) -> anyhow::Result<Summary> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            tokio::select! {
                Some(delivery) = self.in_plant.recv() => self.seen_in_plant(&delivery),
                Some(delivery) = next(&mut self.in_cloud) => self.seen_in_cloud(&delivery),
                _ = ticks.tick() => {
                    if self.tick().await? == Some(Act::End) {
                        break;
                    }
                }
                _ = &mut interrupted => break,
            }
        }
        self.finish().await
    }

    async fn tick(&mut self) -> anyhow::Result<Option<Act>> {
        self.view.elapsed = self.started.elapsed();
        let act = self.script.due(self.view.elapsed);
        match act {
            Some(Act::Command) => self.send_command(),
            Some(Act::Cut) => self.cut().await,
            Some(Act::Mend) => self.mend().await?,
            Some(Act::End) | None => {}
        }
        self.look();
        Ok(act)
    }

    async fn cut(&mut self) {
        self.cloud.cut().await;
        // What was acknowledged before the cut has arrived, also where it was not read yet.
        if let Some(mut observer) = self.in_cloud.take() {
            while let Some(delivery) = observer.recv().await {
                self.seen_in_cloud(&delivery);
            }
        }
        self.happened("the link is cut: the upstream broker is gone");
    }

    async fn mend(&mut self) -> anyhow::Result<()> {
        let waiting = self.view.ledger.totals().waiting;
        self.in_cloud = Some(self.cloud.bring_up().await?);
        self.mended_at = Some(Instant::now());
        self.happened(&format!(
            "the upstream broker is back; {waiting} readings wait for it"
        ));
        Ok(())
    }

    /// Takes the state of link and buffer, and shows everything.
    fn look(&mut self) {
        let status = self.appliance.status().status();
        if let Some(link) = &status.upstream {
            self.view.linked = link.connected;
            self.view.link = link.summary();
        }
        self.view.buffered = status.buffer.messages;
        if self.mended_at.is_some() && self.view.linked && self.view.ledger.totals().waiting <= 2 {
            let took = self
                .mended_at
                .take()
                .map(|at| at.elapsed())
                .unwrap_or_default();
            self.happened(&format!(
                "everything has arrived, {:.1} s after the broker came back",
                took.as_secs_f32()
            ));
        }
        self.output.show(&self.view);
    }

    fn happened(&mut self, what: &str) {
        let line = self.view.happened(what);
        self.output.event(&line);
    }

    fn send_command(&mut self) {
        self.setpoint = if self.setpoint == 40 { 55 } else { 40 };
        let topic = format!("{GATEWAY}/command/{}", plant::SETPOINT);
        if let (Some(cloud), Ok(topic)) = (&self.in_cloud, TopicName::parse(&topic)) {
            drop(cloud.publish(Message::new(topic, self.setpoint.to_string())));
            self.happened(&format!(
                "the cloud commands {} = {}",
                plant::SETPOINT,
                self.setpoint
            ));
        }
    }

    fn seen_in_plant(&mut self, delivery: &Delivery) {
        let topic = delivery.message.topic.to_string();
        let Some(payload) = json(delivery) else {
            return;
        };
        if let Some(point) = topic.strip_prefix("result/") {
            let outcome = payload["result"].as_str().unwrap_or("unknown");
            self.happened(&format!(
                "{point}: {outcome}, read back {}",
                payload["value"]
            ));
        } else if let Some(sequence) = payload["seq"].as_u64() {
            self.view.ledger.taken(&topic, sequence, printed(&payload));
        }
    }

    fn seen_in_cloud(&mut self, delivery: &Delivery) {
        let topic = delivery.message.topic.to_string();
        let telemetry = topic
            .strip_prefix(GATEWAY)
            .and_then(|rest| rest.strip_prefix('/'));
        if let (Some(topic), Some(payload)) = (telemetry, json(delivery))
            && topic.starts_with("telemetry/")
            && let Some(sequence) = payload["seq"].as_u64()
        {
            self.view.ledger.arrived(topic, sequence);
        }
    }

    /// Stops the devices, lets the rest arrive, and sums up.
    async fn finish(mut self) -> anyhow::Result<Summary> {
        self.appliance.stop_field().await;
        if self.in_cloud.is_none() {
            self.mend().await?;
        }
        // A missing reading shows in the summary.
        let _elapsed = tokio::time::timeout(DRAIN_MAX, self.drain()).await;
        self.view.elapsed = self.started.elapsed();
        self.look();
        self.output.finish(&self.view);
        self.appliance.stop().await;
        self.cloud.cut().await;
        let Totals {
            taken,
            forwarded,
            waiting,
            ..
        } = self.view.ledger.totals();
        Ok(Summary {
            taken,
            forwarded,
            lost: waiting,
        })
    }

    /// Reads both sides until all that was taken has arrived and nothing more comes.
    async fn drain(&mut self) {
        let quiet = Duration::from_millis(300);
        loop {
            tokio::select! {
                Some(delivery) = self.in_plant.recv() => self.seen_in_plant(&delivery),
                Some(delivery) = next(&mut self.in_cloud) => self.seen_in_cloud(&delivery),
                () = tokio::time::sleep(quiet) => {
                    if self.view.ledger.totals().waiting == 0 {
                        return;
                    }
                }
            }
        }
    }
}

/// The next delivery in the cloud; never while the link is cut.
async fn next(client: &mut Option<LocalClient>) -> Option<Delivery> {
    match client {
        Some(client) => client.recv().await,
        None => std::future::pending().await,
    }
}

fn json(delivery: &Delivery) -> Option<Value> {
    serde_json::from_slice(&delivery.message.payload).ok()
}

fn printed(payload: &Value) -> String {
    let value = match &payload["value"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match payload["unit"].as_str() {
        Some(unit) => format!("{value} {unit}"),
        None => value,
    }
}
