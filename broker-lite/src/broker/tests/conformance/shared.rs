//! What MQTT and we promise: shared subscriptions (4.8.2).

use super::*;

/// 5.0: [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn a_shared_filter_without_a_proper_name_or_a_filter_ends_the_connection() {
    for (filter, closes) in [
        ("$share/g/t", false),
        ("$share/g/#", false),
        ("$share/g//", false),
        ("$shared/g/t", false),
        ("$share//t", true),
        ("$share/g", true),
        ("$share/g/", true),
        ("$share/+/t", true),
        ("$share/g#/t", true),
        ("$share/g/t#", true),
    ] {
        let body = format!(r#"0001 00 {:04x} "{filter}" 01"#, filter.len());
        let bytes = format!("82 {:02x} {body}", parse(&body).len());
        let (closed, told) = put(V5, &bytes);
        assert_eq!(closed, closes, "{filter}");
        let expected = closes.then_some(ReasonCode::TopicFilterInvalid);
        assert_eq!(told, expected, "{filter}");
    }
}

/// 5.0: [MQTT-4.8.2-3]
#[test]
fn each_member_is_served_at_its_own_qos_and_once_for_each_share() {
    let mut sim = Sim::new();
    let members = [0, 1, 2].map(|qos| {
        let client = sim.client(V5, &format!("member {qos}"));
        sim.subscribe(client, "$share/g/t", at(qos));
        client
    });
    let alone = sim.client(V5, "alone");
    sim.subscribe(alone, "$share/h/t", at(1));
    sim.subscribe(alone, "t", at(0));
    let publisher = sim.client(V5, "pub");
    for n in 1..=3 {
        sim.send(publisher, qos2("t", "x", n));
    }
    for (qos, member) in members.into_iter().enumerate() {
        let got = sim.publishes(member);
        assert_eq!((got.len(), got[0].qos() as usize), (1, qos));
    }
    assert_eq!(sim.publishes(alone).len(), 6);
}

fn two_members(sim: &mut Sim, connect: fn(Version, &str) -> Connect) -> [Client; 2] {
    ["a", "b"].map(|name| {
        let (client, _) = sim.connect(connect(V5, name));
        sim.subscribe(client, "$share/g/t", at(2));
        client
    })
}

/// 5.0: [MQTT-4.8.2-4]
#[test]
fn a_qos_2_delivery_that_was_cut_off_is_completed_with_the_same_member() {
    let mut sim = Sim::new();
    let [first, second] = two_members(&mut sim, lasting);
    let publisher = sim.client(V5, "pub");
    sim.send(publisher, qos2("t", "x", 1));
    assert_eq!(sim.payloads(first), ["t=x"]);
    sim.cut(first);
    let (first, _) = sim.connect(lasting(V5, "a"));
    let again = sim.publishes(first);
    assert!(again.len() == 1 && again[0].dup);
    sim.send(first, pubrec(1));
    assert_eq!(sim.take(first), [pubrel(1)]);
    sim.send(first, pubcomp(1));
    assert_eq!(sim.payloads(second), Vec::<String>::new());
}

/// 5.0: [MQTT-4.8.2-5]
#[test]
fn what_a_leaving_member_may_have_taken_at_qos_2_goes_to_nobody_and_the_rest_to_another() {
    for (packet, heard) in [(qos2("t", "x", 1), 0), (qos1("t", "x", 1), 1)] {
        let mut sim = Sim::new();
        let [first, second] = two_members(&mut sim, hello);
        let publisher = sim.client(V5, "pub");
        sim.send(publisher, packet);
        assert_eq!(sim.payloads(first), ["t=x"]);
        sim.lose(first);
        assert_eq!(sim.payloads(second).len(), heard);
    }
}

#[test]
fn what_waits_behind_a_leaving_members_window_goes_to_another_unless_it_expired() {
    for (wait_s, heard) in [(0, 4), (20, 2)] {
        let mut sim = Sim::new();
        let mut connect = hello(V5, "a");
        connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
        let (first, _) = sim.connect(connect);
        sim.subscribe(first, "$share/g/t", at(2));
        let publisher = sim.client(V5, "pub");
        for n in 1..=5 {
            let message = Publish {
                message_expiry_s: Some(if n > 3 { 10 } else { 100 }),
                ..publish("t", &n.to_string(), Delivery::ExactlyOnce(id(n)))
            };
            sim.send(publisher, Packet::Publish(message));
        }
        assert_eq!(sim.payloads(first), ["t=1"]);
        let second = sim.client(V5, "b");
        sim.subscribe(second, "$share/g/t", at(1));
        sim.pass(Duration::from_secs(wait_s));
        sim.lose(first);
        assert_eq!(sim.payloads(second).len(), heard);
    }
}

/// 5.0: [MQTT-4.8.2-6]
#[test]
fn what_a_member_refuses_goes_to_nobody_else() {
    for qos in 1..=2 {
        let mut sim = Sim::new();
        let [first, second] = two_members(&mut sim, lasting);
        let publisher = sim.client(V5, "pub");
        let no = Ack::new(id(1), ReasonCode::NotAuthorized);
        let refusing = match qos {
            1 => {
                sim.send(publisher, qos1("t", "x", 1));
                Packet::PubAck(no)
            }
            _ => {
                sim.send(publisher, qos2("t", "x", 1));
                Packet::PubRec(no)
            }
        };
        assert_eq!(sim.payloads(first), ["t=x"]);
        sim.send(first, refusing);
        sim.send(first, goodbye());
        sim.pass(Duration::from_secs(4_000));
        assert_eq!(sim.payloads(second), Vec::<String>::new());
    }
}

#[test]
fn an_absent_member_is_passed_over_and_a_group_of_absent_ones_waits() {
    let mut sim = Sim::new();
    let [first, second] = two_members(&mut sim, lasting);
    sim.cut(first);
    let publisher = sim.client(V5, "pub");
    for n in 1..=3 {
        sim.send(publisher, qos1("t", &n.to_string(), n));
    }
    assert_eq!(sim.payloads(second).len(), 3);
    sim.cut(second);
    sim.send(publisher, qos1("t", "4", 4));
    let waiting: usize = ["a", "b"]
        .map(|name| {
            let (client, _) = sim.connect(lasting(V5, name));
            let new = sim.publishes(client).into_iter().filter(|p| !p.dup);
            new.count()
        })
        .into_iter()
        .sum();
    assert_eq!(waiting, 1);
}
