//! Many seeds of publishers, subscribers and a keeper that fail at random, checked against what
//! MQTT promises: QoS 2 exactly once, QoS 1 at least once, both in order. A failure names its seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    broker::sim::{Client, Sim, Wants, id, lasting, publish, subscribe},
    config::Limits,
    keeper::Kept,
    packet::{Ack, Delivery, Packet, PacketId, Publish, QoS, SubscribeOptions, Version},
    topic::TopicFilter,
};

const SEEDS: u64 = 300;
pub(crate) const STEPS: u32 = 400;
/// Messages that a publisher leaves unacknowledged.
const WINDOW: usize = 3;

/// Xorshift; the same seed gives the same run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    pub(crate) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// A publisher that repeats until it is acknowledged.
pub(crate) struct Publisher {
    pub(crate) name: &'static str,
    version: Version,
    pub(crate) topic: &'static str,
    pub(crate) qos: QoS,
    pub(crate) link: Option<Client>,
    pub(crate) sent: u32,
    pub(crate) retains: bool,
    /// By age: identifier, number, whether PUBREC came.
    pub(crate) open: Vec<(PacketId, u32, bool)>,
    pub(crate) done: BTreeSet<u32>,
    refused: BTreeSet<u32>,
}

impl Publisher {
    pub(crate) fn new(
        name: &'static str,
        version: Version,
        topic: &'static str,
        qos: QoS,
    ) -> Publisher {
        Publisher {
            name,
            version,
            topic,
            qos,
            link: None,
            sent: 0,
            retains: false,
            open: Vec::new(),
            done: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    fn packet(&self, packet_id: PacketId, number: u32, dup: bool) -> Packet {
        let delivery = match self.qos {
            QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id),
            _ => Delivery::AtLeastOnce(packet_id),
        };
        Packet::Publish(Publish {
            dup,
            retain: self.retains,
            ..publish(self.topic, &number.to_string(), delivery)
        })
    }

    pub(crate) fn publish(&mut self, sim: &mut Sim) {
        let Some(link) = self.link.filter(|_| self.open.len() < WINDOW) else {
            return;
        };
        self.sent += 1;
        // As soon as it may, so that a forgotten identifier would show.
        let is_free = |number: &u16| self.open.iter().all(|entry| entry.0 != id(*number));
        let packet_id = id((1..).find(is_free).unwrap());
        self.open.push((packet_id, self.sent, false));
        sim.send(link, self.packet(packet_id, self.sent, false));
    }

    pub(crate) fn connect(&mut self, sim: &mut Sim) {
        let (link, _) = sim.connect(lasting(self.version, self.name));
        self.link = Some(link);
        for (packet_id, number, released) in self.open.clone() {
            let packet = match released {
                true => Packet::PubRel(Ack::success(packet_id)),
                false => self.packet(packet_id, number, true),
            };
            sim.send(link, packet);
        }
    }

    pub(crate) fn read(&mut self, sim: &mut Sim) {
        let Some(link) = self.link else { return };
        match sim.next(link) {
            Some(Packet::PubAck(ack) | Packet::PubRec(ack)) if ack.reason.is_failure() => {
                let ended = self.end(ack.packet_id);
                self.refused.extend(ended);
            }
            Some(Packet::PubAck(ack) | Packet::PubComp(ack)) => {
                let ended = self.end(ack.packet_id);
                self.done.extend(ended);
            }
            Some(Packet::PubRec(ack)) => {
                for entry in self
                    .open
                    .iter_mut()
                    .filter(|entry| entry.0 == ack.packet_id)
                {
                    entry.2 = true;
                }
                sim.send(link, Packet::PubRel(Ack::success(ack.packet_id)));
            }
            _ => {}
        }
    }

    fn end(&mut self, packet_id: PacketId) -> Option<u32> {
        let at = self.open.iter().position(|entry| entry.0 == packet_id)?;
        Some(self.open.remove(at).1)
    }
}

/// A subscriber that acknowledges as the specification says.
pub(crate) struct Subscriber {
    pub(crate) name: &'static str,
    version: Version,
    qos: QoS,
    pub(crate) link: Option<Client>,
    pub(crate) subscribed: bool,
    pub(crate) received: BTreeSet<PacketId>,
    pub(crate) got: BTreeMap<String, Vec<u32>>,
}

impl Subscriber {
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn new(name: &'static str, version: Version, qos: QoS) -> Subscriber {
        Subscriber {
            name,
            version,
            qos,
            link: None,
            subscribed: false,
            received: BTreeSet::new(),
            got: BTreeMap::new(),
        }
    }

