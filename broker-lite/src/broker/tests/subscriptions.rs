//! What MQTT and we promise: subscriptions.

use super::*;

#[test]
fn overlapping_subscriptions_give_one_copy_with_all_identifiers_mqtt_3_3_4_2() {
    let mut sim = Sim::new();
    let client = sim.client(V5, "c");
    for (filter, qos, id) in [("t/#", 0, 7), ("t/+", 1, 8)] {
        let Packet::Subscribe(mut packet) = subscribe(filter, at(qos)) else {
            panic!()
        };
        packet.subscription_id = SubscriptionId::new(id);
        sim.send(client, Packet::Subscribe(packet));
    }
    sim.send(client, qos1("t/x", "x", 1));
    let publishes = sim.publishes(client);
    assert_eq!(publishes.len(), 1);
    let mut ids: Vec<u32> = publishes[0]
        .subscription_ids
        .iter()
        .map(|id| id.value())
        .collect();
    ids.sort_unstable();
    assert_eq!((ids, publishes[0].qos()), (vec![7, 8], QoS::AtLeastOnce));
}

#[test]
fn no_local_keeps_a_clients_own_messages_away_mqtt_3_8_3_3() {
    let mut sim = Sim::new();
    let client = sim.client(V5, "c");
    sim.subscribe(
        client,
        "t",
        SubscribeOptions {
            no_local: true,
            ..at(0)
        },
    );
    sim.send(client, once("t", "own"));
    let other = sim.client(V5, "other");
    sim.send(other, once("t", "foreign"));
    assert_eq!(sim.payloads(client), ["t=foreign"]);
}

#[test]
fn unsubscribe_says_whether_there_was_anything_and_ends_it_mqtt_3_10_4_1() {
    let mut sim = Sim::new();
    let client = sim.client(V5, "c");
    sim.subscribe(client, "t", at(0));
    let filters = ["t", "u"].map(|text| SubscriptionFilter::parse(text).unwrap());
    sim.send(
        client,
        Packet::Unsubscribe(Unsubscribe {
            packet_id: crate::broker::sim::id(3),
            user_properties: UserProperties::default(),
            filters: filters.into(),
        }),
    );
    match &sim.take(client)[..] {
        [Packet::UnsubAck(ack)] => {
            assert_eq!(
                ack.reasons,
                [ReasonCode::Success, ReasonCode::NoSubscriptionExisted]
            );
        }
        other => panic!("{other:?}"),
    }
    sim.send(client, once("t", "x"));
    assert_eq!(sim.payloads(client), Vec::<String>::new());
}

#[test]
fn a_shared_subscription_gives_each_message_to_one_member_in_turn_mqtt_4_8_2() {
    let mut sim = Sim::new();
    let members = ["a", "b"].map(|id| sim.client(V5, id));
    for member in members {
        sim.subscribe(member, "$share/g/t", at(1));
    }
    let publisher = sim.client(V5, "pub");
    for n in 1..=4 {
        sim.send(publisher, qos1("t", &n.to_string(), n));
    }
    assert_eq!(sim.payloads(members[0]), ["t=1", "t=3"]);
    assert_eq!(sim.payloads(members[1]), ["t=2", "t=4"]);
}

#[test]
fn what_a_leaving_member_did_not_acknowledge_goes_to_another() {
    let mut sim = Sim::new();
    let members = ["a", "b"].map(|id| sim.client(V5, id));
    for member in members {
        sim.subscribe(member, "$share/g/t", at(1));
    }
    let publisher = sim.client(V5, "pub");
    sim.send(publisher, qos1("t", "1", 1));
    assert_eq!(sim.payloads(members[0]), ["t=1"]);
    sim.lose(members[0]);
    assert_eq!(sim.payloads(members[1]), ["t=1"]);
}

#[test]
fn subscriptions_above_the_limit_are_refused_with_quota_exceeded() {
    let mut sim = Sim::limited(Limits {
        subscriptions: 1,
        ..Limits::default()
    });
    let client = sim.client(V5, "c");
    assert_eq!(sim.subscribe(client, "a", at(1)), ReasonCode::GrantedQos1);
    assert_eq!(sim.subscribe(client, "b", at(1)), ReasonCode::QuotaExceeded);
    assert_eq!(sim.subscribe(client, "a", at(2)), ReasonCode::GrantedQos2);
}
