//! Promise: what a publisher was told is kept arrives upstream, in order and with its time, however often the gateway is
//! killed, and its upstream with it.
//!
//! ```text
//!  publishers ──QoS 1──▶ gateway ──▶ recorder ──▶ Mosquitto ──▶ observer
//!     ◀──PUBACK──────────── ✂ ◀──PUBACK── · ◀──PUBACK── ✂ ‖
//! ```
//! The truth is at the recorder, not behind Mosquitto: Mosquitto acknowledges a message before it is delivered and
//! before it is on its disk, and loses it when it is killed. That is its own promise to break. Ours ends where the upstream
//! says that it has the message, so a message has arrived when Mosquitto's own PUBACK for it has been read. What is
//! heard behind Mosquitto is compared for its last life, which nothing cuts short, and the links are let through only while
//! somebody listens there. Beside all that goes what nobody was promised, by a rule that keeps it in memory first.
//!
//! `GATEWAY_KILL_ROUNDS` and `GATEWAY_KILL_SEED` make it longer, or the same again as far as chance allows:
//! `cargo xtask kill gateway --rounds 300`.

mod observer;
mod publishers;
mod verdict;

use std::{env, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use powercut::Random;

use crate::harness::{
    Gateway, Mosquitto, PATIENCE, Recorder, Scene, gateway::ask, plant::without_devices, promise,
    until,
};

use self::{
    observer::Observer,
    publishers::Publishers,
    verdict::{Summary, Verdict},
};

/// Rounds when nothing else is said.
const ROUNDS: usize = 15;
/// Most acknowledgements that a round waits for before its cut.
const ACKS_MAX: usize = 300;
/// Longest wait after them, in milliseconds: cuts are to fall between acknowledgements too.
const DELAY_MS: usize = 20;
/// Longest death of Mosquitto, and longest pause, in milliseconds.
const AWAY_MS: usize = 300;
/// Starts of the gateway that are killed while they start, in one round at most.
const STILLBORN_MAX: usize = 3;
/// Longest life of such a start, in milliseconds: about what a start takes.
const STILLBORN_MS: usize = 150;

/// What happens in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Gateway,
    Mosquitto,
    Pause,
    GatewayWhileMosquittoIsDead,
    GatewayWhileMosquittoIsPaused,
}

impl Cut {
    fn draw(random: &mut Random) -> Cut {
        match random.below(10) {
            0..4 => Cut::Gateway,
            4..6 => Cut::Mosquitto,
            6..8 => Cut::Pause,
            8 => Cut::GatewayWhileMosquittoIsDead,
            _ => Cut::GatewayWhileMosquittoIsPaused,
        }
    }
}

/// Everybody who takes part.
struct Stage<'a> {
    recorder: Arc<Recorder>,
    mosquitto: Mosquitto<'a>,
    observer: Observer,
    gateway: Gateway<'a>,
    publishers: Publishers,
    random: Random,
}

