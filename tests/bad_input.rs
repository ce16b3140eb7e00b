//! Bad input: each fault is told in one clear line, the rest keeps working, and what can recover
//! does so by itself.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::harness::{
    Client, Gateway, Identity, Ledger, Mosquitto, PATIENCE, Pki, Plant, Process, Scene, gateway,
    messages,
    plant::{GATEWAY, upstream},
    promise, subscriber, until, wind,
};

const LEVEL: &str = "telemetry/tank-1/level";
const WIND: &str = "telemetry/wind-1/wind-speed-relative";

#[test]
fn a_missing_or_unreadable_configuration_is_named() {
    promise(|scene| {
        let missing = scene.path("nowhere.toml").display().to_string();
        let directory = scene.path("").display().to_string();
        for (path, reason) in [(&missing, "no such file"), (&directory, "is a directory")] {
            let (code, said) = gateway::refusal(scene, &["run", "--config", path])?;
            ensure!(code == Some(2), "{path}: it ended with {code:?}");
            let said = said.to_lowercase();
            ensure!(
                said.contains(&path.to_lowercase()) && said.contains(reason),
                "{path}: {said}"
            );
        }
        Ok(())
    });
}

#[test]
fn every_mistake_in_a_configuration_is_told_at_once_with_its_place() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let config = plant
            .config(scene)
            .replace("interval = ", "intervall = ")
            .replace(r#"bus = "hall-2""#, r#"bus = "hall-3""#)
            .replace(r#"register = "input:20""#, r#"register = "input:65535""#)
            .replace(r#"parity = "none""#, "parity = 7");
        let path = scene.write("wrong.toml", &config)?.display().to_string();
        for command in ["check", "run"] {
            let (code, said) = gateway::refusal(scene, &[command, "--config", &path])?;
            ensure!(code == Some(2), "{command} ended with {code:?}");
            for (mistake, remedy) in [
                ("intervall = ", "interval"),
                (r#"bus = "hall-3""#, "hall-3"),
                ("parity = 7", "parity"),
            ] {
                told_at_its_line(&said, &config, mistake, remedy)?;
            }
        }
        Ok(())
    });
}

#[test]
fn contradictions_between_keys_are_told_with_their_place() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let again = format!(
            "\n[[broker.listener]]\naddress = \"127.0.0.1:{}\" # again\n",
            plant.port
        );
        let config = plant
            .config(scene)
            .replace(r#"bus = "hall-2""#, r#"bus = "hall-3""#)
            .replace(r#"register = "input:20""#, r#"register = "input:65535""#);
        let config = [config, again].concat();
        let path = scene.write("wrong.toml", &config)?.display().to_string();
        let (code, said) = gateway::refusal(scene, &["check", "--config", &path])?;
        ensure!(code == Some(2), "it ended with {code:?}");
        for (mistake, named) in [
            (r#"bus = "hall-3""#, "hall-3"),
            ("input:65535", "65535"),
            ("# again", "127.0.0.1"),
        ] {
            told_at_its_line(&said, &config, mistake, named)?;
        }
        Ok(())
    });
}

#[test]
fn a_serial_port_that_is_missing_is_told_and_used_once_it_is_there() {
    promise(|scene| {
        let mut plant = Plant::new(scene)?;
        let link = scene.path("ttyWind");
        plant.wind.kill()?;
        fs::remove_file(&link)?;
        let gateway = Gateway::start(scene, &plant.config(scene), plant.port)?;
        let heard = subscriber(scene, plant.port, &["telemetry/#", "state/#"])?;
        gateway.says(&["ttyWind", "no such file"])?;
        more(&heard, LEVEL)?;
        until("the sensor's state is offline", PATIENCE, || {
            let state = messages(&heard)?
                .into_iter()
                .rev()
                .find(|m| m.topic == "state/wind-1");
            Ok(state.filter(|state| state.payload.contains("offline")))
        })?;
        plant.wind = wind(scene, &link)?;
        more(&heard, WIND)
    });
}

#[test]
fn a_silent_device_leaves_the_others_alone_and_is_found_again() {
    promise(|scene| {
        let plant = Plant::new(scene)?;
        let _gateway = Gateway::start(scene, &plant.config(scene), plant.port)?;
        let heard = subscriber(scene, plant.port, &["telemetry/#", "state/#"])?;
        more(&heard, "telemetry/meter-1/voltage")?;
        plant.meter.signal(Signal::SIGSTOP)?;
        until("the meter's state is offline", PATIENCE, || {
            let state = messages(&heard)?
                .into_iter()
                .rev()
                .find(|m| m.topic == "state/meter-1");
            Ok(state.filter(|state| state.payload.contains("offline")))
        })?;
        more(&heard, LEVEL)?;
        more(&heard, WIND)?;
        plant.meter.signal(Signal::SIGCONT)?;
        more(&heard, "telemetry/meter-1/voltage")
    });
}

#[test]
fn the_plant_is_served_without_an_upstream() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let nobody = scene.free_port()?;
        let away = Away::start(scene, nobody, &cloud, &cloud.client(scene, GATEWAY)?)?;
        away.gateway
            .says(&["upstream", &nobody.to_string(), "refused"])?;
        more(&away.heard, LEVEL)
    });
}

