//! Promise: a full disk holds up what would have to be on it, and nothing else. Nothing is
//! acknowledged that is not stored, and the broker goes on by itself when there is space again.
//!
//! The database is on a tmpfs of 4 MiB in a mount namespace, which another file fills up.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
    thread,
};

use broker_lite::packet::{Delivery, Packet, PacketId, QoS};

use crate::{
    clients::{Ledger, Publisher, Role, Subscriber, message},
    connection::Connection,
    place::{Place, wait_until},
};

/// Mounts the disk, says so, and keeps the namespace until its input ends.
const SCRIPT: &str = "mount -t tmpfs -o size=4m tmpfs \"$1\" && echo ready && cat";
/// Acknowledgements before the disk is full, and again after it was.
const ACKS: u64 = 300;
/// Round trips at QoS 0 while the disk is full.
const TRIPS: u32 = 20;

#[test]
fn a_full_disk_acknowledges_nothing_serves_the_rest_and_recovers_by_itself() {
    let mut place = Place::new("disk/broker.db");
    let disk = Disk::mount(&place.folder.path().join("disk"));
    place.run_within(disk.enter());
    let port = place.port;
    let broker = place.start();
    let absent = Subscriber::begin("absent", port, "t/#", QoS::ExactlyOnce);
    let ledger = Arc::new(Ledger::default());
    let acknowledged = || ledger.acknowledgements.load(Ordering::Relaxed);
    let mut tasks = Vec::new();
    let mut run = |role: Role| {
        let ledger = Arc::clone(&ledger);
        tasks.push(thread::spawn(move || role.run(port, &ledger)));
    };
    run(Role::Publisher(Publisher::new(
        "p1",
        "t/1",
        QoS::AtLeastOnce,
    )));
    run(Role::Publisher(Publisher::new(
        "p2",
        "t/2",
        QoS::ExactlyOnce,
    )));
    wait_until("there is something to lose", || acknowledged() > ACKS);

    disk.fill();
    wait_until("the status names the fault", || lasts(&place).is_some());
    let mut waiting = Connection::pass(port, "waiting", None).unwrap();
    let delivery = Delivery::AtLeastOnce(PacketId::new(1).unwrap());
    let kept = Packet::Publish(message("t/kept", delivery, 1, false));
    waiting.send(&[kept]).unwrap();
    serves_the_rest(port);
    wait_until("it has tried again and again", || lasts(&place) > Some(1));
    assert_eq!(waiting.next().unwrap(), None, "acknowledged but not stored");

    // A kill shows what was acknowledged before it was stored, and whether a full disk can be read.
    drop(broker);
    let broker = place.start();
    serves_the_rest(port);
    disk.free();
    wait_until("the fault is gone", || lasts(&place).is_none());
    let target = acknowledged() + ACKS;
    wait_until("the publishers go on", || acknowledged() > target);
    ledger.finish();

    let got = Arc::clone(&absent.got);
    run(Role::Subscriber(absent));
    for (topic, numbers) in &*ledger.acknowledged.lock().unwrap() {
        wait_until(&format!("everything acknowledged of {topic} comes"), || {
            let got = got.lock().unwrap();
            let got: BTreeSet<u32> = got.get(*topic).into_iter().flatten().copied().collect();
            numbers.is_subset(&got)
        });
    }
    ledger.end();
    for task in tasks {
        task.join().unwrap();
    }
    let got = got.lock().unwrap();
    assert!(got["t/2"].iter().copied().eq(1..=ledger.sent_last("t/2")));
    drop(broker);
}

/// A client without a lasting session publishes to itself at QoS 0.
fn serves_the_rest(port: u16) {
    let mut client = Connection::pass(port, "passing", None).unwrap();
    client.subscribe("q/0", QoS::AtMostOnce).unwrap();
    for number in 0..TRIPS {
        let sent = Packet::Publish(message("q/0", Delivery::AtMostOnce, number, false));
        client.send(&[sent]).unwrap();
        match client.wait().unwrap() {
            Packet::Publish(publish) => assert_eq!(publish.payload, number.to_string()),
            other => panic!("no PUBLISH but {other:?}"),
        }
    }
}

/// For how many seconds nothing can be committed, as `broker-lite status` tells it.
fn lasts(place: &Place) -> Option<u64> {
    let status: serde_json::Value = serde_json::from_str(&place.status()).unwrap();
    let store = &status["store"];
    let fault = store["fault"].as_str()?;
    assert!(fault.contains("full"), "another fault: {fault}");
    store["faulty_s"].as_u64()
}

/// A small disk that only processes in its namespace see.
struct Disk {
    holder: Child,
    /// A file that takes the space, as seen from here.
    ballast: PathBuf,
}

impl Disk {
    fn mount(folder: &Path) -> Disk {
        fs::create_dir(folder).unwrap();
        let mut holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux is installed");
        let mut ready = String::new();
        let mut lines = BufReader::new(holder.stdout.take().unwrap());
        lines.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "are user namespaces permitted?");
        let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
        let inside = folder.strip_prefix("/").unwrap();
        let ballast = root.join(inside).join("ballast");
        Disk { holder, ballast }
    }

    /// What runs a command where the disk is seen.
    fn enter(&self) -> Vec<String> {
        let target = self.holder.id().to_string();
        let words = ["nsenter", "--preserve-credentials", "--user", "--mount"];
        let words = words.into_iter().chain(["--target", &target]);
        words.map(str::to_owned).collect()
    }

    /// Takes what is free, and goes on until nothing is.
    fn fill(&self) {
        let mut ballast = fs::File::create(&self.ballast).unwrap();
        while ballast.write(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(&self.ballast).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ended = self.holder.kill();
        let _ended = self.holder.wait();
    }
}
