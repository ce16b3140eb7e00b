//! What MQTT and we promise: which session a CONNECT gets, and what CONNACK says of it (3.1.2, 3.2).

use super::*;

fn start(version: Version, clean_start: bool) -> Connect {
    Connect {
        clean_start,
        ..lasting(version, "c")
    }
}

/// 3.1.1: [MQTT-3.1.2-4] [MQTT-3.1.2-6] [MQTT-3.1.4-3] [MQTT-3.2.2-1] [MQTT-3.2.2-2]
/// 3.1.1: [MQTT-3.2.2-3]
/// 5.0: [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.4-4] [MQTT-3.2.2-2]
/// 5.0: [MQTT-3.2.2-3]
#[test]
fn a_session_is_resumed_unless_a_clean_one_is_asked_for() {
    for version in BOTH {
        for (known, clean, present) in [
            (false, false, false),
            (false, true, false),
            (true, false, true),
            (true, true, false),
        ] {
            let mut sim = Sim::new();
            if known {
                let (client, _) = sim.connect(start(version, false));
                sim.subscribe(client, "t", at(1));
                sim.lose(client);
            }
            let (client, said) = sim.connect(start(version, clean));
            assert_eq!(said, present, "{version:?} known {known}, clean {clean}");
            let publisher = sim.client(version, "pub");
            sim.send(publisher, qos1("t", "x", 1));
            assert_eq!(sim.payloads(client).len(), usize::from(present));
        }
    }
}

/// 3.1.1: [MQTT-3.1.2-6] [MQTT-3.1.2-7] [MQTT-4.1.0-2]
#[test]
fn a_clean_session_leaves_nothing_but_retained_messages() {
    let mut sim = Sim::new();
    let client = sim.client(V3, "c");
    sim.subscribe(client, "t", at(1));
    sim.send(client, retained("kept", "x"));
    sim.pass(Duration::from_secs(30));
    sim.send(client, once("t", "while connected"));
    assert_eq!(sim.payloads(client), ["t=while connected"]);
    sim.lose(client);
    assert_eq!(sim.core.status(sim.now).sessions, 0);
    let (client, present) = sim.connect(start(V3, false));
    assert!(!present);
    sim.subscribe(client, "kept", at(0));
    assert_eq!(sim.payloads(client), ["kept=x"]);
}

/// 5.0: [MQTT-3.1.2-23] [MQTT-4.1.0-1] [MQTT-4.1.0-2]
#[test]
fn session_state_lives_with_the_connection_and_its_expiry_after_it() {
    for (expiry_s, away_s, present) in [
        (None, 0, false),
        (Some(0), 0, false),
        (Some(10), 9, true),
        (Some(10), 11, false),
        (Some(u32::MAX), 86_400, true),
    ] {
        let mut sim = Sim::new();
        let mut connect = start(V5, false);
        connect.keep_alive_s = 0;
        connect.properties.session_expiry_s = expiry_s;
        let (client, _) = sim.connect(connect.clone());
        sim.subscribe(client, "t", at(1));
        // Far longer than the expiry, but connected.
        for _ in 0..10 {
            sim.pass(Duration::from_secs(600));
            sim.send(client, Packet::PingReq);
        }
        sim.send(client, once("t", "x"));
        assert_eq!(sim.payloads(client), ["t=x"]);
        sim.lose(client);
        sim.pass(Duration::from_secs(away_s));
        assert_eq!(sim.connect(connect).1, present, "{expiry_s:?} {away_s}");
    }
}

/// 5.0: [MQTT-3.2.2-1]
#[test]
fn the_reserved_acknowledge_flags_are_zero() {
    for session_present in [false, true] {
        let mut written = bytes::BytesMut::new();
        let ack = ConnAck {
            session_present,
            reason: ReasonCode::Success,
            properties: crate::packet::ConnAckProperties::default(),
        };
        crate::packet::encode(&Packet::ConnAck(Box::new(ack)), V5, &mut written).unwrap();
        assert_eq!(written[2], u8::from(session_present));
    }
}

/// 3.1.1: [MQTT-3.1.4-2]
/// 5.0: [MQTT-3.1.4-3]
#[test]
fn the_earlier_connection_of_a_client_is_closed_whatever_its_version() {
    for (old, new) in [(V3, V3), (V3, V5), (V5, V3), (V5, V5)] {
        let mut sim = Sim::new();
        let (first, _) = sim.connect(lasting(old, "c"));
        let (second, present) = sim.connect(lasting(new, "c"));
        assert!(present && sim.is_closed(first) && !sim.is_closed(second));
        let told = last_reason(&mut sim, first);
        assert_eq!(told, (old == V5).then_some(ReasonCode::SessionTakenOver));
    }
}

