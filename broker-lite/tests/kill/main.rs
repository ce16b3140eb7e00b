//! Promise: what the broker has acknowledged survives `kill -9` at any instant, QoS 2 exactly once.
//!
//! The real program is killed under load, round after round: while it works, while it starts and
//! reads what the last one left, while it reloads. Clients go on as MQTT tells them to, and at the
//! end everything that was acknowledged is compared with what arrived. `cargo xtask kill`
//! does 300 rounds, `BROKER_LITE_KILL_ROUNDS` as many as it says.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "real processes, so the real clock"
)]

mod clients;
mod connection;
mod damage;
mod foreign;
mod full;
mod place;
#[path = "../peers/python.rs"]
mod python;
mod verdict;

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
};

use broker_lite::packet::QoS;

use crate::{
    clients::{GROUP, Ledger, Publisher, Role, Subscriber, Willing, change_subscriptions},
    connection::Connection,
    place::{Place, wait_until},
    verdict::Verdict,
};

/// Rounds when nothing else is said.
const ROUNDS: u64 = 50;
/// Most acknowledgements before a kill.
const ACKS_MAX: u64 = 500;
/// Starts of which nothing is waited for but their end, in one round at most.
const STILLBORN_MAX: u64 = 3;
/// Longest life of such a start, in milliseconds: about what a start takes.
const STILLBORN_MS: u64 = 25;

/// Xorshift; when a kill falls is chance all the same.
fn roll(state: &mut u64, sides: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % sides
}

fn rounds() -> u64 {
    let given = std::env::var("BROKER_LITE_KILL_ROUNDS");
    given.map_or(ROUNDS, |text| text.parse().unwrap())
}

fn publishers() -> Vec<Publisher> {
    vec![
        Publisher::new("p1", "t/1", QoS::AtLeastOnce),
        Publisher::new("p2", "t/2", QoS::ExactlyOnce),
        Publisher::new("p3", "t/3", QoS::ExactlyOnce),
        Publisher::new("p4", "t/retained", QoS::AtLeastOnce).retaining(),
        Publisher::new("p5", "t/expiring", QoS::ExactlyOnce).expiring(3_600),
    ]
}

#[test]
fn what_was_acknowledged_survives_kills_under_load_and_qos_2_comes_once() {
    let place = Place::new("broker.db");
    let port = place.port;
    let ledger = Arc::new(Ledger::default());
    let mut broker = place.start();
    let all = [
        Subscriber::begin("exact", port, "t/#", QoS::ExactlyOnce),
        Subscriber::begin("least", port, "t/#", QoS::AtLeastOnce),
        Subscriber::begin("shared-1", port, GROUP, QoS::ExactlyOnce),
        Subscriber::begin("shared-2", port, GROUP, QoS::ExactlyOnce),
        Subscriber::begin("absent", port, "t/#", QoS::ExactlyOnce),
    ];
    let got = all.each_ref().map(|one| Arc::clone(&one.got));
    let [exact, least, first, second, absent] = all;
    Publisher::once(port, "t/short", Some(1));
    let mut tasks = Vec::new();
    let mut run = |role: Role| {
        let ledger = Arc::clone(&ledger);
        tasks.push(thread::spawn(move || role.run(port, &ledger)));
    };
    for publisher in publishers() {
        run(Role::Publisher(publisher));
    }
    for subscriber in [exact, least, first, second] {
        run(Role::Subscriber(subscriber));
    }

    let rounds = rounds();
    let mut dice = 0x9e37_79b9_7f4a_7c15;
    for round in 1..=rounds {
        let count = || ledger.acknowledgements.load(Ordering::Relaxed);
        let target = count() + 1 + roll(&mut dice, ACKS_MAX);
        let _willing = Willing::connect(port, round as u32, &ledger);
        change_subscriptions(port, round, &ledger);
        wait_until(&format!("round {round} has its acknowledgements"), || {
            count() >= target
        });
        if roll(&mut dice, 4) == 0 {
            broker.reload();
        }
        drop(broker);
        for _ in 0..roll(&mut dice, STILLBORN_MAX + 1) {
            place.start_and_kill(roll(&mut dice, STILLBORN_MS));
        }
        broker = place.start();
    }

    ledger.finish();
    let late = Arc::clone(&ledger);
    tasks.push(thread::spawn(move || {
        Role::Subscriber(absent).run(port, &late)
    }));
    let verdict = Verdict::new(&ledger, got);
    verdict.wait();
    ledger.end();
    for task in tasks {
        task.join().unwrap();
    }
    let sent = ledger.sent_last("t/retained");
    let retained = Connection::read_one(port, "t/retained");
    assert_eq!(retained, sent.to_string(), "the last value is retained");
    verdict.check();
    ledger.check_subscriptions(port);
    println!("{rounds} kills: {}", verdict.summary());
    drop(broker);
    place.check_permissions();
}
