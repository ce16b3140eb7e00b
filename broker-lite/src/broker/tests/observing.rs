//! What the broker says about itself: counters, rates, and the `$SYS` topics.

use super::*;

const INTERVAL: Duration = Duration::from_secs(10);

/// The messages that a client got, by topic.
fn told(sim: &mut Sim, client: Client) -> std::collections::BTreeMap<String, Publish> {
    let by_topic = |publish: Publish| Some((publish.topic.as_ref()?.to_string(), publish));
    let publishes = sim.publishes(client).into_iter();
    publishes.filter_map(by_topic).collect()
}

fn text(publish: &Publish) -> &str {
    std::str::from_utf8(&publish.payload).unwrap()
}

#[test]
fn a_subscriber_to_sys_gets_the_values_of_that_moment_as_retained() {
    let mut sim = Sim::new();
    sim.core.begin(sim.now);
    let publisher = sim.client(V5, "pub");
    for _ in 0..3 {
        sim.send(publisher, once("t", "12345"));
    }
    sim.pass(Duration::from_secs(42));
    let watcher = sim.client(V5, "watcher");
    sim.subscribe(watcher, "$SYS/#", at(0));
    let told = told(&mut sim, watcher);
    let value = |topic: &str| text(&told[&format!("$SYS/broker/{topic}")]).to_owned();
    assert_eq!(value("uptime"), "42 seconds");
    assert_eq!(value("clients/connected"), "2");
    assert_eq!(value("publish/messages/received"), "3");
    assert_eq!(value("publish/bytes/received"), "15");
    assert_eq!(value("subscriptions/count"), "1");
    assert!(told.values().all(|publish| publish.retain));
}

#[test]
fn while_somebody_listens_to_sys_what_changed_is_told_at_intervals() {
    let mut sim = Sim::new();
    sim.core.begin(sim.now);
    let watcher = sim.client(V3, "watcher");
    sim.subscribe(watcher, "$SYS/broker/publish/messages/received", at(0));
    assert_eq!(text(told(&mut sim, watcher).values().next().unwrap()), "0");
    let publisher = sim.client(V3, "pub");
    sim.pass(INTERVAL);
    told(&mut sim, watcher);
    sim.pass(INTERVAL);
    assert!(told(&mut sim, watcher).is_empty(), "nothing has changed");
    sim.send(publisher, once("t", ""));
    sim.pass(INTERVAL);
    let told = told(&mut sim, watcher);
    let publish = told.values().next().unwrap();
    assert_eq!((text(publish), publish.retain), ("1", false));
}

#[test]
fn no_timer_runs_for_sys_while_nobody_listens() {
    let mut sim = Sim::new();
    let idle = sim.client(V5, "idle");
    sim.subscribe(idle, "t/#", at(0));
    let before = sim.core.poll_timeout();
    let watcher = sim.client(V5, "watcher");
    sim.subscribe(watcher, "$SYS/#", at(0));
    assert_eq!(sim.core.poll_timeout(), Some(sim.now + INTERVAL));
    sim.send(watcher, goodbye());
    sim.pass(INTERVAL);
    assert_eq!(sim.core.poll_timeout(), before);
}

#[test]
fn a_client_that_comes_back_listens_to_sys_again() {
    let mut sim = Sim::new();
    let (watcher, _) = sim.connect(lasting(V5, "watcher"));
    sim.subscribe(watcher, "$SYS/broker/uptime", at(0));
    sim.lose(watcher);
    sim.pass(INTERVAL * 2);
    let (watcher, present) = sim.connect(lasting(V5, "watcher"));
    assert!(present);
    sim.pass(INTERVAL);
    assert_eq!(told(&mut sim, watcher).len(), 1);
}

#[test]
fn sys_is_told_only_where_an_access_rule_allows_and_never_by_wildcards_alone() {
    let rules = vec![allow(None, &["#"], &["#"])];
    let mut sim = Sim::with(Limits::default(), rules, None);
    let client = sim.client(V5, "c");
    sim.subscribe(client, "$SYS/#", at(0));
    sim.subscribe(client, "#", at(0));
    sim.pass(INTERVAL * 2);
    assert!(told(&mut sim, client).is_empty());
    assert_eq!(sim.refusals, [Refusal::Subscribe]);
    sim.send(client, qos1("$SYS/broker/uptime", "forged", 1));
    assert_eq!(
        last_reason(&mut sim, client),
        Some(ReasonCode::NotAuthorized)
    );
}