/// 3.1.1: [MQTT-3.1.2-24]
/// 5.0: [MQTT-3.1.2-22] [MQTT-3.2.2-22]
#[test]
fn without_a_server_keep_alive_the_clients_own_holds() {
    for version in BOTH {
        let mut sim = Sim::new();
        let client = sim.try_connect(Connect {
            keep_alive_s: 10,
            will: Some(will("will", None)),
            ..hello(version, "c")
        });
        match &sim.take(client)[..] {
            [Packet::ConnAck(ack)] => assert_eq!(ack.properties.server_keep_alive_s, None),
            other => panic!("{other:?}"),
        }
        let observer = sim.client(version, "observer");
        sim.subscribe(observer, "will", at(0));
        for wait_ms in [14_900, 14_900] {
            sim.pass(Duration::from_millis(wait_ms));
            assert!(!sim.is_closed(client));
            sim.send(client, Packet::PingReq);
        }
        sim.pass(Duration::from_millis(15_100));
        assert!(sim.is_closed(client));
        assert_eq!(
            sim.payloads(observer),
            ["will=gone"],
            "as if the network had failed"
        );
    }
}

#[test]
fn a_keep_alive_above_our_maximum_is_replaced_by_it_and_none_at_all_too() {
    for asked in [0, 7_200] {
        let mut sim = Sim::new();
        let client = sim.try_connect(Connect {
            keep_alive_s: asked,
            ..hello(V5, "c")
        });
        match &sim.take(client)[..] {
            [Packet::ConnAck(ack)] => {
                assert_eq!(ack.properties.server_keep_alive_s, Some(3_600));
            }
            other => panic!("{other:?}"),
        }
        sim.pass(Duration::from_secs(5_399));
        assert!(!sim.is_closed(client));
        sim.pass(Duration::from_secs(2));
        assert!(sim.is_closed(client));
    }
}

/// 5.0: [MQTT-3.1.2-28]
#[test]
fn response_information_is_for_those_who_ask() {
    for (asks, told) in [
        (None, None),
        (Some(false), None),
        (Some(true), Some("response/c")),
    ] {
        let mut sim = Sim::new();
        let mut rules = rules(
            Limits::default(),
            vec![crate::config::AccessRule::everything()],
        );
        let pattern = crate::config::TopicPattern("response/%c".to_owned());
        rules.protocol.response_topics = Some(pattern);
        sim.core.replace_rules(rules, sim.now);
        let mut connect = hello(V5, "c");
        connect.properties.request_response_information = asks;
        let client = sim.try_connect(connect);
        match &sim.take(client)[..] {
            [Packet::ConnAck(ack)] => {
                let information = ack.properties.response_information.as_ref();
                assert_eq!(information.map(Text::as_str), told);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_broker_that_has_moved_says_where_to() {
    use crate::config::{Redirect, RedirectWhen};
    let redirect = |when| {
        let mut rules = rules(
            Limits::default(),
            vec![crate::config::AccessRule::everything()],
        );
        let server = "other.plant:8883".to_owned();
        rules.protocol.redirect = Some(Redirect { server, when });
        rules
    };
    let mut sim = Sim::new();
    sim.core
        .replace_rules(redirect(RedirectWhen::Stop), sim.now);
    let client = sim.client(V5, "c");
    sim.core.close_all(ReasonCode::ServerShuttingDown, sim.now);
    match &sim.take(client)[..] {
        [Packet::Disconnect(word)] => {
            assert_eq!(word.reason, ReasonCode::UseAnotherServer);
            assert_eq!(word.server_reference, Some(text("other.plant:8883")));
        }
        other => panic!("{other:?}"),
    }
    let client = sim.client(V5, "c");
    sim.core
        .replace_rules(redirect(RedirectWhen::Always), sim.now);
    assert_eq!(last_reason(&mut sim, client), Some(ReasonCode::ServerMoved));
    let refused = refusal(&mut sim, hello(V5, "c")).unwrap();
    assert_eq!(refused.reason, ReasonCode::ServerMoved);
    assert_eq!(
        refused.properties.server_reference,
        Some(text("other.plant:8883"))
    );
    let refused = refusal(&mut sim, hello(V3, "c")).unwrap();
    assert_eq!(
        refused.reason,
        ReasonCode::ServerUnavailable,
        "all that 3.1.1 can say"
    );
}
