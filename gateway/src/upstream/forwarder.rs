//! Decides what is sent upstream next, and what may leave the buffer: new messages first, the
//! backlog beside them, both as far as the gate lets them.
//!
//! Invariant: a message is given up only when the upstream acknowledged it or will never take it;
//! after a lost link everything unacknowledged is sent again, oldest first. Layer: core.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use broker_lite::{packet::QoS, topic::TopicName};

use super::{
    budget::{Account, Ledger},
    gate::{Brake, Gate},
    intake::{Ask, Fetched, Intake},
    lanes::{Lane, Lanes, Open, Queued},
    outbound::{Key, Notices, Outbound},
    suspect::{Control, Suspect},
};
use crate::{buffer::retention::Rank, buffer::row::Survey, config::Priority, reading::Stamp};

/// A link on which nothing is acknowledged for so long is given up: TCP may be alive where the
/// broker behind it is not.
pub(crate) const ACKNOWLEDGEMENT_PATIENCE: Duration = Duration::from_secs(60);

/// What the upstream allows on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Unacknowledged messages at once.
    pub(crate) receive_maximum: u16,
    /// Bytes of a packet.
    pub(crate) maximum_packet: Option<u32>,
    /// Highest QoS.
    pub(crate) maximum_qos: QoS,
    /// Whether retained messages are taken.
    pub(crate) retain_available: bool,
}

/// What became of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The upstream has it.
    Acknowledged,
    /// The upstream will not take it, now or later.
    Never(String),
    /// The upstream did not take it this time.
    NotNow(String),
}

/// What the world tells.
#[derive(Debug)]
pub(crate) enum Input {
    /// Accepted by the upstream.
    LinkUp(Allowance),
    /// No link any more.
    LinkDown {
        /// The upstream ended it, perhaps because of what it was sent.
        by_upstream: bool,
    },
    /// Nothing more is to be sent, or sending goes on.
    Paused(bool),
    /// There are new rows or gaps.
    Appended,
    /// The answer to `Ask::Survey`.
    Surveyed(Survey),
    /// The answer to `Ask::Rows`.
    Fetched(Fetched),
    /// What was asked for cannot be read now.
    Unread,
    /// The upstream answered, or a QoS 0 message has left.
    Answered(Key, Answer),
    /// A message of so many bytes came from upstream.
    Heard(u64),
    /// What was packed has cost so many bytes on the wire.
    Packed(u64),
}

/// What is asked of the world.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// Read this, behind everything that is to leave by the outputs before.
    Read(Ask),
    /// Send this; answers come by its key.
    Publish(Outbound),
    /// The upstream has it: it may leave the buffer.
    Delete(Key),
    /// The upstream will never take it: to the dead letters.
    Bury(Key, String),
    /// Give the link up, for this reason.
    Reconnect(String),
    /// Tell that this budget is used up.
    Exhausted(Account),
}

#[derive(Debug)]
struct Flight {
    queued: Queued,
    answered: bool,
}

impl Flight {
    fn key(&self) -> Key {
        self.queued.message.key
    }
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Forwarder {
    window: usize,
    /// Messages at once for now. After a link on which nothing was answered it starts at one and
    /// doubles with each answer: a broker that closes the link over one message has then either
    /// answered that one alone, or taken those before it.
    ramp: usize,
    answered_on_link: bool,
    /// What is under way still gets its answers; the rest waits.
    paused: bool,
    link: Option<Allowance>,
    gate: Gate,
    /// When what the gate holds back may go.
    gate_due: Option<Instant>,
    intake: Intake,
    lanes: Lanes,
    /// In sending order; answered ones stay until all before them are, so that packet identifiers,
    /// which go round, are free again when their turn comes.
    flights: VecDeque<Flight>,
    /// Of those, from the backlog.
    backlog_under_way: usize,
    /// Gaps that are queued, in flight or told, with their count; those forgotten by the buffer
    /// leave.
    gaps_told: HashMap<i64, u64>,
    give_up_at: Option<Instant>,
    suspect: Suspect,
    /// The suspect, while the message behind it is under way in its place.
    stood_aside: Option<Key>,
    notices: Notices,
    outputs: VecDeque<Output>,
    /// When what was told last has not been acted upon yet: what comes together is acted upon once.
    told: Option<Stamp>,
}

impl Forwarder {
    /// Sends at most `window` messages ahead of their acknowledgements, those that the gate lets
    /// pass, and tells of its own troubles by `notices`.
    pub(crate) fn new(window: u16, gate: Gate, notices: Notices) -> Forwarder {
        let window = usize::from(window.max(1));
        Forwarder {
            window,
            ramp: window,
            answered_on_link: false,
            paused: false,
            link: None,
            gate,
            gate_due: None,
            intake: Intake::new(window),
            lanes: Lanes::default(),
            flights: VecDeque::new(),
            backlog_under_way: 0,
            gaps_told: HashMap::new(),
            give_up_at: None,
            suspect: Suspect::default(),
            stood_aside: None,
            notices,
            outputs: VecDeque::new(),
            told: None,
        }
    }

