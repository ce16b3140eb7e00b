//! What MQTT and we promise: ends of connections, in order and in error (3.14, 4.8, 4.13).

use super::*;

/// How a connection ends from our side, and what a 5.0 client is told.
type End = (&'static str, fn(&mut Sim, Client), ReasonCode);

fn ends() -> Vec<End> {
    vec![
        (
            "a violation",
            |sim, client| sim.send(client, Packet::PingResp),
            ReasonCode::ProtocolError,
        ),
        (
            "malformed bytes",
            |sim, client| sim.send_bytes(client, &[0xc1]),
            ReasonCode::MalformedPacket,
        ),
        (
            "silence",
            |sim, _| sim.pass(Duration::from_secs(91)),
            ReasonCode::KeepAliveTimeout,
        ),
        (
            "a take-over",
            |sim, _| {
                sim.connect(lasting(V5, "c"));
            },
            ReasonCode::SessionTakenOver,
        ),
        (
            "a stop",
            |sim, _| sim.core.close_all(ReasonCode::ServerShuttingDown, sim.now),
            ReasonCode::ServerShuttingDown,
        ),
        (
            "rules that no longer name it",
            |sim, _| {
                let now = sim.now;
                sim.core
                    .replace_rules(rules(Limits::default(), Vec::new()), now);
            },
            ReasonCode::NotAuthorized,
        ),
    ]
}

/// 3.1.1: [MQTT-4.8.0-1]
/// 5.0: [MQTT-3.14.2-2] [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.13.1-1] [MQTT-4.13.2-1]
#[test]
fn our_disconnect_is_the_last_packet_and_the_connection_is_closed() {
    for version in BOTH {
        for (how, end, reason) in ends() {
            let mut sim = Sim::new();
            let (client, _) = sim.connect(lasting(version, "c"));
            sim.subscribe(client, "t", at(0));
            end(&mut sim, client);
            sim.drain();
            assert!(sim.is_closed(client), "{version:?}: {how}");
            let local = sim.core.open_local("local");
            sim.core
                .publish_local(local, Message::new(topic("t"), "x"), sim.now);
            sim.send(client, Packet::PingReq);
            match &sim.take(client)[..] {
                [] => assert_eq!(version, V3, "{how}"),
                [Packet::Disconnect(word)] => {
                    assert_eq!((version, word.reason), (V5, reason), "{how}");
                    assert_eq!(word.session_expiry_s, None);
                }
                other => panic!("{how}: {other:?}"),
            }
        }
    }
}

/// 3.1.1: [MQTT-3.14.4-1] [MQTT-3.14.4-2]
/// 5.0: [MQTT-3.14.4-1] [MQTT-3.14.4-2]
#[test]
fn after_a_clients_disconnect_nothing_of_it_is_taken_and_we_close() {
    for version in BOTH {
        let mut sim = Sim::new();
        let (observer, client) = pair(&mut sim, version, "t", 0);
        sim.send(client, goodbye());
        sim.send(client, once("t", "x"));
        sim.send(client, Packet::PingReq);
        assert!(sim.is_closed(client));
        assert_eq!(sim.take(client), []);
        assert_eq!(sim.payloads(observer), Vec::<String>::new());
    }
}

/// 3.1.1: [MQTT-4.8.0-2]
#[test]
fn a_3_1_1_message_that_cannot_be_kept_now_closes_the_connection() {
    let mut sim = Sim::keeping("t");
    let client = sim.client(V3, "c");
    sim.send(client, qos1("t", "x", 1));
    sim.answer_keeper(Kept::Refused);
    assert!(sim.is_closed(client));
    assert_eq!(sim.take(client), []);
}

/// 3.1.1: [MQTT-4.8.0-1]
/// 5.0: [MQTT-4.13.1-1]
#[test]
fn packets_that_only_servers_send_end_the_connection() {
    for version in BOTH {
        for bytes in ["20 02 00 00", "90 03 0001 00", "b0 02 0001", "d0 00"] {
            let (closed, told) = put(version, bytes);
            assert!(closed, "{bytes}");
            assert_eq!(told, (version == V5).then_some(ReasonCode::ProtocolError));
        }
    }
}

#[test]
fn a_client_may_change_how_long_its_session_lives_as_it_leaves() {
    for (expiry_s, present) in [
        (None, true),
        (Some(0), false),
        (Some(5), false),
        (Some(50), true),
    ] {
        let mut sim = Sim::new();
        let (client, _) = sim.connect(lasting(V5, "c"));
        let mut word = crate::packet::Disconnect::new(ReasonCode::Success);
        word.session_expiry_s = expiry_s;
        sim.send(client, Packet::Disconnect(word));
        sim.pass(Duration::from_secs(20));
        assert_eq!(sim.connect(lasting(V5, "c")).1, present, "{expiry_s:?}");
    }
}

/// 5.0: [MQTT-4.12.0-7]
#[test]
fn auth_without_a_method_ends_the_connection() {
    let told = Some(ReasonCode::ProtocolError);
    assert_eq!(put(V5, r#"f0 06 18 04 15 0001 "m""#), (true, told));
    assert_eq!(put(V3, "f0 00"), (true, None));
}