impl<'a> Stage<'a> {
    fn start(scene: &'a Scene, seed: u64) -> Result<Stage<'a>> {
        let mosquitto = Mosquitto::start_plain(scene)?;
        let recorder = Arc::new(Recorder::start(scene.free_port()?, mosquitto.port)?);
        let observer = Observer::start(mosquitto.port);
        let port = scene.free_port()?;
        let gateway = Gateway::start(scene, &config(scene, port, recorder.port), port)?;
        let publishers = Publishers::start(port, &recorder);
        let mut stage = Stage {
            recorder,
            mosquitto,
            observer,
            gateway,
            publishers,
            random: Random(seed),
        };
        stage.let_through(0)?;
        Ok(stage)
    }

    /// Opens the way once the observer listens to Mosquitto's new life.
    fn let_through(&mut self, subscriptions: u32) -> Result<()> {
        until("the observer listens", PATIENCE, || {
            Ok((self.observer.subscriptions() > subscriptions).then_some(()))
        })?;
        self.recorder.open();
        Ok(())
    }

    fn round(&mut self) -> Result<Cut> {
        let target = self.publishers.acknowledged() + 1 + self.random.below(ACKS_MAX);
        until("the publishers get acknowledgements", PATIENCE, || {
            Ok((self.publishers.acknowledged() >= target).then_some(()))
        })?;
        self.pause(DELAY_MS);
        let cut = Cut::draw(&mut self.random);
        match cut {
            Cut::Gateway => self.kill_gateway()?,
            Cut::Mosquitto => self.kill_mosquitto(|_| Ok(()))?,
            Cut::Pause => self.pause_mosquitto(|_| Ok(()))?,
            Cut::GatewayWhileMosquittoIsDead => self.kill_mosquitto(Stage::kill_gateway)?,
            Cut::GatewayWhileMosquittoIsPaused => self.pause_mosquitto(Stage::kill_gateway)?,
        }
        Ok(cut)
    }

    fn kill_gateway(&mut self) -> Result<()> {
        self.gateway.process.kill()?;
        self.recorder.gateway_died();
        for _ in 0..self.random.below(STILLBORN_MAX + 1) {
            let life = Duration::from_millis(self.random.below(STILLBORN_MS) as u64);
            self.gateway.start_and_kill(life)?;
            self.recorder.gateway_died();
        }
        self.gateway.restart()
    }

    fn kill_mosquitto(&mut self, meanwhile: impl Fn(&mut Self) -> Result<()>) -> Result<()> {
        let subscriptions = self.observer.subscriptions();
        self.recorder.close();
        self.mosquitto.process.kill()?;
        self.pause(AWAY_MS);
        meanwhile(self)?;
        self.mosquitto.restart()?;
        self.let_through(subscriptions)
    }

    fn pause_mosquitto(&mut self, meanwhile: impl Fn(&mut Self) -> Result<()>) -> Result<()> {
        self.mosquitto.process.signal(Signal::SIGSTOP)?;
        self.pause(AWAY_MS);
        meanwhile(self)?;
        self.mosquitto.process.signal(Signal::SIGCONT)
    }

    fn pause(&mut self, most_ms: usize) {
        thread::sleep(Duration::from_millis(self.random.below(most_ms) as u64));
    }

    /// Until everything acknowledged has arrived, as long as it gets on.
    fn settle(&self, scene: &Scene) -> Result<()> {
        self.publishers.finish();
        let progress = || self.publishers.acknowledged() + self.recorder.arrived();
        as_long_as_it_gets_on(
            "the publishers have their acknowledgements",
            progress,
            || Ok(self.publishers.is_done()),
        )?;
        as_long_as_it_gets_on("the buffer is empty", progress, || Ok(waiting(scene)? == 0))
    }

    fn judge(&self) -> Result<Summary> {
        let mut summary = Summary::default();
        let (mut last, mut before) = self.recorder.read(|passages, processes| {
            let verdict = Verdict::of(passages)?;
            for (topic, ledger) in self.publishers.ledgers() {
                let missing = verdict.missing(topic, &ledger);
                ensure!(missing.is_empty(), "{topic}: lost {missing:?}");
                let again = verdict.in_order_and_time(topic, &ledger)?;
                summary.enter(&ledger, again);
            }
            verdict.repetitions_are_bounded(processes, &mut summary)?;
            Ok(verdict.acknowledged(self.recorder.life()))
        })?;
        let heard = || self.observer.count();
        let what = "what Mosquitto acknowledged in its last life is heard";
        as_long_as_it_gets_on(what, heard, || {
            self.observer.retain_unheard(&mut last);
            Ok(last.is_empty())
        })?;
        self.observer.retain_unheard(&mut before);
        summary.lost_by_upstream(before.len());
        Ok(summary)
    }
}

#[test]
fn kills_of_the_gateway_and_of_its_upstream_lose_nothing_acknowledged() {
    let rounds = given("GATEWAY_KILL_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    let seed = given("GATEWAY_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("GATEWAY_KILL_SEED={seed}");
    promise(|scene| {
        let mut stage = Stage::start(scene, seed)?;
        let mut cuts = Vec::new();
        for round in 1..=rounds {
            let cut = stage.round();
            cuts.push(cut.with_context(|| format!("round {round} of seed {seed}"))?);
        }
        stage
            .settle(scene)
            .with_context(|| format!("seed {seed}"))?;
        let summary = stage.judge().with_context(|| format!("seed {seed}"))?;
        println!("seed {seed}, {}: {summary}", counted(&cuts));
        Ok(())
    });
}

fn given(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

fn counted(cuts: &[Cut]) -> String {
    let count = |some: &[Cut]| cuts.iter().filter(|cut| some.contains(cut)).count();
    format!(
        "{} rounds ({} kills of the gateway, {} of Mosquitto, {} pauses of Mosquitto)",
        cuts.len(),
        count(&[
            Cut::Gateway,
            Cut::GatewayWhileMosquittoIsDead,
            Cut::GatewayWhileMosquittoIsPaused
        ]),
        count(&[Cut::Mosquitto, Cut::GatewayWhileMosquittoIsDead]),
        count(&[Cut::Pause, Cut::GatewayWhileMosquittoIsPaused])
    )
}

/// Messages that the buffer holds.
fn waiting(scene: &Scene) -> Result<u64> {
    let stats = ask(scene, &["buffer", "stats"])?;
    stats["buffer"]["messages"].as_u64().context("no count")
}

fn as_long_as_it_gets_on(
    what: &str,
    progress: impl Fn() -> usize,
    mut is_done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    loop {
        let before = progress();
        let outcome = until(what, PATIENCE, || {
            let done = is_done()?;
            Ok((done || progress() > before).then_some(done))
        });
        match outcome {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => bail!("{error:#}"),
        }
    }
}

/// A gateway without devices, whose buffer is never full.
fn config(scene: &Scene, port: u16, upstream: u16) -> String {
    let forwards = r#"
[[forward]]
filter = "telemetry/fast/#"
store = "memory-first"
qos = 0

[[forward]]
filter = "telemetry/urgent/#"
priority = "high"

[[forward]]
filter = "telemetry/bulk/#"
priority = "low"

[[forward]]
filter = "telemetry/#"
"#;
    without_devices(scene, port, upstream) + forwards
}