    /// Connects to a session that is on disk, and puts a subscription there.
    pub(crate) fn begin(&mut self, sim: &mut Sim) {
        let (link, _) = sim.connect(lasting(self.version, self.name));
        sim.send(link, subscribe("#", SubscribeOptions::at(self.qos)));
        sim.commit();
        assert!(matches!(sim.next(link), Some(Packet::SubAck(_))));
        self.subscribed = true;
        self.link = Some(link);
    }

    pub(crate) fn connect(&mut self, sim: &mut Sim) {
        let (link, _) = sim.connect(lasting(self.version, self.name));
        if !self.subscribed {
            sim.subscribe(link, "#", SubscribeOptions::at(self.qos));
            self.subscribed = true;
        }
        self.link = Some(link);
    }

    pub(crate) fn read(&mut self, sim: &mut Sim) {
        let Some(link) = self.link else { return };
        match sim.next(link) {
            Some(Packet::Publish(publish)) => {
                let answer = match publish.delivery {
                    Delivery::AtMostOnce => return,
                    Delivery::AtLeastOnce(id) => Packet::PubAck(Ack::success(id)),
                    Delivery::ExactlyOnce(id) => Packet::PubRec(Ack::success(id)),
                };
                let is_new = match publish.delivery {
                    Delivery::ExactlyOnce(id) => self.received.insert(id),
                    _ => true,
                };
                if is_new {
                    self.take(&publish);
                }
                sim.send(link, answer);
            }
            Some(Packet::PubRel(ack)) => {
                self.received.remove(&ack.packet_id);
                sim.send(link, Packet::PubComp(Ack::success(ack.packet_id)));
            }
            _ => {}
        }
    }

    fn take(&mut self, publish: &Publish) {
        let topic = publish
            .topic
            .as_ref()
            .map(|topic| topic.as_str().to_owned());
        let number = String::from_utf8_lossy(&publish.payload).parse().unwrap();
        self.got
            .entry(topic.unwrap_or_default())
            .or_default()
            .push(number);
    }
}

struct World {
    sim: Sim,
    dice: Dice,
    publishers: Vec<Publisher>,
    subscriber: Subscriber,
    /// Topic and number of what the keeper refused at least once.
    refused: BTreeSet<(String, u32)>,
}

impl World {
    fn new(seed: u64) -> World {
        let wants = Wants(TopicFilter::parse("kept/#").unwrap());
        let version = match seed.is_multiple_of(2) {
            true => Version::V3,
            false => Version::V5,
        };
        let mut world = World {
            sim: Sim::with(
                Limits {
                    in_flight: 4,
                    ..Limits::default()
                },
                vec![crate::config::AccessRule::everything()],
                Some(Arc::new(wants)),
            ),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            publishers: vec![
                Publisher::new("a", Version::V3, "free/a", QoS::AtLeastOnce),
                Publisher::new("b", Version::V5, "free/b", QoS::ExactlyOnce),
                Publisher::new("c", Version::V3, "kept/c", QoS::ExactlyOnce),
                Publisher::new("d", Version::V5, "kept/d", QoS::ExactlyOnce),
                Publisher::new("e", Version::V5, "kept/e", QoS::AtLeastOnce),
            ],
            subscriber: Subscriber::new("subscriber", version, QoS::ExactlyOnce),
            refused: BTreeSet::new(),
        };
        world.subscriber.connect(&mut world.sim);
        world
    }

