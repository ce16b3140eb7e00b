//! What MQTT and we promise: topic aliases, in both directions (3.3.2.3.4).

use super::*;

fn aliased(topic: Option<&str>, alias: u16) -> Packet {
    Packet::Publish(Publish {
        topic: topic.map(|name| TopicName::parse(name).unwrap()),
        topic_alias: TopicAlias::new(alias),
        ..publish("x", "x", Delivery::AtMostOnce)
    })
}

fn taking(sim: &mut Sim, maximum: Option<u16>) -> Client {
    let mut connect = hello(V5, "sub");
    connect.properties.topic_alias_maximum = maximum;
    let (client, _) = sim.connect(connect);
    sim.subscribe(client, "#", at(0));
    client
}

/// 5.0: [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-8] [MQTT-3.3.2-11]
#[test]
fn we_send_no_alias_that_the_client_does_not_take() {
    for (maximum, highest) in [(None, 0), (Some(0), 0), (Some(2), 2), (Some(u16::MAX), 16)] {
        let mut sim = Sim::new();
        let subscriber = taking(&mut sim, maximum);
        let publisher = sim.client(V5, "pub");
        let mut known = std::collections::BTreeMap::new();
        for round in 0..2 {
            for n in 0..20 {
                let name = format!("topic/{n}");
                sim.send(publisher, once(&name, "x"));
                let got = &sim.publishes(subscriber)[0];
                let alias = got.topic_alias.map_or(0, |alias| alias.value());
                assert!(alias <= highest, "{alias} of {maximum:?}");
                match &got.topic {
                    Some(topic) => {
                        assert_eq!(topic.as_str(), name);
                        known.insert(alias, name);
                    }
                    None => assert_eq!(known[&alias], name, "round {round}"),
                }
            }
        }
        let set_up = known.keys().filter(|alias| **alias > 0).count();
        assert_eq!(set_up, usize::from(highest));
    }
}

/// 5.0: [MQTT-3.3.2-12]
#[test]
fn we_take_every_alias_up_to_our_maximum() {
    let mut sim = Sim::new();
    let observer = taking(&mut sim, None);
    let client = sim.client(V5, "c");
    for alias in 1..=16 {
        sim.send(client, aliased(Some(&format!("t/{alias}")), alias));
    }
    for alias in (1..=16).rev() {
        sim.send(client, aliased(None, alias));
    }
    sim.send(client, aliased(Some("another"), 1));
    sim.send(client, aliased(None, 1));
    let got = sim.payloads(observer);
    assert_eq!(
        (got.len(), &got[15][..], &got[31][..]),
        (34, "t/16=x", "t/1=x")
    );
    assert_eq!(got[32..], ["another=x", "another=x"]);
}

/// 5.0: [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-8] [MQTT-3.3.2-9]
#[test]
fn an_alias_of_zero_or_above_our_maximum_ends_the_connection() {
    let told = Some(ReasonCode::TopicAliasInvalid);
    assert_eq!(put(V5, r#"30 07 0001 "t" 03 23 0000"#), (true, told));
    for (maximum, alias) in [(16, 17), (2, 3), (0, 1)] {
        let mut sim = Sim::limited(Limits {
            topic_aliases: maximum,
            ..Limits::default()
        });
        let client = sim.client(V5, "c");
        sim.send(client, aliased(Some("t"), alias));
        assert!(sim.is_closed(client));
        assert_eq!(last_reason(&mut sim, client), told);
    }
}

/// 5.0: [MQTT-3.3.2-7]
#[test]
fn aliases_end_with_their_connection() {
    let mut sim = Sim::new();
    let mut connect = lasting(V5, "c");
    connect.properties.topic_alias_maximum = Some(5);
    let (client, _) = sim.connect(connect.clone());
    sim.subscribe(client, "t", at(0));
    sim.send(client, aliased(Some("t"), 1));
    sim.lose(client);
    let (client, present) = sim.connect(connect);
    assert!(present);
    let other = sim.client(V5, "other");
    sim.send(other, once("t", "x"));
    assert_eq!(
        sim.payloads(client),
        ["t=x"],
        "the topic is spelled out again"
    );
    sim.send(client, aliased(None, 1));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::ProtocolError)
    );
    assert!(sim.is_closed(client));
}
