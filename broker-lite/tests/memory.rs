//! The bound on memory, of a real process: what the system counts as resident while it is attacked
//! by each of several routes, that a healthy client is served meanwhile, and that bursts do not add up.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![expect(clippy::print_stdout, reason = "the figures measured")]

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use broker_lite::{
    packet::{
        self, Connect, ConnectProperties, Delivery, Expect, Packet, PacketId, Publish, QoS,
        Subscribe, SubscribeOptions, SubscribeRequest, Text, UserProperties, Version,
    },
    topic::{SubscriptionFilter, TopicName},
};
use bytes::BytesMut;

/// What a process may take beyond `limits.memory`: its program and libraries, stacks, the runtime,
/// and what its allocator cannot give back.
const BASE_KIB: u64 = 16 * 1024;

/// The bound that the broker is given.
const MEMORY_KIB: u64 = 32 * 1024;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker of its own process.
struct Process {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Process {
    fn start(limits: &str) -> Process {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("broker.toml");
        let control = directory.path().join("control.sock");
        let text = format!("control = {control:?}\n{}", configuration(limits));
        fs::write(&file, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_broker-lite"))
            .arg("--config")
            .arg(&file)
            .env_remove("JOURNAL_STREAM")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines
                .next()
                .expect("the broker says where it listens")
                .unwrap();
            if let Some(address) = line.split("address=").nth(1) {
                break address.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        thread::spawn(move || lines.for_each(drop));
        Process {
            child,
            address,
            _directory: directory,
        }
    }

    /// A figure of `/proc/PID/status`, in KiB.
    fn kib(&self, name: &str) -> u64 {
        let path = Path::new("/proc").join(self.child.id().to_string());
        let status = fs::read_to_string(path.join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn resident_kib(&self) -> u64 {
        self.kib("VmRSS:")
    }

    fn peak_kib(&self) -> u64 {
        self.kib("VmHWM:")
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn client(&self, id: &str, lasts: bool) -> Option<Client> {
        let mut client = Client {
            stream: self.connect(),
            input: BytesMut::new(),
        };
        client.send(&hello(id, lasts)).ok()?;
        match client.receive().ok()? {
            Packet::ConnAck(ack) if !ack.reason.is_failure() => Some(client),
            _ => None,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn configuration(limits: &str) -> String {
    format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[access]]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n\
         [limits]\nmemory = \"{MEMORY_KIB}KiB\"\nconnections_per_address = 4096\nconnections = 4096\n{limits}\n"
    )
}

/// A client that speaks packets and blocks.
struct Client {
    stream: TcpStream,
    input: BytesMut,
}

impl Client {
    fn send(&mut self, packet: &Packet) -> std::io::Result<()> {
        let mut bytes = BytesMut::new();
        packet::encode(packet, Version::V5, &mut bytes).unwrap();
        self.stream.write_all(&bytes)
    }

    fn receive(&mut self) -> std::io::Result<Packet> {
        let expect = Expect::from_server(Version::V5, usize::MAX);
        loop {
            if let Some(packet) = packet::decode(&mut self.input, expect).unwrap() {
                return Ok(packet);
            }
            let mut space = [0; 65_536];
            match self.stream.read(&mut space)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&space[..count]),
            }
        }
    }

    /// The next answer of the broker's, messages left aside.
    fn answer(&mut self) -> std::io::Result<Packet> {
        loop {
            match self.receive()? {
                Packet::Publish(_) => {}
                answer => return Ok(answer),
            }
        }
    }

    /// Sends and takes the answer; what the broker refuses by closing is refused.
    fn ask(&mut self, packet: &Packet) -> Option<Packet> {
        self.send(packet).ok()?;
        self.answer().ok()
    }
}

fn hello(id: &str, lasts: bool) -> Packet {
    Packet::Connect(Box::new(Connect {
        version: Version::V5,
        clean_start: !lasts,
        keep_alive_s: 0,
        client_id: Text::parse(id).unwrap(),
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties {
            session_expiry_s: lasts.then_some(3_600),
            ..ConnectProperties::default()
        },
    }))
}

fn publish(topic: &str, bytes: usize, qos: QoS, retain: bool) -> Packet {
    let packet_id = PacketId::new(1).unwrap();
    Packet::Publish(Publish {
        dup: false,
        retain,
        delivery: match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            _ => Delivery::AtLeastOnce(packet_id),
        },
        topic: Some(TopicName::parse(topic).unwrap()),
        topic_alias: None,
        message_expiry_s: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: vec![b'x'; bytes].into(),
    })
}

fn subscribe(filters: &[String]) -> Packet {
    let request = |filter: &String| SubscribeRequest {
        filter: SubscriptionFilter::parse(filter).unwrap(),
        options: SubscribeOptions::at(QoS::AtLeastOnce),
    };
    Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(9).unwrap(),
        subscription_id: None,
        user_properties: UserProperties::default(),
        requests: filters.iter().map(request).collect(),
    })
}

/// A client that publishes to itself, and counts how long that takes.
fn heartbeat(client: &mut Client) -> Duration {
    let began = Instant::now();
    client
        .send(&publish("health", 10, QoS::AtMostOnce, false))
        .unwrap();
    match client.receive().unwrap() {
        Packet::Publish(_) => began.elapsed(),
        other => panic!("the healthy client got {other:?}"),
    }
}

/// Each fills memory by its own route, and comes back when the broker refuses or closes.
fn attack_by_retained(broker: &Process) {
    let Some(mut client) = broker.client("retained", false) else {
        return;
    };
    for n in 0..1_000 {
        let message = publish(&format!("r/{n}"), 60_000, QoS::AtLeastOnce, true);
        if client.ask(&message).is_none() {
            return;
        }
    }
}

fn attack_by_subscriptions(broker: &Process) -> Vec<Client> {
    let deep = |client: usize, n: usize| format!("{client}/{n}/{}", "d/".repeat(28));
    let subscribes = |client: usize| {
        let mut attacker = broker.client(&format!("sub-{client}"), false)?;
        let filters: Vec<String> = (0..256).map(|n| deep(client, n)).collect();
        attacker.ask(&subscribe(&filters))?;
        Some(attacker)
    };
    (0..300).map_while(subscribes).collect()
}

fn attack_by_absent_sessions(broker: &Process) {
    for n in 0..20 {
        let Some(mut absent) = broker.client(&format!("absent-{n}"), true) else {
            return;
        };
        if absent.ask(&subscribe(&["q/#".to_owned()])).is_none() {
            return;
        }
    }
    let Some(mut publisher) = broker.client("filler", false) else {
        return;
    };
    for n in 0..2_000 {
        if publisher
            .ask(&publish(&format!("q/{n}"), 50_000, QoS::AtLeastOnce, false))
            .is_none()
        {
            return;
        }
    }
}

/// Consumers that never read.
fn attack_by_slow_consumers(broker: &Process) -> Vec<Client> {
    let stalls = |n: usize| {
        let mut client = broker.client(&format!("slow-{n}"), false)?;
        client.ask(&subscribe(&["s".to_owned()]))?;
        Some(client)
    };
    let stalled: Vec<Client> = (0..50).map_while(stalls).collect();
    if let Some(mut publisher) = broker.client("pusher", false) {
        for _ in 0..400 {
            if publisher
                .ask(&publish("s", 100_000, QoS::AtLeastOnce, false))
                .is_none()
            {
                break;
            }
        }
    }
    stalled
}

/// Large packets of which the last byte never comes.
fn attack_by_partial_packets(broker: &Process, count: usize) -> Vec<TcpStream> {
    let mut bytes = BytesMut::new();
    let message = publish("p", 200_000, QoS::AtMostOnce, false);
    packet::encode(&message, Version::V5, &mut bytes).unwrap();
    let begin = |n: usize| {
        let mut client = broker.client(&format!("partial-{n}"), false)?;
        client.stream.write_all(&bytes[..bytes.len() - 1]).ok()?;
        Some(client.stream)
    };
    (0..count).map_while(begin).collect()
}

/// Runs one attack against a broker of its own; what it returns stays open until the figures are in.
fn bounded<T>(route: &str, attack: impl FnOnce(&Process) -> T) {
    let broker = Process::start("");
    let rest = broker.resident_kib();
    let mut healthy = broker.client("healthy", false).unwrap();
    healthy.ask(&subscribe(&["health".to_owned()])).unwrap();
    let _open = attack(&broker);
    let slowest = (0..10).map(|_| heartbeat(&mut healthy)).max().unwrap();
    let peak = broker.peak_kib();
    println!("{route}: at rest {rest} KiB, peak {peak} KiB, slowest heartbeat {slowest:?}");
    assert!(peak <= MEMORY_KIB + BASE_KIB, "{route}: {peak} KiB");
    assert!(
        peak > rest + MEMORY_KIB / 3,
        "{route} filled nothing: {peak} KiB"
    );
    assert!(slowest < Duration::from_secs(1), "{route}: {slowest:?}");
}

#[test]
fn retained_messages_stay_within_the_bound() {
    bounded("retained", attack_by_retained);
}

#[test]
fn subscriptions_stay_within_the_bound() {
    bounded("subscriptions", attack_by_subscriptions);
}

#[test]
fn slow_consumers_stay_within_the_bound() {
    bounded("slow consumers", attack_by_slow_consumers);
}

#[test]
fn absent_sessions_stay_within_the_bound() {
    bounded("absent sessions", attack_by_absent_sessions);
}

#[test]
fn partial_packets_stay_within_the_bound() {
    bounded("partial packets", |broker| {
        attack_by_partial_packets(broker, 500)
    });
}

/// A thousand lasting sessions with full queues, which then end.
fn burst(broker: &Process) {
    let mut publisher = broker.client("pub", false).unwrap();
    for n in 0..1_000 {
        let mut client = broker.client(&format!("c{n}"), true).unwrap();
        client.ask(&subscribe(&[format!("c/{n}")])).unwrap();
    }
    for n in (0..1_000).cycle().take(10_000) {
        let message = publish(&format!("c/{n}"), 1_000, QoS::AtLeastOnce, false);
        publisher.ask(&message).unwrap();
    }
    for n in 0..1_000 {
        let mut client = broker.client(&format!("c{n}"), false).unwrap();
        client.ask(&Packet::PingReq).unwrap();
    }
}

/// Waits until no more than so much is resident.
fn falls_to(broker: &Process, kib: u64) {
    let began = Instant::now();
    while broker.resident_kib() > kib {
        let (waited, now) = (began.elapsed(), broker.resident_kib());
        assert!(waited < PATIENCE, "{now} KiB instead of {kib} KiB");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn memory_falls_again_after_a_burst_and_bursts_do_not_add_up() {
    let broker = Process::start("");
    let rest = broker.resident_kib();
    (0..2).for_each(|_| burst(&broker));
    let rise = broker.peak_kib() - rest;
    assert!(rise > 8_000, "the burst filled nothing: {rise} KiB");
    let most = rest + rise * 3 / 10;
    falls_to(&broker, most);
    for _ in 0..4 {
        // When memory is given back is a matter of seconds, so peaks tell nothing; what stays does.
        burst(&broker);
        falls_to(&broker, most);
    }
    let kept = broker.resident_kib().saturating_sub(rest);
    println!("at rest {rest} KiB, {rise} KiB more, of which {kept} KiB stay after six bursts");
}