    /// Whoever the broker sent away knows it.
    fn notice_closed(&mut self) {
        let links = self
            .publishers
            .iter_mut()
            .map(|publisher| &mut publisher.link);
        for link in links.chain([&mut self.subscriber.link]) {
            if link.is_some_and(|client| self.sim.is_closed(client)) {
                *link = None;
            }
        }
    }

    fn step(&mut self) {
        self.notice_closed();
        let which = self.dice.roll(self.publishers.len() as u64) as usize;
        match self.dice.roll(10) {
            0..=2 => self.publishers[which].publish(&mut self.sim),
            3 | 4 => self.publishers[which].read(&mut self.sim),
            5..=7 => self.subscriber.read(&mut self.sim),
            8 if !self.sim.kept.is_empty() => self.answer_keeper(),
            _ => self.come_or_go(which),
        }
    }

    fn answer_keeper(&mut self) {
        let refuses = self.dice.one_in(5);
        let answer = if refuses {
            Kept::Refused
        } else {
            Kept::Committed
        };
        let publication = self.sim.answer_keeper(answer);
        if refuses {
            let message = &publication.message;
            let number = String::from_utf8_lossy(&message.payload).parse().unwrap();
            self.refused
                .insert((message.topic.as_str().to_owned(), number));
        }
    }

    fn come_or_go(&mut self, which: usize) {
        let publisher = &mut self.publishers[which];
        match publisher.link {
            None => publisher.connect(&mut self.sim),
            Some(link) if self.dice.one_in(8) => {
                self.sim.cut(link);
                publisher.link = None;
            }
            Some(_) => {}
        }
        match self.subscriber.link {
            None => self.subscriber.connect(&mut self.sim),
            Some(link) if self.dice.one_in(16) => {
                self.sim.cut(link);
                self.subscriber.link = None;
            }
            Some(_) => {}
        }
    }

    /// Nothing fails any more: everything must come to its end.
    fn settle(&mut self) {
        for _ in 0..STEPS {
            self.notice_closed();
            for publisher in &mut self.publishers {
                if publisher.link.is_none() {
                    publisher.connect(&mut self.sim);
                }
                publisher.read(&mut self.sim);
            }
            if self.subscriber.link.is_none() {
                self.subscriber.connect(&mut self.sim);
            }
            self.subscriber.read(&mut self.sim);
            if !self.sim.kept.is_empty() {
                self.sim.answer_keeper(Kept::Committed);
            }
        }
    }

    fn check(&self, seed: u64) {
        for publisher in &self.publishers {
            let name = publisher.name;
            assert!(
                publisher.open.is_empty(),
                "seed {seed}: {name} waits for {:?}",
                publisher.open
            );
            let got = self
                .subscriber
                .got
                .get(publisher.topic)
                .cloned()
                .unwrap_or_default();
            let mut firsts = Vec::new();
            for number in &got {
                if !firsts.contains(number) {
                    firsts.push(*number);
                }
            }
            // One that was refused and comes again takes its place anew.
            let topic = publisher.topic.to_owned();
            let in_order = firsts
                .iter()
                .filter(|number| !self.refused.contains(&(topic.clone(), **number)));
            assert!(
                in_order.is_sorted(),
                "seed {seed}: {name}'s messages out of order: {got:?}"
            );
            for number in &publisher.done {
                assert!(
                    firsts.contains(number),
                    "seed {seed}: {name}'s {number} was acknowledged and lost"
                );
            }
            if publisher.qos == QoS::ExactlyOnce {
                assert_eq!(firsts, got, "seed {seed}: {name}'s messages came twice");
                let refused = firsts
                    .iter()
                    .find(|number| publisher.refused.contains(number));
                assert_eq!(
                    refused, None,
                    "seed {seed}: {name}'s refused message was delivered"
                );
            }
        }
    }
}

#[test]
fn whatever_fails_qos_1_and_2_keep_their_promises() {
    let mut delivered = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        world.check(seed);
        delivered += world.subscriber.got.values().map(Vec::len).sum::<usize>();
    }
    assert!(
        delivered as u64 > SEEDS * 20,
        "the simulation did something: {delivered}"
    );
}
