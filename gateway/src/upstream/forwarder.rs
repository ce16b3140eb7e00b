//! Decides what is sent upstream next, and what may leave the buffer.
//!
//! Invariant: a message is given up only when the upstream acknowledged it or will never take it;
//! after a lost link everything unacknowledged is sent again, oldest first. Layer: core.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use broker_lite::{packet::QoS, topic::TopicName};

use super::{
    outbound::{Key, Outbound},
    suspect::{self, Control, Suspect},
};
use crate::buffer::retention::Cursor;

/// A link on which nothing is acknowledged for so long is given up: TCP may be alive where the
/// broker behind it is not.
pub(crate) const ACKNOWLEDGEMENT_PATIENCE: Duration = Duration::from_secs(60);
/// Rows that are read ahead of the window, in windows.
const READ_AHEAD: usize = 2;
/// Payload bytes queued and in flight beyond which nothing more is read, however wide the window.
const MAX_BYTES_HELD: usize = 8 << 20;

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
    /// The answer to `Fetch`.
    Fetched(Vec<Outbound>),
    /// The upstream answered, or a QoS 0 message has left.
    Answered(Key, Answer),
}

/// What is asked of the world.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// Read so many rows behind the cursor, and the gaps.
    Fetch { after: Cursor, rows: usize },
    /// Send this; answers come by its key.
    Publish(Outbound),
    /// The upstream has it: it may leave the buffer.
    Delete(Key),
    /// The upstream will never take it: to the dead letters.
    Bury(Key, String),
    /// Give the link up, for this reason.
    Reconnect(String),
}

#[derive(Debug)]
struct Flight {
    message: Outbound,
    answered: bool,
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
    cursor: Cursor,
    fetching: bool,
    more: bool,
    queue: VecDeque<Outbound>,
    /// In sending order; answered ones stay until all before them are, so that packet identifiers,
    /// which go round, are free again when their turn comes.
    flights: VecDeque<Flight>,
    /// Payload bytes of what is queued and in flight.
    bytes_held: usize,
    /// Gaps that are queued, in flight or told, with their count; those forgotten by the buffer
    /// leave.
    gaps_told: HashMap<i64, u64>,
    give_up_at: Option<Instant>,
    suspect: Suspect,
    /// The suspect, while the message behind it is under way in its place.
    stood_aside: Option<Key>,
    /// Where the words go that stand in for a suspect.
    stand_ins: TopicName,
    outputs: VecDeque<Output>,
}

impl Forwarder {
    /// Sends at most `window` messages ahead of their acknowledgements, and tells of a message that
    /// ends every link on `stand_ins`.
    pub(crate) fn new(window: u16, stand_ins: TopicName) -> Forwarder {
        let window = usize::from(window.max(1));
        Forwarder {
            window,
            ramp: window,
            answered_on_link: false,
            paused: false,
            link: None,
            cursor: Cursor::default(),
            fetching: false,
            more: true,
            queue: VecDeque::new(),
            flights: VecDeque::new(),
            bytes_held: 0,
            gaps_told: HashMap::new(),
            give_up_at: None,
            suspect: Suspect::default(),
            stood_aside: None,
            stand_ins,
            outputs: VecDeque::new(),
        }
    }

