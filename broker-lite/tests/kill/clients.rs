//! Clients that go on over every kill as MQTT tells them to, and what they know of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use broker_lite::{
    packet::{Ack, Delivery, Packet, PacketId, Publish, QoS, Unsubscribe, UserProperties, Will},
    topic::{SubscriptionFilter, TopicName},
};

use crate::{
    connection::Connection,
    place::{GLANCE, wait_until},
};

/// What the two members of a group share.
pub(crate) const GROUP: &str = "$share/group/t/#";
/// The session whose subscriptions change in every round.
const FICKLE: &str = "fickle";
/// Messages that a publisher leaves unacknowledged.
const WINDOW: usize = 16;

/// Numbers that a subscriber got, by topic, in the order in which they came.
pub(crate) type Got = Arc<Mutex<BTreeMap<String, Vec<u32>>>>;

/// What the clients and the one who kills share.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By topic: numbers whose acknowledgement came.
    pub(crate) acknowledged: Mutex<BTreeMap<&'static str, BTreeSet<u32>>>,
    /// By topic: the number that was sent last.
    sent: Mutex<BTreeMap<&'static str, u32>>,
    /// Subscriptions that stand.
    subscriptions: Mutex<BTreeSet<u64>>,
    pub(crate) acknowledgements: AtomicU64,
    /// Publishers that wait for acknowledgements, or may publish more.
    publishing: AtomicU64,
    finishing: AtomicBool,
    done: AtomicBool,
}

impl Ledger {
    /// No more new messages.
    pub(crate) fn finish(&self) {
        self.finishing.store(true, Ordering::Relaxed);
        let settled = || self.publishing.load(Ordering::Relaxed) == 0;
        wait_until("the publishers have their acknowledgements", settled);
    }

    /// Nobody is needed any more.
    pub(crate) fn end(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub(crate) fn sent_last(&self, topic: &str) -> u32 {
        self.sent.lock().unwrap()[topic]
    }

    fn enter(&self, topic: &'static str, number: u32) {
        let mut acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.entry(topic).or_default().insert(number);
        self.acknowledgements.fetch_add(1, Ordering::Relaxed);
    }

    /// What was subscribed and not unsubscribed still is, and nothing else.
    pub(crate) fn check_subscriptions(&self, port: u16) {
        let expected = self.subscriptions.lock().unwrap().clone();
        let rounds = expected.last().copied().unwrap_or_default();
        let (mut fickle, present) = Connection::open(port, FICKLE).unwrap();
        assert!(present, "the session of {FICKLE} is gone");
        for round in 1..=rounds {
            Publisher::once(port, &format!("x/{round}"), None);
        }
        let mut got = BTreeSet::new();
        while got.len() < expected.len() {
            match fickle.wait().unwrap() {
                Packet::Publish(publish) => {
                    let topic = publish.topic.as_ref().unwrap().as_str();
                    got.insert(topic.trim_start_matches("x/").parse().unwrap());
                    let id = publish.delivery.packet_id().unwrap();
                    fickle.send(&[Packet::PubAck(Ack::success(id))]).unwrap();
                }
                other => panic!("no PUBLISH but {other:?}"),
            }
        }
        assert_eq!(got, expected, "the subscriptions of {FICKLE}");
    }
}

/// Subscribes to something new, and in some rounds ends an older subscription.
pub(crate) fn change_subscriptions(port: u16, round: u64, ledger: &Ledger) {
    let (mut fickle, present) = Connection::open(port, FICKLE).unwrap();
    assert!(present || round == 1, "the session of {FICKLE} is gone");
    fickle
        .subscribe(&format!("x/{round}"), QoS::AtLeastOnce)
        .unwrap();
    let mut subscriptions = ledger.subscriptions.lock().unwrap();
    subscriptions.insert(round);
    if round.is_multiple_of(3) {
        let unsubscribe = Unsubscribe {
            packet_id: PacketId::new(2).unwrap(),
            user_properties: UserProperties::default(),
            filters: vec![SubscriptionFilter::parse(&format!("x/{}", round - 1)).unwrap()],
        };
        fickle.send(&[Packet::Unsubscribe(unsubscribe)]).unwrap();
        assert!(matches!(fickle.wait().unwrap(), Packet::UnsubAck(_)));
        subscriptions.remove(&(round - 1));
    }
}

/// A client whose will is due when the broker dies with it.
pub(crate) struct Willing {
    _connection: Connection,
}

impl Willing {
    pub(crate) fn connect(port: u16, number: u32, ledger: &Ledger) -> Willing {
        let will = Will {
            topic: TopicName::parse("t/will").unwrap(),
            payload: number.to_string().into(),
            qos: QoS::ExactlyOnce,
            retain: false,
            delay_s: None,
            message_expiry_s: None,
            properties: None,
        };
        let connection = Connection::pass(port, "willing", Some(will)).unwrap();
        ledger.enter("t/will", number);
        Willing {
            _connection: connection,
        }
    }
}

/// A client with a thread of its own.
pub(crate) enum Role {
    Publisher(Publisher),
    Subscriber(Subscriber),
}

impl Role {
    pub(crate) fn run(self, port: u16, ledger: &Ledger) {
        match self {
            Role::Publisher(publisher) => publisher.run(port, ledger),
            Role::Subscriber(subscriber) => subscriber.run(port, ledger),
        }
    }
}

/// A publisher that repeats until it is acknowledged.
pub(crate) struct Publisher {
    name: &'static str,
    topic: &'static str,
    qos: QoS,
    retain: bool,
    expiry_s: Option<u32>,
    sent: u32,
    /// By age: identifier, number, whether PUBREC came.
    open: Vec<(PacketId, u32, bool)>,
}

impl Publisher {
    pub(crate) fn new(name: &'static str, topic: &'static str, qos: QoS) -> Publisher {
        Publisher {
            name,
            topic,
            qos,
            retain: false,
            expiry_s: None,
            sent: 0,
            open: Vec::new(),
        }
    }

