//! Promise: what the broker has acknowledged survives `kill -9` at any instant, QoS 2 exactly once.
//!
//! The real program is killed under load, round after round, while publishers and subscribers with
//! lasting sessions go on as MQTT tells them to. `BROKER_LITE_KILL_ROUNDS=500` runs that many.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "real processes, so the real clock"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use broker_lite::{
    packet::{
        self, Ack, Connect, ConnectProperties, Delivery, Expect, Packet, PacketId, Publish, QoS,
        ReasonCode, Subscribe, SubscribeOptions, SubscribeRequest, Text, UserProperties, Version,
    },
    topic::{SubscriptionFilter, TopicName},
};
use bytes::BytesMut;

/// Rounds when nothing else is said.
const ROUNDS: u64 = 20;
/// Messages that a publisher leaves unacknowledged.
const WINDOW: usize = 16;
/// Most acknowledgements before a kill.
const ACKS_MAX: u64 = 2_000;
/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a packet before a client looks at what else is to be done.
const GLANCE: Duration = Duration::from_millis(2);

/// The broker as a process.
struct Broker(Child);

impl Broker {
    fn start(config: &Path, port: u16) -> Broker {
        let child = Command::new(env!("CARGO_BIN_EXE_broker-lite"))
            .arg("--config")
            .arg(config)
            .env("RUST_LOG", "error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the broker listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        Broker(child)
    }
}

impl Drop for Broker {
    /// SIGKILL: no last words.
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A folder with a configuration, and a port for it.
struct Place {
    folder: tempfile::TempDir,
    port: u16,
}

impl Place {
    fn new(database: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:{port}\"\n\
             [[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
             [persistence]\npath = \"{}\"\n\
             [limits]\nqueued_messages = 10000000\nqueued_bytes = \"1GiB\"\n",
            folder.path().join(database).display()
        );
        fs::write(folder.path().join("broker.toml"), text).unwrap();
        Place { folder, port }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("broker.toml")
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("broker.db")
    }

    fn start(&self) -> Broker {
        Broker::start(&self.config(), self.port)
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < PATIENCE,
            "waited {PATIENCE:?} until {what}"
        );
        thread::sleep(GLANCE);
    }
}

/// One client's connection.
struct Connection {
    stream: TcpStream,
    input: BytesMut,
}

