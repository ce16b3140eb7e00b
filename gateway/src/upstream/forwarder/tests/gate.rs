//! What the gate holds back: the backlog's rate, windows of the day, a budget.

use std::time::Duration;

use super::{
    super::Input,
    sim::{BUDGET, Sim, gate},
};
use crate::{
    config::{Hold, Priority},
    upstream::gate::Brake,
};

#[test]
fn a_backlog_keeps_to_its_rate_and_new_messages_do_not_wait_for_it() {
    let mut sim = Sim::behind(1, 10, gate(&[], Hold::Backlog, Some(5.0), None));
    sim.append("old", 1000);
    sim.link_up();
    for _ in 0..10 {
        sim.acknowledge_all();
        let due = sim.forwarder.poll_timeout().unwrap();
        sim.wait(due - sim.now.monotonic);
        sim.append("new", 5);
        sim.input(Input::Appended);
        assert_eq!(sim.arrived["new"].last(), Some(&sim.numbers["new"]));
    }
    assert_eq!(
        sim.arrived["old"].len(),
        15,
        "five at once, and one each 200 ms"
    );
    assert_eq!(sim.forwarder.brake(sim.now), Some(Brake::Rate));
}

#[test]
fn outside_its_window_a_backlog_waits_and_what_is_new_or_high_does_not() {
    let mut sim = Sim::behind(1, 10, gate(&["13:00-14:00"], Hold::Backlog, None, None));
    sim.append("old", 30);
    sim.append_ranked("alarm", 30, Priority::High);
    sim.link_up();
    sim.append("new", 1);
    sim.input(Input::Appended);
    sim.acknowledge_all();
    assert_eq!(sim.arrived["alarm"].len(), 30);
    assert_eq!(sim.arrived["new"], [1]);
    assert!(!sim.arrived.contains_key("old"));
    assert_eq!(sim.forwarder.brake(sim.now), Some(Brake::Window));
    while !sim.arrived.contains_key("old") {
        let due = sim.forwarder.poll_timeout().unwrap();
        sim.wait(due - sim.now.monotonic);
    }
    assert_eq!(sim.now.wall.to_string(), "2026-11-22T13:00:00Z");
    sim.acknowledge_all();
    assert!(sim.stored.is_empty());
}

#[test]
fn a_window_may_hold_all_but_what_is_of_high_priority() {
    let mut sim = Sim::behind(1, 10, gate(&["13:00-14:00"], Hold::AllButHigh, None, None));
    sim.link_up();
    sim.append("a", 20);
    sim.append_ranked("alarm", 1, Priority::High);
    sim.input(Input::Appended);
    assert_eq!(sim.arrived.keys().collect::<Vec<_>>(), ["alarm"]);
    sim.link_down();
    sim.link_up();
    sim.acknowledge_all();
    assert_eq!(sim.arrived.keys().collect::<Vec<_>>(), ["alarm"]);
    sim.pass(Duration::from_secs(3600));
    sim.wait(Duration::ZERO);
    sim.acknowledge_all();
    assert_eq!(sim.arrived["a"], (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_used_up_budget_lets_only_high_priority_go_until_midnight_and_is_told_of_once() {
    let mut sim = Sim::behind(1, 10, gate(&[], Hold::Backlog, None, Some(50_000)));
    sim.append("a", 1000);
    sim.link_up();
    sim.acknowledge_all();
    let arrived = sim.arrived["a"].len();
    assert!((100..300).contains(&arrived), "{arrived}");
    assert_eq!(sim.exhausted.len(), 1);
    assert!(sim.arrived.contains_key(BUDGET));
    sim.append_ranked("alarm", 5, Priority::High);
    sim.append("b", 5);
    sim.input(Input::Appended);
    sim.acknowledge_all();
    assert_eq!(sim.arrived["alarm"], [1, 2, 3, 4, 5]);
    assert!(!sim.arrived.contains_key("b"));
    assert_eq!(sim.forwarder.brake(sim.now), Some(Brake::Budget));
    sim.link_down();
    sim.link_up();
    assert_eq!(sim.exhausted.len(), 1);
    while sim.now.wall < "2026-11-22T23:58:30Z".parse().unwrap() {
        let due = sim.forwarder.poll_timeout().unwrap();
        sim.wait(due - sim.now.monotonic);
    }
    assert_eq!(sim.arrived["a"].len(), arrived);
    sim.wait(Duration::from_secs(120));
    sim.acknowledge_all();
    assert!(sim.arrived["a"].len() > arrived);
    assert_eq!(sim.exhausted.len(), 2);
}
