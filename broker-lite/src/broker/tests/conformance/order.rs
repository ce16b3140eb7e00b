//! What MQTT and we promise: the order of messages (4.6).

use super::*;

/// 3.1.1: [MQTT-4.6.0-5] [MQTT-4.6.0-6]
/// 5.0: [MQTT-4.6.0-5] [MQTT-4.6.0-6]
#[test]
fn messages_arrive_in_the_order_of_their_publisher_through_queue_and_window() {
    for version in BOTH {
        for qos in 0..=2 {
            let mut sim = Sim::limited(Limits {
                in_flight: 3,
                ..Limits::default()
            });
            let (subscriber, publisher) = pair(&mut sim, version, "t", qos);
            let mut got = Vec::new();
            for n in 1..=20 {
                match qos {
                    0 => sim.send(publisher, once("t", &n.to_string())),
                    1 => sim.send(publisher, qos1("t", &n.to_string(), n)),
                    _ => {
                        sim.send(publisher, qos2("t", &n.to_string(), n));
                        sim.send(publisher, pubrel(n));
                    }
                }
                if n % 7 == 0 {
                    acknowledge_all(&mut sim, subscriber, &mut got);
                }
            }
            acknowledge_all(&mut sim, subscriber, &mut got);
            let expected: Vec<String> = (1..=20).map(|n| format!("t={n}")).collect();
            assert_eq!(got, expected, "{version:?} QoS {qos}");
        }
    }
}

/// Plays a subscriber that acknowledges what it gets, until nothing more comes.
fn acknowledge_all(sim: &mut Sim, client: Client, got: &mut Vec<String>) {
    loop {
        let packets = sim.take(client);
        if packets.is_empty() {
            return;
        }
        for packet in packets {
            match packet {
                Packet::Publish(message) => {
                    got.push(crate::broker::sim::text(&message));
                    match message.delivery {
                        Delivery::AtMostOnce => {}
                        Delivery::AtLeastOnce(id) => sim.send(client, puback(id.value())),
                        Delivery::ExactlyOnce(id) => sim.send(client, pubrec(id.value())),
                    }
                }
                Packet::PubRel(ack) => sim.send(client, pubcomp(ack.packet_id.value())),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// 3.1.1: [MQTT-4.6.0-1]
#[test]
fn what_is_repeated_keeps_its_order_also_where_identifiers_began_anew() {
    let mut sim = Sim::new();
    let (client, _) = sim.connect(lasting(V3, "sub"));
    sim.subscribe(client, "t", at(1));
    let publisher = sim.client(V3, "pub");
    // One that stays unacknowledged keeps the count of identifiers going, until they begin anew.
    sim.send(publisher, qos1("t", "0", 1));
    for n in 2..=65_533_u16 {
        sim.send(publisher, qos1("t", "x", 1));
        sim.send(client, puback(n));
    }
    sim.take(client);
    for n in ["1", "2", "3", "4"] {
        sim.send(publisher, qos1("t", n, 1));
    }
    let ids: Vec<_> = sim
        .publishes(client)
        .iter()
        .map(|p| p.packet_id())
        .collect();
    assert_eq!(ids, [65_534, 65_535, 2, 3].map(|n| Some(id(n))));
    sim.cut(client);
    let (client, _) = sim.connect(lasting(V3, "sub"));
    assert_eq!(sim.payloads(client), ["t=0", "t=1", "t=2", "t=3", "t=4"]);
}
