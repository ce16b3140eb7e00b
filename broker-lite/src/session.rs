//! What the broker remembers of one client, connected or not. A core.
//!
//! Invariant: acknowledgements leave in the order of their PUBLISHes [MQTT-4.6.0-2]
//! [MQTT-4.6.0-3], and none before what it promises is true.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::{Identity, Permissions},
    ids::{ConnectionId, SessionKey, Ticket},
    journal::SessionRecord,
    memory::{Charge, Meter},
    message::Message,
    outbox::Outbox,
    packet::{MessageProperties, PacketId, QoS, ReasonCode},
    topic::SubscriptionFilter,
};

/// What a session costs without its lists: itself, its places in three tables and timers, a part of
/// an outbox and an inbox, and what the allocator adds.
const SESSION_BYTES: usize = 1_024;

/// What a filter's text costs: once in the session, and what an allocation adds.
const FILTER_BYTES: usize = 32;

/// Where a session's messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nobody is there.
    Absent,
    /// A connected client.
    Connected(ConnectionId),
    /// A consumer in this process, which takes messages from the queue itself.
    Local,
}

/// What to publish when the client vanishes, and when.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    pub(crate) delay: Duration,
    /// What it occupies until it is published or called off.
    pub(crate) charge: Charge,
}

impl Will {
    fn size(&self) -> usize {
        let properties = self.message.properties.as_deref();
        let properties = properties.map_or(0, MessageProperties::size);
        let topic = self.message.topic.as_str().len();
        size_of::<Will>() + topic + self.message.payload.len() + properties
    }
}

/// How an acknowledgement that is held back will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The keeper has not answered yet.
    Awaits(Ticket),
    /// It can leave.
    Settled(ReasonCode),
    /// It must not leave: the keeper refused, and MQTT 3.1.1 has no word for that.
    Withheld,
}

/// A PUBACK or PUBREC in its place in the order.
#[derive(Debug)]
pub(crate) struct HeldAck {
    pub(crate) packet_id: PacketId,
    pub(crate) qos: QoS,
    pub(crate) verdict: Verdict,
    /// Its PUBLISH came over the present connection. Otherwise the client is to send it again, and
    /// would take an answer before that for one to the repetition.
    pub(crate) heard: bool,
}

/// What a client has published and not yet seen the end of.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// QoS 2 identifiers between PUBLISH and PUBREL: what comes again under them is a duplicate.
    pub(crate) received: BTreeSet<PacketId>,
    /// Of these, left over from earlier connections: a new one begins with its whole quota
    /// (5.0, 4.9).
    carried: u16,
    /// Acknowledgements that wait, or stand behind one that waits.
    pub(crate) acks: VecDeque<HeldAck>,
}

impl Inbox {
    /// QoS 1 and 2 messages that the client cannot count as done [MQTT-3.3.4-7].
    pub(crate) fn outstanding(&self) -> usize {
        let held = self
            .acks
            .iter()
            .filter(|ack| ack.qos == QoS::AtLeastOnce)
            .count();
        self.received.len() + held - usize::from(self.carried)
    }

    /// The connection is another one than that of these identifiers.
    pub(crate) fn carry(&mut self, in_flight: u16) {
        let half_open = u16::try_from(self.received.len()).unwrap_or(u16::MAX);
        self.carried = half_open.min(in_flight);
    }

    /// PUBREL; says whether the identifier was known.
    pub(crate) fn release(&mut self, packet_id: PacketId) -> bool {
        let known = self.received.remove(&packet_id);
        self.carried -= u16::from(known && self.carried > 0);
        known
    }

    /// The acknowledgements that can leave now.
    pub(crate) fn pop_ready(&mut self) -> Option<HeldAck> {
        let ready = !matches!(self.acks.front()?.verdict, Verdict::Awaits(_));
        let ack = ready.then(|| self.acks.pop_front()).flatten()?;
        // A refused message was not taken: its identifier is free again [MQTT-4.3.3-9].
        if is_refusal(ack.verdict) {
            self.release(ack.packet_id);
        }
        Some(ack)
    }

    fn is_empty(&self) -> bool {
        self.received.is_empty() && self.acks.is_empty()
    }
}

fn is_refusal(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Settled(reason) => reason.is_failure(),
        Verdict::Withheld => true,
        Verdict::Awaits(_) => false,
    }
}

/// What is on its way to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) queued: usize,
    pub(crate) queued_bytes: usize,
    pub(crate) in_flight: usize,
}

/// One client's state: subscriptions, what is on its way in both directions, and its will.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) identity: Arc<Identity>,
    pub(crate) permissions: Arc<Permissions>,
    pub(crate) link: Link,
    /// How long it outlives the connection.
    pub(crate) expiry: Duration,
    pub(crate) expires_at: Option<Instant>,
    /// Its name in the store, if it outlives the broker.
    pub(crate) key: Option<SessionKey>,
    /// The change with which it began, or took another's place: CONNACK waits for it.
    pub(crate) begun: u64,
    pub(crate) subscriptions: Vec<SubscriptionFilter>,
    /// Messages that may be unacknowledged towards the client.
    pub(crate) window: u16,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) will_at: Option<Instant>,
    /// Messages lost because the queue was full.
    pub(crate) dropped: u64,
    /// The loss was told, and the queue has not been empty since.
    pub(crate) overflowing: bool,
    outbox: Option<Box<Outbox>>,
    inbox: Option<Box<Inbox>>,
    /// Bytes of its filters' texts.
    filter_bytes: usize,
    charge: Charge,
}

