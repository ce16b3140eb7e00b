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
fn topic_aliases_work_both_ways_and_unknown_ones_break_off() {
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
        Some(ReasonCode::ProtocolError)
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
    let stranger = sim.try_connect(lasting(V5, "stranger"));
    assert_eq!(
        last_reason(&mut sim, stranger),
        Some(ReasonCode::QuotaExceeded)
    );
    assert_eq!(sim.refusals, [Refusal::TooManySessions]);
    assert!(sim.connect(lasting(V5, "known")).1);
    // One that ends with its connection takes nobody's place.
    sim.connect(hello(V5, "stranger"));
    sim.connect(hello(V5, "known"));
    assert!(!sim.connect(lasting(V5, "stranger")).1);
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
fn a_5_0_client_is_told_that_there_is_no_room_to_retain_its_message() {
    let mut sim = Sim::limited(Limits {
        retained_messages: 1,
        ..Limits::default()
    });
    let (client, reader) = (sim.client(V5, "c"), sim.client(V3, "r"));
    sim.subscribe(reader, "#", at(0));
    let keep = |topic: &str, payload: &str, number, qos| {
        let delivery = match qos {
            1 => Delivery::AtLeastOnce(crate::broker::sim::id(number)),
            _ => Delivery::ExactlyOnce(crate::broker::sim::id(number)),
        };
        Packet::Publish(Publish {
            retain: true,
            ..publish(topic, payload, delivery)
        })
    };
    let refused = Some(ReasonCode::QuotaExceeded);
    sim.send(client, keep("a", "1", 1, 1));
    assert_eq!(last_reason(&mut sim, client), Some(ReasonCode::Success));
    for qos in [1, 2] {
        sim.send(client, keep("b", "refused", 2, qos));
        assert_eq!(last_reason(&mut sim, client), refused, "QoS {qos}");
    }
    assert_eq!(sim.refusals, [Refusal::RetainedFull; 2]);
    // Another value of a known topic takes the place of the old one, and none takes none.
    sim.send(client, keep("a", "2", 3, 2));
    assert_eq!(last_reason(&mut sim, client), Some(ReasonCode::Success));
    sim.send(client, keep("b", "", 4, 1));
    assert_eq!(last_reason(&mut sim, client), Some(ReasonCode::Success));
    // Who cannot be told is at least heard.
    let old = sim.client(V3, "old");
    sim.send(old, keep("c", "3", 1, 1));
    assert_eq!(sim.payloads(reader), ["a=1", "a=2", "b=", "c=3"]);
    assert_eq!(sim.core.status(sim.now).retained, 1);
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

#[test]
fn a_full_queue_may_lose_its_oldest_messages_instead() {
    let mut sim = Sim::limited(Limits {
        queued_messages: 3,
        queue_when_full: crate::config::WhenFull::DropOldest,
        ..Limits::default()
    });
    let (client, _) = sim.connect(lasting(V5, "c"));
    sim.subscribe(client, "t", at(1));
    sim.lose(client);
    let publisher = sim.client(V5, "pub");
    for n in 1..=5 {
        sim.send(publisher, qos1("t", &n.to_string(), n));
    }
    let (client, _) = sim.connect(lasting(V5, "c"));
    assert_eq!(sim.payloads(client), ["t=3", "t=4", "t=5"]);
    assert_eq!(sim.core.status(sim.now).counters.refused["queue-full"], 2);
    assert_eq!(sim.refusals, [Refusal::QueueFull]);
}

#[test]
fn qos_0_waits_for_absent_clients_only_where_configured() {
    for queue_qos0 in [false, true] {
        let mut sim = Sim::limited(Limits {
            queue_qos0,
            ..Limits::default()
        });
        let (client, _) = sim.connect(lasting(V5, "c"));
        sim.subscribe(client, "t", at(0));
        sim.lose(client);
        let publisher = sim.client(V5, "pub");
        sim.send(publisher, once("t", "x"));
        let (client, _) = sim.connect(lasting(V5, "c"));
        assert_eq!(sim.payloads(client).len(), usize::from(queue_qos0));
    }
}

#[test]
fn without_retained_messages_clients_are_told_so_mqtt_3_2_2_14() {
    let mut sim = Sim::limited(Limits {
        retained: false,
        ..Limits::default()
    });
    let client = sim.try_connect(hello(V5, "c"));
    let Some(Packet::ConnAck(ack)) = sim.next(client) else {
        panic!("no CONNACK");
    };
    assert_eq!(ack.properties.retain_available, Some(false));
    sim.send(client, retained("t", "x"));
    let reason = last_reason(&mut sim, client);
    assert_eq!(reason, Some(ReasonCode::RetainNotSupported));
    let mut connect = hello(V5, "c");
    connect.will = Some(crate::packet::Will {
        retain: true,
        ..will("t", None)
    });
    let client = sim.try_connect(connect);
    let reason = last_reason(&mut sim, client);
    assert_eq!(reason, Some(ReasonCode::RetainNotSupported));
    assert_eq!(sim.core.status(sim.now).retained, 0);
}

#[test]
fn connack_tells_the_limits_that_hold() {
    let mut sim = Sim::limited(Limits {
        in_flight: 7,
        packet_size: settings::Size::from_kib(3),
        topic_aliases: 5,
        keep_alive: settings::Period::from_secs(30),
        session_expiry: settings::Period::from_secs(60),
        ..Limits::default()
    });
    let client = sim.try_connect(lasting(V5, "c"));
    let Some(Packet::ConnAck(ack)) = sim.next(client) else {
        panic!("no CONNACK");
    };
    let told = ack.properties;
    assert_eq!(told.receive_maximum.map(|maximum| maximum.get()), Some(7));
    assert_eq!(told.maximum_packet_size.map(|size| size.get()), Some(3_072));
    assert_eq!(told.topic_alias_maximum, Some(5));
    assert_eq!(told.server_keep_alive_s, Some(30));
    assert_eq!(told.session_expiry_s, Some(60));
    assert_eq!((told.retain_available, told.maximum_qos), (None, None));
}

#[test]
fn a_message_lives_no_longer_than_the_broker_lets_it() {
    let mut sim = Sim::limited(Limits {
        message_expiry: Some(settings::Period::from_secs(60)),
        ..Limits::default()
    });
    let client = sim.client(V5, "c");
    sim.subscribe(client, "t", at(0));
    for asked in [None, Some(30), Some(90)] {
        let message = Publish {
            message_expiry_s: asked,
            ..publish("t", "x", Delivery::AtMostOnce)
        };
        sim.send(client, Packet::Publish(message));
    }
    let lives: Vec<_> = sim
        .publishes(client)
        .iter()
        .map(|publish| publish.message_expiry_s)
        .collect();
    assert_eq!(lives, [Some(60), Some(30), Some(60)]);
}

#[test]
fn user_properties_are_bounded_in_number_and_bytes() {
    let mut sim = Sim::limited(Limits {
        user_properties: 2,
        user_property_bytes: settings::Size::from_bytes(100),
        ..Limits::default()
    });
    let client = sim.client(V5, "c");
    let with = |pairs: usize, value: &str| {
        let mut user_properties = UserProperties::default();
        for _ in 0..pairs {
            user_properties.push("k", value).unwrap();
        }
        let properties = crate::packet::MessageProperties {
            user_properties,
            ..crate::packet::MessageProperties::default()
        };
        Packet::Publish(Publish {
            properties: Some(std::sync::Arc::new(properties)),
            ..publish("t", "x", Delivery::AtLeastOnce(crate::broker::sim::id(1)))
        })
    };
    for (message, reason) in [
        (with(2, "v"), ReasonCode::NoMatchingSubscribers),
        (with(3, "v"), ReasonCode::QuotaExceeded),
        (with(1, &"v".repeat(200)), ReasonCode::QuotaExceeded),
    ] {
        sim.send(client, message);
        assert_eq!(last_reason(&mut sim, client), Some(reason));
    }
}

#[test]
fn a_will_is_bounded() {
    let mut sim = Sim::limited(Limits {
        will_size: settings::Size::from_bytes(100),
        ..Limits::default()
    });
    let mut connect = hello(V5, "c");
    connect.will = Some(crate::packet::Will {
        payload: "x".repeat(100).into(),
        ..will("t", None)
    });
    let client = sim.try_connect(connect);
    let reason = last_reason(&mut sim, client);
    assert_eq!(reason, Some(ReasonCode::QuotaExceeded));
    assert_eq!(sim.refusals, [Refusal::Will]);
}

#[test]
fn subscriptions_are_bounded_for_one_client_and_for_all() {
    let mut sim = Sim::limited(Limits {
        subscriptions: 2,
        subscriptions_total: 3,
        ..Limits::default()
    });
    let (one, other) = (sim.client(V5, "one"), sim.client(V5, "other"));
    for (client, filter, reason) in [
        (one, "a", ReasonCode::Success),
        (one, "b", ReasonCode::Success),
        (one, "c", ReasonCode::QuotaExceeded),
        (one, "a", ReasonCode::Success),
        (other, "a", ReasonCode::Success),
        (other, "b", ReasonCode::QuotaExceeded),
        (other, "a", ReasonCode::Success),
    ] {
        assert_eq!(sim.subscribe(client, filter, at(0)), reason, "{filter}");
    }
}
