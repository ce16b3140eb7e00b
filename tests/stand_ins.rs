//! The stand-ins are what they claim to be: without this, a promise kept would prove little.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::ensure;

use crate::harness::{
    Client, Mosquitto, PATIENCE, Pki, Served, messages, promise, tank, until, wind,
};

#[test]
fn the_upstream_demands_a_certificate_and_keeps_each_client_below_its_name() {
    promise(|scene| {
        let (cloud, other) = (Pki::new(scene, "cloud")?, Pki::new(scene, "other")?);
        let mosquitto = Mosquitto::start(scene, &cloud)?;
        let forged = other.client(scene, "plant-7")?;
        let forger = Client::new("forger", mosquitto.port).over_tls(&cloud.ca, &forged);
        let forger = forger.start(scene)?;
        until("the forger is turned away", PATIENCE, || {
            let process = forger.process()?;
            ensure!(
                process.events_named("connected")?.is_empty(),
                "the forger was let in"
            );
            let mut away = process.events_named("refused")?;
            away.extend(process.events_named("disconnected")?);
            Ok(away.pop())
        })?;
        let genuine = cloud.client(scene, "plant-7")?;
        let mut gateway = Client::new("plant-7", mosquitto.port)
            .over_tls(&cloud.ca, &genuine)
            .start(scene)?;
        gateway.event("connected", |_| true)?;
        ensure!(gateway.publish("plant-7/telemetry/a/b", "1")? < 0x80);
        ensure!(gateway.publish("plant-8/telemetry/a/b", "2")? == 0x87);
        Ok(())
    });
}

#[test]
fn the_observer_misses_nothing_while_the_upstream_starts_again() {
    promise(|scene| {
        let cloud = Pki::new(scene, "cloud")?;
        let mut mosquitto = Mosquitto::start(scene, &cloud)?;
        let observer = mosquitto.observer(&cloud)?;
        let identity = cloud.client(scene, "plant-7")?;
        let mut gateway = Client::new("plant-7", mosquitto.port)
            .over_tls(&cloud.ca, &identity)
            .start(scene)?;
        gateway.publish("plant-7/count", "1")?;
        observer.message("plant-7/count", |payload| payload == "1")?;
        mosquitto.stop()?;
        mosquitto.restart()?;
        gateway.publish("plant-7/count", "2")?;
        observer.message("plant-7/count", |payload| payload == "2")?;
        let heard = messages(observer.process()?)?;
        ensure!(heard.len() == 2, "{heard:?}");
        Ok(())
    });
}

/// Request and answer by the letters of Modbus application protocol 6.4.
#[test]
fn the_tank_gives_each_reader_another_level_and_keeps_a_record() {
    promise(|scene| {
        let port = scene.free_port()?;
        let tank = tank(scene, port)?;
        let mut wire = TcpStream::connect(("127.0.0.1", port))?;
        for level in [-100_000_i32, -99_993] {
            wire.write_all(&[0, 1, 0, 0, 0, 6, 1, 4, 0, 0, 0, 2])?;
            let mut answer = [0; 13];
            wire.read_exact(&mut answer)?;
            let [a, b, c, d] = level.to_be_bytes();
            ensure!(answer[7..] == [4, 4, c, d, a, b], "{answer:?}");
        }
        let record = Served::read(&tank, "level")?;
        ensure!(record.count() == 2);
        Ok(())
    });
}

#[test]
fn the_wind_sensor_is_heard_only_while_its_line_is_open() {
    promise(|scene| {
        let link = scene.path("ttyWind");
        let wind = wind(scene, &link)?;
        until("a sentence is lost on the open line", PATIENCE, || {
            Ok(wind.events_named("unheard")?.pop())
        })?;
        let mut line = std::fs::File::open(&link)?;
        let mut heard = [0; 16];
        line.read_exact(&mut heard)?;
        ensure!(heard.starts_with(b"$WIMWV,"), "{heard:?}");
        until("the sentence is on record", PATIENCE, || {
            Ok((Served::read(&wind, "speed")?.count() > 0).then_some(()))
        })
    });
}
