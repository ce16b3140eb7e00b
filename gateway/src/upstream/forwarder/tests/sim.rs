//! A buffer and an upstream in memory; the simulation owns the clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use broker_lite::{packet::QoS, topic::TopicName};

use super::super::{Allowance, Answer, Forwarder, Input, Output};
use crate::{
    buffer::{
        Cursor, Stretch,
        retention::{RANKS, Rank},
        row::Survey,
    },
    config::{Hold, Priority},
    reading::{ClockState, Stamp},
    upstream::{
        budget::{Account, Budget, Ledger, Limits},
        gate::Gate,
        intake::{Ask, Fetched},
        outbound::{Key, Notices, Outbound},
        pace::Pace,
        window::Windows,
    },
};

pub(super) const STAND_INS: &str = "gw/alert/dead-letter/upstream";

pub(super) const BUDGET: &str = "gw/alert/budget/upstream";

fn notices() -> Notices {
    Notices {
        stand_ins: TopicName::parse(STAND_INS).unwrap(),
        budget: TopicName::parse(BUDGET).unwrap(),
    }
}

pub(super) fn gate(
    windows: &[&str],
    hold: Hold,
    per_second: Option<f64>,
    per_day: Option<u64>,
) -> Gate {
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

pub(super) fn row(order: i64) -> i64 {
    Rank::default().row(order)
}

/// A buffer and an upstream in memory; it owns the clock.
pub(super) struct Sim {
    pub(super) forwarder: Forwarder,
    pub(super) now: Stamp,
    random: u64,
    pub(super) allowance: Allowance,
    linked: bool,
    next_order: i64,
    pub(super) numbers: BTreeMap<String, u64>,
    pub(super) stored: BTreeMap<i64, Outbound>,
    pub(super) gap: Option<u64>,
    /// Sent on this link and not yet answered; the upstream has them.
    pub(super) on_wire: Vec<Outbound>,
    pub(super) arrived: BTreeMap<String, Vec<u64>>,
    pub(super) buried: Vec<(i64, String)>,
    pub(super) reconnects: Vec<String>,
    pub(super) exhausted: Vec<Account>,
    sent_on_link: BTreeSet<Key>,
    /// Readings end when they are told to, with what was there when they began.
    pub(super) slow_reads: bool,
    pub(super) pending: Option<Input>,
    pub(super) surveys: usize,
    pub(super) rows_read: usize,
}

impl Sim {
    pub(super) fn new(seed: u64, window: u16) -> Sim {
        Sim::sharing(seed, window, 100)
    }

    pub(super) fn sharing(seed: u64, window: u16, share: u8) -> Sim {
        Sim::behind(seed, window, Gate::sharing(share))
    }

    #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
    pub(super) fn behind(seed: u64, window: u16, gate: Gate) -> Sim {
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
    pub(super) fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += time;
    }

    /// The same, and the timers are looked at.
    pub(super) fn wait(&mut self, time: Duration) {
        self.pass(time);
        self.forwarder.handle_timeout(self.now);
        self.drain();
    }

    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 33) % below
    }

    pub(super) fn append(&mut self, topic: &str, count: u64) {
        self.append_ranked(topic, count, Priority::Normal);
    }

    pub(super) fn append_ranked(&mut self, topic: &str, count: u64, priority: Priority) {
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

    pub(super) fn link_up(&mut self) {
        if !self.linked {
            self.linked = true;
            self.sent_on_link.clear();
            self.input(Input::LinkUp(self.allowance));
        }
    }

    pub(super) fn link_down(&mut self) {
        self.linked = false;
        self.on_wire.clear();
        self.input(Input::LinkDown { by_upstream: false });
    }

    pub(super) fn closed_by_upstream(&mut self) {
        self.linked = false;
        self.on_wire.clear();
        self.input(Input::LinkDown { by_upstream: true });
    }

    pub(super) fn input(&mut self, input: Input) {
        self.forwarder.handle_input(input, self.now);
        self.drain();
    }

    /// Tells whether one was under way.
    pub(super) fn finish_reading(&mut self) -> bool {
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

    pub(super) fn answer(&mut self, order: i64, answer: Answer) {
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

    pub(super) fn acknowledge(&mut self, order: i64) {
        self.answer(order, Answer::Acknowledged);
    }

    pub(super) fn acknowledge_some(&mut self) {
        if !self.on_wire.is_empty() {
            let index = self.random(self.on_wire.len() as u64) as usize;
            let message = self.on_wire.remove(index);
            self.input(Input::Answered(message.key, Answer::Acknowledged));
        }
    }

    pub(super) fn acknowledge_all(&mut self) {
        while !self.on_wire.is_empty() {
            let message = self.on_wire.remove(0);
            self.input(Input::Answered(message.key, Answer::Acknowledged));
        }
    }

    /// Links on which the upstream takes what is no poison and closes over what is, until all is
    /// settled; tells how many.
    pub(super) fn settle(&mut self, poison: &[i64]) -> u32 {
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

    pub(super) fn on_wire_orders(&self) -> Vec<i64> {
        let orders = self.on_wire.iter().filter_map(|message| match message.key {
            Key::Row(row) => Some(row & 0xFFFF),
            Key::Gap { .. } | Key::StandIn | Key::Notice => None,
        });
        orders.collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(super) fn gaps_on_wire(&self) -> Vec<u64> {
        let counts = self.on_wire.iter().filter_map(|message| match message.key {
            Key::Gap { count, .. } => Some(count),
            Key::Row(_) | Key::StandIn | Key::Notice => None,
        });
        counts.collect()
    }
}

fn outbound(key: Key, topic: &str, number: u64) -> Outbound {
    let topic = TopicName::parse(topic).unwrap();
    Outbound::new(key, topic, number.to_string())
}
