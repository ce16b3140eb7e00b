//! What MQTT and we promise: the packets that a client can take, and explanations (3.1.2.11).

use super::*;
use crate::packet::{self, Details};

/// Connects a client that takes packets of at most so many bytes.
fn taking(sim: &mut Sim, maximum: u32, id: &str) -> Client {
    let mut connect = hello(V5, id);
    connect.properties.maximum_packet_size = std::num::NonZeroU32::new(maximum);
    sim.connect(connect).0
}

fn details(packet: &Packet) -> Option<&Details> {
    match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) => ack.details.as_deref(),
        Packet::SubAck(ack) => ack.details.as_deref(),
        Packet::Disconnect(word) => word.details.as_deref(),
        Packet::ConnAck(ack) => ack.properties.details.as_deref(),
        _ => None,
    }
}

/// What a client that may do next to nothing is answered.
fn refusals(sim: &mut Sim, client: Client) -> Vec<Packet> {
    for packet in [
        qos1("forbidden", "x", 1),
        qos2("forbidden", "x", 2),
        subscribe("forbidden", at(0)),
        Packet::PingResp,
    ] {
        sim.send(client, packet);
    }
    sim.take(client)
}

fn strict() -> Sim {
    Sim::with(Limits::default(), vec![allow(None, &["ok"], &["ok"])], None)
}

/// 5.0: [MQTT-3.1.2-24] [MQTT-3.2.2-19] [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.9.2-1]
/// 5.0: [MQTT-3.14.2-3]
#[test]
fn reason_strings_are_left_out_where_they_would_not_fit() {
    for (maximum, explained) in [(1_000, true), (20, false)] {
        let mut sim = strict();
        let client = taking(&mut sim, maximum, "c");
        let answers = refusals(&mut sim, client);
        assert_eq!(answers.len(), 4);
        for answer in &answers {
            let shown = details(answer).and_then(|details| details.reason_string.as_ref());
            assert_eq!(shown.is_some(), explained, "{answer:?}");
            assert!(packet::encoded_len(answer, V5).unwrap() <= maximum as usize);
        }
        let mut connect = hello(V5, &"x".repeat(300));
        connect.properties.maximum_packet_size = std::num::NonZeroU32::new(maximum);
        let refused = refusal(&mut sim, connect).unwrap();
        assert_eq!(refused.properties.details.is_some(), explained);
    }
}

/// 5.0: [MQTT-3.1.2-29]
#[test]
fn without_problem_information_only_connack_and_disconnect_explain_themselves() {
    let mut sim = strict();
    let mut connect = hello(V5, "c");
    connect.properties.request_problem_information = Some(false);
    let (client, _) = sim.connect(connect);
    for answer in refusals(&mut sim, client) {
        let may = matches!(answer, Packet::Disconnect(_));
        assert!(may || details(&answer).is_none(), "{answer:?}");
    }
}

/// 5.0: [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn a_message_that_is_too_large_for_one_client_is_delivered_to_the_others() {
    for qos in 0..=2 {
        let mut sim = Sim::new();
        let small = taking(&mut sim, 50, "small");
        let large = sim.client(V5, "large");
        for client in [small, large] {
            sim.subscribe(client, "t", at(qos));
        }
        let publisher = sim.client(V5, "pub");
        let packets = |payload: &str, n| match qos {
            0 => once("t", payload),
            1 => qos1("t", payload, n),
            _ => qos2("t", payload, n),
        };
        sim.send(publisher, packets(&"x".repeat(60), 1));
        sim.send(publisher, packets("y", 2));
        assert_eq!(sim.payloads(small), ["t=y"], "QoS {qos}");
        assert_eq!(sim.publishes(large).len(), 2, "QoS {qos}");
        assert_eq!(
            sim.core.status(sim.now).counters.refused["packet-too-large"],
            1
        );
    }
}

/// 5.0: [MQTT-3.1.2-24]
#[test]
fn a_packet_of_exactly_the_clients_maximum_is_sent() {
    let payload = "x".repeat(100);
    let len = packet::encoded_len(&once("t", &payload), V5).unwrap() as u32;
    for (maximum, count) in [(len, 1), (len - 1, 0)] {
        let mut sim = Sim::new();
        let subscriber = taking(&mut sim, maximum, "sub");
        sim.subscribe(subscriber, "t", at(0));
        let publisher = sim.client(V5, "pub");
        sim.send(publisher, once("t", &payload));
        assert_eq!(sim.publishes(subscriber).len(), count);
    }
}

/// 5.0: [MQTT-3.2.2-15]
#[test]
fn a_packet_above_our_maximum_ends_the_connection() {
    let mut sim = Sim::limited(Limits {
        packet_size: settings::Size::from_bytes(100),
        ..Limits::default()
    });
    let client = sim.try_connect(hello(V5, "c"));
    match &sim.take(client)[..] {
        [Packet::ConnAck(ack)] => {
            let maximum = ack.properties.maximum_packet_size.map(|n| n.get());
            assert_eq!(maximum, Some(100));
        }
        other => panic!("{other:?}"),
    }
    let message = |size: usize| {
        let mut bytes = bytes::BytesMut::new();
        let packet = once("t", &"x".repeat(size - 6));
        packet::encode(&packet, V5, &mut bytes).unwrap();
        assert_eq!(bytes.len(), size);
        bytes
    };
    sim.send_bytes(client, &message(100));
    assert!(!sim.is_closed(client));
    sim.send_bytes(client, &message(101));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::PacketTooLarge)
    );
    assert!(sim.is_closed(client));
}

/// 5.0: [MQTT-3.1.2-24] [MQTT-3.14.0-1]
#[test]
fn a_client_that_takes_no_connack_of_ours_is_closed_without_a_word() {
    let mut sim = Sim::new();
    let mut connect = lasting(V5, "c");
    connect.properties.maximum_packet_size = std::num::NonZeroU32::new(10);
    let client = sim.try_connect(connect);
    assert!(sim.is_closed(client));
    assert_eq!(sim.take(client), []);
    assert_eq!(sim.refusals, [Refusal::PacketTooLarge]);
}

/// 5.0: [MQTT-4.12.0-6]
#[test]
fn connack_says_what_we_take() {
    let mut sim = Sim::new();
    let client = sim.try_connect(hello(V5, "c"));
    match &sim.take(client)[..] {
        [Packet::ConnAck(ack)] => {
            let told = &ack.properties;
            assert_eq!(told.receive_maximum.map(|n| n.get()), Some(32));
            assert_eq!(told.topic_alias_maximum, Some(16));
            assert_eq!((told.maximum_qos, told.retain_available), (None, None));
            assert_eq!(told.authentication, None);
        }
        other => panic!("{other:?}"),
    }
}
