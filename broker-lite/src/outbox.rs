//! Messages on their way to one client: the queue, and the window of what is unacknowledged. A core.
//!
//! Invariant: messages of one session leave in the order they came in, and after a reconnect the
//! unacknowledged ones leave first, in their old order [MQTT-4.4.0-1] [MQTT-4.6.0-1].

#[cfg(any(test, feature = "fuzzing"))]
mod invariants;

use std::{collections::VecDeque, time::Instant};

use crate::{
    config::{Limits, WhenFull},
    ids::{DeliveryKey, SessionKey},
    journal::Journal,
    memory::Charge,
    packet::{PacketId, QoS, SubscriptionId},
    publication::Outgoing,
};

/// A queue with room for more entries than this gives back what it no longer needs.
const SHRINK_ABOVE: usize = 64;

/// Memory is counted in steps of this many bytes, so that a single message changes no count.
const WEIGHED_BY: usize = 1_024;

/// How far an unacknowledged message has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// PUBLISH is due or sent; PUBACK or PUBREC is awaited.
    Published(Outgoing),
    /// PUBREC came; PUBREL is due or sent, PUBCOMP is awaited.
    Received(Option<DeliveryKey>),
}

#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) packet_id: PacketId,
    pub(crate) stage: Stage,
    /// Whether it was sent on the present connection.
    sent: bool,
    /// Whether its PUBLISH was sent before.
    dup: bool,
    /// The change that must be on disk before it is sent: at QoS 2 the other end would take a
    /// message for another one if we forgot its identifier.
    gate: u64,
}

/// What a PUBREC calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receival {
    /// No message of this identifier is in flight.
    Unknown,
    /// PUBREL.
    Release,
    /// PUBREL, once the change that it rests on is on disk.
    ReleaseLater,
}

/// What became of a message that was to be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queued {
    /// It waits.
    Whole,
    /// It waits, and so many older ones were dropped for it.
    InPlaceOf(u64),
    /// It was dropped: the queue is full.
    Dropped,
}

/// What to send next.
#[derive(Debug)]
pub(crate) enum Next {
    /// At QoS 0: forgotten once sent.
    Once(Outgoing),
    /// A PUBLISH that stays in flight; `dup` on a repetition [MQTT-3.3.1-1].
    Publish {
        packet_id: PacketId,
        outgoing: Outgoing,
        dup: bool,
    },
    /// A PUBREL that a reconnect repeats.
    Release(PacketId),
}

/// The queue and the in-flight window of one session.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: VecDeque<Outgoing>,
    queued_bytes: usize,
    /// What the entries hold beside themselves and their messages, in bytes.
    entry_bytes: usize,
    in_flight: VecDeque<InFlight>,
    /// In flight, but with something not yet sent on the present connection.
    unsent: usize,
    /// The commit that it has asked for last.
    asked: u64,
    last_id: u16,
    charge: Charge,
}

