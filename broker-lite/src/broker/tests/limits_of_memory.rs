//! What MQTT and we promise: memory (`limits.memory`), and what gives way in which order.

use super::*;
use crate::{memory::Charge, observe::audit::Event};

const MEMORY: u64 = 1_000_000;

fn small() -> Sim {
    Sim::limited(Limits {
        memory: settings::Size::from_bytes(MEMORY),
        ..Limits::default()
    })
}

/// Something else takes memory up to so many per cent, until it is dropped.
fn fill(sim: &Sim, percent: u64) -> Charge {
    let wanted = (MEMORY * percent / 100) as usize;
    sim.core.meter.charge(wanted - sim.core.meter.used())
}

fn with_will(id: &str) -> Connect {
    Connect {
        will: Some(will("last/will", Some(10))),
        ..lasting(V5, id)
    }
}

#[test]
fn memory_is_back_where_it_was_once_everything_is_gone() {
    let mut sim = Sim::new();
    let before = sim.core.meter.used();
    let (subscriber, _) = sim.connect(with_will("sub"));
    for n in 0..20 {
        let filters = [
            format!("a/{n}/+/c"),
            format!("$share/g/a/{n}/#"),
            format!("b/{n}"),
        ];
        for filter in &filters {
            sim.subscribe(subscriber, filter, at(2));
        }
    }
    sim.lose(subscriber);
    let publisher = sim.client(V5, "pub");
    for n in 1..=20 {
        let topic = format!("a/{n}/b/c");
        sim.send(publisher, qos1(&topic, &"x".repeat(3_000), n));
        sim.send(publisher, retained(&topic, "kept"));
        sim.send(publisher, retained(&topic, "a larger one"));
    }
    sim.core.handle_buffered(publisher.0, 100_000, sim.now);
    assert!(sim.core.meter.used() > before + 20 * 3_000 + 100_000);
    for n in 1..=20 {
        sim.send(publisher, retained(&format!("a/{n}/b/c"), ""));
    }
    sim.lose(publisher);
    let (subscriber, present) = sim.connect(lasting(V5, "sub"));
    assert!(present);
    sim.send(subscriber, goodbye());
    let (subscriber, _) = sim.connect(hello(V5, "sub"));
    sim.send(subscriber, goodbye());
    assert_eq!(sim.core.meter.used(), before);
}

#[test]
fn a_stored_session_leaves_nothing_counted_either() {
    let mut sim = Sim::storing(Limits::default());
    let before = sim.core.meter.used();
    let stored = sim.try_connect(lasting(V5, "sub"));
    sim.commit();
    sim.send(stored, subscribe("t", at(2)));
    sim.lose(stored);
    let publisher = sim.client(V5, "pub");
    sim.send(publisher, qos2("t", &"x".repeat(10_000), 1));
    sim.commit();
    assert!(sim.core.meter.used() > before + 10_000);
    sim.send(publisher, goodbye());
    let again = sim.try_connect(hello(V5, "sub"));
    sim.commit();
    sim.send(again, goodbye());
    sim.commit();
    sim.take(publisher);
    assert_eq!(sim.core.meter.used(), before);
}

#[test]
fn a_body_that_many_queues_share_is_counted_once() {
    let mut sim = Sim::new();
    for n in 0..50 {
        let (client, _) = sim.connect(lasting(V5, &format!("c{n}")));
        sim.subscribe(client, "t", at(1));
        sim.lose(client);
    }
    let publisher = sim.client(V5, "pub");
    let before = sim.core.meter.used();
    sim.send(publisher, qos1("t", &"x".repeat(100_000), 1));
    let grown = sim.core.meter.used() - before;
    assert!((100_000..120_000).contains(&grown), "{grown}");
}

#[test]
fn from_70_per_cent_on_qos_0_is_not_queued_but_qos_1_is() {
    let mut sim = small();
    let slow = sim.client(V5, "slow");
    sim.subscribe(slow, "t", at(1));
    let publisher = sim.client(V5, "pub");
    sim.stalled.push(slow.0);
    sim.send(publisher, once("t", &"x".repeat(70_000)));
    let _held = fill(&sim, 72);
    sim.send(publisher, once("t", "lost"));
    sim.send(publisher, qos1("t", "kept", 1));
    sim.stalled.clear();
    sim.flush(slow.0);
    sim.flush(slow.0);
    let got = sim.payloads(slow);
    assert_eq!(got.len(), 2);
    assert_eq!(got[1], "t=kept");
    assert_eq!(sim.core.status(sim.now).counters.refused["queue-full"], 1);
}

#[test]
fn from_80_per_cent_on_no_stranger_leaves_a_session_or_a_will_but_all_are_let_in() {
    let mut sim = small();
    let (known, _) = sim.connect(lasting(V5, "known"));
    sim.lose(known);
    let held = fill(&sim, 81);
    let leaves_will = Connect {
        will: Some(will("last/will", None)),
        ..hello(V5, "stranger")
    };
    for stranger in [lasting(V5, "stranger"), leaves_will] {
        let stranger = sim.try_connect(stranger);
        let reason = last_reason(&mut sim, stranger);
        assert_eq!(reason, Some(ReasonCode::QuotaExceeded));
    }
    assert!(sim.connect(lasting(V5, "known")).1);
    sim.connect(hello(V5, "stranger"));
    drop(held);
    sim.connect(lasting(V5, "stranger"));
}

