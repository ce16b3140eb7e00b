//! Any bytes as what several clients, the keeper, the disk and the clock do to one core; after
//! each step what always holds must hold. A core's; for fuzzers.
//!
//! Each step is one byte that says what happens, and the bytes that this takes. At the end all
//! clients leave, time passes, and nothing of them may be left.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use crate::broker::sim::{
    Client, Sim, Wants, goodbye, hello, id, peer, publish, rules, subscribe, will,
};
use crate::{
    broker::ConnectionId,
    config::{AccessRule, Limits},
    fuzzing::script::Script,
    keeper::Kept,
    packet::{
        self, Ack, Connect, Delivery, Expect, Packet, Publish, QoS, ReasonCode, RetainHandling,
        SubscribeOptions, TopicAlias, Unsubscribe, UserProperties, Version,
    },
    topic::{SubscriptionFilter, TopicFilter},
};

/// More steps find nothing that fewer do not.
const STEPS_MAX: u32 = 300;
const CLIENTS: usize = 6;
const NAMES: [&str; 4] = ["a", "b", "c", ""];
const TOPICS: [&str; 6] = ["t", "t/a", "t/b", "kept/x", "$SYS/x", "other"];
const FILTERS: [&str; 8] = [
    "#",
    "t/#",
    "t/+",
    "t/a",
    "+/+",
    "$share/g/t/#",
    "$share/g/#",
    "$share/h/t/a",
];
const REASONS: [ReasonCode; 3] = [
    ReasonCode::Success,
    ReasonCode::UnspecifiedError,
    ReasonCode::QuotaExceeded,
];

/// Plays what the bytes say.
pub(crate) fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut world = World {
        sim: begin(&mut script),
        clients: [None; CLIENTS],
    };
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        world.step(&mut script);
        world.sim.core.check_invariants();
    }
    world.end();
}

fn begin(script: &mut Script<'_>) -> Sim {
    let limits = Limits {
        connections: 5,
        sessions: 5,
        subscriptions: 4,
        in_flight: 3,
        queued_messages: 6,
        queued_bytes: settings::Size::from_bytes(1_500),
        retained_messages: 3,
        retained_bytes: settings::Size::from_bytes(600),
        topic_aliases: 2,
        topic_levels: 4,
        ..Limits::default()
    };
    let wants = || Arc::new(Wants(TopicFilter::parse("kept/#").expect("a filter")));
    match script.roll(3) {
        0 => Sim::limited(limits),
        1 => Sim::with(limits, vec![AccessRule::everything()], Some(wants())),
        _ => Sim::storing(limits),
    }
}

struct World {
    sim: Sim,
    clients: [Option<(ConnectionId, Option<Version>)>; CLIENTS],
}

impl World {
    fn step(&mut self, script: &mut Script<'_>) {
        for client in &mut self.clients {
            if client.is_some_and(|(connection, _)| self.sim.closed.contains(&connection)) {
                *client = None;
            }
        }
        match script.roll(24) {
            0..=2 => self.come(script),
            3 => self.go(script),
            4 => self.send_bytes(script),
            5..=7 => self.send(script, subscription),
            8 => self.send(script, unsubscription),
            9..=13 => self.send(script, message),
            14..=17 => self.send(script, acknowledgement),
            18 => self.send(script, leaving),
            19 => self.stall(script),
            20 => self.sim.pass(Duration::from_secs(script.roll(40).into())),
            21 => self.sim.commit(),
            22 => self.answer_keeper(script),
            _ => self.manage(script),
        }
    }

    /// A connection, with or without its CONNECT.
    fn come(&mut self, script: &mut Script<'_>) {
        let slot = usize::from(script.roll(CLIENTS as u8));
        if self.clients[slot].is_some() {
            return;
        }
        let connect = connect(script);
        let Ok(connection) = self.sim.open(peer()) else {
            return;
        };
        self.clients[slot] = Some((connection, None));
        if script.byte() > 8 {
            self.hand_over(slot, Packet::Connect(Box::new(connect)));
        }
    }