#[test]
fn an_interval_of_zero_switches_sys_off() {
    let mut sim = Sim::new();
    let mut none = rules(
        Limits::default(),
        vec![crate::config::AccessRule::everything()],
    );
    none.sys_interval = Duration::ZERO;
    sim.core.replace_rules(none, sim.now);
    let watcher = sim.client(V5, "watcher");
    sim.subscribe(watcher, "$SYS/#", at(0));
    sim.pass(INTERVAL * 2);
    assert!(told(&mut sim, watcher).is_empty());
}

#[test]
fn a_client_is_listed_with_what_it_sends_and_gets_per_second() {
    let mut sim = Sim::new();
    sim.core.begin(sim.now);
    let publisher = sim.client(V5, "pub");
    let subscriber = sim.client(V3, "sub");
    sim.subscribe(subscriber, "t", at(0));
    for _ in 0..600 {
        sim.send(publisher, once("t", "0123456789"));
        sim.pass(Duration::from_millis(100));
    }
    let status = sim.core.status(sim.now);
    let [publisher, subscriber] = &status.clients[..] else {
        panic!("two clients are connected");
    };
    let near = |found: f32, expected: f32| (found - expected).abs() < expected / 20.0;
    assert!(
        near(publisher.rates.messages_received, 10.0),
        "{publisher:?}"
    );
    assert!(near(publisher.rates.bytes_received, 100.0), "{publisher:?}");
    assert!(near(subscriber.rates.messages_sent, 10.0), "{subscriber:?}");
    assert_eq!(publisher.received.messages, 600);
    assert_eq!(subscriber.sent.bytes, 6_000);
    assert_eq!((publisher.version, subscriber.version), (5, 4));
    assert_eq!((publisher.subscriptions, subscriber.subscriptions), (0, 1));
    assert!(subscriber.connected_for >= Duration::from_secs(60));
    let per_minute = status.load.0[0].received;
    assert!(
        near(per_minute, 600.0 * (1.0 - (-1.0_f32).exp())),
        "{per_minute}"
    );
}

#[test]
fn what_waits_for_absent_clients_is_counted_as_stored() {
    let mut sim = Sim::new();
    let (client, _) = sim.connect(lasting(V5, "c"));
    sim.subscribe(client, "t", at(1));
    sim.lose(client);
    let publisher = sim.client(V5, "pub");
    sim.send(publisher, qos1("t", "x", 1));
    sim.send(publisher, qos1("t", "y", 2));
    let status = sim.core.status(sim.now);
    assert_eq!(status.stored.messages, 2);
    assert_eq!((status.sessions, status.connected), (2, 1));
}

#[test]
fn a_refusal_names_who_where_and_the_rules_that_speak_for_him() {
    let rules = vec![
        allow(Some("bob"), &["b"], &["b"]),
        allow(Some("ann"), &["a"], &["a"]),
        allow(None, &["t"], &["t"]),
    ];
    let mut sim = Sim::with(Limits::default(), rules, None);
    let endpoint = "127.0.0.1:1883".parse::<std::net::SocketAddr>().unwrap();
    let listener = peer().listener;
    sim.core
        .name_listener(listener, &crate::address::Endpoint::Network(endpoint));
    let mut connect = hello(V5, "c");
    connect.user_name = Some(Text::lossy("ann"));
    connect.password = Some(Credential("secret".into()));
    let (client, _) = sim.connect(connect);
    let connection = client.0;
    sim.core
        .handle_packet(connection, qos1("b", "x", 1), sim.now);
    let mut events = Vec::new();
    while let Some(output) = sim.core.poll_output() {
        if let crate::broker::Output::Tell(event) = output {
            events.push(event);
        }
    }
    let [
        crate::observe::audit::Event::Refused {
            who, rule, topic, ..
        },
    ] = &events[..]
    else {
        panic!("one refusal, not {events:?}");
    };
    assert_eq!(rule, "not in access rule 2, 3");
    assert_eq!(
        (who.client.as_deref(), who.user.as_deref()),
        (Some("c"), Some("ann"))
    );
    assert_eq!(who.listener.as_deref(), Some("127.0.0.1:1883"));
    assert_eq!(
        (topic.as_deref(), who.address),
        (Some("b"), Some(peer().address))
    );
}
