//! What a restart of the broker does to wills and to times that run. A core's tests.

use std::time::Duration;

use crate::{
    broker::sim::{Client, Sim, goodbye, hello, lasting, once, puback, qos1, subscribe, will},
    config::Limits,
    packet::{Connect, Packet, Publish, QoS, ReasonCode, SubscribeOptions, Version::V5},
};

const SECOND: Duration = Duration::from_secs(1);

/// A lasting session that gets the wills, and is not there.
fn observed() -> Sim {
    let mut sim = Sim::storing(Limits::default());
    let (observer, _) = sim.connect(lasting(V5, "observer"));
    sim.send(
        observer,
        subscribe("will", SubscribeOptions::at(QoS::AtLeastOnce)),
    );
    sim.commit();
    sim.lose(observer);
    sim.commit();
    sim
}

fn with_will(connect: Connect, delay_s: Option<u32>) -> Connect {
    let mut will = will("will", delay_s);
    will.qos = QoS::AtLeastOnce;
    Connect {
        will: Some(will),
        ..connect
    }
}

/// What waits for the observer, which takes it.
fn wills(sim: &mut Sim) -> Vec<String> {
    let (observer, present) = sim.connect(lasting(V5, "observer"));
    assert!(present);
    let publishes: Vec<Publish> = sim.publishes(observer);
    for publish in &publishes {
        let id = publish.delivery.packet_id().unwrap();
        sim.send(observer, puback(id.value()));
    }
    sim.commit();
    sim.lose(observer);
    sim.commit();
    publishes.iter().map(crate::broker::sim::text).collect()
}

#[test]
fn connack_tells_a_client_with_a_will_that_the_will_is_stored() {
    let mut sim = Sim::storing(Limits::default());
    let client = sim.try_connect(with_will(hello(V5, "c"), None));
    assert!(sim.take(client).is_empty());
    sim.commit();
    assert!(matches!(sim.take(client)[..], [Packet::ConnAck(_)]));
}

#[test]
fn while_the_disk_fails_a_client_with_a_will_is_served_all_the_same() {
    let mut sim = Sim::storing(Limits::default());
    sim.core.handle_store_failing(true);
    let client = sim.try_connect(with_will(hello(V5, "c"), None));
    match &sim.take(client)[..] {
        [Packet::ConnAck(ack)] => assert_eq!(ack.reason, ReasonCode::Success),
        other => panic!("no CONNACK but {other:?}"),
    }
}

#[test]
fn a_connection_that_ends_with_the_broker_publishes_its_will_once() {
    let mut sim = observed();
    let (_, _) = sim.connect(with_will(hello(V5, "passing"), Some(10)));
    let (_, _) = sim.connect(with_will(lasting(V5, "lasting"), None));
    sim.crash();
    sim.commit();
    assert_eq!(wills(&mut sim), ["will=gone", "will=gone"]);
    sim.crash();
    sim.commit();
    assert_eq!(wills(&mut sim), Vec::<String>::new());
}

#[test]
fn a_will_that_was_published_or_called_off_before_the_crash_stays_so() {
    let mut sim = observed();
    let (left, _) = sim.connect(with_will(hello(V5, "left"), None));
    sim.send(left, goodbye());
    let (lost, _) = sim.connect(with_will(hello(V5, "lost"), None));
    sim.lose(lost);
    sim.commit();
    sim.crash();
    sim.commit();
    assert_eq!(wills(&mut sim), ["will=gone"]);
}

#[test]
fn a_delay_goes_on_after_the_crash_and_coming_back_calls_the_will_off() {
    for (comes_back, expected) in [(false, vec!["will=gone"]), (true, vec![])] {
        let mut sim = observed();
        let (client, _) = sim.connect(with_will(lasting(V5, "c"), Some(10)));
        sim.lose(client);
        sim.commit();
        sim.pass(7 * SECOND);
        sim.crash();
        sim.pass(2 * SECOND);
        assert_eq!(wills(&mut sim), Vec::<String>::new(), "not due yet");
        if comes_back {
            sim.connect(lasting(V5, "c"));
        }
        sim.pass(2 * SECOND);
        sim.commit();
        assert_eq!(wills(&mut sim), expected);
    }
}

#[test]
fn a_delay_begins_with_the_restart_if_the_connection_ended_by_it() {
    let mut sim = observed();
    sim.connect(with_will(lasting(V5, "c"), Some(10)));
    sim.crash();
    sim.pass(9 * SECOND);
    assert_eq!(wills(&mut sim), Vec::<String>::new());
    sim.pass(2 * SECOND);
    sim.commit();
    assert_eq!(wills(&mut sim), ["will=gone"]);
}

#[test]
fn a_connection_that_another_one_took_over_leaves_the_others_will_in_the_store() {
    let mut sim = observed();
    let connect = with_will(lasting(V5, "c"), None);
    let (first, second) = (sim.try_connect(connect.clone()), sim.try_connect(connect));
    sim.commit();
    sim.commit();
    assert!(sim.is_closed(first) && !sim.is_closed(second));
    assert_eq!(
        wills(&mut sim),
        ["will=gone"],
        "the first one's, taken over"
    );
    sim.crash();
    sim.commit();
    assert_eq!(wills(&mut sim), ["will=gone"], "the second one's");
}

fn is_present(sim: &mut Sim, name: &str) -> bool {
    sim.connect(lasting(V5, name)).1
}

fn absent(sim: &mut Sim, name: &str) -> Client {
    let (client, _) = sim.connect(lasting(V5, name));
    sim.lose(client);
    sim.commit();
    client
}

#[test]
fn a_sessions_time_goes_on_over_a_restart() {
    for (seconds_before, seconds_after, present) in [(3_000, 500, true), (3_000, 700, false)] {
        let mut sim = Sim::storing(Limits::default());
        absent(&mut sim, "c");
        sim.pass(seconds_before * SECOND);
        sim.crash();
        sim.pass(seconds_after * SECOND);
        assert_eq!(is_present(&mut sim, "c"), present);
    }
}

#[test]
fn a_session_whose_client_was_there_when_the_broker_died_gets_its_whole_time() {
    let mut sim = Sim::storing(Limits::default());
    absent(&mut sim, "c");
    sim.pass(3_590 * SECOND);
    assert!(is_present(&mut sim, "c"), "and it is connected again");
    sim.pass(20 * SECOND);
    sim.crash();
    sim.pass(3_500 * SECOND);
    sim.commit();
    sim.crash();
    sim.pass(50 * SECOND);
    assert!(
        is_present(&mut sim, "c"),
        "its time began with the first restart"
    );
}

#[test]
fn a_session_whose_time_ran_out_while_the_broker_was_away_leaves_nothing() {
    let mut sim = observed();
    let publisher = sim.client(V5, "publisher");
    sim.send(publisher, qos1("will", "1", 1));
    sim.send(publisher, once("will", "0"));
    sim.commit();
    sim.now += 4_000 * SECOND;
    sim.crash();
    sim.pass(SECOND);
    sim.commit();
    assert_eq!(sim.disk.as_ref().unwrap().counts(), (0, 0, 0));
}
