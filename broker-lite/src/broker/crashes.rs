//! Crashes, with a disk that keeps what was committed and nothing else, told one by one. A core's
//! tests; `simulation` tries them at any instant.

use crate::{
    broker::sim::{
        Client, Sim, goodbye, hello, id, lasting, once, puback, pubcomp, publish, pubrec, pubrel,
        qos1, qos2, retained, subscribe,
    },
    config::Limits,
    packet::{Delivery, Packet, Publish, QoS, ReasonCode, SubscribeOptions, Version},
};

/// Makes a session that is on disk.
fn begin(sim: &mut Sim, version: Version, name: &str) -> Client {
    let client = sim.try_connect(lasting(version, name));
    assert!(
        sim.take(client).is_empty(),
        "CONNACK waits for the session's commit"
    );
    sim.commit();
    match sim.next(client) {
        Some(Packet::ConnAck(ack)) => assert_eq!(ack.reason, ReasonCode::Success),
        other => panic!("no CONNACK but {other:?}"),
    }
    client
}

/// Makes a stored session with a stored subscription.
fn subscribed(sim: &mut Sim, name: &str, qos: QoS) -> Client {
    let client = begin(sim, Version::V5, name);
    sim.send(client, subscribe("t/#", SubscribeOptions::at(qos)));
    sim.commit();
    assert!(matches!(sim.take(client)[..], [Packet::SubAck(_)]));
    client
}

#[test]
fn a_puback_waits_for_the_commit_of_what_a_lasting_session_is_to_get() {
    let mut sim = Sim::storing(Limits::default());
    let absent = subscribed(&mut sim, "absent", QoS::AtLeastOnce);
    sim.lose(absent);
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos1("t/x", "1", 1));
    assert!(sim.take(publisher).is_empty());
    sim.commit();
    assert!(matches!(sim.take(publisher)[..], [Packet::PubAck(_)]));
}

#[test]
fn nothing_waits_for_the_disk_that_nobody_is_to_get_after_a_crash() {
    let mut sim = Sim::storing(Limits::default());
    let subscriber = sim.client(Version::V5, "subscriber");
    sim.subscribe(subscriber, "t/#", SubscribeOptions::at(QoS::ExactlyOnce));
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos1("t/x", "1", 1));
    sim.send(publisher, qos2("t/x", "2", 2));
    assert_eq!(sim.payloads(subscriber), ["t/x=1", "t/x=2"]);
    assert_eq!(sim.take(publisher).len(), 2);
    assert!(!sim.disk.unwrap().pending.writes());
}

#[test]
fn a_message_that_was_delivered_before_its_commit_is_never_written() {
    let mut sim = Sim::storing(Limits::default());
    let subscriber = subscribed(&mut sim, "subscriber", QoS::AtLeastOnce);
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos1("t/x", "1", 1));
    assert_eq!(sim.payloads(subscriber), ["t/x=1"]);
    sim.send(subscriber, puback(1));
    assert!(!sim.disk.as_ref().unwrap().pending.writes());
    sim.commit();
    assert!(matches!(sim.take(publisher)[..], [Packet::PubAck(_)]));
}

#[test]
fn one_message_for_several_absent_sessions_is_stored_once() {
    let mut sim = Sim::storing(Limits::default());
    for name in ["one", "two", "three"] {
        let absent = subscribed(&mut sim, name, QoS::AtLeastOnce);
        sim.lose(absent);
    }
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos1("t/x", "1", 1));
    sim.commit();
    assert_eq!(sim.disk.as_ref().unwrap().counts(), (1, 3, 3));
    let (one, present) = sim.connect(lasting(Version::V5, "one"));
    assert!(present);
    assert_eq!(sim.payloads(one), ["t/x=1"]);
    sim.send(one, puback(1));
    sim.commit();
    assert_eq!(sim.disk.as_ref().unwrap().counts(), (1, 2, 3));
}

