//! Promise: what waited goes up as the link may be used: at its rate beside what is new, in its window, within its budget,
//! which a restart does not give twice.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

use crate::harness::{
    Client, Gateway, Mosquitto, PATIENCE, Scene, gateway::ask, plant::without_devices, promise,
    until,
};

const OLD: &str = "telemetry/press-3/count";
const NEW: &str = "telemetry/press-3/state";
const URGENT: &str = "telemetry/urgent/press-3";
/// Messages that wait.
const BACKLOG: u64 = 40;

/// A gateway without devices below this upstream; `how`: what the link may do.
fn config(scene: &Scene, port: u16, upstream: u16, how: &str) -> String {
    let rules = "\n[[forward]]\nfilter = \"telemetry/urgent/#\"\npriority = \"high\"\n\
                 \n[[forward]]\nfilter = \"telemetry/#\"\n";
    [&without_devices(scene, port, upstream), how, rules].concat()
}

fn press(scene: &Scene, name: &str, port: u16) -> Result<Client> {
    let press = Client::new(name, port).start(scene)?;
    press.event("connected", |_| true)?;
    Ok(press)
}

fn stats(scene: &Scene) -> Result<Value> {
    ask(scene, &["buffer", "stats"])
}

fn waiting(scene: &Scene) -> Result<u64> {
    stats(scene)?["buffer"]["messages"]
        .as_u64()
        .context("no count")
}

/// Waits until that holds messages back; the drain's status.
fn is_held_by(scene: &Scene, what: &str) -> Result<Value> {
    until(&format!("it is held back by a {what}"), PATIENCE, || {
        let stats = stats(scene)?;
        Ok((stats["buffer"]["drain"]["held_by"] == what).then(|| stats["buffer"]["drain"].clone()))
    })
}

/// A Mosquitto that is away while messages gather below, and a session there that misses nothing.
struct Stage<'a> {
    mosquitto: Mosquitto<'a>,
    observer: Client,
    gateway: Gateway<'a>,
    press: Client,
    port: u16,
}

impl<'a> Stage<'a> {
    fn with_backlog(scene: &'a Scene, how: &str) -> Result<Stage<'a>> {
        let mut mosquitto = Mosquitto::start_plain(scene)?;
        let mut observer = Client::new("observer", mosquitto.port);
        observer.persistent = true;
        let observer = observer.start(scene)?.subscribed(&["#"])?;
        mosquitto.stop()?;
        let port = scene.free_port()?;
        let config = config(scene, port, mosquitto.port, how);
        let gateway = Gateway::start(scene, &config, port)?;
        let mut press = press(scene, "press-3", port)?;
        for number in 1..=BACKLOG {
            press.publish(OLD, &number.to_string())?;
        }
        ensure!(waiting(scene)? == BACKLOG, "they wait");
        Ok(Stage {
            mosquitto,
            observer,
            gateway,
            press,
            port,
        })
    }

    /// Waits until this has arrived upstream.
    fn hears(&self, topic: &str, fits: impl Fn(&str) -> bool) -> Result<()> {
        let topic = format!("plant-7/{topic}");
        self.observer.message(&topic, fits).map(drop)
    }
}

#[test]
fn what_waited_goes_up_at_the_rate_that_it_is_given_and_what_is_new_beside_it() {
    promise(|scene| {
        let how = "\n[upstream.drain]\nmessages_per_second = 3\n";
        let mut stage = Stage::with_backlog(scene, how)?;
        stage.mosquitto.restart()?;
        is_held_by(scene, "rate")?;
        stage.press.publish(NEW, "new")?;
        stage.hears(NEW, |payload| payload == "new")?;
        ensure!(waiting(scene)? > 0, "the backlog went before what is new");
        until("the rest has gone, too", PATIENCE, || {
            Ok((waiting(scene)? == 0).then_some(()))
        })
    });
}

#[test]
fn what_waited_goes_up_in_its_window_and_what_is_new_at_once() {
    promise(|scene| {
        let hour = Timestamp::now().as_second().rem_euclid(86_400) / 3_600;
        let window = |from: i64, to: i64| {
            let (from, to) = ((hour + from) % 24, (hour + to) % 24);
            format!("\n[upstream.drain]\nwindows = [\"{from:02}:00-{to:02}:00\"]\n")
        };
        let mut stage = Stage::with_backlog(scene, &window(8, 12))?;
        stage.mosquitto.restart()?;
        is_held_by(scene, "window")?;
        stage.press.publish(NEW, "new")?;
        stage.hears(NEW, |payload| payload == "new")?;
        ensure!(
            waiting(scene)? == BACKLOG,
            "what waits has gone beside its window"
        );
        let open = config(scene, stage.port, stage.mosquitto.port, &window(20, 8));
        stage.gateway.reload(&open)?;
        until("what waited has gone", PATIENCE, || {
            Ok((waiting(scene)? == 0).then_some(()))
        })
    });
}

#[test]
fn a_used_up_budget_leaves_the_link_to_what_is_urgent_also_behind_a_restart() {
    promise(|scene| {
        // Of which a connection takes the larger part.
        let how = "\n[upstream.budget]\nper_day = \"12KiB\"\n";
        let mut stage = Stage::with_backlog(scene, how)?;
        stage.mosquitto.restart()?;
        let held = is_held_by(scene, "budget")?;
        let budget = &held["budgets"][0];
        ensure!(budget["period"] == "day" && budget["left"] == 0, "{budget}");
        stage.hears("alert/budget/upstream", |payload| {
            payload.contains("\"limit\":12288")
        })?;
        let left = waiting(scene)?;
        ensure!(0 < left && left < BACKLOG, "{left} wait");
        stage.press.publish(URGENT, "1")?;
        stage.hears(URGENT, |payload| payload == "1")?;

        stage.gateway.stop()?;
        stage.gateway.restart()?;
        let mut press = press(scene, "press-4", stage.port)?;
        press.publish(URGENT, "2")?;
        stage.hears(URGENT, |payload| payload == "2")?;
        let again = is_held_by(scene, "budget")?;
        let used = |drain: &Value| drain["budgets"][0]["used"].as_u64();
        ensure!(
            used(&again) > used(&held),
            "a restart gave it again: {again}"
        );
        ensure!(waiting(scene)? > 0, "all has gone");
        Ok(())
    });
}