#[test]
fn an_upstream_with_a_wrong_certificate_gets_nothing() {
    promise(|scene| {
        let (cloud, other) = (Pki::new(scene, "cloud")?, Pki::new(scene, "other")?);
        // Trusted by the gateway, but made out to another host.
        let elsewhere = cloud.server_named(scene, &["elsewhere.example"])?;
        let mosquitto = Mosquitto::start_as(scene, &cloud, &elsewhere)?;
        let ours = cloud.client(scene, GATEWAY)?;
        let away = Away::start(scene, mosquitto.port, &cloud, &ours)?;
        away.gateway.says(&["upstream", "certificate"])?;
        more(&away.heard, LEVEL)?;
        // Made out to the right host, by an authority that the gateway does not trust.
        drop(away);
        drop(mosquitto);
        let mosquitto = Mosquitto::start_as(scene, &cloud, &other.server(scene)?)?;
        let away = Away::start(scene, mosquitto.port, &cloud, &ours)?;
        away.gateway.says(&["upstream", "certificate"])?;
        more(&away.heard, LEVEL)?;
        let log = mosquitto.process.log()?;
        ensure!(!log.contains("Received PUBLISH"), "it sent to a stranger");
        Ok(())
    });
}

#[test]
fn a_refused_client_certificate_is_told_and_the_backlog_waits_for_the_right_one() {
    promise(|scene| {
        let (cloud, other) = (Pki::new(scene, "cloud")?, Pki::new(scene, "other")?);
        let mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        let wrong = other.client(scene, GATEWAY)?;
        let away = Away::start(scene, mosquitto.port, &cloud, &wrong)?;
        away.gateway.says(&["upstream", "certificate"])?;
        more(&away.heard, LEVEL)?;
        let local = Ledger::read(&away.heard, "")?;

        // The technician puts the right files in the same place; the gateway finds them by itself.
        let right = cloud.client(scene, GATEWAY)?;
        fs::copy(&right.key, &wrong.key)?;
        fs::copy(&right.certificate, &wrong.certificate)?;
        arrives(&observer, &local)
    });
}

#[test]
fn a_full_disk_stops_neither_polling_nor_the_local_broker() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let plant = Plant::new(scene)?;
        let mut mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        let disk = scene.path("disk");
        fs::create_dir(&disk)?;
        let config = [
            plant.config(scene).replace("buffer.db", "disk/buffer.db"),
            upstream(mosquitto.port, &cloud, &cloud.client(scene, GATEWAY)?),
        ];
        let gateway = Gateway::start_on_small_disk(scene, &config.concat(), plant.port, &disk)?;
        let heard = subscriber(scene, plant.port, &["telemetry/#"])?;
        until("readings arrive upstream", PATIENCE, || {
            Ok(Ledger::read(observer.process()?, "plant-7/")?
                .entries(LEVEL)
                .last()
                .cloned())
        })?;

        mosquitto.stop()?;
        let ballast = fill(&gateway.sees(&disk))?;
        gateway.says(&["buffer", "full"])?;
        more(&heard, LEVEL)?;
        fs::remove_file(ballast)?;
        mosquitto.restart()?;
        let after = Ledger::read(&heard, "")?.last(LEVEL);
        until("readings arrive upstream again", PATIENCE, || {
            let upstream = Ledger::read(observer.process()?, "plant-7/")?;
            Ok((upstream.last(LEVEL) > after).then_some(()))
        })
    });
}

#[test]
fn a_buffer_file_that_is_no_database_is_set_aside() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        let garbage = "this is no database\n".repeat(4096);
        scene.write("buffer.db", &garbage)?;
        let away = Away::start(
            scene,
            mosquitto.port,
            &cloud,
            &cloud.client(scene, GATEWAY)?,
        )?;
        away.gateway.says(&["buffer.db", "damaged"])?;
        more(&away.heard, LEVEL)?;
        arrives(&observer, &Ledger::read(&away.heard, "")?)?;
        let kept = files_with(scene, garbage.as_bytes())?;
        ensure!(!kept.is_empty(), "the unreadable file was thrown away");
        Ok(())
    });
}

