//! Packs what goes up: messages of a batching rule together, compressed where their rule says so.
//!
//! ```text
//!  forwarder ──messages──▶ open batches ──full, or due──▶ ready ──window──▶ on the wire
//!      ◀────one answer each──────────────────────────────────────────────────┘
//! ```
//!
//! Invariant: each message that goes in gets one answer, or the link goes down; a packet that the upstream
//! refuses is halved until the message at fault is alone. Layer: core.

use std::{collections::VecDeque, time::Instant};

use broker_lite::{packet::QoS, topic::TopicName};
use bytes::Bytes;

use super::{
    batch, budget,
    compress::Squeezer,
    forwarder::{Allowance, Answer},
    outbound::{Key, Outbound},
};
use crate::config::{Batch, Compression, Forward};

/// Rows under way at once where a rule batches; enough for four of the largest batches.
const MAX_ROWS: u16 = 4_000;
/// Packets of batches that are kept under way at once as a rule, so that a long way up is used.
const BATCHES_UNDER_WAY: u16 = 10;

/// How many rows may be under way with these rules, when `in_flight` packets may.
pub(crate) fn rows_under_way(in_flight: u16, rules: &[Forward]) -> u16 {
    let largest = rules.iter().filter_map(|rule| rule.batch);
    let largest = largest.map(|batch| batch.messages).max().unwrap_or(1);
    let packets = in_flight.min(BATCHES_UNDER_WAY);
    in_flight.max(packets.saturating_mul(largest).min(MAX_ROWS))
}

/// Names a packet on this link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Packer {
    window: usize,
    /// More messages than this do not wait in open batches: the forwarder has no more to give then.
    held_max: usize,
    maximum_packet: Option<u32>,
    window_on_link: usize,
    open: VecDeque<Open>,
    held: usize,
    ready: VecDeque<Parcel>,
    /// In sending order; answered ones stay until all before them are, so that packet identifiers,
    /// which go round, are free again when their turn comes.
    flights: VecDeque<Option<Load>>,
    /// Ticket of the first flight.
    first: u64,
    answers: VecDeque<(Key, Answer)>,
    /// What packed packets have cost since that was asked last.
    spent: u64,
    squeezer: Squeezer,
}

/// Only messages that agree in these share a batch.
#[derive(Debug, Clone, PartialEq)]
struct Label {
    topic: TopicName,
    qos: QoS,
    compress: Option<Compression>,
}

/// A batch that is being filled.
#[derive(Debug)]
struct Open {
    label: Label,
    entries: Vec<Entry>,
    bytes: usize,
    due: Instant,
}

/// A message as it stands in its batch.
#[derive(Debug, Clone)]
struct Entry {
    key: Key,
    json: Bytes,
}

/// What is sent as one packet.
#[derive(Debug)]
enum Parcel {
    Message(Box<Outbound>),
    /// Without a row.
    Own(Box<Outbound>),
    Batch {
        label: Label,
        entries: Vec<Entry>,
    },
}

/// What is under way in one packet.
#[derive(Debug)]
enum Load {
    Message(Key),
    /// Without a row.
    Own,
    Batch {
        label: Label,
        entries: Vec<Entry>,
    },
}

impl Packer {
    /// Sends at most `window` packets ahead of their acknowledgements, for a forwarder that has at most `rows`
    /// messages under way.
    pub(crate) fn new(window: u16, rows: u16) -> Packer {
        let window = usize::from(window.max(1));
        Packer {
            window,
            held_max: usize::from(rows / 2).max(1),
            maximum_packet: None,
            window_on_link: window,
            open: VecDeque::new(),
            held: 0,
            ready: VecDeque::new(),
            flights: VecDeque::new(),
            first: 0,
            answers: VecDeque::new(),
            spent: 0,
            squeezer: Squeezer::default(),
        }
    }

    /// The upstream has let us in; nothing is under way on this link yet.
    pub(crate) fn link_up(&mut self, allowance: &Allowance) {
        self.link_down();
        self.maximum_packet = allowance.maximum_packet;
        self.window_on_link = self
            .window
            .min(usize::from(allowance.receive_maximum.max(1)));
    }

    /// Forgets everything: the forwarder knows what is unanswered.
    pub(crate) fn link_down(&mut self) {
        self.open.clear();
        self.held = 0;
        self.ready.clear();
        self.first += self.flights.len() as u64;
        self.flights.clear();
        self.answers.clear();
    }

    /// Takes a message in.
    pub(crate) fn push(&mut self, message: Outbound, now: Instant) {
        let batch = message.packing.as_ref().and_then(|packing| packing.batch);
        match batch {
            Some(limits) => self.add(&message, limits, now),
            None => self.ready.push_back(Parcel::Message(Box::new(message))),
        }
    }

    /// Takes in a message that stands for no row; nobody waits for its answer.
    pub(crate) fn push_own(&mut self, message: Outbound) {
        self.ready.push_back(Parcel::Own(Box::new(message)));
    }

