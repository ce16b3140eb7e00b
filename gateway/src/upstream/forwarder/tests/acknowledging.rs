//! What leaves the buffer, and what is sent again: rows go on their acknowledgement, in their order.

use std::time::Duration;

use super::{
    super::{ACKNOWLEDGEMENT_PATIENCE, Answer, Input},
    sim::Sim,
};

#[test]
fn a_row_leaves_only_when_it_is_acknowledged() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 3);
    sim.link_up();
    assert_eq!(sim.on_wire.len(), 3);
    assert_eq!(sim.stored.len(), 3);
    sim.acknowledge_all();
    assert!(sim.stored.is_empty());
}

#[test]
fn an_unacknowledged_batch_is_kept_and_sent_again_in_order() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 6);
    sim.link_up();
    assert_eq!(sim.on_wire_orders(), [1, 2, 3, 4]);
    sim.acknowledge(1);
    sim.link_down();
    assert_eq!(sim.stored.len(), 5);
    sim.link_up();
    assert_eq!(sim.on_wire_orders(), [2, 3, 4, 5]);
}

#[test]
fn what_is_acknowledged_out_of_order_is_not_sent_again() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 4);
    sim.link_up();
    sim.acknowledge(3);
    sim.link_down();
    sim.link_up();
    assert_eq!(sim.on_wire_orders(), [1, 2, 4]);
}

#[test]
fn the_window_counts_from_the_oldest_unacknowledged() {
    let mut sim = Sim::new(1, 3);
    sim.append("a", 9);
    sim.link_up();
    sim.acknowledge(2);
    sim.acknowledge(3);
    assert_eq!(
        sim.on_wire_orders(),
        [1],
        "identifiers of 2 and 3 must not go round past 1"
    );
    sim.acknowledge(1);
    assert_eq!(sim.on_wire_orders(), [4, 5, 6]);
}

#[test]
fn after_a_link_without_answers_messages_go_one_by_one_at_first() {
    let mut sim = Sim::new(1, 8);
    sim.append("a", 20);
    sim.link_up();
    assert_eq!(sim.on_wire.len(), 8);
    sim.link_down();
    sim.link_up();
    assert_eq!(sim.on_wire_orders(), [1]);
    sim.acknowledge(1);
    assert_eq!(sim.on_wire_orders(), [2, 3]);
    sim.acknowledge(2);
    assert_eq!(sim.on_wire_orders(), [3, 4, 5, 6]);
}

#[test]
fn a_broker_that_acknowledges_nothing_is_given_up() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 1);
    sim.link_up();
    let due = sim.forwarder.poll_timeout().unwrap();
    assert_eq!(due, sim.now.monotonic + ACKNOWLEDGEMENT_PATIENCE);
    sim.wait(Duration::ZERO);
    assert!(sim.reconnects.is_empty(), "early calls do nothing");
    sim.wait(ACKNOWLEDGEMENT_PATIENCE);
    assert_eq!(sim.reconnects.len(), 1);
}

#[test]
fn while_paused_nothing_is_sent_and_what_is_under_way_still_leaves() {
    let mut sim = Sim::new(1, 2);
    sim.append("a", 5);
    sim.link_up();
    sim.input(Input::Paused(true));
    sim.acknowledge_all();
    assert_eq!((sim.stored.len(), sim.on_wire.len()), (3, 0));
    sim.link_down();
    sim.link_up();
    sim.append("a", 1);
    sim.input(Input::Appended);
    assert!(sim.on_wire.is_empty());
    sim.input(Input::Paused(false));
    sim.acknowledge_all();
    assert!(sim.stored.is_empty());
    assert_eq!(sim.arrived["a"], [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_refusal_for_now_gives_the_link_up_and_keeps_the_message() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 2);
    sim.link_up();
    sim.answer(1, Answer::NotNow("quota exceeded".to_owned()));
    assert_eq!(sim.reconnects, ["quota exceeded"]);
    sim.link_down();
    sim.link_up();
    sim.acknowledge_all();
    assert_eq!(sim.arrived["a"], [1, 2, 1, 2]);
}

#[test]
fn a_gap_is_told_once_and_again_only_when_it_has_grown() {
    let mut sim = Sim::new(1, 4);
    sim.link_up();
    sim.gap = Some(3);
    sim.input(Input::Appended);
    assert_eq!(sim.gaps_on_wire(), [3]);
    sim.input(Input::Appended);
    assert_eq!(sim.gaps_on_wire(), [3]);
    sim.gap = Some(5);
    sim.input(Input::Appended);
    assert_eq!(sim.gaps_on_wire(), [3, 5]);
    sim.acknowledge_all();
    assert_eq!(sim.gap, None);
}
