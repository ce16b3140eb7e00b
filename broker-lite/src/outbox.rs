//! Messages on their way to one client: the queue, and the window of what is unacknowledged. A core.
//!
//! Invariant: messages of one session leave in the order they came in, and after a reconnect the
//! unacknowledged ones leave first, in their old order [MQTT-4.4.0-1] [MQTT-4.6.0-1].

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::Limits,
    message::Message,
    packet::{PacketId, QoS, SubscriptionId},
    topic::SubscriptionFilter,
};

/// What a queued message costs beside its topic and payload.
const MESSAGE_OVERHEAD: usize = 128;

/// A message as it was published; queues share it.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) message: Message,
    expires_at: Option<Instant>,
}

impl Publication {
    pub(crate) fn new(message: Message, now: Instant) -> Publication {
        let lives = message.expiry_s.map(|s| Duration::from_secs(s.into()));
        Publication {
            expires_at: lives.and_then(|lives| now.checked_add(lives)),
            message,
        }
    }

    /// Whether its time has passed, so that it must not be delivered any more [MQTT-3.3.2-5].
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whole seconds that it still lives [MQTT-3.3.2-6].
    pub(crate) fn remaining_s(&self, now: Instant) -> Option<u32> {
        let left = self.expires_at?.saturating_duration_since(now);
        let rounded_up = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Some(u32::try_from(rounded_up).unwrap_or(u32::MAX))
    }

    /// Bytes that it occupies, about.
    pub(crate) fn size(&self) -> usize {
        let message = &self.message;
        MESSAGE_OVERHEAD + message.topic.as_str().len() + message.payload.len()
    }
}

/// One message for one client, with what is particular to this delivery.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) publication: Arc<Publication>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<SubscriptionId>,
    /// The shared subscription it came by; another member gets it if this session ends.
    pub(crate) shared: Option<Arc<SubscriptionFilter>>,
}

/// How far an unacknowledged message has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// PUBLISH is due or sent; PUBACK or PUBREC is awaited.
    Published(Outgoing),
    /// PUBREC came; PUBREL is due or sent, PUBCOMP is awaited.
    Received,
}

#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) packet_id: PacketId,
    pub(crate) stage: Stage,
    /// Whether it was sent on the present connection.
    sent: bool,
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
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Outgoing>,
    queued_bytes: usize,
    in_flight: VecDeque<InFlight>,
    /// In flight, but not yet sent on the present connection.
    unsent: usize,
    last_id: u16,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    /// Messages that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Adds a message at the end, unless a limit of the queue is reached.
    pub(crate) fn push(&mut self, outgoing: Outgoing, limits: &Limits) -> bool {
        let size = outgoing.publication.size();
        let fits = self.queue.len() < limits.queued_messages as usize
            && self.queued_bytes + size <= limits.queued_bytes.as_len();
        if fits {
            self.queued_bytes += size;
            self.queue.push_back(outgoing);
        }
        fits
    }

    /// The next thing to send while at most `window` messages are unacknowledged.
    pub(crate) fn next(&mut self, window: u16, now: Instant) -> Option<Next> {
        if self.unsent > 0 {
            return self.repeat(window);
        }
        loop {
            let head = self.queue.front()?;
            let expired = head.publication.is_expired(now);
            if !expired && head.qos != QoS::AtMostOnce && self.in_flight.len() >= window as usize {
                return None;
            }
            let outgoing = self.pop()?;
            if expired {
                continue;
            }
            if outgoing.qos == QoS::AtMostOnce {
                return Some(Next::Once(outgoing));
            }
            let packet_id = self.start(outgoing.clone());
            return Some(Next::Publish {
                packet_id,
                outgoing,
                dup: false,
            });
        }
    }

    /// Takes the head of the queue, whatever its QoS: for consumers that acknowledge nothing.
    pub(crate) fn pop(&mut self) -> Option<Outgoing> {
        let outgoing = self.queue.pop_front()?;
        self.queued_bytes -= outgoing.publication.size();
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(outgoing)
    }

    /// The connection is gone: everything in flight is due again on the next one; what was queued
    /// at QoS 0 for a client that is not there is dropped.
    pub(crate) fn disconnected(&mut self) {
        for entry in &mut self.in_flight {
            entry.sent = false;
        }
        self.unsent = self.in_flight.len();
        self.queue
            .retain(|outgoing| outgoing.qos != QoS::AtMostOnce);
        self.queued_bytes = self
            .queue
            .iter()
            .map(|outgoing| outgoing.publication.size())
            .sum();
    }

    /// PUBACK or PUBCOMP, or a PUBREC that refuses: the message is done.
    pub(crate) fn complete(
        &mut self,
        packet_id: PacketId,
        is_expected: fn(&Stage) -> bool,
    ) -> bool {
        let found = self
            .position(packet_id)
            .filter(|at| is_expected(&self.in_flight[*at].stage));
        let Some(done) = found.and_then(|at| self.in_flight.remove(at)) else {
            return false;
        };
        self.unsent -= usize::from(!done.sent);
        if self.in_flight.is_empty() {
            self.in_flight = VecDeque::new();
        }
        true
    }

    /// PUBREC: from here on the message is never sent again, only PUBREL [MQTT-4.3.3-3].
    pub(crate) fn received(&mut self, packet_id: PacketId) -> bool {
        let Some(at) = self.position(packet_id) else {
            return false;
        };
        let entry = &mut self.in_flight[at];
        let expected = match &entry.stage {
            Stage::Published(outgoing) => outgoing.qos == QoS::ExactlyOnce,
            Stage::Received => true,
        };
        if expected {
            entry.stage = Stage::Received;
            self.unsent -= usize::from(!entry.sent);
            entry.sent = true;
        }
        expected
    }

    /// What another member of a shared subscription must get when this session ends.
    pub(crate) fn into_shared(self) -> impl Iterator<Item = Outgoing> {
        let in_flight = self
            .in_flight
            .into_iter()
            .filter_map(|entry| match entry.stage {
                Stage::Published(outgoing) => Some(outgoing),
                Stage::Received => None,
            });
        in_flight
            .chain(self.queue)
            .filter(|outgoing| outgoing.shared.is_some())
    }

    /// Puts a message in flight that needs no queue.
    pub(crate) fn start(&mut self, outgoing: Outgoing) -> PacketId {
        let packet_id = self.free_id();
        self.in_flight.push_back(InFlight {
            packet_id,
            stage: Stage::Published(outgoing),
            sent: true,
        });
        packet_id
    }

    /// Whether a message may go out at once, past an empty queue.
    pub(crate) fn is_open(&self, qos: QoS, window: u16) -> bool {
        let room = qos == QoS::AtMostOnce || self.in_flight.len() < window as usize;
        self.queue.is_empty() && self.unsent == 0 && room
    }

    fn repeat(&mut self, window: u16) -> Option<Next> {
        if self.in_flight.len() - self.unsent >= window as usize {
            return None;
        }
        let entry = self.in_flight.iter_mut().find(|entry| !entry.sent)?;
        entry.sent = true;
        self.unsent -= 1;
        Some(match &entry.stage {
            Stage::Published(outgoing) => Next::Publish {
                packet_id: entry.packet_id,
                outgoing: outgoing.clone(),
                dup: true,
            },
            Stage::Received => Next::Release(entry.packet_id),
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
