//! What MQTT and we promise: limits.

use super::*;

#[test]
fn a_slow_consumer_loses_its_own_messages_and_delays_nobody() {
    let mut sim = Sim::limited(Limits {
        queued_messages: 10,
        ..Limits::default()
    });
    let slow = sim.client(V5, "slow");
    let fast = sim.client(V5, "fast");
    for client in [slow, fast] {
        sim.subscribe(client, "t", at(0));
    }
    sim.stalled.push(slow.0);
    let publisher = sim.client(V5, "pub");
    let payload = "x".repeat(1_000);
    for _ in 0..200 {
        sim.send(publisher, once("t", &payload));
    }
    assert_eq!(sim.publishes(fast).len(), 200);
    let status = sim.core.status(sim.now);
    let slow_status = status
        .clients
        .iter()
        .find(|client| client.id == "slow")
        .unwrap();
    assert_eq!(slow_status.queued, 10);
    sim.stalled.clear();
    sim.flush(slow.0);
    let got = sim.publishes(slow).len() as u64;
    assert_eq!(got + slow_status.dropped, 200);
    assert_eq!(status.counters.refused["queue-full"], slow_status.dropped);
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let limits = Limits {
        queued_bytes: settings::Size::from_bytes(5_000),
        ..Limits::default()
    };
    let mut sim = Sim::limited(limits);
    let (client, _) = sim.connect(lasting(V5, "c"));
    sim.subscribe(client, "t", at(1));
    sim.lose(client);
    let publisher = sim.client(V5, "pub");
    for n in 1..=20 {
        sim.send(publisher, qos1("t", &"x".repeat(1_000), n));
    }
    let (client, _) = sim.connect(lasting(V5, "c"));
    assert_eq!(sim.publishes(client).len(), 4);
}

#[test]
fn a_message_larger_than_the_client_takes_is_skipped_mqtt_3_1_2_25() {
    let mut sim = Sim::new();
    let mut connect = hello(V5, "c");
    connect.properties.maximum_packet_size = std::num::NonZeroU32::new(100);
    let (client, _) = sim.connect(connect);
    sim.subscribe(client, "t", at(1));
    let publisher = sim.client(V5, "pub");
    for (n, size) in [(1, 10), (2, 200), (3, 10)] {
        sim.send(publisher, qos1("t", &"x".repeat(size), n));
    }
    let sizes: Vec<usize> = sim
        .publishes(client)
        .iter()
        .map(|publish| publish.payload.len())
        .collect();
    assert_eq!(sizes, [10, 10]);
}

#[test]
fn topics_deeper_or_longer_than_allowed_are_refused() {
    let mut sim = Sim::new();
    let client = sim.client(V5, "c");
    for topic in ["a/".repeat(40), "a".repeat(600)] {
        sim.send(client, qos1(&topic, "x", 1));
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::TopicNameInvalid)
        );
        assert_eq!(
            sim.subscribe(client, &topic, at(0)),
            ReasonCode::TopicFilterInvalid
        );
    }
}

#[test]
fn topic_aliases_work_both_ways_and_unknown_ones_break_off_mqtt_3_3_2_9() {
    let mut sim = Sim::new();
    let mut connect = hello(V5, "sub");
    connect.properties.topic_alias_maximum = Some(1);
    let (subscriber, _) = sim.connect(connect);
    sim.subscribe(subscriber, "#", at(0));
    let client = sim.client(V5, "pub");
    let aliased = |topic: Option<&str>, number| {
        Packet::Publish(Publish {
            topic: topic.map(|topic| TopicName::parse(topic).unwrap()),
            topic_alias: TopicAlias::new(number),
            ..publish("x", "x", Delivery::AtMostOnce)
        })
    };
    sim.send(client, aliased(Some("t/long"), 3));
    sim.send(client, aliased(None, 3));
    sim.send(client, once("other", "x"));
    let got: Vec<_> = sim
        .publishes(subscriber)
        .iter()
        .map(|p| {
            (
                p.topic.as_ref().map(|topic| topic.as_str().to_owned()),
                p.topic_alias.map(|a| a.value()),
            )
        })
        .collect();
    let long = Some("t/long".to_owned());
    assert_eq!(
        got,
        [
            (long, Some(1)),
            (None, Some(1)),
            (Some("other".to_owned()), None)
        ]
    );
    sim.send(client, aliased(None, 4));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::TopicAliasInvalid)
    );
}

#[test]
fn sessions_are_bounded_and_known_ones_are_always_let_in() {
    let mut sim = Sim::limited(Limits {
        sessions: 1,
        ..Limits::default()
    });
    let (known, _) = sim.connect(lasting(V5, "known"));
    sim.lose(known);
    let stranger = sim.try_connect(hello(V5, "stranger"));
    assert_eq!(
        last_reason(&mut sim, stranger),
        Some(ReasonCode::QuotaExceeded)
    );
    assert!(sim.connect(lasting(V5, "known")).1);
}

#[test]
fn a_full_queue_is_told_once_until_it_was_empty_again() {
    let mut sim = Sim::limited(Limits {
        queued_messages: 2,
        ..Limits::default()
    });
    let local = sim.core.open_local("local");
    let filter = SubscriptionFilter::parse("t").unwrap();
    sim.core
        .subscribe_local(local, filter, QoS::AtMostOnce, sim.now);
    let client = sim.client(V3, "c");
    for lost in [3, 6] {
        for _ in 0..5 {
            sim.send(client, once("t", "x"));
        }
        assert_eq!(sim.core.lost_locally(local), lost);
        let taken = std::iter::from_fn(|| sim.core.take_delivery(local, sim.now)).count();
        assert_eq!(taken, 2);
    }
    assert_eq!(sim.refusals, [Refusal::QueueFull, Refusal::QueueFull]);
    assert_eq!(sim.core.status(sim.now).counters.refused["queue-full"], 6);
}

#[test]
fn retained_messages_are_bounded() {
    let mut sim = Sim::limited(Limits {
        retained_messages: 1,
        ..Limits::default()
    });
    let client = sim.client(V5, "c");
    sim.send(client, retained("a", "x"));
    sim.send(client, retained("b", "x"));
    assert_eq!(sim.core.status(sim.now).retained, 1);
    assert_eq!(sim.refusals, [Refusal::RetainedFull]);
}
