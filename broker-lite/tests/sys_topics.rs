//! Promise: dashboards made for Mosquitto find its `$SYS` topics here. Debian's Mosquitto tells
//! which those are; mosquitto_sub reads both brokers.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use broker_lite::{
    config::{AccessRule, Config, Listener},
    server::Broker,
};

/// What Mosquitto tells of its allocator; ours counts no allocations.
const WITHOUT_EQUAL: [&str; 2] = ["$SYS/broker/heap/current", "$SYS/broker/heap/maximum"];

/// The topics of Mosquitto 2.0.
const THEIRS: usize = 53;

/// Ours.
const OURS: usize = THEIRS - WITHOUT_EQUAL.len();

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Reads a broker's topics until so many different ones have come, or time is up.
fn topics(port: u16, count: usize) -> BTreeMap<String, String> {
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-t", "$SYS/#"]);
    command
        .args(["-W", "20", "-F", "%t\t%p"])
        .stdout(Stdio::piped());
    let mut running = Running(command.spawn().expect("mosquitto-clients is installed"));
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut found = BTreeMap::new();
    for line in lines.map_while(Result::ok) {
        let (topic, payload) = line.split_once('\t').unwrap();
        found.insert(topic.to_owned(), payload.to_owned());
        if found.len() >= count {
            break;
        }
    }
    found
}

/// Debian's Mosquitto on a port of its own.
fn mosquitto(folder: &Path) -> (Running, u16) {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let file = folder.join("mosquitto.conf");
    let listener = format!("listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 1\n");
    fs::write(&file, listener).unwrap();
    let child = Command::new("/usr/sbin/mosquitto")
        .arg("-c")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto is installed");
    let running = Running(child);
    for _ in 0..1_000 {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return (running, port);
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("mosquitto does not listen on {port}");
}

async fn ours() -> BTreeMap<String, String> {
    let config = Config {
        listeners: vec![Listener::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))],
        access: vec![AccessRule::everything()],
        ..Config::default()
    };
    let broker = Broker::start(&config, None).await.unwrap();
    let port = broker.addresses()[0].address.port();
    let found = tokio::task::spawn_blocking(move || topics(port, OURS)).await;
    broker.shutdown().await;
    found.unwrap()
}

#[tokio::test]
async fn every_sys_topic_of_mosquitto_that_is_not_of_its_allocator_is_here_in_the_same_form() {
    let folder = tempfile::tempdir().unwrap();
    let (_running, port) = mosquitto(folder.path());
    let theirs = tokio::task::spawn_blocking(move || topics(port, THEIRS))
        .await
        .unwrap();
    let ours = ours().await;
    let missing: Vec<&String> = theirs
        .keys()
        .filter(|topic| !ours.contains_key(*topic) && !WITHOUT_EQUAL.contains(&topic.as_str()))
        .collect();
    assert!(missing.is_empty(), "Mosquitto has {missing:?}");
    let added: Vec<&String> = ours
        .keys()
        .filter(|topic| !theirs.contains_key(*topic))
        .collect();
    assert!(added.is_empty(), "Mosquitto does not have {added:?}");
    for (topic, text) in &ours {
        assert_eq!(form(text), form(&theirs[topic]), "{topic}: {text}");
    }
    assert_eq!(ours["$SYS/broker/clients/connected"], "1");
}

/// A value without what differs from broker to broker.
fn form(text: &str) -> String {
    match text.split_once(" version ") {
        Some(_) => "NAME version NUMBER".to_owned(),
        None => text
            .split(|c: char| c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .collect(),
    }
}
