//! The forwarder's promises, with an upstream in memory that loses, delays and refuses.
//! The tests are the core's driver.

use std::collections::{BTreeMap, BTreeSet};

use broker_lite::{packet::MessageProperties, topic::TopicName};
use bytes::Bytes;

use super::*;
use crate::{
    buffer::{Cursor, Stretch, retention::RANKS},
    config::Hold,
    reading::ClockState,
    upstream::{
        budget::{Budget, Limits},
        intake,
        pace::Pace,
        window::Windows,
    },
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
    assert_eq!(due, sim.now.monotonic + ACKNOWLEDGEMENT_PATIENCE);
    sim.wait(Duration::ZERO);
    assert!(sim.reconnects.is_empty(), "early calls do nothing");
    sim.wait(ACKNOWLEDGEMENT_PATIENCE);
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

#[test]
fn a_backlog_of_any_length_is_read_once_and_page_by_page() {
    const ROWS: u64 = 100_000;
    let mut sim = Sim::new(1, 100);
    for number in 0..ROWS {
        sim.append(["a", "b", "c"][number as usize % 3], 1);
    }
    sim.link_up();
    let mut most = 0;
    let mut underfilled = 0;
    while !sim.stored.is_empty() {
        let message = sim.on_wire.remove(0);
        sim.input(Input::Answered(message.key, Answer::Acknowledged));
        most = most.max(sim.forwarder.lanes.total() + sim.forwarder.flights.len());
        underfilled += usize::from(sim.on_wire.len() < sim.stored.len().min(100));
    }
    assert!(most <= 1000, "{most} messages in memory");
    assert_eq!(underfilled, 0, "the window is kept full");
    assert_eq!(sim.rows_read as u64, ROWS);
    assert_eq!(sim.surveys, 1);
}

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

#[test]
fn what_was_sent_while_a_reading_was_under_way_is_not_sent_again() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 2);
    sim.link_up();
    sim.link_down();
    sim.append("a", 1);
    sim.slow_reads = true;
    sim.link_up();
    sim.acknowledge(1);
    sim.acknowledge(2);
    while sim.finish_reading() {}
    assert_eq!(sim.arrived["a"], [1, 2, 1, 2, 3]);
}

#[test]
fn what_cannot_be_read_is_asked_for_again() {
    let mut sim = Sim::new(1, 4);
    sim.append("a", 3);
    sim.slow_reads = true;
    sim.link_up();
    for _ in 0..3 {
        sim.pending = None;
        sim.input(Input::Unread);
        assert!(sim.pending.is_none());
        let due = sim.forwarder.poll_timeout().unwrap();
        sim.wait(due - sim.now.monotonic);
    }
    while sim.finish_reading() {}
    assert_eq!(sim.arrived["a"], [1, 2, 3]);
}

#[test]
fn nothing_is_lost_and_order_holds_whatever_the_link_does() {
    for seed in 1..500 {
        let share = [1, 50, 100][seed as usize % 3];
        let mut sim = Sim::sharing(seed, 1 + (seed % 7) as u16, share);
        sim.slow_reads = seed % 2 == 0;
        let mut appended = BTreeMap::<&str, u64>::new();
        for _ in 0..300 {
            match sim.random(13) {
                0 => sim.link_down(),
                1 | 2 => sim.link_up(),
                3..=5 => {
                    let index = sim.random(4) as usize;
                    let topic = ["a", "b", "c", "overtakes/d"][index];
                    let priority = [Priority::Normal, Priority::High, Priority::Low][index % 3];
                    let count = 1 + sim.random(3);
                    sim.append_ranked(topic, count, priority);
                    sim.input(Input::Appended);
                    *appended.entry(topic).or_default() = sim.numbers[topic];
                }
                6 => sim.pass(intake::FALLEN_BEHIND),
                7 | 8 => drop(sim.finish_reading()),
                _ => sim.acknowledge_some(),
            }
        }
        sim.link_down();
        sim.link_up();
        while sim.finish_reading() || !sim.on_wire.is_empty() {
            sim.acknowledge_all();
        }
        assert!(
            sim.stored.is_empty(),
            "seed {seed}: {} left",
            sim.stored.len()
        );
        for (topic, last) in appended {
            let mut first_arrivals = Vec::new();
            for number in &sim.arrived[topic] {
                if !first_arrivals.contains(number) {
                    first_arrivals.push(*number);
                }
            }
            if topic.starts_with("overtakes") {
                first_arrivals.sort_unstable();
            }
            let expected: Vec<_> = (1..=last).collect();
            assert_eq!(first_arrivals, expected, "seed {seed}, topic {topic}");
        }
    }
}

const STAND_INS: &str = "gw/alert/dead-letter/upstream";

const BUDGET: &str = "gw/alert/budget/upstream";

fn notices() -> Notices {
    Notices {
        stand_ins: TopicName::parse(STAND_INS).unwrap(),
        budget: TopicName::parse(BUDGET).unwrap(),
    }
}

fn gate(windows: &[&str], hold: Hold, per_second: Option<f64>, per_day: Option<u64>) -> Gate {
    let limits = Limits {
        per_day,
        per_month: None,
    };
    let windows = windows.iter().map(|window| window.parse().unwrap());
    Gate::new(
        100,
        Pace::new(per_second, None),
        Windows::new(windows.collect(), hold),
        Budget::new(limits, Duration::from_secs(30), Ledger::default()),
    )
}

fn row(order: i64) -> i64 {
    Rank::default().row(order)
}

/// A buffer and an upstream in memory; it owns the clock.
struct Sim {
    forwarder: Forwarder,
    now: Stamp,
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
    exhausted: Vec<Account>,
    sent_on_link: BTreeSet<Key>,
    /// Readings end when they are told to, with what was there when they began.
    slow_reads: bool,
    pending: Option<Input>,
    surveys: usize,
    rows_read: usize,
}

