//! What MQTT and we promise: access.

use std::net::SocketAddr;

use super::*;

#[test]
fn what_no_rule_allows_is_refused_and_named() {
    let access = vec![allow(None, &["in/#"], &["out/+"])];
    let mut sim = Sim::with(Limits::default(), access, None);
    let client = sim.client(V5, "c");
    assert_eq!(
        sim.subscribe(client, "out/#", at(0)),
        ReasonCode::NotAuthorized
    );
    assert_eq!(
        sim.subscribe(client, "$share/g/in/x", at(0)),
        ReasonCode::NotAuthorized
    );
    assert_eq!(sim.subscribe(client, "out/x", at(0)), ReasonCode::Success);
    sim.send(client, qos1("out/x", "x", 1));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::NotAuthorized)
    );
    sim.send(client, once("$SYS/x", "x"));
    assert_eq!(
        sim.refusals,
        [
            Refusal::Subscribe,
            Refusal::Subscribe,
            Refusal::Publish,
            Refusal::Publish
        ]
    );
}

#[test]
fn a_password_decides_who_a_client_is() {
    let mut sim = Sim::with(
        Limits::default(),
        vec![allow(Some("ann"), &["#"], &["#"])],
        None,
    );
    let wrong = sim.try_connect(named("ann", "secreT", "c"));
    assert_eq!(
        last_reason(&mut sim, wrong),
        Some(ReasonCode::BadUserNameOrPassword)
    );
    let unknown = sim.try_connect(named("bob", "secret", "c"));
    assert_eq!(
        last_reason(&mut sim, unknown),
        Some(ReasonCode::BadUserNameOrPassword)
    );
    let (ann, _) = sim.connect(named("ann", "secret", "c"));
    assert_eq!(sim.subscribe(ann, "#", at(0)), ReasonCode::Success);
    let nobody = sim.try_connect(hello(V5, "d"));
    assert_eq!(
        last_reason(&mut sim, nobody),
        Some(ReasonCode::NotAuthorized)
    );
}

#[test]
fn a_session_is_not_taken_over_by_another_user() {
    let mut sim = Sim::with(Limits::default(), vec![allow(None, &["#"], &["#"])], None);
    let (ann, _) = sim.connect(named("ann", "secret", "c"));
    let thief = sim.try_connect(hello(V5, "c"));
    assert_eq!(
        last_reason(&mut sim, thief),
        Some(ReasonCode::NotAuthorized)
    );
    assert!(!sim.is_closed(ann));
    assert_eq!(sim.refusals, [Refusal::ForeignSession]);
}

#[test]
fn failed_logins_from_afar_bring_a_ban() {
    let mut sim = Sim::new();
    let mut far = peer();
    far.address = "10.0.0.9:1000".parse::<SocketAddr>().unwrap().into();
    for _ in 0..5 {
        let connection = sim.open(far.clone()).unwrap();
        let connect = Packet::Connect(Box::new(named("ann", "guess", "c")));
        sim.core.handle_packet(connection, connect, sim.now);
        sim.drain();
    }
    assert_eq!(sim.open(far.clone()), Err(Refusal::Banned));
    sim.pass(Duration::from_secs(61));
    assert!(sim.open(far).is_ok());
}

#[test]
fn other_rules_end_what_they_forbid_and_leave_the_rest_alone() {
    let open = || vec![allow(None, &["#"], &["#"])];
    let mut sim = Sim::with(Limits::default(), open(), None);
    let client = sim.client(V5, "c");
    sim.subscribe(client, "a", at(0));
    sim.subscribe(client, "b", at(0));
    sim.send(client, retained("a", "old"));
    let narrow = vec![allow(None, &["b"], &["b"])];
    assert_eq!(
        sim.core
            .replace_rules(rules(Limits::default(), narrow), sim.now),
        0
    );
    sim.take(client);
    sim.core
        .replace_rules(rules(Limits::default(), open()), sim.now);
    sim.send(client, once("a", "x"));
    sim.send(client, once("b", "x"));
    assert_eq!(sim.payloads(client), ["b=x"]);
    sim.subscribe(client, "a", at(0));
    assert_eq!(
        sim.payloads(client),
        Vec::<String>::new(),
        "its publisher had lost its rights"
    );
    let none = vec![allow(Some("ann"), &["#"], &["#"])];
    assert_eq!(
        sim.core
            .replace_rules(rules(Limits::default(), none), sim.now),
        1
    );
    sim.drain();
    assert!(sim.is_closed(client));
}

