//! What MQTT and we promise: what travels with a message (3.3.2.3).

use super::*;
use crate::packet::{MessageProperties, PayloadFormat};
use std::sync::Arc;

fn everything() -> MessageProperties {
    let mut user_properties = UserProperties::default();
    for (name, value) in [("b", "1"), ("a", "2"), ("b", "1"), ("", "")] {
        user_properties.push(name, value).unwrap();
    }
    MessageProperties {
        payload_format: Some(PayloadFormat::Utf8),
        content_type: Some(text("text/plain; \u{feff}")),
        response_topic: Some(topic("answers/here")),
        correlation_data: Some(vec![0, 1, 0xff, 0].into()),
        user_properties,
    }
}

fn with(properties: MessageProperties, payload: &'static [u8], delivery: Delivery) -> Packet {
    Packet::Publish(Publish {
        properties: Some(Arc::new(properties)),
        payload: payload.into(),
        ..publish("t", "", delivery)
    })
}

/// 5.0: [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
/// 5.0: [MQTT-3.3.2-20]
#[test]
fn the_properties_of_a_message_reach_every_subscriber_unaltered() {
    let mut sim = Sim::new();
    let (subscriber, publisher) = pair(&mut sim, V5, "t", 1);
    let (absent, _) = sim.connect(lasting(V5, "absent"));
    sim.subscribe(absent, "t", at(1));
    sim.cut(absent);
    let old = sim.client(V3, "old");
    sim.subscribe(old, "t", at(0));
    let message = match with(everything(), b"text", Delivery::AtLeastOnce(id(1))) {
        Packet::Publish(message) => Publish {
            retain: true,
            ..message
        },
        other => panic!("{other:?}"),
    };
    sim.send(publisher, Packet::Publish(message));
    let (absent, _) = sim.connect(lasting(V5, "absent"));
    let late = sim.client(V5, "late");
    sim.subscribe(late, "t", at(1));
    for client in [subscriber, absent, late] {
        let got = sim.publishes(client);
        assert_eq!(got[0].properties.as_deref(), Some(&everything()));
    }
    let got = sim.publishes(old);
    assert_eq!((got.len(), got[0].properties.clone()), (1, None));
}

