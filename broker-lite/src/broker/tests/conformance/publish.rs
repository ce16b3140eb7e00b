//! What MQTT and we promise: PUBLISH, its flags and its topic (3.3.1, 3.3.2.1).

use super::*;

/// 3.1.1: [MQTT-3.3.1-2] [MQTT-2.3.1-5] [MQTT-4.3.1-1]
/// 5.0: [MQTT-3.3.1-2] [MQTT-2.2.1-2] [MQTT-4.3.1-1]
#[test]
fn a_message_at_qos_0_has_neither_dup_nor_an_identifier() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (subscriber, publisher) = pair(&mut sim, version, "t", 0);
        for packet in [once("t", "x"), qos1("t", "x", 1), qos2("t", "x", 2)] {
            sim.send(publisher, packet);
            let got = &sim.publishes(subscriber)[0];
            assert_eq!((got.dup, got.delivery), (false, Delivery::AtMostOnce));
        }
        let none = if version == V5 { "00" } else { "" };
        let with_dup = format!(r#"38 0{} 0001 "t" {none}"#, 3 + usize::from(version == V5));
        let told = (version == V5).then_some(ReasonCode::MalformedPacket);
        assert_eq!(put(version, &with_dup), (true, told));
    }
}

/// 3.1.1: [MQTT-3.3.1-3]
/// 5.0: [MQTT-3.3.1-3]
#[test]
fn dup_is_not_passed_on() {
    for version in BOTH {
        for qos in 1..=2 {
            let mut sim = Sim::new();
            let (subscriber, publisher) = pair(&mut sim, version, "t", qos);
            let delivery = match qos {
                1 => Delivery::AtLeastOnce(id(1)),
                _ => Delivery::ExactlyOnce(id(1)),
            };
            let repeated = Publish {
                dup: true,
                ..publish("t", "x", delivery)
            };
            sim.send(publisher, Packet::Publish(repeated));
            assert!(!sim.publishes(subscriber)[0].dup);
        }
    }
}

/// 3.1.1: [MQTT-3.3.1-4]
/// 5.0: [MQTT-3.3.1-4]
#[test]
fn both_qos_bits_end_the_connection() {
    assert_eq!(put(V3, r#"36 05 0001 "t" 0001"#), (true, None));
    let malformed = (true, Some(ReasonCode::MalformedPacket));
    assert_eq!(put(V5, r#"36 06 0001 "t" 0001 00"#), malformed);
}

/// 3.1.1: [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-1]
/// 5.0: [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-1]
#[test]
fn a_topic_name_with_wildcards_or_without_characters_ends_the_connection() {
    for (topic, reason) in [
        (r#"0003 "a/#""#, ReasonCode::TopicNameInvalid),
        (r#"0003 "a/+""#, ReasonCode::TopicNameInvalid),
        (r#"0003 "a+b""#, ReasonCode::TopicNameInvalid),
        ("0003 23 622f", ReasonCode::TopicNameInvalid),
        ("0000", ReasonCode::ProtocolError),
    ] {
        let len = if topic == "0000" { 2 } else { 5 };
        let v3 = put(V3, &format!("30 {len:02x} {topic}"));
        assert_eq!(v3, (true, None), "{topic}");
        let v5 = put(V5, &format!("30 {:02x} {topic} 00", len + 1));
        assert_eq!(v5, (true, Some(reason)), "{topic}");
    }
}

/// 3.1.1: [MQTT-3.3.2-3] [MQTT-4.5.0-1]
/// 5.0: [MQTT-3.3.2-3] [MQTT-4.5.0-1]
#[test]
fn a_message_reaches_every_session_that_subscribes_to_it_and_no_other() {
    for version in BOTH {
        let mut sim = Sim::new();
        let filters = ["a/b", "a/+", "#", "a/c", "b/#", "a"];
        let mut clients = Vec::new();
        for filter in filters {
            let (client, _) = sim.connect(lasting(version, filter));
            sim.subscribe(client, filter, at(1));
            clients.push((client, filter));
        }
        for (client, _) in &clients[1..] {
            sim.cut(*client);
        }
        let publisher = sim.client(version, "pub");
        sim.send(publisher, qos1("a/b", "x", 1));
        assert_eq!(sim.payloads(clients[0].0), ["a/b=x"]);
        for (_, filter) in &clients[1..] {
            let (client, _) = sim.connect(lasting(version, filter));
            let matches = TopicFilter::parse(filter).unwrap().matches(&topic("a/b"));
            let expected = vec!["a/b=x".to_owned(); usize::from(matches)];
            assert_eq!(sim.payloads(client), expected, "{filter}");
        }
    }
}

/// 3.1.1: [MQTT-3.3.4-1] [MQTT-4.5.0-2]
/// 5.0: [MQTT-3.3.4-1]
#[test]
fn a_publish_is_answered_as_its_qos_asks() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (_, publisher) = pair(&mut sim, version, "t", 0);
        sim.send(publisher, once("t", "x"));
        assert_eq!(sim.take(publisher), []);
        sim.send(publisher, qos1("t", "x", 5));
        assert_eq!(sim.take(publisher), [puback(5)]);
        sim.send(publisher, qos2("t", "x", 6));
        assert_eq!(sim.take(publisher), [pubrec(6)]);
        sim.send(publisher, pubrel(6));
        assert_eq!(sim.take(publisher), [pubcomp(6)]);
    }
}

/// 3.1.1: [MQTT-3.3.5-2]
#[test]
fn a_3_1_1_client_that_may_not_publish_is_acknowledged_all_the_same() {
    let mut sim = Sim::with(Limits::default(), vec![allow(None, &[], &["#"])], None);
    let (observer, client) = pair(&mut sim, V3, "#", 0);
    for (packet, answer) in [
        (qos1("t", "x", 1), puback(1)),
        (qos2("t", "x", 2), pubrec(2)),
        (pubrel(2), pubcomp(2)),
    ] {
        sim.send(client, packet);
        assert_eq!(sim.take(client), [answer]);
    }
    assert_eq!(sim.payloads(observer), Vec::<String>::new());
}

#[test]
fn a_5_0_client_that_may_not_publish_is_told_so() {
    let mut sim = Sim::with(Limits::default(), vec![allow(None, &[], &["#"])], None);
    let client = sim.client(V5, "c");
    for packet in [qos1("t", "x", 1), qos2("t", "x", 2)] {
        sim.send(client, packet);
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::NotAuthorized)
        );
    }
    assert!(!sim.is_closed(client));
}

/// 5.0: [MQTT-3.3.4-6]
#[test]
fn a_subscription_identifier_from_a_client_ends_the_connection() {
    let told = Some(ReasonCode::ProtocolError);
    assert_eq!(put(V5, r#"30 06 0001 "t" 02 0b01"#), (true, told));
}
