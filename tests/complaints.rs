//! Promise: what users report of other gateways' offline buffers does not happen here. docs/buffer.md lists each complaint
//! with the tests that show it; this file has those that need whole processes, and checks the list.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::harness::{
    Client, Gateway, Mosquitto, PATIENCE, Scene,
    gateway::ask,
    mqtt::{self, Frames, kind},
    plant::without_devices,
    promise, until,
};

const TOPIC: &str = "telemetry/press-3/count";
/// Messages under way at once, here.
const IN_FLIGHT: usize = 20;
/// CONNACK of MQTT 5: a new session, success, no properties.
const WELCOME: [u8; 5] = [0x20, 3, 0, 0, 0];
/// Long enough that anything more would have come.
const SILENCE: Duration = Duration::from_millis(500);

fn config(scene: &Scene, port: u16, upstream: u16) -> String {
    let forward = "[[forward]]\nfilter = \"telemetry/#\"\n";
    let gateway = without_devices(scene, port, upstream);
    format!("{gateway}in_flight = {IN_FLIGHT}\n\n{forward}")
}

/// Messages that wait, and messages that the upstream is said to have.
fn counts(scene: &Scene) -> Result<(u64, u64)> {
    let stats = ask(scene, &["buffer", "stats"])?;
    let count = |key: &str| stats["buffer"][key].as_u64().context("no count");
    Ok((count("messages")?, count("forwarded")?))
}

fn press(scene: &Scene, port: u16) -> Result<Client> {
    let press = Client::new("press-3", port).start(scene)?;
    press.event("connected", |_| true)?;
    Ok(press)
}

#[test]
fn an_absent_upstream_stops_no_start_is_told_as_absent_and_costs_no_backlog_whatever_is_changed() {
    promise(|scene| {
        let (port, upstream) = (scene.free_port()?, scene.free_port()?);
        let first = config(scene, port, upstream);
        let mut gateway = Gateway::start(scene, &first, port)?;
        let mut client = press(scene, port)?;
        for number in 1..=5 {
            client.publish(TOPIC, &number.to_string())?;
        }
        let status = ask(scene, &["status"])?;
        ensure!(status["upstream"]["connected"] == false, "{status}");
        ensure!(counts(scene)? == (5, 0), "told as sent: {status}");

        let changed = first
            .replace(
                "[buffer]",
                "[buffer]\nmax_size = \"1MiB\"\nwhen_full = \"refuse\"",
            )
            .replace(
                "filter = \"telemetry/#\"",
                "filter = \"telemetry/#\"\npriority = \"low\"",
            )
            .replace("in_flight = 20", "in_flight = 3");
        gateway.reload(&changed)?;
        gateway.says(&["reload"])?;
        ensure!(counts(scene)?.0 == 5, "a reload took of the backlog");
        gateway.stop()?;
        gateway.restart()?;
        ensure!(
            counts(scene)? == (5, 0),
            "a stop or a setting took of the backlog"
        );

        let mosquitto = Mosquitto::start_plain(scene)?;
        let moved = changed.replace(&upstream.to_string(), &mosquitto.port.to_string());
        let observer = Client::new("observer", mosquitto.port)
            .start(scene)?
            .subscribed(&["#"])?;
        gateway.reload(&moved)?;
        let below = format!("plant-7/{TOPIC}");
        for number in 1..=5 {
            observer.message(&below, |payload| payload == number.to_string())?;
        }
        until("they leave when they have arrived", PATIENCE, || {
            Ok((counts(scene)? == (0, 5)).then_some(()))
        })
    });
}

#[test]
fn a_connected_upstream_that_acknowledges_nothing_gets_a_full_window_and_costs_nothing() {
    promise(|scene| {
        let (port, listener) = (
            scene.free_port()?,
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        );
        let upstream = listener.local_addr()?.port();
        let _gateway = Gateway::start(scene, &config(scene, port, upstream), port)?;
        let mut mute = Mute::accept(&listener)?;
        let mut client = press(scene, port)?;
        for number in 1..=3 * IN_FLIGHT {
            client.publish(TOPIC, &number.to_string())?;
        }
        let waiting = 3 * IN_FLIGHT as u64;
        mute.hears(IN_FLIGHT)?;
        ensure!(
            counts(scene)? == (waiting, 0),
            "told as sent what was only written"
        );
        // One message leaves for each that is acknowledged, at once and not once per tick.
        for acknowledged in 1..=IN_FLIGHT {
            mute.acknowledge()?;
            mute.hears(IN_FLIGHT + acknowledged)?;
        }
        mute.hears_no_more()?;
        until(
            "what was acknowledged has left, and only that",
            PATIENCE,
            || {
                let expected = (waiting - IN_FLIGHT as u64, IN_FLIGHT as u64);
                Ok((counts(scene)? == expected).then_some(()))
            },
        )
    });
}

/// An upstream that lets the gateway in and answers when it is told to.
struct Mute {
    stream: TcpStream,
    frames: Frames,
    heard: Vec<u16>,
    acknowledged: usize,
}

impl Mute {
    fn accept(listener: &TcpListener) -> Result<Mute> {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut mute = Mute {
            stream,
            frames: Frames::default(),
            heard: Vec::new(),
            acknowledged: 0,
        };
        mute.stream.write_all(&WELCOME)?;
        Ok(mute)
    }

    /// Waits for so many messages in all.
    fn hears(&mut self, count: usize) -> Result<()> {
        until(&format!("{count} messages are written"), PATIENCE, || {
            self.read()?;
            Ok((self.heard.len() >= count).then_some(()))
        })?;
        ensure!(
            self.heard.len() == count,
            "{} messages, not {count}",
            self.heard.len()
        );
        Ok(())
    }

    fn hears_no_more(&mut self) -> Result<()> {
        let count = self.heard.len();
        self.read()?;
        ensure!(self.heard.len() == count, "more than the window");
        Ok(())
    }

    /// The oldest that is not yet.
    fn acknowledge(&mut self) -> Result<()> {
        let packet_id = self.heard[self.acknowledged];
        self.acknowledged += 1;
        Ok(self.stream.write_all(&mqtt::puback(packet_id))?)
    }

    fn read(&mut self) -> Result<()> {
        let mut piece = [0; 4096];
        // Silence is an answer, too.
        let count = self.stream.read(&mut piece).unwrap_or_default();
        self.frames.push(&piece[..count]);
        while let Some(frame) = self.frames.next()? {
            if frame.kind() == kind::PUBLISH {
                self.heard.push(frame.publish(5)?.packet_id);
            }
        }
        Ok(())
    }
}

/// Rows of docs/buffer.md: `file#test` in backticks, several in a row.
#[test]
fn each_complaint_of_the_list_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/buffer.md")).expect("docs/buffer.md");
    let list = page.split("<!-- complaints -->").nth(1).expect("the list");
    let rows = list.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut complaints = BTreeSet::new();
    for row in rows {
        let complaint = row.split('|').nth(1).expect("a complaint").trim();
        assert!(complaints.insert(complaint), "{complaint} stands twice");
        let words = row.split('`').skip(1).step_by(2);
        let tests: Vec<_> = words.filter_map(|word| word.split_once('#')).collect();
        assert!(!tests.is_empty(), "{complaint} has no test");
        for (file, test) in tests {
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            assert!(
                text.contains(&format!("fn {test}(")),
                "{complaint}: no test {test} in {file}"
            );
        }
    }
    assert!(
        complaints.len() >= 18,
        "only {} complaints",
        complaints.len()
    );
}