/// 5.0: [MQTT-3.3.2-14]
#[test]
fn a_response_topic_with_wildcards_ends_the_connection() {
    for answer_to in [r#"0003 "a/#""#, r#"0003 "+/b""#] {
        let bytes = format!(r#"30 0a 0001 "t" 06 08 {answer_to}"#);
        assert_eq!(put(V5, &bytes), (true, Some(ReasonCode::TopicNameInvalid)));
    }
}

#[test]
fn a_property_twice_or_in_the_wrong_packet_ends_the_connection() {
    for (bytes, reason) in [
        (r#"30 08 0001 "t" 04 0100 0100"#, ReasonCode::ProtocolError),
        (
            r#"30 0e 0001 "t" 0a 0200000001 0200000001"#,
            ReasonCode::ProtocolError,
        ),
        (r#"30 06 0001 "t" 02 0102"#, ReasonCode::ProtocolError),
        (r#"30 06 0001 "t" 02 2401"#, ReasonCode::MalformedPacket),
        (r#"30 06 0001 "t" 02 7f01"#, ReasonCode::MalformedPacket),
    ] {
        assert_eq!(put(V5, bytes), (true, Some(reason)), "{bytes}");
    }
}

#[test]
fn text_that_is_none_is_refused_where_it_is_asked_for() {
    let broken: &[u8] = &[b'a', 0xff];
    let text = || MessageProperties {
        payload_format: Some(PayloadFormat::Utf8),
        ..MessageProperties::default()
    };
    let bytes = || MessageProperties {
        payload_format: Some(PayloadFormat::Unspecified),
        ..MessageProperties::default()
    };
    for asked in [false, true] {
        let mut sim = Sim::new();
        let mut rules = rules(
            Limits::default(),
            vec![crate::config::AccessRule::everything()],
        );
        rules.protocol.validate_payload_format = asked;
        sim.core.replace_rules(rules, sim.now);
        let (observer, client) = pair(&mut sim, V5, "t", 0);
        for (n, packet) in [
            with(text(), b"fine", Delivery::AtLeastOnce(id(1))),
            with(bytes(), b"\xff", Delivery::AtLeastOnce(id(1))),
        ]
        .into_iter()
        .enumerate()
        {
            sim.send(client, packet);
            assert_eq!(
                last_reason(&mut sim, client),
                Some(ReasonCode::Success),
                "{n}"
            );
        }
        for delivery in [Delivery::AtLeastOnce(id(1)), Delivery::ExactlyOnce(id(2))] {
            sim.send(client, with(text(), b"a\xff", delivery));
            let said = match asked {
                true => ReasonCode::PayloadFormatInvalid,
                false => ReasonCode::Success,
            };
            assert_eq!(last_reason(&mut sim, client), Some(said));
        }
        sim.send(client, with(text(), b"a\xff", Delivery::AtMostOnce));
        assert_eq!(sim.publishes(observer).len(), if asked { 2 } else { 5 });
        let will = Will {
            payload: broken.into(),
            properties: Some(Arc::new(text())),
            ..will("t", None)
        };
        let client = sim.try_connect(Connect {
            will: Some(will),
            ..hello(V5, "c")
        });
        let refused = last_reason(&mut sim, client) == Some(ReasonCode::PayloadFormatInvalid);
        assert_eq!(refused, asked);
    }
}

fn living(life_s: u32, delivery: Delivery) -> Packet {
    Packet::Publish(Publish {
        message_expiry_s: Some(life_s),
        ..publish("t", &life_s.to_string(), delivery)
    })
}

/// 5.0: [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[test]
fn a_copy_that_waited_for_longer_than_it_lives_is_deleted() {
    let mut sim = Sim::new();
    let mut connect = lasting(V5, "sub");
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let (subscriber, _) = sim.connect(connect);
    sim.subscribe(subscriber, "t", at(1));
    let publisher = sim.client(V5, "pub");
    for (n, life_s) in [(1, 50), (2, 10), (3, 30)] {
        sim.send(publisher, living(life_s, Delivery::AtLeastOnce(id(n))));
    }
    let first = sim.publishes(subscriber);
    assert_eq!(
        (first.len(), first[0].message_expiry_s),
        (1, Some(50)),
        "at once"
    );
    sim.pass(Duration::from_secs(20));
    sim.send(subscriber, puback(1));
    let next = sim.publishes(subscriber);
    assert_eq!(
        (next.len(), next[0].message_expiry_s),
        (1, Some(10)),
        "after 20 s"
    );
}

/// 5.0: [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[test]
fn retained_messages_expire_too() {
    let mut sim = Sim::new();
    let publisher = sim.client(V5, "pub");
    let message = Publish {
        retain: true,
        message_expiry_s: Some(40),
        ..publish("t", "x", Delivery::AtMostOnce)
    };
    sim.send(publisher, Packet::Publish(message));
    for (wait_s, left) in [(10, Some(30)), (20, Some(10)), (11, None)] {
        sim.pass(Duration::from_secs(wait_s));
        let late = sim.client(V5, "late");
        sim.subscribe(late, "t", at(0));
        let got = sim.publishes(late);
        assert_eq!(got.first().and_then(|p| p.message_expiry_s), left);
        assert_eq!(got.len(), usize::from(left.is_some()));
    }
}

/// 5.0: [MQTT-3.3.2-5]
#[test]
fn a_message_that_the_keeper_released_too_late_is_delivered_to_nobody() {
    for (wait_s, count) in [(5, 1), (15, 0)] {
        let mut sim = Sim::keeping("t");
        let (subscriber, publisher) = pair(&mut sim, V5, "t", 2);
        sim.send(publisher, living(10, Delivery::ExactlyOnce(id(1))));
        sim.pass(Duration::from_secs(wait_s));
        sim.answer_keeper(Kept::Committed);
        assert_eq!(sim.publishes(subscriber).len(), count);
        assert_eq!(sim.take(publisher), [pubrec(1)]);
    }
}

/// 5.0: [MQTT-4.3.3-7] [MQTT-4.3.3-13]
#[test]
fn an_exchange_that_was_begun_is_completed_though_its_message_expired() {
    let mut sim = Sim::new();
    let (subscriber, _) = sim.connect(lasting(V5, "sub"));
    sim.subscribe(subscriber, "t", at(2));
    let publisher = sim.client(V5, "pub");
    sim.send(publisher, living(10, Delivery::ExactlyOnce(id(1))));
    assert_eq!(sim.publishes(subscriber).len(), 1);
    sim.cut(subscriber);
    sim.pass(Duration::from_secs(20));
    let (subscriber, _) = sim.connect(lasting(V5, "sub"));
    assert!(sim.publishes(subscriber)[0].dup);
    sim.send(subscriber, pubrec(1));
    assert_eq!(sim.take(subscriber), [pubrel(1)]);
    // The publisher's side, too.
    sim.send(publisher, pubrel(1));
    assert_eq!(sim.take(publisher), [pubrec(1), pubcomp(1)]);
}

/// 5.0: [MQTT-3.3.2-5]
#[test]
fn a_stored_message_that_never_left_expires_like_one_without_an_identifier() {
    let mut sim = Sim::storing(Limits::default());
    let subscriber = sim.try_connect(lasting(V5, "sub"));
    sim.commit();
    sim.send(subscriber, subscribe("t", at(2)));
    sim.commit();
    sim.take(subscriber);
    let publisher = sim.client(V5, "pub");
    sim.send(publisher, living(10, Delivery::ExactlyOnce(id(1))));
    // Its identifier is not on disk yet, so it cannot have left.
    sim.cut(subscriber);
    sim.commit();
    sim.pass(Duration::from_secs(20));
    let subscriber = sim.try_connect(lasting(V5, "sub"));
    sim.commit();
    assert_eq!(sim.publishes(subscriber).len(), 0);
}
