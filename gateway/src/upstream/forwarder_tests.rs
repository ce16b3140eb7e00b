//! The forwarder's promises, with an upstream in memory that loses, delays and refuses.
//! The tests are the core's driver.

use std::collections::{BTreeMap, BTreeSet};

use broker_lite::{packet::MessageProperties, topic::TopicName};
use bytes::Bytes;

use super::*;

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
fn a_broker_that_acknowledges_nothing_is_given_up() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 1);
    sim.link_up();
    let due = sim.forwarder.poll_timeout().unwrap();
    assert_eq!(due, sim.now + ACKNOWLEDGEMENT_PATIENCE);
    sim.forwarder.handle_timeout(sim.now);
    sim.drain();
    assert!(sim.reconnects.is_empty(), "early calls do nothing");
    sim.forwarder.handle_timeout(due);
    sim.drain();
    assert_eq!(sim.reconnects.len(), 1);
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

#[test]
fn nothing_is_lost_and_order_holds_whatever_the_link_does() {
    for seed in 1..500 {
        let mut sim = Sim::new(seed, 1 + (seed % 7) as u16);
        let mut appended = BTreeMap::<&str, u64>::new();
        for _ in 0..300 {
            match sim.random(10) {
                0 => sim.link_down(),
                1 | 2 => sim.link_up(),
                3..=5 => {
                    let topic = ["a", "b", "c"][sim.random(3) as usize];
                    let count = 1 + sim.random(3);
                    sim.append(topic, count);
                    sim.input(Input::Appended);
                    *appended.entry(topic).or_default() = sim.numbers[topic];
                }
                _ => sim.acknowledge_some(),
            }
        }
        sim.link_down();
        sim.link_up();
        sim.acknowledge_all();
        assert!(
            sim.stored.is_empty(),
            "seed {seed}: {} left",
            sim.stored.len()
        );
        for (topic, last) in appended {
            let arrived = &sim.arrived[topic];
            let mut first_arrivals = Vec::new();
            for number in arrived {
                if !first_arrivals.contains(number) {
                    first_arrivals.push(*number);
                }
            }
            let expected: Vec<_> = (1..=last).collect();
            assert_eq!(first_arrivals, expected, "seed {seed}, topic {topic}");
        }
    }
}

const STAND_INS: &str = "gw/alert/dead-letter/upstream";

fn row(order: i64) -> i64 {
    // Any rank will do; this is the middle one.
    (1 << 56) | order
}

/// A buffer and an upstream in memory; it owns the clock.
struct Sim {
    forwarder: Forwarder,
    now: Instant,
    random: u64,
    allowance: Allowance,
    linked: bool,
    next_order: i64,
    numbers: BTreeMap<String, u64>,
    stored: BTreeMap<i64, Outbound>,
    gap: Option<u64>,
    /// Sent on this link and not yet answered; the upstream has them.
    on_wire: Vec<Outbound>,
    arrived: BTreeMap<String, Vec<u64>>,
    buried: Vec<(i64, String)>,
    reconnects: Vec<String>,
}

impl Sim {
    #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
    fn new(seed: u64, window: u16) -> Sim {
        Sim {
            forwarder: Forwarder::new(window, TopicName::parse(STAND_INS).unwrap()),
            now: Instant::now(),
            random: seed,
            allowance: Allowance {
                receive_maximum: u16::MAX,
                maximum_packet: None,
                maximum_qos: QoS::ExactlyOnce,
                retain_available: true,
            },
            linked: false,
            next_order: 1,
            numbers: BTreeMap::new(),
            stored: BTreeMap::new(),
            gap: None,
            on_wire: Vec::new(),
            arrived: BTreeMap::new(),
            buried: Vec::new(),
            reconnects: Vec::new(),
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 33) % below
    }

    fn append(&mut self, topic: &str, count: u64) {
        for _ in 0..count {
            let number = self.numbers.entry(topic.to_owned()).or_default();
            *number += 1;
            let message = outbound(Key::Row(row(self.next_order)), topic, *number);
            self.stored.insert(row(self.next_order), message);
            self.next_order += 1;
        }
    }

    fn link_up(&mut self) {
        if !self.linked {
            self.linked = true;
            self.input(Input::LinkUp(self.allowance));
        }
    }

    fn link_down(&mut self) {
        self.linked = false;
        self.on_wire.clear();
        self.input(Input::LinkDown { by_upstream: false });
    }

    fn closed_by_upstream(&mut self) {
        self.linked = false;
        self.on_wire.clear();
        self.input(Input::LinkDown { by_upstream: true });
    }