impl Sim {
    fn new(seed: u64, window: u16) -> Sim {
        Sim::sharing(seed, window, 100)
    }

    fn sharing(seed: u64, window: u16, share: u8) -> Sim {
        Sim::behind(seed, window, Gate::sharing(share))
    }

    #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
    fn behind(seed: u64, window: u16, gate: Gate) -> Sim {
        Sim {
            forwarder: Forwarder::new(window, gate, notices()),
            now: Stamp {
                wall: "2026-11-22T12:00:00Z".parse().unwrap(),
                monotonic: Instant::now(),
                clock: ClockState::Synced,
            },
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
            exhausted: Vec::new(),
            sent_on_link: BTreeSet::new(),
            slow_reads: false,
            pending: None,
            surveys: 0,
            rows_read: 0,
        }
    }

    /// Time goes by on both clocks.
    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += time;
    }

    /// The same, and the timers are looked at.
    fn wait(&mut self, time: Duration) {
        self.pass(time);
        self.forwarder.handle_timeout(self.now);
        self.drain();
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 33) % below
    }

    fn append(&mut self, topic: &str, count: u64) {
        self.append_ranked(topic, count, Priority::Normal);
    }

    fn append_ranked(&mut self, topic: &str, count: u64, priority: Priority) {
        for _ in 0..count {
            let number = self.numbers.entry(topic.to_owned()).or_default();
            *number += 1;
            let row = Rank::of(priority).row(self.next_order);
            let mut message = outbound(Key::Row(row), topic, *number);
            message.overtakes = topic.starts_with("overtakes");
            self.stored.insert(row, message);
            self.next_order += 1;
        }
    }

    fn link_up(&mut self) {
        if !self.linked {
            self.linked = true;
            self.sent_on_link.clear();
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

    /// Tells whether one was under way.
    fn finish_reading(&mut self) -> bool {
        let Some(read) = self.pending.take() else {
            return false;
        };
        self.input(read);
        true
    }

    fn drain(&mut self) {
        self.act();
        while !self.slow_reads
            && let Some(read) = self.pending.take()
        {
            self.forwarder.handle_input(read, self.now);
            self.act();
        }
    }

    fn act(&mut self) {
        while let Some(output) = self.forwarder.poll_output() {
            match output {
                Output::Read(Ask::Survey(after)) => {
                    self.surveys += 1;
                    let survey = self.survey(&after);
                    self.forwarder
                        .handle_input(Input::Surveyed(survey), self.now);
                }
                Output::Read(Ask::Rows { stretch, live }) => {
                    let fetched = self.fetch(&stretch, live);
                    self.rows_read += fetched.messages.len();
                    self.forwarder
                        .handle_input(Input::Fetched(fetched), self.now);
                }
                Output::Publish(message) => {
                    assert!(self.linked, "sent without a link");
                    let news = self.sent_on_link.insert(message.key);
                    assert!(
                        news || message.key == Key::StandIn,
                        "sent twice on one link"
                    );
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
                Output::Delete(Key::StandIn | Key::Notice)
                | Output::Bury(Key::StandIn | Key::Notice, _) => {}
                Output::Exhausted(account) => self.exhausted.push(account),
                Output::Reconnect(reason) => self.reconnects.push(reason),
            }
        }
    }

    fn survey(&self, after: &Cursor) -> Survey {
        let mut survey = Survey {
            until: *after,
            waiting: Vec::new(),
        };
        let mut waiting = BTreeMap::new();
        for (row, message) in &self.stored {
            survey.until.pass(*row);
            if *row > after.position(Rank::of_row(*row)) {
                waiting.insert(message.source.clone(), *row);
            }
        }
        survey.waiting.extend(waiting);
        survey
    }

    fn fetch(&self, stretch: &Stretch, live: bool) -> Fetched {
        let gap = self
            .gap
            .map(|count| outbound(Key::Gap { id: 1, count }, "gap", count));
        let mut messages: Vec<_> = gap.into_iter().filter(|_| live).collect();
        let mut ended = [false; RANKS];
        for rank in Rank::all() {
            let rows = stretch.rows[rank.index()];
            let (first, end) = (
                stretch.after.position(rank) + 1,
                stretch
                    .until
                    .map_or(rank.rows().1, |until| until.position(rank)),
            );
            if rows > 0 && first <= end {
                let found = self.stored.range(first..=end).take(rows);
                messages.extend(found.map(|(_, message)| message.clone()));
            }
            let found = messages.iter().filter(
                |message| matches!(message.key, Key::Row(row) if Rank::of_row(row) == rank),
            );
            ended[rank.index()] = rows > 0 && found.count() < rows;
        }
        let mut reached = stretch.after;
        for message in &messages {
            if let Key::Row(row) = message.key {
                reached.pass(row);
            }
        }
        Fetched {
            live,
            messages,
            reached,
            ended,
        }
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
            Key::Gap { .. } | Key::StandIn | Key::Notice => None,
        });
        orders.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn gaps_on_wire(&self) -> Vec<u64> {
        let counts = self.on_wire.iter().filter_map(|message| match message.key {
            Key::Gap { count, .. } => Some(count),
            Key::Row(_) | Key::StandIn | Key::Notice => None,
        });
        counts.collect()
    }
}

fn outbound(key: Key, topic: &str, number: u64) -> Outbound {
    Outbound {
        key,
        source: TopicName::parse(topic).unwrap(),
        overtakes: false,
        topic: TopicName::parse(topic).unwrap(),
        payload: Bytes::from(number.to_string()),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: MessageProperties::default(),
        packing: None,
    }
}
