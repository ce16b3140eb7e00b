//! What MQTT and we promise: keeping.

use super::*;

#[test]
fn an_acknowledgement_is_held_until_the_keeper_has_committed() {
    for (packet, expected) in [
        (qos1("t/a", "x", 1), puback(1)),
        (qos2("t/a", "x", 1), pubrec(1)),
    ] {
        let mut sim = Sim::keeping("t/#");
        let client = sim.client(V3, "c");
        sim.send(client, packet);
        assert_eq!(sim.take(client), []);
        sim.answer_keeper(Kept::Committed);
        assert_eq!(sim.take(client), [expected]);
    }
}

#[test]
fn acknowledgements_leave_in_the_order_of_their_publishes_mqtt_4_6_0_2() {
    let mut sim = Sim::keeping("kept");
    let client = sim.client(V3, "c");
    let other = sim.client(V3, "other");
    sim.send(client, qos1("kept", "1", 1));
    sim.send(client, qos1("free", "2", 2));
    sim.send(client, qos1("kept", "3", 3));
    sim.send(other, qos1("free", "4", 4));
    assert_eq!(sim.take(client), []);
    assert_eq!(sim.take(other), [puback(4)], "nobody else waits");
    sim.answer_keeper(Kept::Committed);
    assert_eq!(sim.take(client), [puback(1), puback(2)]);
    sim.answer_keeper(Kept::Committed);
    assert_eq!(sim.take(client), [puback(3)]);
}

#[test]
fn a_5_0_client_is_told_quota_exceeded_when_its_message_is_not_kept() {
    for packet in [qos1("t", "x", 1), qos2("t", "x", 1)] {
        let mut sim = Sim::keeping("t");
        let client = sim.client(V5, "c");
        sim.send(client, packet);
        sim.answer_keeper(Kept::Refused);
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::QuotaExceeded)
        );
        assert!(!sim.is_closed(client));
    }
}

#[test]
fn a_3_1_1_client_is_closed_unacknowledged_so_that_it_sends_again() {
    let mut sim = Sim::keeping("t");
    let (client, _) = sim.connect(lasting(V3, "c"));
    sim.send(client, qos2("t", "x", 1));
    sim.answer_keeper(Kept::Refused);
    assert_eq!(sim.take(client), []);
    assert!(sim.is_closed(client));
    let (client, _) = sim.connect(lasting(V3, "c"));
    sim.send(client, qos2("t", "x", 1));
    sim.answer_keeper(Kept::Committed);
    assert_eq!(sim.take(client), [pubrec(1)]);
}

#[test]
fn a_qos_2_message_that_was_refused_first_reaches_subscribers_once() {
    let mut sim = Sim::keeping("t");
    let client = sim.client(V5, "c");
    let subscriber = sim.client(V5, "sub");
    sim.subscribe(subscriber, "t", at(0));
    sim.send(client, qos2("t", "x", 1));
    sim.answer_keeper(Kept::Refused);
    sim.send(client, qos2("t", "x", 2));
    sim.answer_keeper(Kept::Committed);
    assert_eq!(sim.payloads(subscriber), ["t=x"]);
}

#[test]
fn a_3_1_1_client_whose_acknowledgements_are_held_is_left_unread() {
    let limits = Limits {
        in_flight: 2,
        ..Limits::default()
    };
    let wants = crate::broker::sim::Wants(TopicFilter::parse("t").unwrap());
    let everyone = vec![crate::config::AccessRule::everything()];
    let mut sim = Sim::with(limits, everyone, Some(std::sync::Arc::new(wants)));
    let client = sim.client(V3, "c");
    sim.send(client, qos1("t", "1", 1));
    assert!(sim.core.accepts(client.0, sim.now));
    sim.send(client, qos1("t", "2", 2));
    assert!(!sim.core.accepts(client.0, sim.now));
    sim.answer_keeper(Kept::Committed);
    assert!(sim.core.accepts(client.0, sim.now));
}

#[test]
fn a_qos_2_identifier_stays_known_when_the_receipt_comes_after_the_client_left() {
    let mut sim = Sim::keeping("t");
    let (client, _) = sim.connect(lasting(V3, "c"));
    let subscriber = sim.client(V3, "sub");
    sim.subscribe(subscriber, "t", at(0));
    sim.send(client, qos2("t", "x", 1));
    sim.lose(client);
    sim.answer_keeper(Kept::Committed);
    let (client, _) = sim.connect(lasting(V3, "c"));
    sim.send(client, qos2("t", "x", 1));
    assert_eq!(sim.take(client), [pubrec(1)]);
    assert_eq!(sim.payloads(subscriber), ["t=x"]);
}

#[test]
fn qos_0_messages_and_wills_are_handed_to_the_keeper_too() {
    let mut sim = Sim::keeping("t/#");
    let mut connect = hello(V3, "c");
    connect.will = Some(will("t/will", None));
    let (client, _) = sim.connect(connect);
    sim.send(client, once("t/zero", "x"));
    sim.lose(client);
    let topics: Vec<_> = sim
        .kept
        .iter()
        .map(|(_, publication)| publication.message.topic.as_str())
        .collect();
    assert_eq!(topics, ["t/zero", "t/will"]);
}
