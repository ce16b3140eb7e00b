//! What MQTT and we promise: within the process.

use super::*;

#[test]
fn a_local_publisher_learns_what_the_keeper_says() {
    let mut sim = Sim::keeping("t");
    let local = sim.core.open_local("field");
    let topic = TopicName::parse("t").unwrap();
    assert!(
        sim.core
            .publish_local(local, Message::new(topic, "x"), sim.now)
            .is_some()
    );
    sim.drain();
    sim.answer_keeper(Kept::Committed);
    assert_eq!(sim.settled, [Kept::Committed]);
    let free = TopicName::parse("u").unwrap();
    assert!(
        sim.core
            .publish_local(local, Message::new(free, "x"), sim.now)
            .is_none()
    );
}

#[test]
fn a_local_consumer_receives_even_under_reserved_topics() {
    let mut sim = Sim::new();
    let local = sim.core.open_local("probe");
    let topic = TopicName::parse("$gateway/probe").unwrap();
    let filter = SubscriptionFilter::parse("$gateway/probe").unwrap();
    sim.core
        .subscribe_local(local, filter, QoS::AtMostOnce, sim.now);
    sim.core
        .publish_local(local, Message::new(topic.clone(), "x"), sim.now);
    sim.drain();
    assert_eq!(sim.ready, [local]);
    let delivery = sim.core.take_delivery(local, sim.now).unwrap();
    assert_eq!(delivery.publication.message.topic, topic);
    sim.core.close_local(local, sim.now);
    assert_eq!(sim.core.status(sim.now).subscriptions, 0);
}

#[test]
fn local_names_do_not_meet_those_of_the_network() {
    let mut sim = Sim::new();
    let local = sim.core.open_local("same");
    let client = sim.client(V5, "same");
    sim.subscribe(client, "t", at(0));
    sim.core.publish_local(
        local,
        Message::new(TopicName::parse("t").unwrap(), "x"),
        sim.now,
    );
    assert_eq!(sim.payloads(client), ["t=x"]);
    sim.core.close_local(local, sim.now);
    assert!(!sim.is_closed(client));
}
