//! A device that is described by a profile of the machine is read as if written out, and a changed
//! profile counts from the next reload on.

use anyhow::{Context, ensure};

use crate::harness::{Client, Gateway, Plant, promise};

/// The tank of the plant, described once: in millimetres, as a client sees it.
fn tank(unit: &str, scale: f64) -> String {
    format!(
        r#"
maker = "Acme"
model = "Tank"
kind = "sensor"
source.title = "Tank registers"
source.url = "https://acme.example/tank.pdf"
source.basis = "document"
point = [
    {{ name = "level", register = "input:0", type = "i32", order = "CDAB", scale = {scale}, unit = "{unit}" }},
    {{ name = "door", register = "discrete:3" }},
]

[[example]]
origin = "derived"
place = "page 1"
at = "discrete:3"
hex = "1"
values = {{ door = "true" }}
"#
    )
}

#[test]
fn a_device_of_a_profile_is_read_and_a_reload_takes_the_changed_profile() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let written_out = plant.tank_config("200ms");
        let (device, _) = written_out.split_once("point = [").context("no points")?;
        let profiles = format!("[gateway]\nprofiles = {:?}\n", scene.path("profiles"));
        let base = plant.base(scene).replacen("[gateway]\n", &profiles, 1);
        let config = format!("{base}{device}profile = \"acme-tank\"\npoints = [\"level\"]\n");
        std::fs::create_dir(scene.path("profiles"))?;
        let profile = "profiles/acme-tank.toml";
        scene.write(profile, &tank("mm", 1.0))?;

        let gateway = Gateway::start(scene, &config, plant.port)?;
        let panel = Client::new("panel", plant.port).start(scene)?;
        let panel = panel.subscribed(&["telemetry/#"])?;
        let level = "telemetry/tank-1/level";
        panel.message(level, |payload| payload.contains("\"unit\":\"mm\""))?;

        scene.write(profile, &tank("cm", 0.0))?;
        gateway.reload(&config)?;
        gateway.says(&["configuration not applied", "acme-tank.toml:", "scale 0"])?;

        scene.write(profile, &tank("cm", 0.1))?;
        gateway.reload(&config)?;
        panel.message(level, |payload| payload.contains("\"unit\":\"cm\""))?;
        let told = panel.process()?.events_named("message")?;
        let door = told
            .iter()
            .any(|event| event["topic"] == "telemetry/tank-1/door");
        ensure!(!door, "a point was read that was not chosen");
        Ok(())
    });
}
