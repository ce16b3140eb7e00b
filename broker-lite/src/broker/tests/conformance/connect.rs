//! What MQTT and we promise: the first packet, and how a CONNECT is formed (3.1).

use super::*;

/// 3.1.1: [MQTT-3.1.0-1] [MQTT-4.8.0-1]
/// 5.0: [MQTT-3.1.0-1] [MQTT-3.14.0-1] [MQTT-3.2.0-1]
#[test]
fn a_first_packet_that_is_no_connect_ends_the_connection_without_an_answer() {
    for bytes in [
        r#"30 03 0001 "a""#,
        "40 02 0001",
        r#"82 06 0001 0001 "a" 00"#,
        "c0 00",
        "e0 00",
        "f0 00",
        "20 02 00 00",
        "00 00",
    ] {
        assert_eq!(put_first(bytes), (true, None), "{bytes}");
    }
    let mut sim = Sim::new();
    let client = sim.silent();
    sim.send(client, Packet::PingReq);
    assert!(sim.is_closed(client) && sim.take(client).is_empty());
}

/// 3.1.1: [MQTT-3.1.0-2]
/// 5.0: [MQTT-3.1.0-2] [MQTT-3.2.0-2]
#[test]
fn a_second_connect_ends_the_connection_and_gets_no_second_connack() {
    for (version, again) in [
        (V3, r#"10 0d 0004 "MQTT" 04 02 003c 0001 "c""#),
        (V5, r#"10 0e 0004 "MQTT" 05 02 003c 00 0001 "c""#),
    ] {
        let mut sim = Sim::new();
        let client = sim.silent();
        sim.send_bytes(client, &parse(again));
        sim.send_bytes(client, &parse(again));
        assert!(sim.is_closed(client));
        match &sim.take(client)[..] {
            [Packet::ConnAck(_)] => assert_eq!(version, V3),
            [Packet::ConnAck(_), Packet::Disconnect(word)] => {
                assert_eq!((version, word.reason), (V5, ReasonCode::ProtocolError));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// 3.1.1: [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT-3.2.2-4] [MQTT-3.2.2-5]
/// 5.0: [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT-3.2.2-6] [MQTT-3.2.2-7]
#[test]
fn another_protocol_or_level_is_refused_in_the_words_of_the_level() {
    for (bytes, answer) in [
        (r#"10 0c 0004 "MQTT" 03 02 003c 0000"#, "20 02 00 01"),
        (r#"10 0c 0004 "MQTT" 00 02 003c 0000"#, "20 02 00 01"),
        (r#"10 0e 0006 "MQIsdp" 03 02 003c 0000"#, "20 02 00 01"),
        (r#"10 0c 0004 "MQTX" 04 02 003c 0000"#, "20 02 00 01"),
        (r#"10 0d 0004 "MQTT" 06 02 003c 00 0000"#, "84"),
        (r#"10 0d 0004 "mqtt" 05 02 003c 00 0000"#, "84"),
    ] {
        let (closed, ack) = put_first(bytes);
        let ack = ack.expect(bytes);
        assert!(closed && !ack.session_present, "{bytes}");
        assert_eq!(
            ack.reason,
            ReasonCode::UnsupportedProtocolVersion,
            "{bytes}"
        );
        let in_v3 = answer != "84";
        let version = if in_v3 { V3 } else { V5 };
        let mut written = bytes::BytesMut::new();
        crate::packet::encode(&Packet::ConnAck(Box::new(ack)), version, &mut written).unwrap();
        match in_v3 {
            true => assert_eq!(written, parse(answer)),
            false => assert_eq!(written[2..4], [0, 0x84]),
        }
    }
}

/// A CONNECT of both versions, each with its own body after the flags, and what is wrong with it.
const FAULTY: [(&str, &str, &str); 13] = [
    ("the reserved flag", "03", r#"0001 "c""#),
    ("a will QoS without a will", "0a", r#"0001 "c""#),
    ("a will QoS of 3", "1e", r#"0001 "c" WILL 0001 "t" 0000"#),
    ("a retained will without a will", "22", r#"0001 "c""#),
    ("a will without its fields", "06", r#"0001 "c""#),
    (
        "a will without a payload",
        "06",
        r#"0001 "c" WILL 0001 "t""#,
    ),
    (
        "a will's fields without the flag",
        "02",
        r#"0001 "c" WILL 0001 "t" 0000"#,
    ),
    ("no client identifier", "02", ""),
    ("no user name", "82", r#"0001 "c""#),
    ("a user name without the flag", "02", r#"0001 "c" 0001 "u""#),
    ("no password", "c2", r#"0001 "c" 0001 "u""#),
    (
        "a password without the flag",
        "82",
        r#"0001 "c" 0001 "u" 0001 "p""#,
    ),
    (
        "a will topic with a wildcard",
        "06",
        r#"0001 "c" WILL 0003 "t/#" 0000"#,
    ),
];

fn connect_bytes(version: Version, flags: &str, rest: &str) -> Vec<u8> {
    let (level, none) = if version == V5 {
        ("05", "00")
    } else {
        ("04", "")
    };
    let rest = rest.replace("WILL", none);
    let body = parse(&format!(
        r#"0004 "MQTT" {level} {flags} 003c {none} {rest}"#
    ));
    [vec![0x10, body.len() as u8], body].concat()
}

/// 3.1.1: [MQTT-3.1.2-3] [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14]
/// 3.1.1: [MQTT-3.1.2-15] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21]
/// 3.1.1: [MQTT-3.1.2-22] [MQTT-3.1.3-3] [MQTT-3.1.4-1] [MQTT-3.2.2-6]
/// 5.0: [MQTT-3.1.2-3] [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13]
/// 5.0: [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-3]
/// 5.0: [MQTT-3.1.4-1] [MQTT-4.13.1-1] [MQTT-4.13.2-1]
#[test]
fn a_connect_that_is_not_formed_as_specified_ends_the_connection() {
    for version in BOTH {
        for (what, flags, rest) in FAULTY {
            let mut sim = Sim::new();
            let client = sim.silent();
            sim.send_bytes(client, &connect_bytes(version, flags, rest));
            // Some read on as if the next field were there: they wait for no byte that could come.
            assert!(sim.is_closed(client), "{version:?}: {what}");
            let told = last_reason(&mut sim, client);
            match version {
                V3 => assert_eq!(told, None, "{what}: 3.1.1 has no code for it"),
                V5 => assert!(told.is_some_and(ReasonCode::is_failure), "{what}"),
            }
            assert_eq!(sim.core.status(sim.now).sessions, 0, "{what}");
        }
    }
    let password_alone = connect_bytes(V3, "42", r#"0001 "c" 0001 "p""#);
    let mut sim = Sim::new();
    let client = sim.silent();
    sim.send_bytes(client, &password_alone);
    assert!(sim.is_closed(client) && sim.take(client).is_empty());
}

/// 3.1.1: [MQTT-3.1.3-1] [MQTT-3.1.3-2]
/// 5.0: [MQTT-3.1.3-1] [MQTT-3.1.3-2]
#[test]
fn the_fields_of_connect_are_taken_in_their_order_and_the_identifier_names_the_session() {
    for version in BOTH {
        let mut sim = Sim::new();
        let observer = sim.client(V5, "observer");
        sim.subscribe(observer, "where", at(0));
        let fields = r#"0003 "who" WILL 0005 "where" 0004 "what" 0003 "ann" 0006 "secret""#;
        let client = sim.silent();
        sim.send_bytes(client, &connect_bytes(version, "c6", fields));
        let status = sim.core.status(sim.now);
        let known = status
            .clients
            .iter()
            .find(|client| client.id == "who")
            .unwrap();
        assert_eq!(known.identity.as_deref(), Some("ann"));
        sim.lose(client);
        assert_eq!(sim.payloads(observer), ["where=what"]);
    }
}

/// 3.1.1: [MQTT-3.1.3-5] [MQTT-3.1.3-9]
/// 5.0: [MQTT-3.1.3-5] [MQTT-3.1.3-8]
#[test]
fn plain_identifiers_are_accepted_and_endless_ones_refused() {
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in BOTH {
        let mut sim = Sim::new();
        for start in 0..all.len() {
            let one = &all[start..start + 1];
            let long = &all[start..all.len().min(start + 23)];
            sim.client(version, one);
            sim.client(version, long);
        }
        let endless = refusal(&mut sim, hello(version, &"x".repeat(300))).unwrap();
        assert_eq!(endless.reason, ReasonCode::ClientIdNotValid);
    }
}

/// 3.1.1: [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.1.3-8]
/// 5.0: [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
#[test]
fn an_empty_identifier_is_replaced_by_one_that_no_session_has() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (squatter, _) = sim.connect(lasting(version, "auto-0-1"));
        let clients = [(); 2].map(|()| sim.client(version, ""));
        assert!(!sim.is_closed(squatter));
        let ids: Vec<String> = sim
            .core
            .status(sim.now)
            .clients
            .into_iter()
            .map(|c| c.id)
            .collect();
        assert_eq!(ids, ["auto-0-1", "auto-0-2", "auto-0-3"]);
        sim.subscribe(clients[0], "t", at(0));
        sim.send(clients[1], once("t", "x"));
        assert_eq!(sim.payloads(clients[0]), ["t=x"]);
    }
    let mut sim = Sim::new();
    let client = sim.try_connect(lasting(V5, ""));
    let told = match &sim.take(client)[..] {
        [Packet::ConnAck(ack)] => ack.properties.assigned_client_id.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    sim.subscribe(client, "t", at(1));
    sim.lose(client);
    assert!(
        sim.connect(lasting(V5, told.as_str())).1,
        "it is a session like any other"
    );
    let lasting_without_a_name = Connect {
        clean_start: false,
        ..hello(V3, "")
    };
    let refused = refusal(&mut sim, lasting_without_a_name).unwrap();
    assert_eq!(refused.reason, ReasonCode::ClientIdNotValid);
}

/// 3.1.1: [MQTT-3.1.4-5] [MQTT-3.2.2-4] [MQTT-3.2.2-5]
/// 5.0: [MQTT-3.1.4-2] [MQTT-3.1.4-6] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-4.13.2-1]
#[test]
fn who_fails_to_prove_himself_is_refused_and_nothing_more_of_him_is_processed() {
    for version in BOTH {
        let mut sim = Sim::new();
        let observer = sim.client(V5, "observer");
        sim.subscribe(observer, "#", at(0));
        let wrong = Connect {
            user_name: Some(text("ann")),
            password: Some(Credential("guess".into())),
            ..hello(version, "c")
        };
        let client = sim.try_connect(wrong);
        sim.send(client, once("t", "x"));
        sim.send(client, subscribe("t", at(0)));
        assert!(sim.is_closed(client));
        match &sim.take(client)[..] {
            [Packet::ConnAck(ack)] => {
                assert_eq!(ack.reason, ReasonCode::BadUserNameOrPassword);
                assert!(!ack.session_present);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(sim.payloads(observer), Vec::<String>::new());
    }
}

/// 3.1.1: [MQTT-3.1.4-4] [MQTT-3.2.0-1]
/// 5.0: [MQTT-3.1.4-5] [MQTT-3.2.0-1]
#[test]
fn connack_comes_before_all_that_waits_for_the_client() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (subscriber, _) = sim.connect(lasting(version, "sub"));
        sim.subscribe(subscriber, "t", at(1));
        sim.lose(subscriber);
        let publisher = sim.client(version, "pub");
        sim.send(publisher, qos1("t", "x", 1));
        let subscriber = sim.try_connect(lasting(version, "sub"));
        match &sim.take(subscriber)[..] {
            [Packet::ConnAck(ack), Packet::Publish(_)] => {
                assert_eq!(
                    (ack.reason, ack.session_present),
                    (ReasonCode::Success, true)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

/// 3.1.1: [MQTT-3.2.2-6]
/// 5.0: [MQTT-3.2.2-13] [MQTT-3.2.2-14]
#[test]
fn where_nothing_is_retained_clients_are_told_and_held_to_it() {
    let limits = Limits {
        retained: false,
        ..Limits::default()
    };
    let retained_will = |version| Connect {
        will: Some(Will {
            retain: true,
            ..will("t", None)
        }),
        ..hello(version, "c")
    };
    let mut sim = Sim::limited(limits);
    let refused = refusal(&mut sim, retained_will(V5)).unwrap();
    assert_eq!(refused.reason, ReasonCode::RetainNotSupported);
    assert_eq!(
        refusal(&mut sim, retained_will(V3)),
        None,
        "3.1.1 has no code for it"
    );
    let client = sim.try_connect(hello(V5, "c"));
    match &sim.take(client)[..] {
        [Packet::ConnAck(ack)] => assert_eq!(ack.properties.retain_available, Some(false)),
        other => panic!("{other:?}"),
    }
    sim.send(client, retained("t", "x"));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::RetainNotSupported)
    );
    assert!(sim.is_closed(client));
}