    fn input(&mut self, input: Input) {
        self.forwarder.handle_input(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.forwarder.poll_output() {
            match output {
                Output::Fetch { after, rows } => {
                    let fetched = self.fetch(after, rows);
                    self.forwarder
                        .handle_input(Input::Fetched(fetched), self.now);
                }
                Output::Publish(message) => {
                    assert!(self.linked, "sent without a link");
                    // What is sent arrives; whether its acknowledgement does is the link's luck.
                    let number = std::str::from_utf8(&message.payload)
                        .unwrap()
                        .parse::<u64>();
                    let arrived = self.arrived.entry(message.topic.to_string()).or_default();
                    arrived.extend(number);
                    self.on_wire.push(message);
                }
                Output::Delete(Key::Row(row)) => {
                    assert!(self.stored.remove(&row).is_some(), "deleted twice");
                }
                Output::Delete(Key::Gap { count, .. }) => {
                    self.gap = self.gap.filter(|known| *known != count);
                }
                Output::Bury(Key::Row(row), reason) => {
                    self.stored.remove(&row);
                    self.buried.push((row & 0xFFFF, reason));
                }
                Output::Bury(Key::Gap { .. }, _) => self.gap = None,
                Output::Delete(Key::StandIn) | Output::Bury(Key::StandIn, _) => {}
                Output::Reconnect(reason) => self.reconnects.push(reason),
            }
        }
    }

    fn fetch(&self, after: Cursor, rows: usize) -> Vec<Outbound> {
        let behind = |row: i64| {
            let mut passed = after;
            passed.pass(row);
            passed != after
        };
        let gap = self
            .gap
            .map(|count| outbound(Key::Gap { id: 1, count }, "gap", count));
        let waiting = self.stored.iter().filter(|(row, _)| behind(**row));
        gap.into_iter()
            .chain(waiting.map(|(_, message)| message.clone()).take(rows))
            .collect()
    }

    fn answer(&mut self, order: i64, answer: Answer) {
        let key = Key::Row(row(order));
        self.on_wire.retain(|message| message.key != key);
        if matches!(answer, Answer::Never(_)) {
            // Refused, so it has not arrived.
            let number = order as u64;
            self.arrived
                .values_mut()
                .for_each(|list| list.retain(|known| *known != number));
        }
        self.input(Input::Answered(key, answer));
    }

    fn acknowledge(&mut self, order: i64) {
        self.answer(order, Answer::Acknowledged);
    }

    fn acknowledge_some(&mut self) {
        if !self.on_wire.is_empty() {
            let index = self.random(self.on_wire.len() as u64) as usize;
            let message = self.on_wire.remove(index);
            self.input(Input::Answered(message.key, Answer::Acknowledged));
        }
    }

    fn acknowledge_all(&mut self) {
        while !self.on_wire.is_empty() {
            let message = self.on_wire.remove(0);
            self.input(Input::Answered(message.key, Answer::Acknowledged));
        }
    }

    /// Links on which the upstream takes what is no poison and closes over what is, until all is
    /// settled; tells how many.
    fn settle(&mut self, poison: &[i64]) -> u32 {
        for links in 1..200 {
            self.link_up();
            while let Some(first) = self.on_wire.first().map(|message| message.key) {
                match first {
                    Key::Row(row) if poison.contains(&(row & 0xFFFF)) => self.closed_by_upstream(),
                    key => {
                        self.on_wire.remove(0);
                        self.input(Input::Answered(key, Answer::Acknowledged));
                    }
                }
            }
            if self.stored.is_empty() {
                return links;
            }
        }
        panic!("still {:?} after 200 links", self.stored.keys());
    }

    fn on_wire_orders(&self) -> Vec<i64> {
        let orders = self.on_wire.iter().filter_map(|message| match message.key {
            Key::Row(row) => Some(row & 0xFFFF),
            Key::Gap { .. } | Key::StandIn => None,
        });
        orders.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn gaps_on_wire(&self) -> Vec<u64> {
        let counts = self.on_wire.iter().filter_map(|message| match message.key {
            Key::Gap { count, .. } => Some(count),
            Key::Row(_) | Key::StandIn => None,
        });
        counts.collect()
    }
}

fn outbound(key: Key, topic: &str, number: u64) -> Outbound {
    Outbound {
        key,
        topic: TopicName::parse(topic).unwrap(),
        payload: Bytes::from(number.to_string()),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: MessageProperties::default(),
        packing: None,
    }
}
