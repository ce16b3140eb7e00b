//! A publisher and a subscriber that own no network, for tests that make their own failures. Tests
//! only.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    broker::sim::{Client, Sim, id, lasting, publish, subscribe},
    packet::{Ack, Delivery, Packet, PacketId, Publish, QoS, SubscribeOptions, Version},
};

/// Messages that a publisher leaves unacknowledged.
const WINDOW: usize = 3;

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