impl Connection {
    /// Connects with a lasting session; `None` when the broker is away.
    fn open(port: u16, name: &str) -> Option<(Connection, bool)> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(GLANCE)).ok()?;
        let mut connection = Connection {
            stream,
            input: BytesMut::new(),
        };
        let properties = ConnectProperties {
            session_expiry_s: Some(3_600),
            ..ConnectProperties::default()
        };
        let connect = Connect {
            version: Version::V5,
            clean_start: false,
            keep_alive_s: 60,
            client_id: Text::parse(name).unwrap(),
            will: None,
            user_name: None,
            password: None,
            properties,
        };
        connection
            .send(&[Packet::Connect(Box::new(connect))])
            .ok()?;
        match connection.wait().ok()? {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => {
                Some((connection, ack.session_present))
            }
            _ => None,
        }
    }

    fn send(&mut self, packets: &[Packet]) -> io::Result<()> {
        let mut output = BytesMut::new();
        for packet in packets {
            packet::encode(packet, Version::V5, &mut output).unwrap();
        }
        self.stream.write_all(&output)
    }

    /// The next packet, or none for now.
    fn next(&mut self) -> io::Result<Option<Packet>> {
        let expect = Expect::from_server(Version::V5, usize::MAX);
        if let Some(packet) = packet::decode(&mut self.input, expect).unwrap() {
            return Ok(Some(packet));
        }
        let mut space = [0; 16 * 1024];
        match self.stream.read(&mut space) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.input.extend_from_slice(&space[..count]);
                Ok(packet::decode(&mut self.input, expect).unwrap())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn wait(&mut self) -> io::Result<Packet> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(packet) = self.next()? {
                return Ok(packet);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// What the clients and the one who kills share.
#[derive(Default)]
struct Ledger {
    /// By topic: numbers whose acknowledgement came.
    acknowledged: Mutex<BTreeMap<&'static str, BTreeSet<u32>>>,
    acknowledgements: AtomicU64,
    /// No more new messages.
    finishing: AtomicBool,
    /// Nobody is needed any more.
    done: AtomicBool,
}

/// A publisher that repeats until it is acknowledged.
struct Publisher {
    name: &'static str,
    topic: &'static str,
    qos: QoS,
    sent: u32,
    /// By age: identifier, number, whether PUBREC came.
    open: Vec<(PacketId, u32, bool)>,
}

impl Publisher {
    fn new(name: &'static str, topic: &'static str, qos: QoS) -> Publisher {
        Publisher {
            name,
            topic,
            qos,
            sent: 0,
            open: Vec::new(),
        }
    }

    fn run(mut self, port: u16, ledger: &Ledger) {
        while !(ledger.finishing.load(Ordering::Relaxed) && self.open.is_empty()) {
            let Some((mut connection, _)) = Connection::open(port, self.name) else {
                thread::sleep(GLANCE);
                continue;
            };
            // A kill ends it.
            let _cut = self.exchange(&mut connection, ledger);
        }
    }

    fn exchange(&mut self, connection: &mut Connection, ledger: &Ledger) -> io::Result<()> {
        let repeated: Vec<Packet> = self
            .open
            .iter()
            .map(|entry| self.repetition(*entry))
            .collect();
        connection.send(&repeated)?;
        loop {
            let finishing = ledger.finishing.load(Ordering::Relaxed);
            if finishing && self.open.is_empty() {
                return Ok(());
            }
            let mut fresh = Vec::new();
            while !finishing && self.open.len() < WINDOW {
                fresh.push(self.fresh());
            }
            connection.send(&fresh)?;
            if let Some(packet) = connection.next()? {
                self.take(connection, &packet, ledger)?;
            }
        }
    }

    fn fresh(&mut self) -> Packet {
        self.sent += 1;
        let is_free = |id: &PacketId| self.open.iter().all(|entry| entry.0 != *id);
        let packet_id = (1..).filter_map(PacketId::new).find(is_free).unwrap();
        self.open.push((packet_id, self.sent, false));
        self.publish(packet_id, self.sent, false)
    }

    fn repetition(&self, (packet_id, number, received): (PacketId, u32, bool)) -> Packet {
        match received {
            true => Packet::PubRel(Ack::success(packet_id)),
            false => self.publish(packet_id, number, true),
        }
    }

    fn publish(&self, packet_id: PacketId, number: u32, dup: bool) -> Packet {
        Packet::Publish(Publish {
            dup,
            retain: false,
            delivery: match self.qos {
                QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id),
                _ => Delivery::AtLeastOnce(packet_id),
            },
            topic: Some(TopicName::parse(self.topic).unwrap()),
            topic_alias: None,
            message_expiry_s: None,
            subscription_ids: Vec::new(),
            properties: None,
            payload: number.to_string().into(),
        })
    }

    fn take(
        &mut self,
        connection: &mut Connection,
        packet: &Packet,
        ledger: &Ledger,
    ) -> io::Result<()> {
        match packet {
            Packet::PubAck(ack) => self.acknowledged(ack.packet_id, ledger, true),
            Packet::PubComp(ack) => self.acknowledged(ack.packet_id, ledger, true),
            Packet::PubRec(ack) => {
                self.acknowledged(ack.packet_id, ledger, false);
                return connection.send(&[Packet::PubRel(Ack::success(ack.packet_id))]);
            }
            _ => {}
        }
        Ok(())
    }

    fn acknowledged(&mut self, packet_id: PacketId, ledger: &Ledger, ends: bool) {
        let Some(at) = self.open.iter().position(|entry| entry.0 == packet_id) else {
            return;
        };
        self.open[at].2 = true;
        let number = self.open[at].1;
        let mut acknowledged = ledger.acknowledged.lock().unwrap();
        acknowledged.entry(self.topic).or_default().insert(number);
        ledger.acknowledgements.fetch_add(1, Ordering::Relaxed);
        if ends {
            self.open.remove(at);
        }
    }
}

/// A subscriber that acknowledges as the specification says.
#[derive(Default)]
struct Subscriber {
    name: &'static str,
    received: BTreeSet<PacketId>,
    got: Arc<Mutex<BTreeMap<String, Vec<u32>>>>,
}

impl Subscriber {
    /// Makes the session and its subscription.
    fn begin(name: &'static str, port: u16, qos: QoS) -> Subscriber {
        let (mut connection, _) = Connection::open(port, name).unwrap();
        let subscribe = Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            subscription_id: None,
            user_properties: UserProperties::default(),
            requests: vec![SubscribeRequest {
                filter: SubscriptionFilter::parse("t/#").unwrap(),
                options: SubscribeOptions::at(qos),
            }],
        };
        connection.send(&[Packet::Subscribe(subscribe)]).unwrap();
        assert!(matches!(connection.wait().unwrap(), Packet::SubAck(_)));
        Subscriber {
            name,
            ..Subscriber::default()
        }
    }

    fn run(mut self, port: u16, ledger: &Ledger) {
        while !ledger.done.load(Ordering::Relaxed) {
            let Some((mut connection, present)) = Connection::open(port, self.name) else {
                thread::sleep(GLANCE);
                continue;
            };
            assert!(present, "the session of {} is gone", self.name);
            // A kill ends it.
            let _cut = self.exchange(&mut connection, ledger);
        }
    }

    fn exchange(&mut self, connection: &mut Connection, ledger: &Ledger) -> io::Result<()> {
        while !ledger.done.load(Ordering::Relaxed) {
            let answer = match connection.next()? {
                Some(Packet::Publish(publish)) => self.take(&publish),
                Some(Packet::PubRel(ack)) => {
                    self.received.remove(&ack.packet_id);
                    Packet::PubComp(Ack::success(ack.packet_id))
                }
                _ => continue,
            };
            connection.send(&[answer])?;
        }
        Ok(())
    }

    fn take(&mut self, publish: &Publish) -> Packet {
        let (is_new, answer) = match publish.delivery {
            Delivery::ExactlyOnce(id) => {
                (self.received.insert(id), Packet::PubRec(Ack::success(id)))
            }
            Delivery::AtLeastOnce(id) => (true, Packet::PubAck(Ack::success(id))),
            Delivery::AtMostOnce => panic!("nothing is published at QoS 0"),
        };
        if is_new {
            let topic = publish.topic.as_ref().unwrap().as_str().to_owned();
            let number = str::from_utf8(&publish.payload).unwrap().parse().unwrap();
            let mut got = self.got.lock().unwrap();
            got.entry(topic).or_default().push(number);
        }
        answer
    }
}

