//! What MQTT and we promise: retention.

use super::*;
use crate::packet::{Subscribe, SubscribeRequest};

fn options(retain_handling: RetainHandling) -> SubscribeOptions {
    SubscribeOptions {
        retain_handling,
        ..at(1)
    }
}

#[test]
fn retain_handling_decides_what_a_subscription_brings_mqtt_3_3_1_9_to_11() {
    let mut sim = Sim::new();
    let client = sim.client(V5, "c");
    sim.send(client, retained("t", "x"));
    sim.subscribe(client, "t", options(RetainHandling::DoNotSend));
    assert_eq!(sim.payloads(client), Vec::<String>::new());
    sim.subscribe(client, "t", options(RetainHandling::SendIfNew));
    assert_eq!(sim.payloads(client), Vec::<String>::new());
    sim.subscribe(client, "+", options(RetainHandling::SendIfNew));
    assert_eq!(sim.payloads(client), ["t=x"]);
    sim.subscribe(client, "t", options(RetainHandling::Send));
    let publishes = sim.publishes(client);
    assert!(publishes[0].retain);
    sim.subscribe(client, "$share/g/t", options(RetainHandling::Send));
    assert_eq!(sim.payloads(client), Vec::<String>::new());
}

#[test]
fn retain_as_published_keeps_the_flag_and_its_absence_clears_it_mqtt_3_3_1_12_13() {
    for retain_as_published in [false, true] {
        let mut sim = Sim::new();
        let client = sim.client(V5, "c");
        sim.subscribe(
            client,
            "t",
            SubscribeOptions {
                retain_as_published,
                ..at(0)
            },
        );
        sim.send(client, retained("t", "x"));
        assert_eq!(sim.publishes(client)[0].retain, retain_as_published);
    }
}

#[test]
fn an_empty_retained_message_is_delivered_and_clears_the_topic_mqtt_3_3_1_6() {
    let mut sim = Sim::new();
    let client = sim.client(V3, "c");
    sim.send(client, retained("t", "x"));
    sim.send(client, retained("t", ""));
    sim.subscribe(client, "t", at(0));
    assert_eq!(sim.payloads(client), Vec::<String>::new());
    sim.send(client, retained("t", ""));
    assert_eq!(sim.payloads(client), ["t="]);
}

#[test]
fn expired_messages_are_not_delivered_and_others_say_what_remains_mqtt_3_3_2_5_6() {
    let mut sim = Sim::new();
    let (client, _) = sim.connect(lasting(V5, "sub"));
    sim.subscribe(client, "t", at(1));
    sim.lose(client);
    let publisher = sim.client(V5, "pub");
    for (n, life_s) in [(1, 10), (2, 100)] {
        let delivery = Delivery::AtLeastOnce(crate::broker::sim::id(n));
        let message = Publish {
            message_expiry_s: Some(life_s),
            ..publish("t", &n.to_string(), delivery)
        };
        sim.send(publisher, Packet::Publish(message));
    }
    sim.pass(Duration::from_secs(30));
    let (client, _) = sim.connect(lasting(V5, "sub"));
    let publishes = sim.publishes(client);
    assert_eq!(publishes.len(), 1);
    assert_eq!(publishes[0].message_expiry_s, Some(70));
}

#[test]
fn many_retained_messages_come_in_slices_and_all_of_them_for_every_filter() {
    let mut sim = Sim::limited(Limits {
        queued_messages: 100_000,
        ..Limits::default()
    });
    let publisher = sim.client(V5, "pub");
    for number in 0..9_000 {
        sim.send(publisher, retained(&format!("t/{number}"), "x"));
    }
    let client = sim.client(V5, "sub");
    for filter in ["t/#", "#", "+/+"] {
        sim.subscribe(client, filter, at(0));
    }
    let mut counts = Vec::new();
    for _ in 0..40 {
        counts.push(sim.publishes(client).len());
        sim.pass(Duration::from_millis(1));
    }
    assert!(counts.iter().all(|count| *count <= 2_000), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), 27_000, "{counts:?}");
}

#[test]
fn an_ended_subscription_gets_no_more_of_what_was_retained() {
    let mut sim = Sim::new();
    let publisher = sim.client(V5, "pub");
    for number in 0..5_000 {
        sim.send(publisher, retained(&format!("t/{number}"), "x"));
    }
    let client = sim.client(V5, "sub");
    sim.subscribe(client, "t/#", at(0));
    assert_eq!(sim.publishes(client).len(), 2_000);
    sim.send(client, Packet::Unsubscribe(unsubscribe("t/#")));
    sim.pass(Duration::from_millis(10));
    assert_eq!(sim.publishes(client).len(), 0);
}

#[test]
fn many_filters_with_few_messages_each_share_one_slice() {
    let mut sim = Sim::new();
    let publisher = sim.client(V5, "pub");
    for number in 0..900 {
        sim.send(publisher, retained(&format!("t/{number}"), "x"));
    }
    let client = sim.client(V5, "sub");
    let filters = ["t/#", "#", "+/+", "t/+", "+/#"];
    let requests = filters.map(|filter| SubscribeRequest {
        filter: SubscriptionFilter::parse(filter).unwrap(),
        options: at(0),
    });
    let subscribe = Subscribe {
        packet_id: crate::broker::sim::id(9),
        subscription_id: None,
        user_properties: UserProperties::default(),
        requests: requests.to_vec(),
    };
    sim.send(client, Packet::Subscribe(subscribe));
    assert_eq!(sim.publishes(client).len(), 2_000);
    sim.pass(Duration::from_millis(10));
    assert_eq!(sim.publishes(client).len(), 2_500);
}

#[test]
fn the_end_of_a_shared_subscription_leaves_the_plain_one_its_retained_messages() {
    let mut sim = Sim::new();
    let publisher = sim.client(V5, "pub");
    for number in 0..5_000 {
        sim.send(publisher, retained(&format!("t/{number}"), "x"));
    }
    let client = sim.client(V5, "sub");
    sim.subscribe(client, "$share/g/t/#", at(0));
    sim.subscribe(client, "t/#", at(0));
    assert_eq!(sim.publishes(client).len(), 2_000);
    sim.send(client, Packet::Unsubscribe(unsubscribe("$share/g/t/#")));
    sim.pass(Duration::from_millis(10));
    assert_eq!(sim.publishes(client).len(), 3_000);
}

fn unsubscribe(filter: &str) -> Unsubscribe {
    Unsubscribe {
        packet_id: crate::broker::sim::id(9),
        filters: vec![SubscriptionFilter::parse(filter).unwrap()],
        user_properties: UserProperties::default(),
    }
}
