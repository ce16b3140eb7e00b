//! What MQTT and we promise: rates, and that idle clients cost no timers.

use super::*;

fn limited_to(messages_per_second: u32) -> Sim {
    Sim::limited(Limits {
        messages_per_second,
        ..Limits::default()
    })
}

/// Publishes as fast as the broker reads, for this long; says how many messages that were.
fn flood(sim: &mut Sim, client: Client, time: Duration) -> u32 {
    let end = sim.now + time;
    let mut sent = 0;
    while sim.now < end {
        if sim.core.accepts(client.0, sim.now) {
            sim.send(client, once("t", "x"));
            sent += 1;
        } else {
            let due = sim.core.poll_timeout().expect("it is read on some time");
            sim.pass(due.min(end) - sim.now);
        }
    }
    sent
}

#[test]
fn a_flood_is_read_at_its_rate_after_a_burst_and_loses_nothing() {
    let mut sim = limited_to(10);
    let subscriber = sim.client(V5, "sub");
    sim.subscribe(subscriber, "t", at(0));
    let client = sim.client(V5, "pub");
    let sent = flood(&mut sim, client, Duration::from_secs(10));
    assert_eq!(sent, 20 + 100);
    assert_eq!(sim.publishes(subscriber).len(), sent as usize);
}

#[test]
fn a_client_within_its_rate_is_never_paused_and_costs_no_timer() {
    let mut sim = limited_to(10);
    let client = sim.client(V5, "pub");
    let timers = sim.core.timers.len();
    for _ in 0..100 {
        sim.send(client, once("t", "x"));
        assert!(sim.core.accepts(client.0, sim.now));
        assert_eq!(sim.core.timers.len(), timers);
        sim.pass(Duration::from_millis(100));
    }
    assert_eq!(sim.refusals, []);
}

#[test]
fn an_episode_is_told_once_and_the_next_one_again() {
    let mut sim = limited_to(10);
    let client = sim.client(V5, "pub");
    flood(&mut sim, client, Duration::from_secs(5));
    assert_eq!(sim.refusals, [Refusal::Rate]);
    sim.pass(Duration::from_secs(5));
    flood(&mut sim, client, Duration::from_secs(5));
    assert_eq!(sim.refusals, [Refusal::Rate, Refusal::Rate]);
    assert!(sim.core.status(sim.now).counters.refused["rate"] > 2);
}

#[test]
fn bytes_are_bounded_too_whatever_they_are() {
    let mut sim = Sim::limited(Limits {
        bytes_per_second: settings::Size::from_kib(64),
        ..Limits::default()
    });
    let client = sim.client(V5, "pub");
    sim.core.handle_read(client.0, 128 * 1024, sim.now);
    assert!(sim.core.accepts(client.0, sim.now));
    sim.core.handle_read(client.0, 64 * 1024, sim.now);
    assert!(!sim.core.accepts(client.0, sim.now));
    sim.pass(Duration::from_secs(1));
    assert!(sim.core.accepts(client.0, sim.now));
}

#[test]
fn a_paused_client_is_not_taken_for_dead() {
    let mut sim = limited_to(1);
    let mut connect = hello(V5, "pub");
    connect.keep_alive_s = 2;
    let (client, _) = sim.connect(connect);
    for _ in 0..30 {
        sim.send(client, once("t", "x"));
    }
    sim.pass(Duration::from_secs(20));
    assert!(!sim.is_closed(client));
    sim.pass(Duration::from_secs(20));
    assert!(sim.is_closed(client));
}

#[test]
fn connections_of_one_address_come_at_a_bounded_pace() {
    let mut sim = Sim::limited(Limits {
        connections_per_address: 2,
        connections_per_second: 1,
        ..Limits::default()
    });
    let stranger = crate::broker::Peer {
        address: crate::address::Address::Network("192.0.2.7:50000".parse().unwrap()),
        ..peer()
    };
    for _ in 0..3 {
        let connection = sim.open(stranger.clone()).unwrap();
        sim.lose(Client(connection));
    }
    let refused = sim.open(stranger.clone());
    assert_eq!(refused, Err(Refusal::ConnectionRate));
    assert!(sim.open(peer()).is_ok());
    sim.pass(Duration::from_secs(1));
    assert!(sim.open(stranger).is_ok());
}
