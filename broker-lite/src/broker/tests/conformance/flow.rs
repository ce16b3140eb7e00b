//! What MQTT and we promise: receive maximum, in both directions (3.3.4, 4.9).

use super::*;

fn taking(sim: &mut Sim, maximum: Option<u16>, qos: u8) -> Client {
    let mut connect = lasting(V5, "sub");
    connect.properties.receive_maximum = maximum.and_then(std::num::NonZeroU16::new);
    let (client, _) = sim.connect(connect);
    sim.subscribe(client, "t", at(qos));
    client
}

/// 5.0: [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]
#[test]
fn no_more_is_unacknowledged_than_the_client_takes() {
    for (maximum, window) in [(Some(1), 1), (Some(3), 3), (Some(1_000), 32), (None, 32)] {
        for qos in 1..=2 {
            let mut sim = Sim::new();
            let client = taking(&mut sim, maximum, qos);
            let publisher = sim.client(V5, "pub");
            for n in 1..=40 {
                sim.send(publisher, qos2("t", &n.to_string(), n));
                sim.send(publisher, pubrel(n));
            }
            let first = sim.publishes(client);
            assert_eq!(first.len(), window, "{maximum:?} QoS {qos}");
            let first = first[0].packet_id().unwrap().value();
            if qos == 1 {
                sim.send(client, puback(first));
            } else {
                sim.send(client, pubrec(first));
                assert_eq!(sim.publishes(client).len(), 0, "PUBREC frees nothing");
                sim.send(client, pubcomp(first));
            }
            assert_eq!(sim.publishes(client).len(), 1);
        }
    }
}

/// 5.0: [MQTT-3.3.4-9] [MQTT-4.4.0-2]
#[test]
fn a_refusing_acknowledgement_frees_the_window_and_is_the_end_of_its_message() {
    for qos in 1..=2 {
        let mut sim = Sim::new();
        let client = taking(&mut sim, Some(1), qos);
        let publisher = sim.client(V5, "pub");
        for n in 1..=2 {
            sim.send(publisher, qos2("t", &n.to_string(), n));
        }
        assert_eq!(sim.payloads(client), ["t=1"]);
        let no = Ack::new(id(1), ReasonCode::ImplementationError);
        sim.send(
            client,
            if qos == 1 {
                Packet::PubAck(no)
            } else {
                Packet::PubRec(no)
            },
        );
        assert_eq!(sim.payloads(client), ["t=2"]);
        sim.cut(client);
        let (client, _) = sim.connect(lasting(V5, "sub"));
        assert_eq!(sim.payloads(client), ["t=2"], "QoS {qos}");
    }
}

/// 5.0: [MQTT-3.3.4-10] [MQTT-4.9.0-3]
#[test]
fn a_full_window_holds_up_nothing_but_publish() {
    let mut sim = Sim::new();
    let client = taking(&mut sim, Some(1), 1);
    let publisher = sim.client(V5, "pub");
    for n in 1..=3 {
        sim.send(publisher, qos1("t", "x", n));
    }
    assert_eq!(sim.publishes(client).len(), 1);
    sim.send(client, Packet::PingReq);
    sim.send(client, qos1("elsewhere", "x", 1));
    sim.send(client, qos2("elsewhere", "x", 2));
    sim.send(client, pubrel(2));
    sim.send(client, subscribe("u", at(0)));
    let answers = sim.take(client);
    assert_eq!(answers.len(), 5, "{answers:?}");
    assert_eq!(answers[0], Packet::PingResp);
}

/// 5.0: [MQTT-3.3.4-10] [MQTT-4.4.0-1]
#[test]
fn a_pubrel_is_repeated_past_a_window_that_has_shrunk() {
    let mut sim = Sim::new();
    let client = taking(&mut sim, None, 2);
    let publisher = sim.client(V5, "pub");
    for n in 1..=2 {
        sim.send(publisher, qos2("t", &n.to_string(), n));
    }
    sim.send(client, pubrec(2));
    sim.cut(client);
    let mut connect = lasting(V5, "sub");
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let (client, _) = sim.connect(connect);
    match &sim.take(client)[..] {
        [Packet::Publish(first), release] => {
            assert_eq!((&first.payload[..], first.dup), (&b"1"[..], true));
            assert_eq!(release, &pubrel(2));
        }
        other => panic!("{other:?}"),
    }
}

/// 5.0: [MQTT-3.3.4-7]
#[test]
fn a_client_that_sends_more_than_our_receive_maximum_is_told_0x93() {
    let limits = || Limits {
        in_flight: 2,
        ..Limits::default()
    };
    let mut sim = Sim::limited(limits());
    let client = sim.client(V5, "c");
    for n in 1..=10 {
        sim.send(client, qos1("t", "x", n));
    }
    assert!(!sim.is_closed(client), "each was acknowledged at once");
    for n in 1..=2 {
        sim.send(client, qos2("t", "x", n));
    }
    sim.send(client, qos2("t", "x", 1));
    assert!(!sim.is_closed(client), "a repetition is none more");
    sim.send(client, qos2("t", "x", 3));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::ReceiveMaximumExceeded)
    );
    assert!(sim.is_closed(client));
}

#[test]
fn the_quota_begins_anew_with_each_connection() {
    let mut sim = Sim::limited(Limits {
        in_flight: 2,
        ..Limits::default()
    });
    let (client, _) = sim.connect(lasting(V5, "c"));
    for n in 1..=2 {
        sim.send(client, qos2("t", "x", n));
    }
    sim.lose(client);
    let (client, _) = sim.connect(lasting(V5, "c"));
    for n in 3..=4 {
        sim.send(client, qos2("t", "x", n));
    }
    for n in 1..=4 {
        sim.send(client, pubrel(n));
    }
    assert!(!sim.is_closed(client));
    for n in 5..=7 {
        sim.send(client, qos2("t", "x", n));
    }
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::ReceiveMaximumExceeded)
    );
}