#[test]
fn connections_are_counted_in_all_and_by_address() {
    let limits = Limits {
        connections: 2,
        connections_per_address: 1,
        ..Limits::default()
    };
    let mut sim = Sim::limited(limits);
    let from = |address: &str| {
        let mut peer = peer();
        peer.address = address.parse::<SocketAddr>().unwrap().into();
        peer
    };
    let first = sim.open(from("10.0.0.1:1")).unwrap();
    assert_eq!(
        sim.open(from("10.0.0.1:2")),
        Err(Refusal::TooManyConnectionsFromAddress)
    );
    sim.open(from("10.0.0.2:1")).unwrap();
    assert_eq!(
        sim.open(from("10.0.0.3:1")),
        Err(Refusal::TooManyConnections)
    );
    sim.core.handle_closed(first, sim.now);
    assert!(sim.open(from("10.0.0.1:3")).is_ok());
}

#[test]
fn a_will_whose_right_was_taken_away_is_not_published() {
    let open = || vec![allow(None, &["#"], &["#"])];
    let mut sim = Sim::with(Limits::default(), open(), None);
    let reader = sim.client(V5, "r");
    sim.subscribe(reader, "#", at(0));
    let mut connect = hello(V5, "w");
    connect.will = Some(will("gone/w", None));
    let (client, _) = sim.connect(connect);
    let narrow = vec![allow(None, &["alive/#"], &["#"])];
    sim.core
        .replace_rules(rules(Limits::default(), narrow), sim.now);
    sim.lose(client);
    assert_eq!(sim.payloads(reader), Vec::<String>::new());
    assert_eq!(sim.refusals, [Refusal::Will]);
}

#[test]
fn what_waits_for_a_client_is_held_back_once_it_may_no_longer_read_it() {
    let open = || vec![allow(None, &["#"], &["#"])];
    let mut sim = Sim::with(Limits::default(), open(), None);
    let (absent, _) = sim.connect(lasting(V5, "a"));
    sim.subscribe(absent, "secret/#", at(1));
    sim.subscribe(absent, "open/#", at(1));
    sim.lose(absent);
    let publisher = sim.client(V5, "p");
    sim.send(publisher, qos1("secret/x", "1", 1));
    sim.send(publisher, qos1("open/x", "2", 2));
    let narrow = vec![allow(None, &["#"], &["open/#"])];
    sim.core
        .replace_rules(rules(Limits::default(), narrow), sim.now);
    let (back, present) = sim.connect(lasting(V5, "a"));
    assert!(present);
    sim.send(publisher, qos1("secret/x", "3", 3));
    assert_eq!(sim.payloads(back), ["open/x=2"]);
    // The lost subscription, and the message that had waited for it.
    assert_eq!(sim.refusals, [Refusal::Subscribe, Refusal::Delivery]);
}

#[test]
fn a_shared_subscription_that_was_taken_away_hands_its_messages_to_those_who_may_read() {
    let mut sim = Sim::with(Limits::default(), vec![allow(None, &["#"], &["#"])], None);
    let (ann, _) = sim.connect(named("ann", "secret", "a"));
    let other = sim.client(V5, "o");
    sim.subscribe(ann, "$share/g/t", at(0));
    sim.subscribe(other, "$share/g/t", at(0));
    let narrow = vec![
        allow(Some("ann"), &["#"], &["t"]),
        allow(None, &["#"], &["u"]),
    ];
    sim.core
        .replace_rules(rules(Limits::default(), narrow), sim.now);
    for _ in 0..4 {
        sim.send(other, once("t", "x"));
    }
    assert_eq!(sim.payloads(ann).len(), 4);
    assert_eq!(sim.payloads(other), Vec::<String>::new());
}

#[test]
fn a_retained_message_stays_when_its_publisher_logs_in_no_longer_but_keeps_its_rights() {
    let open = || vec![allow(None, &["#"], &["#"])];
    let mut sim = Sim::with(Limits::default(), open(), None);
    let (ann, _) = sim.connect(named("ann", "secret", "a"));
    sim.send(ann, retained("t", "last value"));
    let without_ann = crate::broker::Rules {
        logins: crate::login::Logins::new(Vec::new(), [7; 32]),
        ..rules(Limits::default(), open())
    };
    assert_eq!(sim.core.replace_rules(without_ann, sim.now), 1);
    let reader = sim.client(V5, "r");
    sim.subscribe(reader, "t", at(0));
    assert_eq!(sim.payloads(reader), ["t=last value"]);
}

#[test]
fn a_rule_for_a_user_binds_nobody_by_a_client_identifier_of_that_name() {
    let rule = vec![
        allow(Some("ann"), &["of/%u"], &["of/%u"]),
        allow(None, &["by/%c"], &["by/%c"]),
    ];
    let mut sim = Sim::with(Limits::default(), rule, None);
    let anonymous = sim.client(V5, "ann");
    assert_eq!(
        sim.subscribe(anonymous, "of/ann", at(0)),
        ReasonCode::NotAuthorized
    );
    assert_eq!(
        sim.subscribe(anonymous, "by/ann", at(0)),
        ReasonCode::Success
    );
}
