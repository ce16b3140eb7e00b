//! Messages that the upstream does not take, or closes the link over: found and buried, and no other.

use std::collections::BTreeSet;

use broker_lite::packet::QoS;
use bytes::Bytes;

use super::{
    super::{Answer, Input, Key},
    sim::{STAND_INS, Sim, row},
};
use crate::upstream::suspect;

#[test]
fn a_message_that_will_never_be_taken_does_not_block() {
    let mut sim = Sim::new(1, 2);
    sim.append("a", 5);
    sim.link_up();
    sim.answer(1, Answer::Never("topic name invalid".to_owned()));
    sim.acknowledge_all();
    assert_eq!(sim.buried, [(1, "topic name invalid".to_owned())]);
    assert!(sim.stored.is_empty());
    assert_eq!(sim.arrived["a"], [2, 3, 4, 5]);
}

#[test]
fn a_packet_larger_than_the_upstream_takes_is_never_sent() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 2);
    sim.stored.get_mut(&row(1)).unwrap().payload = Bytes::from(vec![0; 2000]);
    sim.allowance.maximum_packet = Some(1000);
    sim.link_up();
    assert_eq!(sim.on_wire_orders(), [2]);
    assert_eq!(sim.buried.len(), 1);
    assert!(
        sim.buried[0].1.contains("the upstream takes 1000"),
        "{:?}",
        sim.buried
    );
}

#[test]
fn a_message_over_which_the_upstream_closes_the_link_is_buried_once_another_passes() {
    let mut sim = Sim::new(1, 8);
    sim.append("a", 4);
    let mut links = 0;
    while !sim.stored.is_empty() {
        links += 1;
        assert!(links < 20, "still {:?} after 20 links", sim.stored.keys());
        sim.link_up();
        while !sim.on_wire.is_empty() {
            match sim.on_wire_orders()[..] {
                [first, ..] if !sim.on_wire_orders().contains(&2) => sim.acknowledge(first),
                _ => sim.closed_by_upstream(),
            }
        }
    }
    assert_eq!(sim.buried.len(), 1);
    assert_eq!(sim.buried[0].0, 2);
    assert!(sim.buried[0].1.contains("5 times"), "{}", sim.buried[0].1);
}

#[test]
fn a_message_alone_over_which_the_upstream_closes_is_buried_once_words_about_it_pass() {
    let mut sim = Sim::new(1, 8);
    sim.append("a", 1);
    let links = sim.settle(&[1]);
    assert_eq!(links, suspect::TRIES + 1);
    assert_eq!(sim.buried.len(), 1);
    assert_eq!(sim.arrived.keys().collect::<Vec<_>>(), ["a", STAND_INS]);
}

#[test]
fn one_after_another_of_such_messages_is_found() {
    let mut sim = Sim::new(1, 8);
    sim.append("a", 7);
    sim.settle(&[2, 3, 4, 7]);
    let mut buried: Vec<_> = sim.buried.iter().map(|(order, _)| *order).collect();
    buried.sort_unstable();
    assert_eq!(buried, [2, 3, 4, 7]);
    let mut taken = sim.arrived["a"].clone();
    taken.retain(|number| [1, 5, 6].contains(number));
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken, [1, 5, 6]);
}

#[test]
fn a_topic_that_the_upstream_closes_over_keeps_no_other_waiting() {
    let mut sim = Sim::new(1, 8);
    sim.append("a", 5);
    sim.append("b", 3);
    sim.append("a", 1);
    let links = sim.settle(&[1, 2, 3, 4, 5, 9]);
    assert_eq!(sim.buried.len(), 6, "all of a topic and nothing else");
    let mut first_seen = sim.arrived["b"].clone();
    let mut seen = BTreeSet::new();
    first_seen.retain(|number| seen.insert(*number));
    assert_eq!(first_seen, [1, 2, 3]);
    assert!(links < 40, "{links} links");
}

#[test]
fn an_upstream_that_takes_nothing_but_our_own_words_costs_a_few_messages_and_not_the_backlog() {
    let mut sim = Sim::new(1, 8);
    sim.append("a", 20);
    sim.append("b", 20);
    for _ in 0..400 {
        sim.link_up();
        while let Some(first) = sim.on_wire.first().map(|message| message.key) {
            match first {
                Key::Row(_) => sim.closed_by_upstream(),
                own => {
                    sim.on_wire.remove(0);
                    sim.input(Input::Answered(own, Answer::Acknowledged));
                }
            }
        }
    }
    assert_eq!(sim.buried.len(), suspect::ON_OUR_WORD as usize);
    sim.settle(&[]);
    assert_eq!(sim.buried.len(), suspect::ON_OUR_WORD as usize);
}

#[test]
fn a_message_alone_is_kept_while_the_upstream_closes_over_everything() {
    let mut sim = Sim::new(1, 8);
    sim.append("a", 1);
    for _ in 0..100 {
        sim.link_up();
        assert_eq!(sim.on_wire.len(), 1);
        sim.closed_by_upstream();
    }
    assert!(sim.buried.is_empty());
    sim.settle(&[]);
    assert!(sim.buried.is_empty());
    assert_eq!(sim.arrived["a"].last(), Some(&1));
}

#[test]
fn an_upstream_that_closes_over_everything_costs_no_message() {
    let mut sim = Sim::new(1, 8);
    sim.append("a", 3);
    for _ in 0..100 {
        sim.link_up();
        sim.closed_by_upstream();
    }
    assert_eq!((sim.stored.len(), sim.buried.len()), (3, 0));
    sim.link_up();
    sim.acknowledge_all();
    assert!(sim.stored.is_empty() && sim.buried.is_empty());
    let mut last = sim.arrived["a"].clone();
    assert_eq!(last.split_off(last.len() - 3), [1, 2, 3]);
}

#[test]
fn a_message_that_was_only_written_proves_nothing() {
    let mut sim = Sim::new(1, 8);
    sim.append("a", 2);
    sim.stored.get_mut(&row(2)).unwrap().qos = QoS::AtMostOnce;
    for _ in 0..40 {
        sim.link_up();
        // With QoS 0 the session itself answers once the message is written.
        let written = sim.on_wire.iter().any(|m| m.qos == QoS::AtMostOnce);
        if written {
            sim.acknowledge(2);
        }
        sim.closed_by_upstream();
    }
    assert!(sim.buried.is_empty());
}

#[test]
fn a_network_that_breaks_over_a_message_does_not_count_against_it() {
    let mut sim = Sim::new(1, 8);
    sim.append("a", 3);
    for _ in 0..100 {
        sim.link_up();
        assert!(sim.on_wire_orders().contains(&1));
        sim.link_down();
    }
    assert!(sim.buried.is_empty());
}