    /// Early or repeated calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(index) = self.open.iter().position(|open| open.due <= now) {
            self.close(index);
        }
    }

    /// When `handle_timeout` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.open.iter().map(|open| open.due).min()
    }

    /// The next packet to be sent; to be asked until `None` after each call.
    pub(crate) fn poll_packet(&mut self) -> Option<(Ticket, Outbound)> {
        while self.flights.len() < self.window_on_link {
            let parcel = self.ready.pop_front()?;
            let plain = matches!(&parcel, Parcel::Message(message) if message.packing.is_none());
            let (packet, load) = self.pack(parcel);
            let Some(reason) = self.too_large(&packet) else {
                let ticket = Ticket(self.first + self.flights.len() as u64);
                self.flights.push_back(Some(load));
                if !plain {
                    let acknowledged = packet.qos != QoS::AtMostOnce;
                    self.spent += budget::cost(packet.wire_len() as u64, acknowledged);
                }
                return Some((ticket, packet));
            };
            self.refused(load, reason);
        }
        None
    }

    /// Takes in what became of a packet.
    pub(crate) fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let index = ticket.0.checked_sub(self.first);
        let flight = index.and_then(|index| self.flights.get_mut(usize::try_from(index).ok()?));
        let Some(load) = flight.and_then(Option::take) else {
            return;
        };
        while matches!(self.flights.front(), Some(None)) {
            self.flights.pop_front();
            self.first += 1;
        }
        match (load, answer) {
            (load, Answer::Never(reason)) => self.refused(load, reason),
            (Load::Own, _) => {}
            (Load::Message(key), answer) => self.answers.push_back((key, answer)),
            (Load::Batch { entries, .. }, answer) => {
                let keys = entries.into_iter().map(|entry| (entry.key, answer.clone()));
                self.answers.extend(keys);
            }
        }
    }

    /// Bytes on the wire of what was packed since the last call; of other messages the forwarder knows.
    pub(crate) fn take_spent(&mut self) -> u64 {
        std::mem::take(&mut self.spent)
    }

    /// The next answer to a message; to be asked until `None` after each call.
    pub(crate) fn poll_answer(&mut self) -> Option<(Key, Answer)> {
        self.answers.pop_front()
    }

    fn add(&mut self, message: &Outbound, limits: Batch, now: Instant) {
        let Some(packing) = &message.packing else {
            return;
        };
        let label = Label {
            topic: message.topic.clone(),
            qos: message.qos,
            compress: packing.compress,
        };
        let entry = Entry {
            key: message.key,
            json: batch::entry(message, &packing.origin),
        };
        let fits = |open: &Open| {
            // Brackets and separators: three bytes at most for each.
            open.bytes + entry.json.len() + 3 <= limits.bytes.as_len()
        };
        let known = self.open.iter().position(|open| open.label == label);
        if let Some(index) = known
            && !fits(&self.open[index])
        {
            self.close(index);
        }
        self.held += 1;
        let index = self.open_for(label, limits, now);
        let open = &mut self.open[index];
        open.bytes += entry.json.len() + 3;
        open.entries.push(entry);
        let full = open.entries.len() >= usize::from(limits.messages)
            || open.bytes >= limits.bytes.as_len();
        if full {
            self.close(index);
        } else if self.held >= self.held_max {
            self.close(0);
        }
    }

    /// The open batch of that label, a new one if there is none.
    fn open_for(&mut self, label: Label, limits: Batch, now: Instant) -> usize {
        if let Some(index) = self.open.iter().position(|open| open.label == label) {
            return index;
        }
        self.open.push_back(Open {
            label,
            entries: Vec::new(),
            bytes: 0,
            due: now + limits.delay.as_duration(),
        });
        self.open.len() - 1
    }

    fn close(&mut self, index: usize) {
        if let Some(Open { label, entries, .. }) = self.open.remove(index) {
            self.held -= entries.len();
            self.ready.push_back(Parcel::Batch { label, entries });
        }
    }

    fn pack(&mut self, parcel: Parcel) -> (Outbound, Load) {
        match parcel {
            Parcel::Message(message) => {
                let key = message.key;
                let how = message
                    .packing
                    .as_ref()
                    .and_then(|packing| packing.compress);
                (self.squeezer.squeeze(*message, how), Load::Message(key))
            }
            Parcel::Own(message) => (*message, Load::Own),
            Parcel::Batch { label, entries } => {
                let payload = batch::payload(entries.iter().map(|entry| &entry.json));
                let packet = Outbound {
                    qos: label.qos,
                    properties: batch::properties(entries.len()),
                    ..Outbound::new(entries[0].key, label.topic.clone(), payload)
                };
                let packet = self.squeezer.squeeze(packet, label.compress);
                (packet, Load::Batch { label, entries })
            }
        }
    }

    fn too_large(&self, packet: &Outbound) -> Option<String> {
        let (length, maximum) = (packet.wire_len(), self.maximum_packet?);
        (length > maximum as usize)
            .then(|| format!("packet too large: {length} bytes, the upstream takes {maximum}"))
    }

    /// Halves a batch that will never be taken; of one message it is known then.
    fn refused(&mut self, load: Load, reason: String) {
        match load {
            Load::Message(key) => self.answers.push_back((key, Answer::Never(reason))),
            Load::Own => {}
            Load::Batch { label, mut entries } if entries.len() > 1 => {
                let second = entries.split_off(entries.len() / 2);
                for entries in [second, entries] {
                    let label = label.clone();
                    self.ready.push_front(Parcel::Batch { label, entries });
                }
            }
            Load::Batch { entries, .. } => {
                let key = entries[0].key;
                self.answers.push_back((key, Answer::Never(reason)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
