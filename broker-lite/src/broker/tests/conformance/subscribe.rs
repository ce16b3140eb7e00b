//! What MQTT and we promise: SUBSCRIBE and UNSUBSCRIBE (3.8 to 3.11).

use super::*;
use crate::packet::{Subscribe, SubscribeRequest};

fn request(filter: &str, qos: u8) -> SubscribeRequest {
    SubscribeRequest {
        filter: SubscriptionFilter::parse(filter).unwrap(),
        options: at(qos),
    }
}

fn subscribe_to(requests: Vec<SubscribeRequest>, identifier: u32) -> Packet {
    Packet::Subscribe(Subscribe {
        packet_id: id(9),
        subscription_id: SubscriptionId::new(identifier),
        user_properties: UserProperties::default(),
        requests,
    })
}

fn unsubscribe(filters: &[&str]) -> Packet {
    let filters = filters
        .iter()
        .map(|text| SubscriptionFilter::parse(text).unwrap());
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(7),
        user_properties: UserProperties::default(),
        filters: filters.collect(),
    })
}

/// 3.1.1: [MQTT-3.8.3-3] [MQTT-3.10.3-2]
/// 5.0: [MQTT-3.8.3-2] [MQTT-3.10.3-2]
#[test]
fn a_request_without_a_filter_ends_the_connection() {
    for (version, bytes) in [
        (V3, "82 02 0001"),
        (V3, "a2 02 0001"),
        (V5, "82 03 0001 00"),
        (V5, "a2 03 0001 00"),
    ] {
        let told = (version == V5).then_some(ReasonCode::ProtocolError);
        assert_eq!(put(version, bytes), (true, told), "{bytes}");
    }
}

