//! Promise: the retained state of a device is true: none that an earlier run has left stands for a device that this run
//! has not heard, and none for a device that is no longer configured.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Process, Scene, controller, promise};

/// A device that may be silent for longer than a test lasts before it counts as offline.
const PATIENT: &str = "response_timeout = \"1m\"";
/// What a device is until it is heard.
const UNHEARD: &str = "not heard yet";

/// A Modbus TCP device, and the file of a gateway that keeps retained messages.
struct Site {
    device: Process,
    device_port: u16,
    port: u16,
}

impl Site {
    fn new(scene: &Scene) -> Result<Site> {
        let device_port = scene.free_port()?;
        Ok(Site {
            device: controller(scene, device_port, &["level=holding:0:H:ABCD:5:0"], &[])?,
            device_port,
            port: scene.free_port()?,
        })
    }

    /// The file, with devices of these names, which are all the same unit.
    fn config(&self, scene: &Scene, devices: &[&str]) -> String {
        let (control, broker) = (scene.path("control.sock"), scene.path("broker.db"));
        let buffer = scene.path("buffer.db");
        let mut config = format!(
            r##"
[gateway]
control = "{control}"
[buffer]
path = "{buffer}"
[broker.persistence]
path = "{broker}"
[[broker.listener]]
address = "127.0.0.1:{port}"
[[broker.access]]
publish = ["state/press"]
subscribe = ["state/#"]
[[bus]]
name = "hall"
tcp = "127.0.0.1:{device}"
{PATIENT}
"##,
            control = control.display(),
            buffer = buffer.display(),
            broker = broker.display(),
            port = self.port,
            device = self.device_port,
        );
        for name in devices {
            config += &format!(
                r#"
[[device]]
name = "{name}"
bus = "hall"
unit = 1
point = [{{ name = "level", register = "holding:0" }}]
"#
            );
        }
        config
    }

    fn listener(&self, scene: &Scene, name: &str) -> Result<Client> {
        let client = Client::new(name, self.port).start(scene)?;
        client.subscribed(&["state/#"])
    }
}

/// What a client has been told of a device, in order.
fn told(client: &Client, device: &str) -> Result<Vec<String>> {
    let topic = format!("state/{device}");
    let messages = client.process()?.events_named("message")?.into_iter();
    let own = messages.filter(|message| message["topic"] == *topic);
    let payload = |message: Value| message["payload"].as_str().unwrap_or_default().to_owned();
    Ok(own.map(payload).collect())
}

fn online(payload: &str) -> bool {
    payload.contains(r#""state":"online""#)
}

#[test]
fn a_device_that_died_while_the_gateway_was_away_is_not_left_online() {
    promise(|scene| {
        let site = Site::new(scene)?;
        let both = site.config(scene, &["gone", "plc"]);
        let mut gateway = Gateway::start(scene, &both, site.port)?;
        let mut panel = site.listener(scene, "panel")?;
        panel.message("state/gone", online)?;
        panel.message("state/plc", online)?;
        panel.tell(&json!({
            "do": "publish", "topic": "state/press", "payload": "theirs", "retain": true,
        }))?;
        panel.message("state/press", |payload| payload == "theirs")?;

        gateway.process.kill()?;
        site.device.signal(Signal::SIGSTOP)?;
        scene.write("gateway.toml", &site.config(scene, &["plc"]))?;
        gateway.restart()?;
        // What is no longer true ends in order, the device's state last.
        let watcher = site.listener(scene, "watcher")?;
        watcher.message("state/plc", |payload| payload.contains(UNHEARD))?;

        let newcomer = site.listener(scene, "newcomer")?;
        newcomer.message("state/press", |payload| payload == "theirs")?;
        let (gone, plc) = (told(&newcomer, "gone")?, told(&newcomer, "plc")?);
        ensure!(
            gone.is_empty(),
            "of a device that is not configured: {gone:?}"
        );
        ensure!(
            plc.iter().all(|payload| payload.contains(UNHEARD)),
            "of a device that is dead: {plc:?}"
        );
        site.device.signal(Signal::SIGCONT)?;
        newcomer.message("state/plc", online)?;
        Ok(())
    });
}

#[test]
fn a_reload_ends_the_state_of_a_removed_device_and_leaves_that_of_its_neighbour() {
    promise(|scene| {
        let site = Site::new(scene)?;
        let both = site.config(scene, &["gone", "plc"]);
        let gateway = Gateway::start(scene, &both, site.port)?;
        let panel = site.listener(scene, "panel")?;
        panel.message("state/gone", online)?;
        panel.message("state/plc", online)?;
        let before = told(&panel, "plc")?.len();
        gateway.reload(&site.config(scene, &["plc"]))?;
        panel.message("state/gone", str::is_empty)?;
        gateway.says(&["changes", "hall"])?;
        let after = told(&panel, "plc")?;
        ensure!(
            after.iter().skip(before).all(|payload| online(payload)),
            "its neighbour: {after:?}"
        );
        Ok(())
    });
}

#[test]
fn a_gateway_that_is_stopped_says_so_of_its_devices() {
    promise(|scene| {
        let site = Site::new(scene)?;
        let mut gateway = Gateway::start(scene, &site.config(scene, &["plc"]), site.port)?;
        let panel = site.listener(scene, "panel")?;
        panel.message("state/plc", online)?;
        let (status, _) = gateway.stop()?;
        ensure!(status.success(), "{status}");
        panel.message("state/plc", |payload| {
            payload.contains(r#""state":"offline","reason":"the gateway was stopped""#)
        })?;
        Ok(())
    });
}
