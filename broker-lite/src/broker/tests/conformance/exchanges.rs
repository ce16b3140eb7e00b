//! What MQTT and we promise: the exchanges of QoS 1 and 2, from both ends (4.3).

use super::*;
use crate::{
    journal::Journal,
    memory::Meter,
    outbox::Outbox,
    publication::{Outgoing, Publication},
};

fn outgoing(qos: QoS, meter: &Meter) -> Outgoing {
    let message = Message::new(topic("t"), "x").with_qos(qos);
    let publication = Publication::new(message, crate::broker::sim::start(), 0, meter);
    Outgoing {
        publication: std::sync::Arc::new(publication),
        qos,
        retain: false,
        subscription_ids: Vec::new(),
        shared: None,
        record: None,
    }
}

/// 3.1.1: [MQTT-2.3.1-2] [MQTT-2.3.1-4]
/// 5.0: [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]
#[test]
fn identifiers_run_through_all_that_are_free_and_never_through_zero() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let meter = Meter::default();
        let (mut outbox, mut journal) = (Outbox::new(meter.charge(0)), Journal::off());
        let held = [(); 3].map(|()| outbox.start(outgoing(qos, &meter), &mut journal));
        assert_eq!(held.map(|id| id.value()), [1, 2, 3]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2 * 65_535 {
            let fresh = outbox.start(outgoing(qos, &meter), &mut journal);
            assert!(!held.contains(&fresh), "{fresh}");
            assert!(outbox.complete(fresh, |_| true, &mut journal));
            seen.insert(fresh);
        }
        assert_eq!(seen.len(), 65_535 - held.len());
    }
}

/// 3.1.1: [MQTT-4.3.2-1]
/// 5.0: [MQTT-4.3.2-2] [MQTT-4.3.2-3]
#[test]
fn a_qos_1_message_is_unacknowledged_until_its_puback() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        sim.subscribe(subscriber, "t", at(1));
        let publisher = sim.client(version, "pub");
        sim.send(publisher, qos1("t", "x", 1));
        let first = sim.publishes(subscriber).remove(0);
        assert_eq!(
            (first.dup, first.delivery),
            (false, Delivery::AtLeastOnce(id(1)))
        );
        // Neither the answers of the other exchange nor another identifier end it.
        for other in [pubrec(1), pubcomp(1), puback(2)] {
            sim.send(subscriber, other);
        }
        sim.cut(subscriber);
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        let again = sim.publishes(subscriber).remove(0);
        assert_eq!((again.dup, again.delivery), (true, first.delivery));
        sim.send(subscriber, puback(1));
        sim.cut(subscriber);
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        assert_eq!(sim.take(subscriber), []);
    }
}

/// 3.1.1: [MQTT-4.3.2-2]
/// 5.0: [MQTT-4.3.2-4] [MQTT-4.3.2-5]
#[test]
fn after_puback_the_same_identifier_is_a_new_message_even_with_dup() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (subscriber, publisher) = pair(&mut sim, version, "t", 0);
        for dup in [false, false, true] {
            let message = Publish {
                dup,
                ..publish("t", "x", Delivery::AtLeastOnce(id(7)))
            };
            sim.send(publisher, Packet::Publish(message));
            assert_eq!(sim.take(publisher), [puback(7)]);
        }
        assert_eq!(sim.publishes(subscriber).len(), 3);
    }
}

/// 3.1.1: [MQTT-4.3.3-1]
/// 5.0: [MQTT-4.3.3-2] [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.3.3-6]
#[test]
fn a_qos_2_message_goes_through_its_four_steps_once() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        sim.subscribe(subscriber, "t", at(2));
        let publisher = sim.client(version, "pub");
        sim.send(publisher, qos2("t", "x", 1));
        let first = sim.publishes(subscriber).remove(0);
        assert_eq!(
            (first.dup, first.delivery),
            (false, Delivery::ExactlyOnce(id(1)))
        );
        // Until PUBREC the PUBLISH is repeated by a new connection, whatever else is acknowledged.
        for other in [puback(1), pubcomp(1)] {
            sim.send(subscriber, other);
        }
        sim.cut(subscriber);
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        assert!(sim.publishes(subscriber).remove(0).dup);
        sim.send(subscriber, pubrec(1));
        assert_eq!(sim.take(subscriber), [pubrel(1)]);
        // From here on PUBREL is, also after a second PUBREC.
        for _ in 0..2 {
            sim.cut(subscriber);
            let (subscriber, _) = sim.connect(lasting(version, "sub"));
            assert_eq!(sim.take(subscriber), [pubrel(1)]);
            sim.send(subscriber, pubrec(1));
            assert_eq!(sim.take(subscriber), [pubrel(1)]);
        }
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        sim.send(subscriber, pubcomp(1));
        sim.cut(subscriber);
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        assert_eq!(sim.take(subscriber), [pubrel(1)][1..], "done");
    }
}

/// 3.1.1: [MQTT-4.3.3-2]
/// 5.0: [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12]
#[test]
fn a_repetition_before_pubrel_is_no_second_message_and_one_after_it_is() {
    for version in BOTH {
        let mut sim = Sim::new();
        let observer = sim.client(version, "sub");
        sim.subscribe(observer, "t", at(0));
        let (client, _) = sim.connect(lasting(version, "pub"));
        for _ in 0..3 {
            sim.send(client, qos2("t", "x", 7));
            assert_eq!(sim.take(client), [pubrec(7)]);
        }
        sim.lose(client);
        let (client, _) = sim.connect(lasting(version, "pub"));
        sim.send(client, qos2("t", "x", 7));
        assert_eq!(sim.take(client), [pubrec(7)]);
        assert_eq!(sim.payloads(observer), ["t=x"]);
        sim.send(client, pubrel(7));
        assert_eq!(sim.take(client), [pubcomp(7)]);
        sim.send(client, qos2("t", "y", 7));
        assert_eq!(sim.payloads(observer), ["t=y"]);
    }
}

/// 5.0: [MQTT-4.3.3-9]
#[test]
fn after_a_refusing_pubrec_the_identifier_is_a_new_message() {
    let mut sim = Sim::with(Limits::default(), vec![allow(None, &["ok"], &["#"])], None);
    let (observer, client) = pair(&mut sim, V5, "#", 0);
    sim.send(client, qos2("forbidden", "x", 7));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::NotAuthorized)
    );
    sim.send(client, qos2("ok", "y", 7));
    assert_eq!(sim.take(client), [pubrec(7)]);
    assert_eq!(sim.payloads(observer), ["ok=y"]);
}

/// 5.0: [MQTT-4.4.0-2]
#[test]
fn a_refused_message_is_not_repeated() {
    for qos in 1..=2 {
        let mut sim = Sim::new();
        let (subscriber, _) = sim.connect(lasting(V5, "sub"));
        sim.subscribe(subscriber, "t", at(qos));
        let publisher = sim.client(V5, "pub");
        sim.send(publisher, qos2("t", "x", 1));
        sim.take(subscriber);
        let no = Ack::new(id(1), ReasonCode::UnspecifiedError);
        sim.send(
            subscriber,
            if qos == 1 {
                Packet::PubAck(no)
            } else {
                Packet::PubRec(no)
            },
        );
        assert_eq!(sim.take(subscriber), [], "no PUBREL either");
        sim.cut(subscriber);
        let (subscriber, _) = sim.connect(lasting(V5, "sub"));
        assert_eq!(sim.take(subscriber), []);
    }
}