impl Session {
    pub(crate) fn new(
        identity: Arc<Identity>,
        permissions: Arc<Permissions>,
        link: Link,
        meter: &Meter,
    ) -> Session {
        let mut session = Session {
            identity,
            permissions,
            link,
            expiry: Duration::ZERO,
            expires_at: None,
            key: None,
            begun: 0,
            subscriptions: Vec::new(),
            window: 0,
            will: None,
            will_at: None,
            dropped: 0,
            overflowing: false,
            outbox: None,
            inbox: None,
            filter_bytes: 0,
            charge: meter.charge(0),
        };
        session.weigh();
        session
    }

    /// Counts what it occupies; to be called when its identity or permissions changed.
    pub(crate) fn weigh(&mut self) {
        let names = 2 * self.identity.client.len();
        let user = self.identity.user.as_ref().map_or(0, String::len);
        let subscriptions = self.subscriptions.capacity() * size_of::<SubscriptionFilter>();
        let lists = self.permissions.size() + subscriptions + self.filter_bytes;
        self.charge.set(SESSION_BYTES + names + user + lists);
    }

    /// A subscription is new.
    pub(crate) fn subscribed(&mut self, filter: SubscriptionFilter) {
        self.filter_bytes += filter_bytes(&filter);
        // Most have one.
        self.subscriptions
            .reserve_exact(usize::from(self.subscriptions.is_empty()));
        self.subscriptions.push(filter);
        self.weigh();
    }

    /// A subscription is over.
    pub(crate) fn unsubscribed(&mut self, filter: &SubscriptionFilter) {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|known| known != filter);
        if self.subscriptions.len() < before {
            self.filter_bytes -= filter_bytes(filter);
            self.subscriptions.shrink_to_fit();
            self.weigh();
        }
    }

    /// As it is stored.
    pub(crate) fn record(&self) -> SessionRecord {
        SessionRecord {
            identity: Arc::clone(&self.identity),
            expiry: self.expiry,
            expires_at: self.expires_at,
        }
    }

    /// Bytes that end with it, bodies shared with other queues included.
    pub(crate) fn weight(&self) -> usize {
        let queued = self
            .outbox
            .as_ref()
            .map_or(0, |outbox| outbox.queued_bytes());
        self.charge.bytes() + queued
    }

    /// Sets or clears what is to be published when the client vanishes.
    pub(crate) fn leave_will(&mut self, will: Option<Will>) {
        self.will = will.map(|mut will| {
            will.charge = self.charge.sibling(will.size());
            Box::new(will)
        });
    }

    /// Whether it ends with its connection.
    pub(crate) fn is_transient(&self) -> bool {
        self.expiry.is_zero()
    }

    /// The outgoing side; made when first needed.
    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        let charge = &self.charge;
        self.outbox
            .get_or_insert_with(|| Box::new(Outbox::new(charge.sibling(0))))
    }

    /// The outgoing side, if it holds anything.
    pub(crate) fn pending_outbox(&mut self) -> Option<&mut Outbox> {
        self.outbox.as_deref_mut()
    }

    /// The outgoing side, to look at.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn peek_outbox(&self) -> Option<&Outbox> {
        self.outbox.as_deref()
    }

    /// The incoming side; made when first needed.
    pub(crate) fn inbox(&mut self) -> &mut Inbox {
        self.inbox.get_or_insert_default()
    }

    /// The incoming side, if it holds anything.
    pub(crate) fn pending_inbox(&mut self) -> Option<&mut Inbox> {
        self.inbox.as_deref_mut()
    }

    /// What waits for the client and what it has not acknowledged.
    pub(crate) fn waiting(&self) -> Waiting {
        let outbox = self.outbox.as_deref();
        Waiting {
            queued: outbox.map_or(0, Outbox::queued),
            queued_bytes: outbox.map_or(0, Outbox::queued_bytes),
            in_flight: outbox.map_or(0, Outbox::in_flight),
        }
    }

    /// Gives back the memory of sides that hold nothing.
    pub(crate) fn shrink(&mut self) {
        if self.outbox.as_ref().is_some_and(|outbox| outbox.is_empty()) {
            self.outbox = None;
            self.overflowing = false;
        }
        if self.inbox.as_ref().is_some_and(|inbox| inbox.is_empty()) {
            self.inbox = None;
        }
    }

    /// The connection is gone. Held PUBACKs go with it, for the client sends those messages again;
    /// QoS 2 identifiers stay, so that what it sends again is known as a duplicate; at most
    /// `in_flight` of them leave the next connection its whole quota.
    pub(crate) fn disconnected(&mut self, keeps_qos0: bool, in_flight: u16) {
        self.link = Link::Absent;
        if let Some(outbox) = &mut self.outbox {
            outbox.disconnected(keeps_qos0);
        }
        if let Some(inbox) = &mut self.inbox {
            inbox.acks.retain(|ack| ack.qos == QoS::ExactlyOnce);
            inbox.carry(in_flight);
            for ack in &mut inbox.acks {
                ack.heard = false;
            }
        }
        self.shrink();
    }
}

fn filter_bytes(filter: &SubscriptionFilter) -> usize {
    filter.text_len() + FILTER_BYTES
}