/// Waits until a subscriber has everything, as long as it gets on.
fn wait_for_all(who: &str, got: &Mutex<BTreeMap<String, Vec<u32>>>, ledger: &Ledger) {
    let acknowledged = ledger.acknowledged.lock().unwrap().clone();
    let expected: usize = acknowledged.values().map(BTreeSet::len).sum();
    let count = || got.lock().unwrap().values().map(Vec::len).sum::<usize>();
    let lacks_none = || {
        let got = got.lock().unwrap();
        acknowledged.iter().all(|(topic, numbers)| {
            let got: BTreeSet<u32> = got.get(*topic).into_iter().flatten().copied().collect();
            numbers.is_subset(&got)
        })
    };
    loop {
        let before = count();
        if before >= expected && lacks_none() {
            return;
        }
        wait_until(
            &format!("{who}, with {before} of {expected}, gets more"),
            || count() > before,
        );
    }
}

fn check(who: &str, got: &BTreeMap<String, Vec<u32>>, exactly_once: &[&str]) {
    for (topic, numbers) in got {
        let mut seen = BTreeSet::new();
        let firsts: Vec<u32> = numbers
            .iter()
            .copied()
            .filter(|one| seen.insert(*one))
            .collect();
        assert!(firsts.is_sorted(), "{who}: {topic} came out of order");
        if exactly_once.contains(&topic.as_str()) {
            let twice = numbers.len() - firsts.len();
            assert_eq!(twice, 0, "{who}: messages of {topic} came twice");
        }
    }
}