#[test]
fn a_torn_page_costs_the_rows_on_it_and_no_others() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let mut mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        mosquitto.stop()?;
        let ours = cloud.client(scene, GATEWAY)?;
        let mut away = Away::start(scene, mosquitto.port, &cloud, &ours)?;
        let mut press = Client::new("press-3", away.plant.port).start(scene)?;
        press.event("connected", |_| true)?;
        let bulk = "x".repeat(500);
        let sent: Vec<String> = (0..400).map(|number| format!("{number} {bulk}")).collect();
        for payload in &sent {
            let code = press.publish("telemetry/press-3/bulk", payload)?;
            ensure!(code < 0x80, "the buffer refused with {code:#x}");
        }
        away.gateway.process.kill()?;
        tear_a_page(&scene.path("buffer.db"))?;
        away.gateway.restart()?;
        mosquitto.restart()?;
        away.gateway.says(&["buffer.db", "damaged"])?;
        until("nearly all of the old backlog arrives", PATIENCE, || {
            let arrived = messages(observer.process()?)?;
            let here = |payload: &&String| arrived.iter().any(|m| m.payload == **payload);
            Ok((sent.iter().filter(here).count() >= 350).then_some(()))
        })?;
        let local = Ledger::read(&away.heard, "")?;
        more(&away.heard, LEVEL)?;
        until("new readings arrive upstream", PATIENCE, || {
            let upstream = Ledger::read(observer.process()?, "plant-7/")?;
            Ok((upstream.last(LEVEL) > local.last(LEVEL)).then_some(()))
        })
    });
}

/// A plant whose gateway cannot use its upstream, and a local subscriber.
struct Away<'a> {
    heard: Process,
    gateway: Gateway<'a>,
    plant: Plant,
}

impl<'a> Away<'a> {
    fn start(scene: &'a Scene, port: u16, trusted: &Pki, identity: &Identity) -> Result<Away<'a>> {
        let plant = Plant::new(scene)?;
        let config = [plant.config(scene), upstream(port, trusted, identity)];
        let gateway = Gateway::start(scene, &config.concat(), plant.port)?;
        let heard = subscriber(scene, plant.port, &["telemetry/#"])?;
        Ok(Away {
            heard,
            gateway,
            plant,
        })
    }
}

/// Waits for three more readings of a topic at the local subscriber.
fn more(heard: &Process, topic: &str) -> Result<()> {
    let before = Ledger::read(heard, "")?.entries(topic).len();
    until(&format!("three more readings of {topic}"), PATIENCE, || {
        let now = Ledger::read(heard, "")?.entries(topic).len();
        Ok((now >= before + 3).then_some(()))
    })
}

/// Waits until everything heard locally is upstream too.
fn arrives(observer: &Client, local: &Ledger) -> Result<()> {
    until("what was heard locally is upstream", PATIENCE, || {
        let upstream = Ledger::read(observer.process()?, "plant-7/")?;
        Ok(upstream.has_caught_up(local).then_some(()))
    })?;
    Ledger::read(observer.process()?, "plant-7/")?.holds_all_of(local, |_| Ok(false))
}

/// One line of the output names the file, the mistake's own line and a column, and this word.
fn told_at_its_line(said: &str, config: &str, mistake: &str, word: &str) -> Result<()> {
    let line = config
        .lines()
        .position(|line| line.contains(mistake))
        .context("no such mistake")?;
    let place = format!("wrong.toml:{}:", line + 1);
    let told = said
        .lines()
        .find(|told| told.contains(&place) && told.contains(word));
    let told = told.with_context(|| format!("{place} {mistake} is not told in:\n{said}"))?;
    let after = told.split_once(&place).map_or("", |(_, after)| after);
    ensure!(
        after.starts_with(|c: char| c.is_ascii_digit()),
        "no column in {told}"
    );
    Ok(())
}

/// Writes a file until nothing more fits.
fn fill(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("ballast");
    let file = File::create(&path)?;
    let mut offset = 0;
    for size in [4096, 512, 1] {
        while file.write_all_at(&vec![0x55; size], offset).is_ok() {
            offset += u64::try_from(size)?;
        }
    }
    ensure!(offset > 0, "the disk was full already");
    Ok(path)
}

/// Files in the scene that begin with these bytes.
fn files_with(scene: &Scene, begin: &[u8]) -> Result<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = fs::read_dir(scene.path(""))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    // Reading a terminal or a socket would wait for ever.
    let is_file = |path: &PathBuf| path.symlink_metadata().is_ok_and(|data| data.is_file());
    let begins = |path: &PathBuf| {
        is_file(path) && fs::read(path).is_ok_and(|bytes| bytes.starts_with(begin))
    };
    Ok(paths.into_iter().filter(begins).collect())
}

/// Overwrites a page in the middle of the database, as a power cut on a worn card does.
fn tear_a_page(path: &Path) -> Result<()> {
    let database = rusqlite::Connection::open(path)?;
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let page: u32 = database.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let page = u64::from(page);
    drop(database);
    // Closing took the log away; the gateway left an empty one, and would miss it.
    File::create(path.with_extension("db-wal"))?;
    let file = File::options().write(true).open(path)?;
    let pages = file.metadata()?.len() / page;
    ensure!(pages > 8, "a database of {pages} pages");
    file.write_all_at(&vec![0xff; usize::try_from(page)?], pages / 2 * page)?;
    Ok(())
}
