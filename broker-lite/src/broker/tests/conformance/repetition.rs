//! What MQTT and we promise: what is kept for an absent client and repeated (4.1, 4.4).

use super::*;

/// 3.1.1: [MQTT-2.3.1-3] [MQTT-3.1.2-5] [MQTT-3.3.1-1] [MQTT-4.1.0-1] [MQTT-4.4.0-1]
/// 5.0: [MQTT-3.3.1-1] [MQTT-4.4.0-1]
#[test]
fn a_resumed_session_repeats_what_is_unacknowledged_and_brings_what_came_meanwhile() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (client, _) = sim.connect(lasting(version, "sub"));
        sim.subscribe(client, "t", at(2));
        let publisher = sim.client(version, "pub");
        for (n, packet) in [
            (1, qos1("t", "1", 1)),
            (2, qos2("t", "2", 2)),
            (3, qos2("t", "3", 3)),
        ] {
            sim.send(publisher, packet);
            assert_eq!(sim.publishes(client)[0].packet_id(), Some(id(n)));
        }
        sim.send(client, pubrec(3));
        sim.cut(client);
        sim.send(publisher, qos1("t", "4", 4));
        sim.send(publisher, once("t", "lost, for it is QoS 0"));
        for _ in 0..2 {
            let (client, _) = sim.connect(lasting(version, "sub"));
            match &sim.take(client)[..] {
                [
                    Packet::Publish(first),
                    Packet::Publish(second),
                    release,
                    Packet::Publish(fourth),
                ] => {
                    assert!(first.dup && second.dup);
                    assert_eq!(first.delivery, Delivery::AtLeastOnce(id(1)));
                    assert_eq!(second.delivery, Delivery::ExactlyOnce(id(2)));
                    assert_eq!((release, &fourth.payload[..]), (&pubrel(3), &b"4"[..]));
                }
                other => panic!("{version:?} {other:?}"),
            }
            sim.cut(client);
        }
    }
}

/// 5.0: [MQTT-4.4.0-1]
#[test]
fn nothing_is_repeated_while_the_connection_stands() {
    let mut sim = Sim::new();
    let client = sim.client(V5, "sub");
    sim.subscribe(client, "t", at(2));
    let publisher = sim.client(V5, "pub");
    sim.send(publisher, qos1("t", "1", 1));
    sim.send(publisher, qos2("t", "2", 2));
    sim.send(client, pubrec(2));
    sim.take(client);
    for _ in 0..100 {
        sim.pass(Duration::from_secs(60));
        sim.send(client, Packet::PingReq);
        assert_eq!(sim.take(client), [Packet::PingResp]);
    }
}
