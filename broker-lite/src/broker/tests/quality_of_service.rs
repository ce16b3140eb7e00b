//! What MQTT and we promise: quality of service.

use super::*;

#[test]
fn messages_arrive_with_the_lower_qos_of_publisher_and_subscriber_mqtt_3_8_4_8() {
    for (published, granted, delivered) in [(0, 2, 0), (1, 2, 1), (2, 1, 1), (2, 0, 0), (2, 2, 2)] {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        sim.subscribe(client, "t", at(granted));
        let packet = match published {
            0 => once("t", "x"),
            1 => qos1("t", "x", 1),
            _ => qos2("t", "x", 1),
        };
        sim.send(client, packet);
        let qos = sim.publishes(client)[0].qos();
        assert_eq!(qos as u8, delivered, "{published} to {granted}");
    }
}

#[test]
fn a_qos_2_message_is_routed_once_however_often_it_comes_mqtt_4_3_3_10() {
    let mut sim = Sim::new();
    let (client, _) = sim.connect(lasting(V3, "pub"));
    let other = sim.client(V3, "sub");
    sim.subscribe(other, "t", at(0));
    sim.send(client, qos2("t", "x", 7));
    sim.send(client, qos2("t", "x", 7));
    sim.lose(client);
    let (client, _) = sim.connect(lasting(V3, "pub"));
    sim.send(client, qos2("t", "x", 7));
    assert_eq!(sim.take(client), [pubrec(7)]);
    assert_eq!(sim.payloads(other), ["t=x"]);
    sim.send(client, pubrel(7));
    assert_eq!(sim.take(client), [pubcomp(7)]);
    sim.send(client, qos2("t", "y", 7));
    assert_eq!(sim.payloads(other), ["t=y"]);
}

#[test]
fn unacknowledged_messages_come_again_in_order_after_a_reconnect_mqtt_4_4_0_1() {
    let mut sim = Sim::new();
    let (client, _) = sim.connect(lasting(V5, "sub"));
    sim.subscribe(client, "t", at(2));
    let publisher = sim.client(V5, "pub");
    for (n, packet) in [qos1("t", "1", 1), qos2("t", "2", 2), qos1("t", "3", 3)]
        .into_iter()
        .enumerate()
    {
        sim.send(publisher, packet);
        assert_eq!(
            sim.publishes(client)[0].packet_id().unwrap().value(),
            n as u16 + 1
        );
    }
    sim.send(client, pubrec(2));
    sim.lose(client);
    let (client, present) = sim.connect(lasting(V5, "sub"));
    assert!(present);
    match &sim.take(client)[..] {
        [
            Packet::Publish(first),
            Packet::PubRel(release),
            Packet::Publish(third),
        ] => {
            assert!(first.dup && third.dup);
            assert_eq!(
                (&first.payload[..], &third.payload[..]),
                (&b"1"[..], &b"3"[..])
            );
            assert_eq!(release.packet_id.value(), 2);
        }
        other => panic!("{other:?}"),
    }
    for packet in [puback(1), pubcomp(2), puback(3)] {
        sim.send(client, packet);
    }
    sim.lose(client);
    let (client, _) = sim.connect(lasting(V5, "sub"));
    assert_eq!(sim.take(client), []);
}

#[test]
fn an_absent_client_finds_its_qos_1_messages_and_no_qos_0_ones() {
    let mut sim = Sim::new();
    let (client, _) = sim.connect(lasting(V3, "sub"));
    sim.subscribe(client, "t", at(1));
    sim.lose(client);
    let publisher = sim.client(V3, "pub");
    sim.send(publisher, once("t", "lost"));
    sim.send(publisher, qos1("t", "found", 1));
    let (client, _) = sim.connect(lasting(V3, "sub"));
    assert_eq!(sim.payloads(client), ["t=found"]);
}

#[test]
fn no_more_messages_are_in_flight_than_the_client_takes_mqtt_3_3_4_9() {
    let mut sim = Sim::new();
    let mut connect = hello(V5, "sub");
    connect.properties.receive_maximum = std::num::NonZeroU16::new(2);
    let (client, _) = sim.connect(connect);
    sim.subscribe(client, "t", at(1));
    let publisher = sim.client(V5, "pub");
    for n in 1..=5 {
        sim.send(publisher, qos1("t", &n.to_string(), n));
    }
    assert_eq!(sim.payloads(client), ["t=1", "t=2"]);
    sim.send(client, puback(1));
    assert_eq!(sim.payloads(client), ["t=3"]);
    sim.send(client, puback(3));
    sim.send(client, puback(2));
    assert_eq!(sim.payloads(client), ["t=4", "t=5"]);
}

#[test]
fn a_pubrel_for_nothing_is_answered_with_packet_identifier_not_found() {
    let mut sim = Sim::new();
    let client = sim.client(V5, "c");
    sim.send(client, pubrel(5));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::PacketIdNotFound)
    );
}

#[test]
fn a_client_above_its_receive_maximum_is_disconnected_with_0x93() {
    let limits = Limits {
        in_flight: 2,
        ..Limits::default()
    };
    let mut sim = Sim::limited(limits);
    let client = sim.client(V5, "c");
    for n in 1..=3 {
        sim.send(client, qos2("t", "x", n));
    }
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::ReceiveMaximumExceeded)
    );
}
