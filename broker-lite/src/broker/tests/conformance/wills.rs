//! What MQTT and we promise: wills (3.1.2.5, 3.1.3.2).

use super::*;
use crate::packet::{Disconnect, MessageProperties};

fn observed(sim: &mut Sim) -> Client {
    let observer = sim.client(V5, "observer");
    sim.subscribe(observer, "will", at(0));
    observer
}

/// 3.1.1: [MQTT-3.1.2-12]
#[test]
fn a_client_without_a_will_leaves_no_word() {
    let mut sim = Sim::new();
    let observer = sim.client(V5, "observer");
    sim.subscribe(observer, "#", at(0));
    let (client, _) = sim.connect(Connect {
        will: Some(will("will", None)),
        ..hello(V3, "c")
    });
    sim.send(client, goodbye());
    let client = sim.client(V3, "c");
    sim.lose(client);
    assert_eq!(sim.payloads(observer), Vec::<String>::new());
}

/// 3.1.1: [MQTT-3.1.2-16] [MQTT-3.1.2-17]
/// 5.0: [MQTT-3.1.2-14] [MQTT-3.1.2-15]
#[test]
fn a_will_is_retained_as_it_says() {
    for version in BOTH {
        for retain in [false, true] {
            let mut sim = Sim::new();
            let (client, _) = sim.connect(Connect {
                will: Some(Will {
                    retain,
                    ..will("will", None)
                }),
                ..hello(version, "c")
            });
            sim.lose(client);
            let late = observed(&mut sim);
            let got = sim.publishes(late);
            assert_eq!(
                got.iter().map(|p| p.retain).collect::<Vec<_>>(),
                vec![true; usize::from(retain)]
            );
        }
    }
}

/// 3.1.1: [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.4-3]
/// 5.0: [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.4-3]
#[test]
fn every_end_but_a_normal_disconnect_publishes_the_will_once() {
    type End = fn(&mut Sim, Client);
    let ends: [(&str, End, bool); 6] = [
        (
            "a normal disconnect",
            |sim, client| sim.send(client, goodbye()),
            false,
        ),
        ("a lost connection", Sim::lose, true),
        (
            "a violation",
            |sim, client| sim.send(client, Packet::PingResp),
            true,
        ),
        (
            "malformed bytes",
            |sim, client| sim.send_bytes(client, &[0xc1]),
            true,
        ),
        ("silence", |sim, _| sim.pass(Duration::from_secs(20)), true),
        (
            "a second connection",
            |sim, _| {
                sim.client(V5, "c");
            },
            true,
        ),
    ];
    for version in BOTH {
        for (how, end, published) in ends {
            let mut sim = Sim::new();
            let observer = observed(&mut sim);
            let (client, _) = sim.connect(Connect {
                keep_alive_s: 10,
                will: Some(will("will", None)),
                ..hello(version, "c")
            });
            end(&mut sim, client);
            sim.lose(client);
            sim.pass(Duration::from_secs(10));
            let got = sim.payloads(observer).len();
            assert_eq!(got, usize::from(published), "{version:?}: {how}");
        }
    }
    let mut sim = Sim::new();
    let observer = observed(&mut sim);
    let (client, _) = sim.connect(Connect {
        will: Some(will("will", None)),
        ..hello(V5, "c")
    });
    let word = Disconnect::new(ReasonCode::DisconnectWithWill);
    sim.send(client, Packet::Disconnect(word));
    assert_eq!(sim.payloads(observer), ["will=gone"]);
}

/// 5.0: [MQTT-3.1.2-8] [MQTT-3.1.3-9]
#[test]
fn a_delay_holds_the_will_until_it_or_the_session_is_over() {
    for (delay_s, expiry_s, at_s) in [(10, 3_600, 10), (100, 20, 20), (0, 3_600, 0), (10, 0, 0)] {
        let mut sim = Sim::new();
        let observer = observed(&mut sim);
        let mut connect = Connect {
            keep_alive_s: 0,
            will: Some(will("will", Some(delay_s))),
            ..lasting(V5, "c")
        };
        connect.properties.session_expiry_s = Some(expiry_s);
        let (client, _) = sim.connect(connect);
        sim.lose(client);
        if at_s > 0 {
            sim.pass(Duration::from_secs(at_s - 1));
            assert_eq!(sim.payloads(observer), Vec::<String>::new());
            sim.pass(Duration::from_secs(2));
        }
        assert_eq!(
            sim.payloads(observer),
            ["will=gone"],
            "{delay_s} {expiry_s}"
        );
        sim.pass(Duration::from_secs(40));
        assert_eq!(sim.payloads(observer), Vec::<String>::new(), "once");
    }
}

/// 5.0: [MQTT-3.1.2-8]
#[test]
fn a_clean_start_ends_the_session_and_so_the_delay() {
    let mut sim = Sim::new();
    let observer = observed(&mut sim);
    let (client, _) = sim.connect(Connect {
        will: Some(will("will", Some(100))),
        ..lasting(V5, "c")
    });
    sim.lose(client);
    sim.client(V5, "c");
    assert_eq!(sim.payloads(observer), ["will=gone"]);
}

/// 5.0: [MQTT-3.1.3-10]
#[test]
fn a_will_carries_its_properties_and_their_order() {
    let mut user_properties = UserProperties::default();
    for (name, value) in [("b", "1"), ("a", "2"), ("b", "3")] {
        user_properties.push(name, value).unwrap();
    }
    let properties = MessageProperties {
        content_type: Some(text("text/plain")),
        user_properties,
        ..MessageProperties::default()
    };
    let properties = Some(std::sync::Arc::new(properties));
    let mut sim = Sim::new();
    let observer = observed(&mut sim);
    let (client, _) = sim.connect(Connect {
        will: Some(Will {
            properties: properties.clone(),
            message_expiry_s: Some(7),
            ..will("will", None)
        }),
        ..hello(V5, "c")
    });
    sim.lose(client);
    let got = sim.publishes(observer);
    assert_eq!(
        (got[0].properties.clone(), got[0].message_expiry_s),
        (properties, Some(7))
    );
}