    /// Takes in one event; what follows from it and from others at the same time comes with the next
    /// output.
    pub(crate) fn handle_input(&mut self, input: Input, now: Stamp) {
        self.gate.tick(now, self.link.is_some());
        match input {
            Input::LinkUp(allowance) => {
                self.link = Some(allowance);
                self.answered_on_link = false;
                self.intake.link_up();
                self.gate.link_up(now);
            }
            Input::LinkDown { by_upstream } => self.link_down(by_upstream),
            Input::Paused(paused) => self.paused = paused,
            Input::Appended => self.intake.appended(),
            Input::Surveyed(survey) => self.intake.surveyed(survey, &mut self.lanes),
            Input::Fetched(fetched) => self.fetched(fetched, now),
            Input::Unread => self.intake.unread(&mut self.lanes, now.monotonic),
            Input::Answered(key, answer) => self.answered(key, answer, now),
            Input::Heard(bytes) => self.gate.budget().message(bytes, true),
            Input::Packed(bytes) => self.gate.budget().spend(bytes),
        }
        self.told = Some(now);
    }

    /// Early or repeated calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Stamp) {
        self.gate.tick(now, self.link.is_some());
        if self.give_up_at.is_some_and(|at| at <= now.monotonic) {
            self.give_up_at = None;
            let waited = ACKNOWLEDGEMENT_PATIENCE.as_secs();
            self.outputs.push_back(Output::Reconnect(format!(
                "nothing was acknowledged for {waited} s"
            )));
        }
        self.told = Some(now);
    }

