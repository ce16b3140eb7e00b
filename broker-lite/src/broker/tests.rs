//! What clients may rely on, told as exchanges of packets with the core.

use std::time::Duration;

use crate::{
    broker::sim::{
        Client, Sim, allow, goodbye, hello, lasting, once, peer, puback, pubcomp, publish, pubrec,
        pubrel, qos1, qos2, retained, rules, subscribe, will,
    },
    config::Limits,
    keeper::Kept,
    message::Message,
    observe::audit::Refusal,
    packet::{
        Ack, Authentication, Connect, Credential, Delivery, Packet, Publish, QoS, ReasonCode,
        RetainHandling, SubscribeOptions, SubscriptionId, Text, TopicAlias, Unsubscribe,
        UserProperties, Version,
    },
    topic::{SubscriptionFilter, TopicFilter, TopicName},
};

use Version::{V3, V5};

fn at(qos: u8) -> SubscribeOptions {
    SubscribeOptions::at(QoS::from_u8(qos).unwrap())
}

/// A CONNECT with user name and password.
fn named(user: &str, password: &str, id: &str) -> Connect {
    Connect {
        user_name: Some(Text::parse(user).unwrap()),
        password: Some(Credential(password.to_owned().into())),
        ..hello(V5, id)
    }
}

/// The reason of a refusal or disconnection, whichever came.
fn last_reason(sim: &mut Sim, client: Client) -> Option<ReasonCode> {
    sim.take(client)
        .into_iter()
        .rev()
        .find_map(|packet| match packet {
            Packet::ConnAck(ack) => Some(ack.reason),
            Packet::Disconnect(disconnect) => Some(disconnect.reason),
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => Some(ack.reason),
            _ => None,
        })
}

mod sessions;

mod quality_of_service;

mod keeping;

mod subscriptions;

mod retention;

mod wills;

mod access;

mod logins;

mod proofs;

mod limits;

mod limits_of_memory;

mod limits_of_rate;

mod conformance;

mod within_the_process;

mod observing;

#[test]
fn a_refused_pubrec_frees_the_window() {
    let mut sim = Sim::new();
    let mut connect = hello(V5, "sub");
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let (client, _) = sim.connect(connect);
    sim.subscribe(client, "t", at(2));
    let publisher = sim.client(V5, "pub");
    sim.send(publisher, qos2("t", "1", 1));
    sim.send(publisher, qos2("t", "2", 2));
    assert_eq!(sim.payloads(client), ["t=1"]);
    let refusal = Ack::new(crate::broker::sim::id(1), ReasonCode::QuotaExceeded);
    sim.send(client, Packet::PubRec(refusal));
    assert_eq!(sim.payloads(client), ["t=2"]);
}