    pub(crate) fn retaining(self) -> Publisher {
        Publisher {
            retain: true,
            ..self
        }
    }

    pub(crate) fn expiring(self, expiry_s: u32) -> Publisher {
        Publisher {
            expiry_s: Some(expiry_s),
            ..self
        }
    }

    /// One message, of number 0, from a client that goes when it is acknowledged.
    pub(crate) fn once(port: u16, topic: &str, expiry_s: Option<u32>) {
        let id = PacketId::new(1).unwrap();
        let mut connection = Connection::pass(port, "once", None).unwrap();
        let message = message(topic, Delivery::AtLeastOnce(id), 0, false);
        let message = Publish {
            message_expiry_s: expiry_s,
            ..message
        };
        connection.send(&[Packet::Publish(message)]).unwrap();
        assert!(matches!(connection.wait().unwrap(), Packet::PubAck(_)));
    }

    pub(crate) fn run(mut self, port: u16, ledger: &Ledger) {
        ledger.publishing.fetch_add(1, Ordering::Relaxed);
        self.work(port, ledger);
        ledger.publishing.fetch_sub(1, Ordering::Relaxed);
    }

    fn work(&mut self, port: u16, ledger: &Ledger) {
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
                let mut sent = ledger.sent.lock().unwrap();
                sent.insert(self.topic, self.sent);
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
        let delivery = match self.qos {
            QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id),
            _ => Delivery::AtLeastOnce(packet_id),
        };
        Packet::Publish(Publish {
            retain: self.retain,
            message_expiry_s: self.expiry_s,
            ..message(self.topic, delivery, number, dup)
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
        ledger.enter(self.topic, number);
        if ends {
            self.open.remove(at);
        }
    }
}

pub(crate) fn message(topic: &str, delivery: Delivery, number: u32, dup: bool) -> Publish {
    Publish {
        dup,
        retain: false,
        delivery,
        topic: Some(TopicName::parse(topic).unwrap()),
        topic_alias: None,
        message_expiry_s: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: number.to_string().into(),
    }
}

/// A subscriber that acknowledges as the specification says.
#[derive(Default)]
pub(crate) struct Subscriber {
    name: &'static str,
    received: BTreeSet<PacketId>,
    pub(crate) got: Got,
}

impl Subscriber {
    /// Makes the session and its subscription.
    pub(crate) fn begin(name: &'static str, port: u16, filter: &str, qos: QoS) -> Subscriber {
        let (mut connection, _) = Connection::open(port, name).unwrap();
        connection.subscribe(filter, qos).unwrap();
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
