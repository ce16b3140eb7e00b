//! A client that does what the specification asks of it, over a line that loses what is on it when
//! it breaks. Tests only.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU16,
};

use super::model::{Model, Sent};
use crate::{
    broker::sim::{Client, Sim, hello, id, lasting, publish, will},
    packet::{
        Ack, Connect, Delivery, Packet, PacketId, Publish, QoS, Subscribe, SubscribeOptions,
        SubscribeRequest, SubscriptionId, TopicAlias, UserProperties, Version,
    },
    topic::{SubscriptionFilter, TopicName},
};

/// Messages that a publisher leaves unacknowledged.
const WINDOW: usize = 3;

/// A QoS 1 or 2 message that is on its way to the broker.
#[derive(Debug, Clone)]
pub(super) struct Open {
    packet_id: PacketId,
    message: Sent,
    /// PUBREC came.
    released: bool,
}

/// One client, through all of its connections.
pub(super) struct Party {
    pub(super) name: &'static str,
    version: Version,
    /// Seconds that its session lasts; `None`: as long as the broker lets it.
    expiry_s: Option<u32>,
    receive_maximum: Option<u16>,
    /// What it publishes to, and how.
    pub(super) source: Option<(&'static str, QoS)>,
    /// Seconds that its messages live.
    pub(super) message_expiry_s: Option<u32>,
    filters: Vec<(&'static str, SubscribeOptions)>,
    pub(super) link: Option<Client>,
    /// On its way to the broker.
    line: VecDeque<Packet>,
    sent: u32,
    pub(super) open: Vec<Open>,
    /// QoS 2 identifiers between PUBLISH and PUBREL.
    halfway: BTreeSet<PacketId>,
    /// What came over this connection and is not acknowledged.
    owed: BTreeSet<PacketId>,
    /// The topics that the broker has set up aliases for on this connection.
    aliases: BTreeMap<TopicAlias, TopicName>,
}

impl Party {
    pub(super) fn new(name: &'static str, version: Version) -> Party {
        Party {
            name,
            version,
            expiry_s: None,
            receive_maximum: None,
            source: None,
            message_expiry_s: None,
            filters: Vec::new(),
            link: None,
            line: VecDeque::new(),
            sent: 0,
            open: Vec::new(),
            halfway: BTreeSet::new(),
            owed: BTreeSet::new(),
            aliases: BTreeMap::new(),
        }
    }

    pub(super) fn publishing(self, topic: &'static str, qos: QoS) -> Party {
        Party {
            source: Some((topic, qos)),
            ..self
        }
    }

    pub(super) fn taking(mut self, filter: &'static str, options: SubscribeOptions) -> Party {
        self.filters.push((filter, options));
        self
    }

    pub(super) fn expiring(self, seconds: u32) -> Party {
        Party {
            expiry_s: Some(seconds),
            ..self
        }
    }

    pub(super) fn at_most(self, receive_maximum: u16) -> Party {
        Party {
            receive_maximum: Some(receive_maximum),
            ..self
        }
    }

    /// Whether its session outlives whatever happens here.
    pub(super) fn lasts(&self) -> bool {
        self.expiry_s.is_none()
    }

    pub(super) fn expiry_s(&self) -> Option<u32> {
        self.expiry_s
    }

    fn connect_packet(&self) -> Connect {
        let mut connect = match self.expiry_s {
            None => lasting(self.version, self.name),
            Some(0) => hello(self.version, self.name),
            Some(_) => Connect {
                clean_start: false,
                ..hello(self.version, self.name)
            },
        };
        if self.version == Version::V5 {
            connect.properties.session_expiry_s = Some(self.expiry_s.unwrap_or(100_000));
            connect.properties.receive_maximum = self.receive_maximum.and_then(NonZeroU16::new);
            connect.properties.topic_alias_maximum = Some(2);
        }
        connect
    }

    /// Connects, and sends again what was not acknowledged; says whether the session was present.
    pub(super) fn connect(&mut self, sim: &mut Sim, announced: Option<(u32, u32)>) -> bool {
        let mut connect = self.connect_packet();
        connect.will = announced.map(|(number, delay_s)| crate::packet::Will {
            payload: number.to_string().into(),
            qos: QoS::ExactlyOnce,
            ..will("will/m", Some(delay_s))
        });
        self.hang_up();
        let (link, present) = sim.connect(connect);
        self.link = Some(link);
        if !present {
            self.halfway.clear();
            for (number, (filter, options)) in (1..).zip(self.filters.clone()) {
                self.line.push_back(self.subscribe(number, filter, options));
            }
        }
        for open in &self.open {
            self.line.push_back(match open.released {
                true => Packet::PubRel(Ack::success(open.packet_id)),
                false => packet(open, true),
            });
        }
        present
    }

    fn subscribe(&self, number: u32, filter: &str, options: SubscribeOptions) -> Packet {
        let identifier = SubscriptionId::new(number).filter(|_| self.version == Version::V5);
        Packet::Subscribe(Subscribe {
            packet_id: id(900),
            subscription_id: identifier,
            user_properties: UserProperties::default(),
            requests: vec![SubscribeRequest {
                filter: SubscriptionFilter::parse(filter).expect("a filter"),
                options,
            }],
        })
    }

    /// The connection is gone, and what was on the line with it.
    pub(super) fn hang_up(&mut self) {
        self.link = None;
        self.line.clear();
        self.owed.clear();
        self.aliases.clear();
    }

    /// Puts the next message on the line.
    pub(super) fn publish(&mut self, model: &mut Model, retain: bool, sim: &Sim) {
        let Some((topic, qos)) = self.source else {
            return;
        };
        if self.link.is_none() || self.open.len() >= WINDOW || self.line.len() > 8 {
            return;
        }
        self.sent += 1;
        let message = Sent {
            topic,
            number: self.sent,
            qos,
            retain,
            expires_at: self
                .message_expiry_s
                .map(|s| sim.now + std::time::Duration::from_secs(s.into())),
            expiry_s: self.message_expiry_s,
        };
        model.sent(&message);
        // The lowest that is free, so that a forgotten identifier would show.
        let is_free = |number: &u16| self.open.iter().all(|open| open.packet_id != id(*number));
        let open = Open {
            packet_id: id((1..).find(is_free).expect("few are open")),
            message,
            released: false,
        };
        self.line.push_back(packet(&open, false));
        if qos != QoS::AtMostOnce {
            self.open.push(open);
        }
    }

    /// The broker gets the oldest packet on the line, if it reads; says whether it did.
    pub(super) fn carry(&mut self, sim: &mut Sim) -> bool {
        let Some(link) = self.link else { return false };
        if !sim.core.accepts(link.0, sim.now) {
            return false;
        }
        let Some(packet) = self.line.pop_front() else {
            return false;
        };
        sim.send(link, packet);
        true
    }

    /// Says goodbye, past what is on the line.
    pub(super) fn leave(&mut self, sim: &mut Sim) {
        if let Some(link) = self.link {
            sim.send(link, crate::broker::sim::goodbye());
        }
        self.hang_up();
    }

    /// Takes the next packet and answers it; says whether there was one.
    pub(super) fn read(&mut self, sim: &mut Sim, model: &mut Model) -> bool {
        let packet = self.link.and_then(|link| sim.next(link));
        let Some(packet) = packet else { return false };
        match packet {
            Packet::PubAck(ack) | Packet::PubRec(ack) if ack.reason.is_failure() => {
                if let Some(message) = self.end(ack.packet_id) {
                    model.refused(&message);
                }
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                if let Some(message) = self.end(ack.packet_id) {
                    model.acknowledged(&message);
                }
            }
            Packet::PubRec(ack) => {
                let open = self
                    .open
                    .iter_mut()
                    .find(|open| open.packet_id == ack.packet_id);
                if let Some(open) = open {
                    open.released = true;
                }
                self.line
                    .push_back(Packet::PubRel(Ack::success(ack.packet_id)));
            }
            Packet::PubRel(ack) => {
                self.halfway.remove(&ack.packet_id);
                self.owed.remove(&ack.packet_id);
                self.line
                    .push_back(Packet::PubComp(Ack::success(ack.packet_id)));
            }
            Packet::Publish(publish) => self.take(&publish, model),
            _ => {}
        }
        true
    }

    fn take(&mut self, publish: &Publish, model: &mut Model) {
        let is_new = match publish.delivery {
            Delivery::AtMostOnce => true,
            Delivery::AtLeastOnce(id) => {
                self.line.push_back(Packet::PubAck(Ack::success(id)));
                true
            }
            Delivery::ExactlyOnce(id) => {
                self.owed.insert(id);
                self.line.push_back(Packet::PubRec(Ack::success(id)));
                self.halfway.insert(id)
            }
        };
        let maximum = usize::from(self.receive_maximum.unwrap_or(u16::MAX));
        assert!(
            self.owed.len() <= maximum,
            "{} gets too many at once",
            self.name
        );
        let topic = self.resolve(publish);
        if is_new {
            model.received(self.name, topic.as_str(), publish);
        }
    }

    fn resolve(&mut self, publish: &Publish) -> TopicName {
        match (&publish.topic, publish.topic_alias) {
            (Some(topic), alias) => {
                self.aliases
                    .extend(alias.map(|alias| (alias, topic.clone())));
                topic.clone()
            }
            (None, Some(alias)) => self.aliases[&alias].clone(),
            (None, None) => panic!("a message without a topic"),
        }
    }

    fn end(&mut self, packet_id: PacketId) -> Option<Sent> {
        let at = self
            .open
            .iter()
            .position(|open| open.packet_id == packet_id)?;
        Some(self.open.remove(at).message)
    }
}

fn packet(open: &Open, dup: bool) -> Packet {
    let message = &open.message;
    let delivery = match message.qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(open.packet_id),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(open.packet_id),
    };
    Packet::Publish(Publish {
        dup,
        retain: message.retain,
        message_expiry_s: message.expiry_s,
        ..publish(message.topic, &message.number.to_string(), delivery)
    })
}