impl Outbox {
    /// An empty one, which counts what its entries take on `charge`.
    pub(crate) fn new(charge: Charge) -> Outbox {
        Outbox {
            queue: VecDeque::new(),
            queued_bytes: 0,
            entry_bytes: 0,
            in_flight: VecDeque::new(),
            unsent: 0,
            asked: 0,
            last_id: 0,
            charge,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    /// Messages that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of those, about.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Messages that were sent, or are about to be, and are not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Adds a message at the end. Where a limit of the queue is reached, it or older ones are lost.
    /// One for a session with a `key` is entered in the journal.
    pub(crate) fn push(
        &mut self,
        mut outgoing: Outgoing,
        limits: &Limits,
        key: Option<SessionKey>,
        journal: &mut Journal,
    ) -> Queued {
        let size = outgoing.publication.size();
        let mut lost = 0;
        while self.queue.len() >= limits.queued_messages as usize
            || self.queued_bytes + size > limits.queued_bytes.as_len()
        {
            if limits.queue_when_full == WhenFull::DropNewest || size > limits.queued_bytes.as_len()
            {
                return Queued::Dropped;
            }
            let Some(oldest) = self.pop() else {
                return Queued::Dropped;
            };
            journal.delivered(&oldest);
            lost += 1;
        }
        journal.queued(key, &mut outgoing);
        self.queued_bytes += size;
        self.entry_bytes += heap_bytes(&outgoing);
        self.queue.push_back(outgoing);
        self.weigh();
        match lost {
            0 => Queued::Whole,
            lost => Queued::InPlaceOf(lost),
        }
    }

    /// The next thing to send while at most `window` messages are unacknowledged.
    pub(crate) fn next(
        &mut self,
        window: u16,
        now: Instant,
        journal: &mut Journal,
    ) -> Option<Next> {
        loop {
            // Anew behind each expired message: what follows it may be one that waits for the disk.
            self.announce(window, now, journal);
            if self.unsent > 0 {
                self.drop_expired_unsent(now, journal);
            }
            if self.unsent > 0 {
                return self.repeat(window, journal);
            }
            let head = self.queue.front()?;
            let expired = head.publication.is_expired(now);
            if !expired && head.qos != QoS::AtMostOnce && self.in_flight.len() >= window as usize {
                return None;
            }
            let outgoing = self.pop()?;
            if expired {
                journal.delivered(&outgoing);
                continue;
            }
            if outgoing.qos == QoS::AtMostOnce {
                return Some(Next::Once(outgoing));
            }
            let packet_id = self.start(outgoing.clone(), journal);
            return Some(Next::Publish {
                packet_id,
                outgoing,
                dup: false,
            });
        }
    }

    /// Gives the stored QoS 2 messages at the head of the queue their identifiers, so that one
    /// commit covers a whole window of them.
    fn announce(&mut self, window: u16, now: Instant, journal: &mut Journal) {
        while let Some(head) = self.queue.front()
            && head.qos == QoS::ExactlyOnce
            && head.record.is_some()
            && self.in_flight.len() < window as usize
            && let Some(outgoing) = self.pop()
        {
            if outgoing.publication.is_expired(now) {
                journal.delivered(&outgoing);
            } else {
                self.start(outgoing, journal);
            }
        }
    }

    /// Takes the head of the queue, whatever its QoS: for consumers that acknowledge nothing.
    pub(crate) fn pop(&mut self) -> Option<Outgoing> {
        let outgoing = self.queue.pop_front()?;
        self.queued_bytes -= outgoing.publication.size();
        self.entry_bytes -= heap_bytes(&outgoing);
        let (len, capacity) = (self.queue.len(), self.queue.capacity());
        if len == 0 {
            self.queue = VecDeque::new();
        } else if capacity > SHRINK_ABOVE && len < capacity / 4 {
            self.queue.shrink_to(capacity / 2);
        }
        self.weigh();
        Some(outgoing)
    }

    /// The connection is gone: everything in flight is due again on the next one; what was queued
    /// at QoS 0 for a client that is not there is dropped, unless it is to be kept.
    pub(crate) fn disconnected(&mut self, keeps_qos0: bool) {
        for entry in &mut self.in_flight {
            entry.dup |= entry.sent;
            entry.sent = false;
        }
        self.unsent = self.in_flight.len();
        if !keeps_qos0 {
            self.drop_qos0();
        }
    }

    /// Drops what is queued at QoS 0; says how many messages that was.
    pub(crate) fn drop_qos0(&mut self) -> u64 {
        let before = self.queue.len();
        let (mut bytes, mut entries) = (0, 0);
        self.queue.retain(|outgoing| {
            let goes = outgoing.qos == QoS::AtMostOnce;
            if goes {
                bytes += outgoing.publication.size();
                entries += heap_bytes(outgoing);
            }
            !goes
        });
        self.queued_bytes -= bytes;
        self.entry_bytes -= entries;
        let gone = before - self.queue.len();
        if gone > 0 {
            self.queue.shrink_to_fit();
            self.weigh();
        }
        gone as u64
    }

    /// PUBACK or PUBCOMP, or a PUBREC that refuses: the message is done.
    pub(crate) fn complete(
        &mut self,
        packet_id: PacketId,
        is_expected: fn(&Stage) -> bool,
        journal: &mut Journal,
    ) -> bool {
        let found = self
            .position(packet_id)
            .filter(|at| is_expected(&self.in_flight[*at].stage));
        let Some(done) = found.and_then(|at| self.in_flight.remove(at)) else {
            return false;
        };
        self.unsent -= usize::from(!done.sent);
        match &done.stage {
            Stage::Published(outgoing) => {
                self.entry_bytes -= heap_bytes(outgoing);
                journal.delivered(outgoing);
            }
            Stage::Received(record) => journal.completed(*record),
        }
        if self.in_flight.is_empty() {
            self.in_flight = VecDeque::new();
        }
        self.weigh();
        true
    }

    /// PUBREC: from here on the message is never sent again, only PUBREL [MQTT-4.3.3-6].
    pub(crate) fn received(&mut self, packet_id: PacketId, journal: &mut Journal) -> Receival {
        let Some(at) = self.position(packet_id) else {
            return Receival::Unknown;
        };
        let entry = &mut self.in_flight[at];
        let was_sent = entry.sent;
        match &entry.stage {
            Stage::Published(outgoing) if outgoing.qos != QoS::ExactlyOnce => {
                return Receival::Unknown;
            }
            Stage::Published(outgoing) => {
                let record = outgoing.record;
                self.entry_bytes -= heap_bytes(outgoing);
                if record.is_some() {
                    journal.received(outgoing, packet_id);
                    entry.gate = journal.recorded();
                }
                entry.stage = Stage::Received(record);
            }
            Stage::Received(_) => {}
        }
        entry.sent = journal.is_committed(entry.gate);
        let now_sent = entry.sent;
        self.unsent = self.unsent + usize::from(was_sent) - usize::from(now_sent);
        match now_sent {
            true => Receival::Release,
            false => Receival::ReleaseLater,
        }
    }

    /// Nothing of it is to be kept on disk any more.
    pub(crate) fn forget(&mut self, journal: &mut Journal) {
        for entry in &mut self.in_flight {
            match &mut entry.stage {
                Stage::Published(outgoing) => {
                    journal.delivered(outgoing);
                    outgoing.record = None;
                }
                Stage::Received(record) => journal.completed(record.take()),
            }
        }
        for outgoing in &mut self.queue {
            journal.delivered(outgoing);
            outgoing.record = None;
        }
    }

    /// What another member of a shared subscription gets when this session ends. A QoS 2 message
    /// that was sent once stays with the one that may have taken it [MQTT-4.8.2-5].
    pub(crate) fn shared(&self) -> Vec<Outgoing> {
        let in_flight = self
            .in_flight
            .iter()
            .filter_map(|entry| match &entry.stage {
                Stage::Published(outgoing) => {
                    let was_sent = entry.sent || entry.dup;
                    let stays = was_sent && outgoing.qos == QoS::ExactlyOnce;
                    (!stays).then_some(outgoing)
                }
                Stage::Received(_) => None,
            });
        in_flight
            .chain(&self.queue)
            .filter(|outgoing| outgoing.shared.is_some())
            .cloned()
            .collect()
    }

    /// Puts a message in flight that needs no queue. One of QoS 2 that is stored is not sent
    /// before its identifier is on disk.
    pub(crate) fn start(&mut self, outgoing: Outgoing, journal: &mut Journal) -> PacketId {
        let packet_id = self.free_id();
        self.entry_bytes += heap_bytes(&outgoing);
        journal.published(outgoing.record, packet_id);
        let waits = outgoing.record.is_some() && outgoing.qos == QoS::ExactlyOnce;
        self.unsent += usize::from(waits);
        self.in_flight.push_back(InFlight {
            packet_id,
            gate: if waits { journal.recorded() } else { 0 },
            stage: Stage::Published(outgoing),
            sent: !waits,
            dup: false,
        });
        self.weigh();
        packet_id
    }

    /// What must be on disk before more of it can be sent; asked once.
    pub(crate) fn gate(&mut self, journal: &Journal) -> Option<u64> {
        let waiting = self.in_flight.iter().filter(|entry| !entry.sent);
        let gates = waiting.map(|entry| entry.gate);
        let first = gates.filter(|gate| !journal.is_committed(*gate)).min()?;
        let is_news = first > self.asked;
        self.asked = self.asked.max(first);
        is_news.then_some(first)
    }

    /// Puts back a message that an earlier run has stored; in the order of their keys.
    pub(crate) fn restore(&mut self, outgoing: Outgoing, packet_id: Option<PacketId>) {
        match packet_id {
            Some(packet_id) => self.restore_stage(packet_id, Stage::Published(outgoing)),
            None => {
                self.queued_bytes += outgoing.publication.size();
                self.entry_bytes += heap_bytes(&outgoing);
                self.queue.push_back(outgoing);
                self.weigh();
            }
        }
    }

    /// Puts back an exchange of which only PUBREL and PUBCOMP are left.
    pub(crate) fn restore_stage(&mut self, packet_id: PacketId, stage: Stage) {
        self.unsent += 1;
        if let Stage::Published(outgoing) = &stage {
            self.entry_bytes += heap_bytes(outgoing);
        }
        self.in_flight.push_back(InFlight {
            packet_id,
            stage,
            sent: false,
            dup: true,
            gate: 0,
        });
        self.weigh();
    }

    /// Enters everything anew, under new keys.
    pub(crate) fn record_all(&mut self, session: SessionKey, journal: &mut Journal) {
        for entry in &mut self.in_flight {
            match &mut entry.stage {
                Stage::Published(outgoing) => {
                    journal.queued(Some(session), outgoing);
                    journal.published(outgoing.record, entry.packet_id);
                }
                Stage::Received(record) => {
                    *record = Some(journal.receipt(session, entry.packet_id));
                }
            }
        }
        for outgoing in &mut self.queue {
            journal.queued(Some(session), outgoing);
        }
    }

    /// Whether a message may go out at once, past an empty queue.
    pub(crate) fn is_open(&self, qos: QoS, window: u16) -> bool {
        let room = qos == QoS::AtMostOnce || self.in_flight.len() < window as usize;
        self.queue.is_empty() && self.unsent == 0 && room
    }

    /// Counts what it occupies beside the messages, in whole kilobytes: the first one of a busy
    /// outbox is part of what its session costs.
    fn weigh(&mut self) {
        let queue = self.queue.capacity() * size_of::<Outgoing>();
        let in_flight = self.in_flight.capacity() * size_of::<InFlight>();
        let bytes = size_of::<Outbox>() + queue + in_flight + self.entry_bytes;
        self.charge.set(bytes & !(WEIGHED_BY - 1));
    }

    /// What has an identifier but never left its place expires like what has none [MQTT-3.3.2-5].
    fn drop_expired_unsent(&mut self, now: Instant, journal: &mut Journal) {
        let is_late = |entry: &InFlight| match &entry.stage {
            Stage::Published(outgoing) => {
                !entry.sent && !entry.dup && outgoing.publication.is_expired(now)
            }
            Stage::Received(_) => false,
        };
        let late: Vec<PacketId> = self
            .in_flight
            .iter()
            .filter(|entry| is_late(entry))
            .map(|entry| entry.packet_id)
            .collect();
        for packet_id in late {
            self.complete(packet_id, |_| true, journal);
        }
    }

    /// The next that a reconnect repeats. A full window holds up PUBLISH alone [MQTT-3.3.4-10].
    fn repeat(&mut self, window: u16, journal: &Journal) -> Option<Next> {
        let is_full = self.in_flight.len() - self.unsent >= window as usize;
        let entry = self
            .in_flight
            .iter_mut()
            .find(|entry| !entry.sent && (!is_full || matches!(entry.stage, Stage::Received(_))))?;
        if !journal.is_committed(entry.gate) {
            return None;
        }
        entry.sent = true;
        self.unsent -= 1;
        Some(match &entry.stage {
            Stage::Published(outgoing) => Next::Publish {
                packet_id: entry.packet_id,
                outgoing: outgoing.clone(),
                dup: entry.dup,
            },
            Stage::Received(_) => Next::Release(entry.packet_id),
        })
    }

    fn position(&self, packet_id: PacketId) -> Option<usize> {
        self.in_flight
            .iter()
            .position(|entry| entry.packet_id == packet_id)
    }

    /// The window is smaller than the space of identifiers, so one is always free.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_id)
                && self.position(id).is_none()
            {
                return id;
            }
        }
    }
}

/// What an entry holds beside itself and its message, in bytes.
fn heap_bytes(outgoing: &Outgoing) -> usize {
    outgoing.subscription_ids.capacity() * size_of::<SubscriptionId>()
}