    /// Takes in one event.
    pub(crate) fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::LinkUp(allowance) => {
                self.link = Some(allowance);
                self.answered_on_link = false;
            }
            Input::LinkDown { by_upstream } => self.link_down(by_upstream),
            Input::Paused(paused) => self.paused = paused,
            Input::Appended => self.more = true,
            Input::Fetched(messages) => self.fetched(messages),
            Input::Answered(key, answer) => self.answered(key, answer, now),
        }
        self.advance(now);
    }

    /// Early or repeated calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.give_up_at.is_some_and(|at| at <= now) {
            self.give_up_at = None;
            let waited = ACKNOWLEDGEMENT_PATIENCE.as_secs();
            self.outputs.push_back(Output::Reconnect(format!(
                "nothing was acknowledged for {waited} s"
            )));
        }
    }

    /// To be drained until `None` after each input.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.give_up_at
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
            self.suspect.closed_over(alone.message.key);
        }
        while let Some(flight) = self.flights.pop_back() {
            if !flight.answered && flight.message.key != Key::StandIn {
                self.queue.push_front(flight.message);
            } else {
                self.bytes_held -= flight.message.payload.len();
            }
        }
        // One that was tried in the place of another goes back behind it.
        if self.queue.len() > 1 && self.stood_aside == Some(self.queue[1].key) {
            self.queue.swap(0, 1);
        }
        self.stood_aside = None;
    }

    fn fetched(&mut self, messages: Vec<Outbound>) {
        self.fetching = false;
        let mut news = false;
        let mut gaps = HashMap::new();
        for message in messages {
            match message.key {
                Key::Row(row) => self.cursor.pass(row),
                Key::Gap { id, count } => {
                    gaps.insert(id, count);
                    if self.gaps_told.get(&id) == Some(&count) {
                        continue;
                    }
                }
                Key::StandIn => continue,
            }
            news = true;
            self.bytes_held += message.payload.len();
            self.queue.push_back(message);
        }
        self.gaps_told = gaps;
        self.more |= news;
    }

    fn answered(&mut self, key: Key, answer: Answer, now: Instant) {
        let Some(flight) = self
            .flights
            .iter_mut()
            .find(|flight| flight.message.key == key && !flight.answered)
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
        if flight.message.qos != QoS::AtMostOnce
            && let Some(suspect) = self.suspect.answered(key)
        {
            self.convict(suspect);
        }
        self.answered_on_link = true;
        self.ramp = (self.ramp * 2).min(self.window);
        while let Some(flight) = self.flights.front()
            && flight.answered
        {
            self.bytes_held -= flight.message.payload.len();
            self.flights.pop_front();
        }
        let waits = !self.flights.is_empty();
        self.give_up_at = waits.then(|| now + ACKNOWLEDGEMENT_PATIENCE);
    }

    fn advance(&mut self, now: Instant) {
        let Some(allowance) = self.link else { return };
        let window = self.ramp.min(usize::from(allowance.receive_maximum));
        while !self.paused
            && self.flights.len() < window
            && let Some(message) = self.next_message()
        {
            self.send(message, &allowance, now);
        }
        let room = self.queue.len() < self.window && self.bytes_held < MAX_BYTES_HELD;
        if self.more && !self.fetching && room {
            self.fetching = true;
            self.more = false;
            self.outputs.push_back(Output::Fetch {
                after: self.cursor,
                rows: self.window * READ_AHEAD,
            });
        }
    }

    /// The oldest, or another in its place, alone, when it has ended too many links.
    fn next_message(&mut self) -> Option<Outbound> {
        let first = self.queue.front()?;
        let Some(control) = self.suspect.control(first.key) else {
            return self.queue.pop_front();
        };
        if !self.flights.is_empty() {
            return None;
        }
        let answerable = |message: &Outbound| message.qos != QoS::AtMostOnce;
        if control == Control::Neighbour && self.queue.get(1).is_some_and(answerable) {
            self.stood_aside = Some(first.key);
            return self.queue.remove(1);
        }
        let stand_in = first.stand_in(self.stand_ins.clone());
        self.bytes_held += stand_in.payload.len();
        Some(stand_in)
    }

    fn convict(&mut self, key: Key) {
        let mut forgotten = 0;
        self.queue.retain(|message| {
            let stays = message.key != key;
            forgotten += if stays { 0 } else { message.payload.len() };
            stays
        });
        self.bytes_held -= forgotten;
        self.stood_aside = None;
        let reason = format!(
            "the upstream closed the link over it {} times and answered another message",
            suspect::TRIES
        );
        self.outputs.push_back(Output::Bury(key, reason));
    }

    fn send(&mut self, mut message: Outbound, allowance: &Allowance, now: Instant) {
        let length = message.wire_len();
        // Of what is packed, the packet's length decides.
        if let Some(maximum) = allowance.maximum_packet
            && length > maximum as usize
            && message.packing.is_none()
        {
            let reason = format!("packet too large: {length} bytes, the upstream takes {maximum}");
            self.bytes_held -= message.payload.len();
            self.outputs.push_back(Output::Bury(message.key, reason));
            return;
        }
        message.qos = message.qos.min(allowance.maximum_qos);
        message.retain &= allowance.retain_available;
        self.flights.push_back(Flight {
            message: message.clone(),
            answered: false,
        });
        self.give_up_at
            .get_or_insert(now + ACKNOWLEDGEMENT_PATIENCE);
        self.outputs.push_back(Output::Publish(message));
    }
}

#[cfg(test)]
#[path = "forwarder_tests.rs"]
mod tests;