#[test]
fn a_qos_2_exchange_goes_on_where_the_crash_stopped_it() {
    let mut sim = Sim::storing(Limits::default());
    let subscriber = subscribed(&mut sim, "subscriber", QoS::ExactlyOnce);
    let publisher = begin(&mut sim, Version::V5, "publisher");
    sim.send(publisher, qos2("t/x", "1", 7));
    assert!(
        sim.take(subscriber).is_empty(),
        "its identifier is not on disk yet"
    );
    sim.commit();
    assert_eq!(sim.payloads(subscriber), ["t/x=1"]);
    assert!(matches!(sim.take(publisher)[..], [Packet::PubRec(_)]));
    sim.send(subscriber, pubrec(1));
    assert!(
        sim.take(subscriber).is_empty(),
        "PUBREL waits for the commit"
    );
    sim.commit();
    sim.crash();

    let (subscriber, _) = sim.connect(lasting(Version::V5, "subscriber"));
    assert!(matches!(sim.take(subscriber)[..], [Packet::PubRel(_)]));
    sim.send(subscriber, pubcomp(1));
    let (publisher, _) = sim.connect(lasting(Version::V5, "publisher"));
    let repeated = Publish {
        dup: true,
        ..publish("t/x", "1", Delivery::ExactlyOnce(id(7)))
    };
    sim.send(publisher, Packet::Publish(repeated));
    assert!(matches!(sim.take(publisher)[..], [Packet::PubRec(_)]));
    sim.send(publisher, pubrel(7));
    assert!(
        sim.take(publisher).is_empty(),
        "PUBCOMP waits: the identifier is taken on disk"
    );
    sim.commit();
    assert!(matches!(sim.take(publisher)[..], [Packet::PubComp(_)]));
    assert!(sim.take(subscriber).is_empty());
}

#[test]
fn retained_messages_and_subscriptions_survive_and_so_does_their_removal() {
    let mut sim = Sim::storing(Limits::default());
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, retained("t/kept", "1"));
    sim.send(publisher, retained("t/kept", "2"));
    sim.send(publisher, retained("t/cleared", "1"));
    sim.commit();
    sim.send(publisher, retained("t/cleared", ""));
    sim.commit();
    sim.crash();
    let reader = sim.client(Version::V5, "reader");
    sim.subscribe(reader, "t/#", SubscribeOptions::at(QoS::AtMostOnce));
    assert_eq!(sim.payloads(reader), ["t/kept=2"]);
    assert_eq!(sim.disk.as_ref().unwrap().counts(), (1, 0, 0));
}

#[test]
fn a_clean_start_leaves_nothing_of_the_old_session() {
    let mut sim = Sim::storing(Limits::default());
    let client = subscribed(&mut sim, "client", QoS::AtLeastOnce);
    sim.lose(client);
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos1("t/x", "1", 1));
    sim.commit();
    let client = sim.try_connect(hello(Version::V5, "client"));
    assert!(sim.take(client).is_empty(), "CONNACK waits for the removal");
    sim.commit();
    assert!(matches!(sim.take(client)[..], [Packet::ConnAck(_)]));
    assert_eq!(sim.disk.as_ref().unwrap().counts(), (0, 0, 0));
    sim.send(client, goodbye());
}

#[test]
fn while_the_disk_fails_qos_0_passes_and_promises_wait() {
    let mut sim = Sim::storing(Limits::default());
    let subscriber = subscribed(&mut sim, "subscriber", QoS::ExactlyOnce);
    sim.core.handle_store_failing(true);
    let publisher = sim.client(Version::V5, "publisher");
    sim.send(publisher, qos2("t/x", "held", 1));
    sim.send(publisher, once("t/x", "passes"));
    assert_eq!(sim.payloads(subscriber), ["t/x=passes"]);
    assert!(sim.take(publisher).is_empty());
    let refused = sim.try_connect(lasting(Version::V5, "late"));
    match &sim.take(refused)[..] {
        [Packet::ConnAck(ack), ..] => assert_eq!(ack.reason, ReasonCode::ServerUnavailable),
        other => panic!("no CONNACK but {other:?}"),
    }
    sim.core.handle_store_failing(false);
    sim.commit();
    assert_eq!(sim.payloads(subscriber), ["t/x=held"]);
    assert!(matches!(sim.take(publisher)[..], [Packet::PubRec(_)]));
}

#[test]
fn a_store_that_was_lost_gets_the_whole_state_anew() {
    let mut sim = Sim::storing(Limits::default());
    let absent = subscribed(&mut sim, "absent", QoS::ExactlyOnce);
    sim.lose(absent);
    let publisher = begin(&mut sim, Version::V5, "publisher");
    sim.send(publisher, qos2("t/x", "1", 1));
    sim.send(publisher, retained("t/r", "2"));
    sim.commit();
    sim.core.handle_store_lost();
    sim.commit();
    sim.crash();
    let (absent, present) = sim.connect(lasting(Version::V5, "absent"));
    assert!(present);
    sim.commit();
    assert_eq!(sim.payloads(absent), ["t/x=1"]);
    let (publisher, _) = sim.connect(lasting(Version::V5, "publisher"));
    sim.send(publisher, qos2("t/x", "1", 1));
    sim.commit();
    assert!(
        sim.payloads(absent).is_empty(),
        "it is known as a duplicate"
    );
    assert_eq!(sim.core.status(sim.now).retained, 1);
}
