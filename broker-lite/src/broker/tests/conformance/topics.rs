//! What MQTT and we promise: topic filters and how they match (4.7).

use super::*;

/// 3.1.1: [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1]
/// 5.0: [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]
#[test]
fn a_filter_with_a_misplaced_wildcard_ends_the_connection() {
    for (filter, sound) in [
        ("#", true),
        ("a/#", true),
        ("+", true),
        ("+/a/+", true),
        ("/+", true),
        ("+/#", true),
        ("a#", false),
        ("#/a", false),
        ("a/#/b", false),
        ("a+", false),
        ("+a/b", false),
        ("a/b+/c", false),
        ("", false),
    ] {
        for version in BOTH {
            for (first, options) in [(0x82, "00"), (0xa2, "")] {
                let none = if version == V5 { "00" } else { "" };
                let body = format!(r#"0001 {none} {:04x} "{filter}" {options}"#, filter.len());
                let bytes = format!("{first:02x} {:02x} {body}", parse(&body).len());
                let (closed, told) = put(version, &bytes);
                assert_eq!(closed, !sound, "{version:?} {filter}");
                let word = !sound && version == V5;
                assert_eq!(told, word.then_some(ReasonCode::TopicFilterInvalid));
            }
        }
    }
}

/// 3.1.1: [MQTT-4.7.2-1]
/// 5.0: [MQTT-4.7.2-1]
#[test]
fn leading_wildcards_do_not_match_topics_that_begin_with_a_dollar() {
    for version in BOTH {
        for (filter, matches) in [
            ("#", false),
            ("+/probe", false),
            ("+/#", false),
            ("$gateway/#", true),
            ("$gateway/+", true),
            ("$gateway/probe", true),
        ] {
            let access = vec![allow(None, &["#"], &["#", "$gateway/#"])];
            let mut sim = Sim::with(Limits::default(), access, None);
            let client = sim.client(version, "c");
            sim.subscribe(client, filter, at(0));
            let local = sim.core.open_local("probe");
            let message = Message::new(topic("$gateway/probe"), "x").retained();
            sim.core.publish_local(local, message, sim.now);
            let live = sim.publishes(client).len();
            sim.subscribe(client, filter, at(0));
            let kept = sim.publishes(client).len();
            let expected = usize::from(matches);
            assert_eq!((live, kept), (expected, expected), "{filter}");
        }
    }
}

#[test]
fn no_client_publishes_to_topics_that_begin_with_a_dollar() {
    let access = vec![allow(None, &["#", "$gateway/#"], &["$gateway/#"])];
    let mut sim = Sim::with(Limits::default(), access, None);
    let (observer, client) = pair(&mut sim, V5, "$gateway/#", 0);
    sim.send(client, qos1("$gateway/x", "x", 1));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::NotAuthorized)
    );
    assert_eq!(sim.payloads(observer), Vec::<String>::new());
}

/// 3.1.1: [MQTT-4.7.3-3]
/// 5.0: [MQTT-4.7.3-3]
#[test]
fn topics_of_all_their_65_535_bytes_are_carried() {
    for version in BOTH {
        let mut sim = Sim::limited(Limits {
            topic_length: 65_535,
            ..Limits::default()
        });
        let long = "t".repeat(65_535);
        assert!(
            TopicName::parse(&format!("{long}t")).is_err(),
            "more cannot be said"
        );
        let (subscriber, publisher) = pair(&mut sim, version, &long, 0);
        sim.send(publisher, once(&long, "x"));
        assert_eq!(sim.publishes(subscriber).len(), 1);
    }
}