    /// To be drained until `None` after each input, or after several that came together.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        if let Some(now) = self.told.take() {
            self.advance(now);
        }
        self.outputs.pop_front()
    }

    /// When `handle_timeout` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let link = self.link.as_ref();
        let read = link.and_then(|_| self.intake.due());
        let gate = link.and(self.gate_due);
        self.give_up_at.into_iter().chain(read).chain(gate).min()
    }

    /// What keeps messages from going up; `None`: none waits.
    pub(crate) fn brake(&mut self, now: Stamp) -> Option<Brake> {
        let waits = self.lanes.total() > 0 || self.intake.is_behind();
        match self.paused {
            true => Some(Brake::Paused),
            false => self
                .gate
                .brake(&self.lanes, now)
                .or(waits.then_some(Brake::Link)),
        }
    }

    /// The budgets there are.
    pub(crate) fn accounts(&mut self) -> impl Iterator<Item = Account> {
        self.gate.budget().accounts()
    }

    /// What is to be kept on disk of them.
    pub(crate) fn ledger(&mut self) -> Ledger {
        self.gate.budget().ledger()
    }

    /// Messages sent and not yet acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights
            .iter()
            .filter(|flight| !flight.answered)
            .count()
    }

    fn link_down(&mut self, by_upstream: bool) {
        self.link = None;
        self.give_up_at = None;
        // What was to be sent or given up on the lost link is decided anew on the next.
        self.outputs
            .retain(|output| !matches!(output, Output::Publish(_) | Output::Reconnect(_)));
        if !self.flights.is_empty() {
            self.ramp = if self.answered_on_link {
                self.window
            } else {
                1
            };
        }
        if let [alone] = self.flights.make_contiguous()
            && by_upstream
            && !self.answered_on_link
        {
            self.suspect.closed_over(&alone.queued.message);
        }
        while let Some(flight) = self.flights.pop_back() {
            if !flight.answered && flight.key() != Key::StandIn {
                self.lanes.give_back(flight.queued);
            } else {
                self.lanes.arrived(&flight.queued.message);
            }
        }
        self.backlog_under_way = 0;
        self.gate.budget().release_all();
        if let Some(suspect) = self.stood_aside.take() {
            self.lanes.put_behind(suspect);
        }
    }

    fn fetched(&mut self, fetched: Fetched, now: Stamp) {
        if fetched.live {
            self.take_gaps(&fetched.messages);
        }
        self.intake.fetched(fetched, &mut self.lanes, now.monotonic);
    }

    /// Those that are news, and those that have grown.
    fn take_gaps(&mut self, messages: &[Outbound]) {
        let mut gaps = HashMap::new();
        for message in messages {
            if let Key::Gap { id, count } = message.key {
                gaps.insert(id, count);
                if self.gaps_told.get(&id) != Some(&count) {
                    self.lanes.push_gap(message.clone());
                }
            }
        }
        self.gaps_told = gaps;
    }

    fn answered(&mut self, key: Key, answer: Answer, now: Stamp) {
        let Some(flight) = self
            .flights
            .iter_mut()
            .find(|flight| flight.key() == key && !flight.answered)
        else {
            return;
        };
        match answer {
            Answer::Acknowledged => {
                flight.answered = true;
                self.outputs.push_back(Output::Delete(key));
            }
            Answer::Never(reason) => {
                flight.answered = true;
                self.outputs.push_back(Output::Bury(key, reason));
            }
            Answer::NotNow(reason) => {
                self.outputs.push_back(Output::Reconnect(reason));
                return;
            }
        }
        // With QoS 0 this says only that it was written.
        let answerable = flight.queued.message.qos != QoS::AtMostOnce;
        self.gate.arrived(&flight.queued.message);
        self.settle(key);
        if answerable && let Some((suspect, tries)) = self.suspect.answered(key) {
            self.convict(suspect, tries);
        }
        self.answered_on_link = true;
        self.ramp = (self.ramp * 2).min(self.window);
        while self.flights.front().is_some_and(|flight| flight.answered)
            && let Some(flight) = self.flights.pop_front()
        {
            self.lanes.arrived(&flight.queued.message);
            self.backlog_under_way -= usize::from(flight.queued.lane.is_backlog());
        }
        let waits = !self.flights.is_empty();
        self.give_up_at = waits.then(|| now.monotonic + ACKNOWLEDGEMENT_PATIENCE);
    }

    fn settle(&mut self, key: Key) {
        if let Key::Row(row) = key {
            self.intake.settle(row, &mut self.lanes);
        }
    }

    fn advance(&mut self, now: Stamp) {
        let Some(allowance) = self.link else { return };
        self.tell_of_budget();
        let window = self.ramp.min(usize::from(allowance.receive_maximum));
        while !self.paused && self.flights.len() < window {
            let open = self.gate.open(now, window, self.backlog_under_way);
            let Some(queued) = self.next_message(&open) else {
                break;
            };
            self.send(queued, &allowance, now);
        }
        if let Some(ask) = self.intake.next(&self.lanes, now.monotonic) {
            self.outputs.push_back(Output::Read(ask));
        }
        let waits = !self.paused && self.flights.len() < window;
        self.gate_due = waits.then(|| self.gate.due(&self.lanes, now)).flatten();
    }

    fn tell_of_budget(&mut self) {
        if let Some(account) = self.gate.news() {
            let notice = self.notices.of_budget(&account);
            self.lanes
                .push(Lane::Live(Rank::of(Priority::High)), notice);
            self.outputs.push_back(Output::Exhausted(account));
        }
    }

    /// Whose turn it is, or another in its place, alone, when it has ended too many links.
    fn next_message(&mut self, open: &Open) -> Option<Queued> {
        let first = self.lanes.peek(open)?;
        let key = first.key;
        let controls = self.suspect.controls(key);
        if controls.is_empty() {
            return self.lanes.pop(open);
        }
        if !self.flights.is_empty() {
            return None;
        }
        let source = first.source.clone();
        let stand_in = first.stand_in(self.notices.stand_ins.clone());
        for control in controls {
            match control {
                Control::Neighbour => {
                    if let Some(neighbour) = self.neighbour(key, &source, open) {
                        self.stood_aside = Some(key);
                        return Some(neighbour);
                    }
                }
                Control::StandIn => {
                    self.lanes.launch(&stand_in);
                    return Some(Queued {
                        lane: Lane::Gap,
                        message: stand_in,
                    });
                }
            }
        }
        self.lanes.pop(open)
    }

    /// A message that the upstream can answer in the place of the suspect: of another topic, as it may be this one that is
    /// not taken, or the next of this.
    fn neighbour(&mut self, key: Key, source: &TopicName, open: &Open) -> Option<Queued> {
        let suspect = &self.suspect;
        let answerable = |message: &Outbound| {
            message.qos != QoS::AtMostOnce
                && matches!(message.key, Key::Row(_))
                && !suspect.has_failed(&message.source)
        };
        let another = |message: &Outbound| message.source != *source && answerable(message);
        let found = self.lanes.pop_beside(key, open, another);
        found.or_else(|| self.lanes.pop_beside(key, open, answerable))
    }

    fn convict(&mut self, key: Key, tries: u32) {
        self.lanes.remove(key);
        self.stood_aside = None;
        let reason = format!(
            "the upstream closed the link over it {tries} times and answered another message"
        );
        self.outputs.push_back(Output::Bury(key, reason));
    }

    fn send(&mut self, mut queued: Queued, allowance: &Allowance, now: Stamp) {
        let message = &mut queued.message;
        let length = message.wire_len();
        // Of what is packed, the packet's length decides.
        if let Some(maximum) = allowance.maximum_packet
            && length > maximum as usize
            && message.packing.is_none()
        {
            let key = message.key;
            let reason = format!("packet too large: {length} bytes, the upstream takes {maximum}");
            self.lanes.arrived(message);
            self.outputs.push_back(Output::Bury(key, reason));
            self.settle(key);
            return;
        }
        message.qos = message.qos.min(allowance.maximum_qos);
        message.retain &= allowance.retain_available;
        self.outputs.push_back(Output::Publish(message.clone()));
        self.gate.sent(&queued, now.monotonic);
        self.backlog_under_way += usize::from(queued.lane.is_backlog());
        self.flights.push_back(Flight {
            queued,
            answered: false,
        });
        self.give_up_at
            .get_or_insert(now.monotonic + ACKNOWLEDGEMENT_PATIENCE);
    }
}

#[cfg(test)]
mod tests;