    fn go(&mut self, script: &mut Script<'_>) {
        let slot = usize::from(script.roll(CLIENTS as u8));
        if let Some((connection, _)) = self.clients[slot].take() {
            self.sim.cut(Client(connection));
        }
    }

    /// Packets as they come from a socket.
    fn send_bytes(&mut self, script: &mut Script<'_>) {
        let slot = usize::from(script.roll(CLIENTS as u8));
        let mut input = bytes::BytesMut::from(script.bytes());
        while let Some((connection, version)) = self.clients[slot] {
            let expect = match version {
                Some(version) => Expect::from_client(version, 1_000),
                None => Expect::connect(1_000),
            };
            match packet::decode(&mut input, expect) {
                Ok(Some(packet)) => {
                    if !self.hand_over(slot, packet) {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    let now = self.sim.now;
                    self.sim.core.handle_malformed(connection, &error, now);
                    self.sim.drain();
                    return;
                }
            }
        }
    }

    fn send(&mut self, script: &mut Script<'_>, packet: fn(&mut Script<'_>) -> Packet) {
        let slot = usize::from(script.roll(CLIENTS as u8));
        let packet = packet(script);
        self.hand_over(slot, packet);
    }

    /// As the connection's task does it: only what the core takes.
    fn hand_over(&mut self, slot: usize, packet: Packet) -> bool {
        let Some((connection, version)) = &mut self.clients[slot] else {
            return false;
        };
        let now = self.sim.now;
        if !self.sim.core.accepts(*connection, now) {
            return false;
        }
        let connection = *connection;
        match (&packet, &version) {
            (Packet::Connect(connect), None) => {
                *version = Some(connect.version);
                self.sim.speaks(connection, connect.version);
            }
            // Without a CONNECT nothing else is decoded.
            (_, None) => return false,
            _ => {}
        }
        self.sim.send(Client(connection), packet);
        true
    }

    /// The client takes nothing, or takes everything again.
    fn stall(&mut self, script: &mut Script<'_>) {
        let slot = usize::from(script.roll(CLIENTS as u8));
        let Some((connection, _)) = self.clients[slot] else {
            return;
        };
        if self.sim.stalled.contains(&connection) {
            self.sim.stalled.retain(|one| *one != connection);
            self.sim.flush(connection);
            self.sim.drain();
        } else {
            self.sim.stalled.push(connection);
        }
    }

    fn answer_keeper(&mut self, script: &mut Script<'_>) {
        let kept = match script.coin() {
            true => Kept::Committed,
            false => Kept::Refused,
        };
        if !self.sim.kept.is_empty() {
            self.sim.answer_keeper(kept);
        }
    }

    /// What the operator, the process and the disk do.
    fn manage(&mut self, script: &mut Script<'_>) {
        let now = self.sim.now;
        let limits = self.sim.core.limits().clone();
        match script.roll(6) {
            0 if self.sim.disk.is_some() => {
                self.sim.crash();
                self.clients = [None; CLIENTS];
            }
            1 if self.sim.disk.is_some() => self.sim.core.handle_store_failing(script.coin()),
            2 if self.sim.disk.is_some() => self.sim.core.handle_store_lost(),
            3 => {
                let mut rule = AccessRule::everything();
                if script.coin() {
                    rule = crate::broker::sim::allow(None, &["t/#"], &["t/#"]);
                }
                self.sim.core.replace_rules(rules(limits, vec![rule]), now);
            }
            4 => {
                let session = self.sim.core.open_local("local");
                let message = crate::message::Message::new(
                    crate::topic::TopicName::parse(script.choose(&TOPICS)).expect("a name"),
                    "local",
                );
                self.sim.core.publish_local(session, message, now);
                self.sim.core.close_local(session, now);
            }
            _ => {}
        }
        self.sim.drain();
    }

