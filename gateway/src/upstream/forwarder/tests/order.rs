//! What goes first: new messages before the backlog, each topic in its order, priorities by their shares.

use std::collections::BTreeSet;

use super::{super::Input, sim::Sim};
use crate::{config::Priority, upstream::intake};

#[test]
fn a_new_message_passes_the_backlog_of_other_topics() {
    let mut sim = Sim::sharing(1, 10, 50);
    sim.append("old", 1000);
    sim.link_up();
    assert_eq!(
        sim.on_wire.len(),
        5,
        "half of the window is for what is new"
    );
    sim.append("new", 1);
    sim.input(Input::Appended);
    assert_eq!(sim.arrived["new"], [1]);
    assert_eq!(sim.arrived["old"].len(), 5);
    sim.acknowledge_all();
    assert!(sim.stored.is_empty());
}

#[test]
fn a_new_message_waits_for_the_older_ones_of_its_topic() {
    let mut sim = Sim::sharing(1, 10, 50);
    sim.append("old", 1000);
    sim.link_up();
    for _ in 0..20 {
        sim.append("old", 1);
        sim.append("new", 1);
        sim.input(Input::Appended);
    }
    sim.acknowledge_all();
    assert_eq!(sim.arrived["old"], (1..=1020).collect::<Vec<_>>());
    assert_eq!(sim.arrived["new"], (1..=20).collect::<Vec<_>>());
    sim.append("old", 1);
    sim.input(Input::Appended);
    assert_eq!(
        sim.arrived["old"].last(),
        Some(&1021),
        "nothing of it waits any more"
    );
}

#[test]
fn where_the_rule_says_so_a_new_message_passes_those_of_its_own_topic() {
    let mut sim = Sim::sharing(1, 10, 50);
    sim.append("overtakes", 1000);
    sim.link_up();
    sim.append("overtakes", 2);
    sim.input(Input::Appended);
    assert_eq!(sim.arrived["overtakes"], [1, 2, 3, 4, 5, 1001, 1002]);
    sim.link_down();
    sim.append("overtakes", 1);
    sim.link_up();
    sim.acknowledge_all();
    assert!(sim.stored.is_empty());
    let arrived = &sim.arrived["overtakes"];
    let distinct: BTreeSet<_> = arrived.iter().collect();
    assert_eq!((distinct.len(), arrived.len()), (1003, 1003 + 7));
}

#[test]
fn a_backlog_drains_by_priority_and_none_starves() {
    let mut sim = Sim::new(1, 10);
    for (topic, priority) in [
        ("low", Priority::Low),
        ("normal", Priority::Normal),
        ("high", Priority::High),
    ] {
        sim.append_ranked(topic, 1000, priority);
    }
    sim.link_up();
    while sim.arrived.get("high").map_or(0, Vec::len) < 1000 {
        sim.acknowledge_some();
    }
    for starving in ["normal", "low"] {
        let arrived = sim.arrived[starving].len();
        assert!((100..=150).contains(&arrived), "{starving}: {arrived}");
    }
    while sim.arrived["normal"].len() < 1000 {
        sim.acknowledge_some();
    }
    assert!(sim.arrived["low"].len() < 300);
    sim.acknowledge_all();
    assert!(sim.stored.is_empty());
}

#[test]
fn a_burst_is_new_for_a_while_and_what_lasts_is_backlog() {
    let mut sim = Sim::sharing(1, 10, 10);
    sim.link_up();
    sim.append("a", 5000);
    sim.input(Input::Appended);
    assert_eq!(
        sim.on_wire.len(),
        10,
        "all of it came while the link was up"
    );
    sim.pass(intake::FALLEN_BEHIND);
    while sim.on_wire.len() == 10 {
        sim.acknowledge(sim.on_wire_orders()[0]);
    }
    assert_eq!(sim.on_wire.len(), 9, "the rest has its share");
    sim.append("b", 1);
    sim.input(Input::Appended);
    assert_eq!(sim.arrived["b"], [1]);
    sim.acknowledge_all();
    assert_eq!(sim.arrived["a"], (1..=5000).collect::<Vec<_>>());
}