#[test]
fn from_85_per_cent_on_nothing_new_is_taken_up() {
    let mut sim = small();
    let (client, _) = sim.connect(lasting(V5, "c"));
    sim.subscribe(client, "old", at(1));
    sim.send(client, retained("old", "value"));
    sim.take(client);
    let held = fill(&sim, 86);
    assert_eq!(sim.open(peer()), Err(Refusal::Memory));
    assert_eq!(
        sim.subscribe(client, "new", at(1)),
        ReasonCode::QuotaExceeded
    );
    assert_eq!(sim.subscribe(client, "old", at(0)), ReasonCode::Success);
    sim.send(client, retained("new", "value"));
    sim.send(client, retained("old", "other"));
    assert_eq!(sim.core.status(sim.now).retained, 1);
    assert_eq!(sim.payloads(client).last().unwrap(), "old=other");
    drop(held);
    assert_eq!(sim.subscribe(client, "new", at(1)), ReasonCode::GrantedQos1);
}

#[test]
fn from_90_per_cent_on_publishers_are_refused_or_left_unread() {
    let mut sim = small();
    let (v5, v3) = (sim.client(V5, "v5"), sim.client(V3, "v3"));
    let held = fill(&sim, 91);
    sim.send(v5, qos1("t", "x", 1));
    assert_eq!(last_reason(&mut sim, v5), Some(ReasonCode::QuotaExceeded));
    let message = qos1("t", "x", 1);
    assert!(sim.core.leaves_unread(v3.0, &message, sim.now));
    assert!(!sim.core.accepts(v3.0, sim.now));
    assert!(!sim.core.leaves_unread(v3.0, &puback(1), sim.now));
    drop(held);
    sim.pass(Duration::from_secs(1));
    assert!(sim.core.accepts(v3.0, sim.now));
    assert!(!sim.core.leaves_unread(v3.0, &message, sim.now));
}

#[test]
fn at_95_per_cent_the_largest_buffers_go_before_what_was_acknowledged() {
    let mut sim = small();
    let (absent, _) = sim.connect(lasting(V5, "absent"));
    sim.subscribe(absent, "t", at(1));
    sim.lose(absent);
    let publisher = sim.client(V5, "pub");
    sim.send(publisher, qos1("t", &"x".repeat(50_000), 1));
    let (small_one, large_one) = (sim.client(V5, "small"), sim.client(V5, "large"));
    let _held = fill(&sim, 77);
    sim.core.handle_buffered(small_one.0, 60_000, sim.now);
    sim.core.handle_buffered(large_one.0, 130_000, sim.now);
    sim.drain();
    assert!(sim.is_closed(large_one));
    assert!(!sim.is_closed(small_one) && !sim.is_closed(publisher));
    let (absent, present) = sim.connect(lasting(V5, "absent"));
    assert!(present);
    assert_eq!(sim.publishes(absent).len(), 1);
}

#[test]
fn absent_sessions_go_last_the_largest_first_and_each_is_told() {
    let mut sim = small();
    for (id, bytes) in [("large", 60_000), ("small", 100)] {
        let (client, _) = sim.connect(lasting(V5, id));
        sim.subscribe(client, id, at(1));
        sim.lose(client);
        let publisher = sim.client(V5, "pub");
        sim.send(publisher, qos1(id, &"x".repeat(bytes), 1));
    }
    let publisher = sim.client(V5, "pub");
    let held = fill(&sim, 90);
    let more = sim.core.meter.charge(60_000);
    sim.send(publisher, once("other", "x"));
    assert_eq!(sim.refusals.last(), Some(&Refusal::Memory));
    drop((held, more));
    assert!(!sim.connect(lasting(V5, "large")).1);
    assert!(sim.connect(lasting(V5, "small")).1);
}

#[test]
fn at_the_bound_nothing_is_queued_at_all() {
    let mut sim = small();
    let local = sim.core.open_local("local");
    let filter = SubscriptionFilter::parse("t").unwrap();
    sim.core
        .subscribe_local(local, filter, QoS::AtLeastOnce, sim.now);
    let held = fill(&sim, 100);
    let message = Message::new(TopicName::parse("t").unwrap(), "x");
    sim.core.publish_local(local, message.clone(), sim.now);
    assert_eq!(sim.core.lost_locally(local), 1);
    drop(held);
    sim.core.publish_local(local, message, sim.now);
    assert!(sim.core.take_delivery(local, sim.now).is_some());
}

/// What was told about memory, shortly.
fn told(sim: &mut Sim) -> Vec<&'static str> {
    let shortly = |event: Event| match event {
        Event::MemoryShort { gives_way, .. } => Some(gives_way),
        Event::MemoryEnough { .. } => Some("enough"),
        _ => None,
    };
    sim.events.drain(..).filter_map(shortly).collect()
}

#[test]
fn the_operator_is_told_each_step_once_and_when_memory_is_enough_again() {
    let mut sim = small();
    let client = sim.client(V5, "c");
    let mut at_percent = |percent| {
        let filled = fill(&sim, percent);
        for _ in 0..3 {
            sim.send(client, once("t", "x"));
        }
        drop(filled);
        told(&mut sim)
    };
    assert_eq!(at_percent(50), Vec::<&str>::new());
    assert_eq!(at_percent(75), ["QoS 0 is not queued"]);
    // What hovers around a step is not told again.
    assert_eq!(at_percent(65), Vec::<&str>::new());
    assert_eq!(at_percent(75), Vec::<&str>::new());
    assert_eq!(at_percent(82), ["no new sessions"]);
    assert_eq!(at_percent(50), ["enough"]);
    assert_eq!(at_percent(82), ["no new sessions"]);
    sim.lose(client);
    assert_eq!(told(&mut sim), ["enough"]);
}