    /// Everybody leaves, everything is answered, and all sessions come to their end.
    fn end(&mut self) {
        self.sim.core.handle_store_failing(false);
        self.sim.stalled.clear();
        for (connection, _) in std::mem::take(&mut self.clients).into_iter().flatten() {
            self.sim.cut(Client(connection));
        }
        for _ in 0..3 {
            while !self.sim.kept.is_empty() {
                self.sim.answer_keeper(Kept::Committed);
            }
            self.sim.commit();
            let expiry = self.sim.core.limits().session_expiry.as_duration();
            self.sim.pass(expiry + Duration::from_secs(1));
        }
        self.sim.core.check_forgotten();
    }
}

fn connect(script: &mut Script<'_>) -> Connect {
    let version = version(script);
    let mut connect = hello(version, script.choose(&NAMES));
    connect.clean_start = script.coin();
    if script.coin() {
        let delay_s = (version == Version::V5).then(|| script.roll(20).into());
        connect.will = Some(crate::packet::Will {
            qos: qos(script),
            retain: script.coin(),
            ..will(script.choose(&TOPICS), delay_s)
        });
    }
    if version == Version::V5 {
        let properties = &mut connect.properties;
        properties.session_expiry_s = Some(script.choose(&[0, 10, 100, u32::MAX]));
        properties.receive_maximum = NonZeroU16::new(script.roll(4).into());
        properties.topic_alias_maximum = Some(script.roll(3).into());
        properties.request_problem_information = Some(script.coin());
        let size = script.choose(&[0, 20, 40, 1_000]);
        properties.maximum_packet_size = std::num::NonZeroU32::new(size);
    }
    connect
}

fn subscription(script: &mut Script<'_>) -> Packet {
    let filter = script.choose(&FILTERS);
    let options = SubscribeOptions {
        qos: qos(script),
        no_local: script.coin() && !filter.starts_with("$share"),
        retain_as_published: script.coin(),
        retain_handling: script.choose(&[
            RetainHandling::Send,
            RetainHandling::SendIfNew,
            RetainHandling::DoNotSend,
        ]),
    };
    subscribe(filter, options)
}

fn unsubscription(script: &mut Script<'_>) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(9),
        user_properties: UserProperties::default(),
        filters: vec![SubscriptionFilter::parse(script.choose(&FILTERS)).expect("a filter")],
    })
}

fn message(script: &mut Script<'_>) -> Packet {
    let delivery = match (qos(script), id(u16::from(script.roll(3)) + 1)) {
        (QoS::AtMostOnce, _) => Delivery::AtMostOnce,
        (QoS::AtLeastOnce, id) => Delivery::AtLeastOnce(id),
        (QoS::ExactlyOnce, id) => Delivery::ExactlyOnce(id),
    };
    let payload = "x".repeat(script.choose(&[0, 1, 30, 200]));
    let alias = script.choose(&[0, 0, 1, 2, 3]);
    let mut publish = Publish {
        dup: script.coin() && delivery != Delivery::AtMostOnce,
        retain: script.coin(),
        topic_alias: TopicAlias::new(alias),
        message_expiry_s: script.choose(&[None, Some(0), Some(5)]),
        ..publish(script.choose(&TOPICS), &payload, delivery)
    };
    if publish.topic_alias.is_some() && script.coin() {
        publish.topic = None;
    }
    Packet::Publish(publish)
}

fn acknowledgement(script: &mut Script<'_>) -> Packet {
    let kind = script.roll(4);
    let ack = Ack::new(id(u16::from(script.roll(8)) + 1), script.choose(&REASONS));
    match kind {
        0 => Packet::PubAck(ack),
        1 => Packet::PubRec(ack),
        2 => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    }
}

fn leaving(script: &mut Script<'_>) -> Packet {
    match script.roll(3) {
        0 => goodbye(),
        1 => Packet::Disconnect(packet::Disconnect {
            session_expiry_s: Some(script.choose(&[0, 10])),
            ..packet::Disconnect::new(ReasonCode::DisconnectWithWill)
        }),
        _ => Packet::PingReq,
    }
}

fn version(script: &mut Script<'_>) -> Version {
    match script.coin() {
        true => Version::V5,
        false => Version::V3,
    }
}

fn qos(script: &mut Script<'_>) -> QoS {
    script.choose(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}