/// 3.1.1: [MQTT-3.8.3-4]
/// 5.0: [MQTT-3.8.3-5]
#[test]
fn reserved_bits_of_the_options_end_the_connection() {
    for options in 0..=u8::MAX {
        let (closed, _) = put(V3, &format!(r#"82 06 0001 0001 "t" {options:02x}"#));
        assert_eq!(closed, options > 2, "3.1.1 {options:02x}");
        let (closed, told) = put(V5, &format!(r#"82 07 0001 00 0001 "t" {options:02x}"#));
        let reserved = options & 0b1100_0000 != 0;
        let sound = !reserved && options & 0b11 != 3 && options >> 4 & 0b11 != 3;
        assert_eq!(closed, !sound, "5.0 {options:02x}");
        assert_eq!(
            told == Some(ReasonCode::MalformedPacket),
            reserved,
            "{options:02x}"
        );
    }
}

/// 3.1.1: [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
/// 5.0: [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
#[test]
fn one_suback_answers_each_filter_in_its_place() {
    for version in BOTH {
        let mut sim = Sim::with(
            Limits::default(),
            vec![allow(None, &["#"], &["ok/#"])],
            None,
        );
        let client = sim.client(version, "c");
        let filters = [("ok/a", 2), ("no", 1), ("ok/b", 0), ("ok/+", 1), ("#", 0)];
        let requests = filters.map(|(filter, qos)| request(filter, qos)).into();
        sim.send(client, subscribe_to(requests, 0));
        let failure = match version {
            V3 => ReasonCode::UnspecifiedError,
            V5 => ReasonCode::NotAuthorized,
        };
        match &sim.take(client)[..] {
            [Packet::SubAck(ack)] => {
                let expected = [
                    ReasonCode::GrantedQos2,
                    failure,
                    ReasonCode::Success,
                    ReasonCode::GrantedQos1,
                    failure,
                ];
                assert_eq!((ack.packet_id, &ack.reasons[..]), (id(9), &expected[..]));
            }
            other => panic!("{other:?}"),
        }
        sim.send(client, once("ok/b", "x"));
        assert_eq!(sim.payloads(client), ["ok/b=x"]);
    }
}

/// 3.1.1: [MQTT-3.8.4-3] [MQTT-3.8.4-6]
/// 5.0: [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.8.4-8]
#[test]
fn the_same_filter_again_replaces_the_subscription_and_interrupts_nothing() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        sim.subscribe(subscriber, "t", at(0));
        let publisher = sim.client(version, "pub");
        let message = Publish {
            retain: true,
            ..publish("t", "1", Delivery::AtLeastOnce(id(1)))
        };
        sim.send(publisher, Packet::Publish(message));
        let got = sim.publishes(subscriber);
        assert_eq!(
            (got.len(), got[0].qos(), got[0].retain),
            (1, QoS::AtMostOnce, false)
        );
        sim.subscribe(subscriber, "t", at(1));
        let got = sim.publishes(subscriber);
        assert_eq!(
            (got.len(), got[0].qos(), got[0].retain),
            (1, QoS::AtLeastOnce, true)
        );
        sim.send(publisher, qos1("t", "2", 2));
        let got = sim.publishes(subscriber);
        assert_eq!(
            (got.len(), got[0].qos()),
            (1, QoS::AtLeastOnce),
            "one subscription"
        );
        // What is queued when the subscription is replaced stays queued.
        sim.stalled.push(subscriber.0);
        let bulk = "x".repeat(40_000);
        for n in 3..=6 {
            sim.send(publisher, qos1("t", &bulk, n));
        }
        sim.send(subscriber, subscribe("t", at(0)));
        sim.stalled.clear();
        sim.flush(subscriber.0);
        let bulky = sim
            .publishes(subscriber)
            .into_iter()
            .filter(|p| p.payload.len() == 40_000);
        assert_eq!(bulky.count(), 4);
    }
}

/// 3.1.1: [MQTT-3.3.5-1]
/// 5.0: [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]
#[test]
fn overlapping_subscriptions_are_one_delivery_at_the_highest_qos() {
    for version in BOTH {
        let mut sim = Sim::new();
        let client = sim.client(version, "c");
        for (filter, qos, identifier) in [("t/#", 1, 7), ("t/+", 2, 0), ("t/x", 0, 9)] {
            let identifier = if version == V5 { identifier } else { 0 };
            sim.send(client, subscribe_to(vec![request(filter, qos)], identifier));
        }
        sim.take(client);
        let publisher = sim.client(version, "pub");
        sim.send(publisher, qos2("t/x", "x", 1));
        let got = sim.publishes(client);
        assert_eq!((got.len(), got[0].qos()), (1, QoS::ExactlyOnce));
        let mut ids: Vec<u32> = got[0]
            .subscription_ids
            .iter()
            .map(|id| id.value())
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, if version == V5 { vec![7, 9] } else { vec![] });
    }
}

/// 5.0: [MQTT-3.8.3-3]
#[test]
fn no_local_holds_for_retained_messages_wills_and_later_connections() {
    let no_local = SubscribeOptions {
        no_local: true,
        ..at(1)
    };
    let mut sim = Sim::new();
    let (client, _) = sim.connect(Connect {
        will: Some(will("t", None)),
        ..lasting(V5, "c")
    });
    sim.send(client, retained("t", "own"));
    sim.subscribe(client, "t", no_local);
    sim.send(client, qos1("t", "own", 1));
    assert_eq!(sim.payloads(client), Vec::<String>::new());
    sim.lose(client);
    let (client, present) = sim.connect(lasting(V5, "c"));
    assert!(present);
    sim.send(client, qos1("t", "own", 2));
    assert_eq!(sim.payloads(client), Vec::<String>::new(), "nor the will");
    let other = sim.client(V5, "other");
    sim.send(other, retained("t", "foreign"));
    sim.subscribe(client, "t", no_local);
    assert_eq!(sim.payloads(client), ["t=foreign", "t=foreign"]);
}

/// 5.0: [MQTT-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_ends_the_connection() {
    let told = Some(ReasonCode::ProtocolError);
    assert_eq!(
        put(V5, r#"82 10 0001 00 000a "$share/g/t" 05"#),
        (true, told)
    );
    assert!(!put(V5, r#"82 10 0001 00 000a "$share/g/t" 01"#).0);
}

/// 3.1.1: [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-5] [MQTT-3.10.4-6]
/// 5.0: [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]
/// 5.0: [MQTT-3.11.3-2]
#[test]
fn unsubscribe_ends_exactly_the_filters_it_names() {
    for version in BOTH {
        let mut sim = Sim::new();
        let client = sim.client(version, "c");
        for filter in ["a/+", "a/b", "A/b", "c", "$share/g/d"] {
            sim.subscribe(client, filter, at(0));
        }
        sim.send(
            client,
            unsubscribe(&["a/b", "nothing", "c", "a/#", "$share/g/d"]),
        );
        match &sim.take(client)[..] {
            [Packet::UnsubAck(ack)] => {
                let none = ReasonCode::NoSubscriptionExisted;
                let did = ReasonCode::Success;
                let expected = match version {
                    V3 => vec![],
                    V5 => vec![did, none, did, none, did],
                };
                assert_eq!((ack.packet_id, &ack.reasons), (id(7), &expected));
            }
            other => panic!("{other:?}"),
        }
        for name in ["a/b", "A/b", "c", "d"] {
            sim.send(client, once(name, "x"));
        }
        assert_eq!(
            sim.payloads(client),
            ["a/b=x", "A/b=x"],
            "by a/+ and by A/b"
        );
        sim.send(client, unsubscribe(&["nothing"]));
        assert_eq!(sim.take(client).len(), 1);
    }
}

/// 3.1.1: [MQTT-3.10.4-3]
/// 5.0: [MQTT-3.10.4-3]
#[test]
fn deliveries_that_were_begun_are_completed_after_unsubscribe() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        sim.subscribe(subscriber, "t", at(2));
        let publisher = sim.client(version, "pub");
        sim.send(publisher, qos1("t", "1", 1));
        sim.send(publisher, qos2("t", "2", 2));
        sim.take(subscriber);
        sim.send(subscriber, unsubscribe(&["t"]));
        sim.send(publisher, qos1("t", "3", 3));
        sim.cut(subscriber);
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        assert_eq!(sim.payloads(subscriber), ["t=1", "t=2"]);
        sim.send(subscriber, pubrec(2));
        assert_eq!(sim.take(subscriber), [pubrel(2)]);
    }
}

/// 3.1.1: [MQTT-3.12.4-1]
/// 5.0: [MQTT-3.12.4-1]
#[test]
fn pingreq_is_answered_by_pingresp() {
    for version in BOTH {
        let mut sim = Sim::new();
        let client = sim.client(version, "c");
        sim.send(client, Packet::PingReq);
        assert_eq!(sim.take(client), [Packet::PingResp]);
    }
}
