//! What MQTT and we promise: logins whose passwords take time to check.

use super::*;
use crate::{
    broker::{Peer, Rules},
    login::password::Verifier,
    login::{Login, Logins},
};

/// Users "ann" and "bob" with their passwords "secret" and "geheim", hashed cheaply.
const ANN: &str = "$7$1$2gkUhtCLoon0kUJg$CntD+DyrH+xavd75VGuzTumA7YrGfNPp3qkliRvedCvAFE2J2x5vU210sK6jxAM8hLmDnWsx3s5zJ03rC+aGvQ==";
const BOB: &str = "$6$2gkUhtCLoon0kUJg$WhM4Sh3QWHrhq7g9MZ1O5Hi6MS79yBQen2tkj/MOXQWK2CCghdwh9aEujcDSGwGMhQwh8flk8ByXwta6gt12qQ==";

fn kept(name: &str, verifier: &str) -> Login {
    Login::kept(name, Some(Verifier::parse(verifier).unwrap()), None)
}

fn with_logins(limits: Limits, logins: Vec<Login>) -> Rules {
    Rules {
        logins: Logins::new(logins, [7; 32]),
        ..rules(limits, vec![allow(None, &["#"], &["#"])])
    }
}

/// A broker whose users have hashed passwords.
fn sim(limits: Limits) -> Sim {
    let mut sim = Sim::limited(limits.clone());
    let rules = with_logins(limits, vec![kept("ann", ANN), kept("bob", BOB)]);
    sim.core.replace_rules(rules, sim.now);
    sim
}

fn from(address: &str) -> Peer {
    Peer {
        address: address.parse::<std::net::SocketAddr>().unwrap().into(),
        ..peer()
    }
}

fn try_from(sim: &mut Sim, address: &str, connect: Connect) -> Client {
    let client = Client(sim.open(from(address)).unwrap());
    sim.send(client, Packet::Connect(Box::new(connect)));
    client
}

fn accepts(sim: &mut Sim, client: Client) -> bool {
    sim.core.accepts(client.0, sim.now)
}

#[test]
fn a_client_is_neither_answered_nor_read_until_its_password_is_checked() {
    let mut sim = sim(Limits::default());
    let ann = sim.try_connect(named("ann", "secret", "c"));
    assert_eq!(sim.take(ann), []);
    assert!(!accepts(&mut sim, ann));
    assert!(sim.end_check());
    assert_eq!(last_reason(&mut sim, ann), Some(ReasonCode::Success));
    assert!(accepts(&mut sim, ann));
    let bob = sim.try_connect(named("bob", "geheim", "d"));
    assert!(sim.end_check());
    assert_eq!(last_reason(&mut sim, bob), Some(ReasonCode::Success));
}

#[test]
fn an_unknown_name_is_checked_as_a_wrong_password_is() {
    let mut sim = sim(Limits::default());
    for (name, password) in [("ann", "wrong"), ("carl", "secret"), ("ann", "")] {
        let client = sim.try_connect(named(name, password, "c"));
        assert_eq!(sim.take(client), [], "{name} was refused unchecked");
        assert!(sim.end_check());
        assert_eq!(
            last_reason(&mut sim, client),
            Some(ReasonCode::BadUserNameOrPassword)
        );
        assert!(sim.is_closed(client));
    }
}

#[test]
fn a_session_is_taken_over_by_those_who_prove_themselves_alone() {
    let mut sim = sim(Limits::default());
    let first = sim.try_connect(named("ann", "secret", "c"));
    sim.end_check();
    let thief = sim.try_connect(named("ann", "guess", "c"));
    assert!(!sim.is_closed(first));
    sim.end_check();
    assert!(sim.is_closed(thief) && !sim.is_closed(first));
    sim.try_connect(named("ann", "secret", "c"));
    assert!(!sim.is_closed(first));
    sim.end_check();
    assert!(sim.is_closed(first));
}

#[test]
fn a_check_that_takes_too_long_ends_the_connection() {
    let mut sim = sim(Limits::default());
    let ann = sim.try_connect(named("ann", "secret", "c"));
    sim.pass(Duration::from_secs(11));
    assert!(sim.is_closed(ann));
    assert_eq!(sim.refusals, [Refusal::ConnectTimeout]);
    assert!(
        sim.end_check(),
        "the answer comes too late and does nothing"
    );
    assert_eq!(sim.core.status(sim.now).clients.len(), 0);
}

