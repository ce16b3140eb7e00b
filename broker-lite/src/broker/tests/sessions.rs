//! What MQTT and we promise: sessions.

use super::*;

#[test]
fn a_second_connection_takes_the_session_over_mqtt_3_1_4_3() {
    for version in [V3, V5] {
        let mut sim = Sim::new();
        let (first, _) = sim.connect(lasting(version, "c"));
        sim.subscribe(first, "t", at(1));
        let (second, present) = sim.connect(lasting(version, "c"));
        assert!(present && sim.is_closed(first));
        let told = last_reason(&mut sim, first);
        assert_eq!(
            told,
            (version == V5).then_some(ReasonCode::SessionTakenOver)
        );
        sim.send(second, once("t", "x"));
        assert_eq!(sim.payloads(second), ["t=x"]);
    }
}

#[test]
fn a_clean_start_ends_the_former_session_mqtt_3_1_2_4() {
    let mut sim = Sim::new();
    let (first, _) = sim.connect(lasting(V5, "c"));
    sim.subscribe(first, "t", at(1));
    let (second, present) = sim.connect(hello(V5, "c"));
    assert!(!present);
    sim.send(second, once("t", "x"));
    assert_eq!(sim.payloads(second), Vec::<String>::new());
}

#[test]
fn a_session_ends_when_its_expiry_has_passed_and_not_before() {
    for (wait_s, present) in [(3_599, true), (3_601, false)] {
        let mut sim = Sim::new();
        let (first, _) = sim.connect(lasting(V5, "c"));
        sim.lose(first);
        sim.pass(Duration::from_secs(wait_s));
        assert_eq!(sim.connect(lasting(V5, "c")).1, present, "after {wait_s} s");
    }
}

#[test]
fn disconnect_may_shorten_a_session_but_not_create_one_mqtt5_3_14_2_2_2() {
    let mut sim = Sim::new();
    let client = sim.client(V5, "c");
    let mut disconnect = crate::packet::Disconnect::new(ReasonCode::Success);
    disconnect.session_expiry_s = Some(10);
    sim.send(client, Packet::Disconnect(disconnect.clone()));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::ProtocolError)
    );
    let (client, _) = sim.connect(lasting(V5, "c"));
    disconnect.session_expiry_s = Some(0);
    sim.send(client, Packet::Disconnect(disconnect));
    assert!(!sim.connect(lasting(V5, "c")).1);
}

#[test]
fn an_empty_client_id_is_assigned_one_or_refused_mqtt_3_1_3_6_8() {
    let mut sim = Sim::new();
    let client = sim.try_connect(hello(V5, ""));
    match &sim.take(client)[..] {
        [Packet::ConnAck(ack)] => {
            assert_eq!(
                ack.properties.assigned_client_id.as_ref().unwrap().as_str(),
                "auto-0-1"
            );
        }
        other => panic!("{other:?}"),
    }
    let refused = sim.try_connect(Connect {
        clean_start: false,
        ..hello(V3, "")
    });
    assert_eq!(
        last_reason(&mut sim, refused),
        Some(ReasonCode::ClientIdNotValid)
    );
    assert!(sim.is_closed(refused));
}

#[test]
fn a_client_that_falls_silent_is_dropped_after_one_and_a_half_keep_alives_mqtt_3_1_2_22() {
    let mut sim = Sim::new();
    let client = sim.client(V5, "c");
    sim.pass(Duration::from_secs(80));
    sim.send(client, Packet::PingReq);
    sim.pass(Duration::from_secs(89));
    assert!(!sim.is_closed(client));
    sim.pass(Duration::from_secs(2));
    assert!(sim.is_closed(client));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::KeepAliveTimeout)
    );
}

#[test]
fn no_timer_is_left_when_everyone_is_gone() {
    let mut sim = Sim::new();
    let client = sim.client(V3, "c");
    sim.send(client, goodbye());
    assert_eq!(sim.core.poll_timeout(), None);
    let status = sim.core.status(sim.now);
    assert_eq!(
        (status.sessions, status.subscriptions, status.clients.len()),
        (0, 0, 0)
    );
}

#[test]
fn a_connection_without_connect_is_closed_in_time() {
    let mut sim = Sim::new();
    let connection = sim.open(peer()).unwrap();
    sim.core.handle_secured(connection, None, sim.now);
    sim.pass(Duration::from_secs(11));
    assert!(sim.closed.contains(&connection));
    assert_eq!(sim.refusals, [Refusal::ConnectTimeout]);
}

#[test]
fn a_second_connect_is_a_protocol_error_mqtt_3_1_0_2() {
    let mut sim = Sim::new();
    let client = sim.client(V5, "c");
    sim.send(client, Packet::Connect(Box::new(hello(V5, "c"))));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::ProtocolError)
    );
}

/// 5.0: [MQTT-4.12.0-1]
#[test]
fn an_authentication_method_we_do_not_have_is_refused() {
    let mut sim = Sim::new();
    let mut connect = hello(V5, "c");
    let method = Text::parse("SCRAM-SHA-1").unwrap();
    connect.properties.authentication = Some(Authentication { method, data: None });
    let client = sim.try_connect(connect);
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::BadAuthenticationMethod)
    );
}