/// Xorshift; when a kill falls is chance all the same.
fn roll(state: &mut u64, sides: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % sides
}

fn rounds() -> u64 {
    let given = std::env::var("BROKER_LITE_KILL_ROUNDS");
    given.map_or(ROUNDS, |text| text.parse().unwrap())
}

#[test]
fn what_was_acknowledged_survives_kills_under_load_and_qos_2_comes_once() {
    let place = Place::new("broker.db");
    let port = place.port;
    let ledger = Arc::new(Ledger::default());
    let mut broker = place.start();
    let exact = Subscriber::begin("exact", port, QoS::ExactlyOnce);
    let least = Subscriber::begin("least", port, QoS::AtLeastOnce);
    let absent = Subscriber::begin("absent", port, QoS::ExactlyOnce);
    let got = [&exact, &least, &absent].map(|one| Arc::clone(&one.got));
    let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
    for publisher in [
        Publisher::new("p1", "t/1", QoS::AtLeastOnce),
        Publisher::new("p2", "t/2", QoS::ExactlyOnce),
        Publisher::new("p3", "t/3", QoS::ExactlyOnce),
    ] {
        let ledger = Arc::clone(&ledger);
        publishers.push(thread::spawn(move || publisher.run(port, &ledger)));
    }
    for subscriber in [exact, least] {
        let ledger = Arc::clone(&ledger);
        subscribers.push(thread::spawn(move || subscriber.run(port, &ledger)));
    }

    let mut dice = 0x9e37_79b9_7f4a_7c15;
    for round in 1..=rounds() {
        let target =
            ledger.acknowledgements.load(Ordering::Relaxed) + 1 + roll(&mut dice, ACKS_MAX);
        wait_until(&format!("round {round} has its acknowledgements"), || {
            ledger.acknowledgements.load(Ordering::Relaxed) >= target
        });
        drop(broker);
        broker = place.start();
    }

    ledger.finishing.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.join().unwrap();
    }
    let late = Arc::clone(&ledger);
    subscribers.push(thread::spawn(move || absent.run(port, &late)));
    for (who, got) in ["exact", "least", "absent"].iter().zip(&got) {
        wait_for_all(who, got, &ledger);
    }
    ledger.done.store(true, Ordering::Relaxed);
    for subscriber in subscribers {
        subscriber.join().unwrap();
    }
    for (who, got, once) in [
        ("exact", &got[0], &["t/2", "t/3"][..]),
        ("least", &got[1], &[]),
        ("absent", &got[2], &["t/2", "t/3"]),
    ] {
        check(who, &got.lock().unwrap(), once);
    }
    drop(broker);
    let mode = fs::metadata(place.database()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may not read the messages");
}

#[test]
fn a_file_that_cannot_be_made_stops_only_what_it_is_for_and_is_made_later() {
    let place = Place::new("later/broker.db");
    let port = place.port;
    let broker = place.start();
    assert!(Connection::open(port, "lasting").is_none());
    fs::create_dir(place.folder.path().join("later")).unwrap();
    wait_until("lasting sessions are taken", || {
        Connection::open(port, "lasting").is_some()
    });
    drop(broker);
    let _broker = place.start();
    let (_, present) = Connection::open(port, "lasting").unwrap();
    assert!(present, "the session was stored");
}

#[test]
fn a_damaged_file_is_kept_aside_and_the_broker_starts() {
    let place = Place::new("broker.db");
    fs::write(
        place.database(),
        "no database at all, but long enough for a header: ".repeat(200),
    )
    .unwrap();
    let _broker = place.start();
    assert!(Connection::open(place.port, "lasting").is_some());
    let aside = place.folder.path().join("broker.db.corrupt-1");
    assert!(fs::read(aside).unwrap().starts_with(b"no database"));
}