#[test]
fn few_passwords_are_checked_at_once_and_each_address_has_its_turn() {
    let limits = Limits {
        password_checks: 1,
        password_checks_waiting: 3,
        ..Limits::default()
    };
    let mut sim = sim(limits);
    let flood: Vec<Client> = (0..4)
        .map(|n| {
            try_from(
                &mut sim,
                "10.0.0.1:1",
                named("ann", "guess", &format!("c{n}")),
            )
        })
        .collect();
    assert_eq!(sim.checks.len(), 1);
    let honest = try_from(&mut sim, "10.0.0.2:1", named("ann", "secret", "h"));
    assert_eq!(
        last_reason(&mut sim, flood[3]),
        Some(ReasonCode::ServerBusy),
        "the last of the longest line makes room"
    );
    sim.end_check();
    sim.end_check();
    sim.end_check();
    assert_eq!(last_reason(&mut sim, honest), Some(ReasonCode::Success));
    sim.end_check();
    assert!(!sim.end_check(), "nothing is left to check");
    assert_eq!(sim.refusals.first(), Some(&Refusal::TooManyLogins));
}

#[test]
fn whoever_leaves_makes_room_for_others_logins() {
    let limits = Limits {
        password_checks: 1,
        password_checks_waiting: 1,
        ..Limits::default()
    };
    let mut sim = sim(limits);
    sim.try_connect(named("ann", "secret", "a"));
    let waits = sim.try_connect(named("ann", "secret", "b"));
    sim.lose(waits);
    let next = sim.try_connect(named("ann", "secret", "c"));
    sim.end_check();
    sim.end_check();
    assert_eq!(last_reason(&mut sim, next), Some(ReasonCode::Success));
}

#[test]
fn logins_that_wait_when_their_address_is_banned_are_not_checked() {
    let mut sim = sim(Limits::default());
    let clients: Vec<Client> = (0..10)
        .map(|n| {
            try_from(
                &mut sim,
                "10.0.0.1:1",
                named("ann", "guess", &format!("c{n}")),
            )
        })
        .collect();
    let mut checked = 0;
    while sim.end_check() {
        checked += 1;
    }
    assert_eq!(checked, 6, "five bring the ban, and one more had begun");
    assert_eq!(last_reason(&mut sim, clients[9]), Some(ReasonCode::Banned));
}

#[test]
fn a_login_that_changes_while_it_is_checked_lets_nobody_in() {
    let mut sim = sim(Limits::default());
    let ann = sim.try_connect(named("ann", "secret", "c"));
    let rules = with_logins(Limits::default(), vec![kept("bob", BOB)]);
    sim.core.replace_rules(rules, sim.now);
    sim.end_check();
    assert_eq!(
        last_reason(&mut sim, ann),
        Some(ReasonCode::BadUserNameOrPassword)
    );
}

#[test]
fn a_reload_disconnects_whom_the_file_no_longer_names_or_names_otherwise() {
    let mut sim = sim(Limits::default());
    let ann = sim.try_connect(named("ann", "secret", "a"));
    let bob = sim.try_connect(named("bob", "geheim", "b"));
    sim.end_check();
    sim.end_check();
    let same = with_logins(Limits::default(), vec![kept("ann", ANN), kept("bob", BOB)]);
    assert_eq!(sim.core.replace_rules(same, sim.now), 0);
    let other = with_logins(Limits::default(), vec![kept("ann", BOB), kept("bob", BOB)]);
    assert_eq!(sim.core.replace_rules(other, sim.now), 1);
    sim.drain();
    assert!(sim.is_closed(ann) && !sim.is_closed(bob));
    let none = with_logins(Limits::default(), Vec::new());
    assert_eq!(sim.core.replace_rules(none, sim.now), 1);
    sim.drain();
    assert!(sim.is_closed(bob));
}

#[test]
fn all_addresses_of_an_ipv6_network_are_banned_together() {
    let mut sim = sim(Limits::default());
    for n in 0..5 {
        let address = format!("[2001:db8:1:2::{n}]:1");
        try_from(&mut sim, &address, named("ann", "guess", "c"));
        sim.end_check();
    }
    assert_eq!(
        sim.open(from("[2001:db8:1:2:ffff::9]:1")),
        Err(Refusal::Banned)
    );
    assert!(sim.open(from("[2001:db8:1:3::1]:1")).is_ok());
}
