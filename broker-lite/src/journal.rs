//! What of the broker's state is to outlive it, as small changes with rising numbers. A core.
//!
//! ```text
//!  session, outbox, retained ──▶ Journal ──▶ take: Changes ──▶ Batch ──▶ (store) ──▶ disk
//!                                   ▲                                       │
//!                                   └────────── committed through N ◀───────┘
//! ```
//!
//! Invariant: whatever number a store stops at, the changes up to it make a state that the broker
//! was in between two packets, as long as the store keeps what was taken at once together.

mod batch;
#[cfg(any(test, feature = "fuzzing"))]
mod invariants;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::Identity,
    ids::{DeliveryKey, MessageKey, SessionKey},
    message::Message,
    packet::{PacketId, QoS, SubscribeOptions, SubscriptionId},
    publication::{Outgoing, Publication},
    topic::{SubscriptionFilter, TopicName},
};

pub(crate) use batch::{Batch, DeliveryChange, MessageChange, SessionChange};

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SessionRecord {
    pub(crate) identity: Arc<Identity>,
    /// How long it outlives its connection.
    pub(crate) expiry: Duration,
    /// When it ends, unless its client comes back; absent while that is connected.
    pub(crate) expires_at: Option<Instant>,
}

/// A will as it is stored, one for each client identifier.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WillRecord {
    pub(crate) identity: Arc<Identity>,
    pub(crate) message: Message,
    /// How long after the connection's end it is published.
    pub(crate) delay: Duration,
    /// When it is published, unless the client comes back; absent while that is connected.
    pub(crate) due: Option<Instant>,
}

/// A subscription as it is stored, beside its filter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SubscriptionRecord {
    pub(crate) options: SubscribeOptions,
    pub(crate) id: Option<SubscriptionId>,
}

/// How far the delivery of a stored message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Queued,
    /// PUBLISH may have been sent under this identifier.
    Published(PacketId),
    /// PUBREC came: only PUBREL is still to be sent.
    Received(PacketId),
}

/// One message for one session, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeliveryRecord {
    pub(crate) session: SessionKey,
    pub(crate) message: MessageKey,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<SubscriptionId>,
    pub(crate) shared: Option<Arc<SubscriptionFilter>>,
    pub(crate) progress: Progress,
}

/// A topic's retained message, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RetainedRecord {
    pub(crate) message: MessageKey,
    /// Absent for publishers in this process.
    pub(crate) publisher: Option<Arc<Identity>>,
}

/// One step from one state to the next.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    SessionBegins(SessionKey, SessionRecord),
    SessionChanges(SessionKey, SessionRecord),
    /// With its subscriptions and identifiers; deliveries are ended one by one.
    SessionEnds(SessionKey),
    Subscribed(SessionKey, SubscriptionFilter, SubscriptionRecord),
    Unsubscribed(SessionKey, SubscriptionFilter),
    /// A QoS 2 message came under this identifier: what comes again under it is a duplicate.
    Took(SessionKey, PacketId),
    /// PUBREL came, or the message was refused: the identifier is free.
    Freed(SessionKey, PacketId),
    MessageHeld(Arc<Publication>),
    MessageGone(MessageKey),
    Queued(DeliveryKey, DeliveryRecord),
    Progressed(DeliveryKey, Progress),
    Delivered(DeliveryKey),
    Retained(TopicName, RetainedRecord),
    RetainedGone(TopicName),
    /// A client has a will, or another one, or the time of it is known.
    WillLeft(WillRecord),
    /// By client identifier: it was published or called off.
    WillGone(String),
}

/// What the store is to put on disk together.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Number of the last change; its commit is reported by this number.
    pub(crate) through: u64,
    /// Somebody waits for the commit: it is due soon.
    pub(crate) awaited: bool,
    /// These are the whole state: what the store held before is to go.
    pub(crate) whole: bool,
    pub(crate) changes: Vec<Change>,
}

impl Changes {
    /// How many of them somebody is to be told of, once they are on disk.
    pub(crate) fn promises(&self) -> usize {
        let is_promise = |change: &&Change| {
            use Change::{Freed, MessageHeld, Took};
            matches!(change, MessageHeld(_) | Took(..) | Freed(..))
        };
        self.changes.iter().filter(is_promise).count()
    }
}

/// Whether and where changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Everything ends with the process.
    Off,
    /// There is a store, but what it holds could not be read yet: nothing can be promised.
    Unread,
    On,
}

/// Numbers that go on where the stored ones stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LastKeys {
    pub(crate) session: u64,
    pub(crate) message: u64,
    pub(crate) delivery: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Journal {
    mode: Mode,
    /// The store says that its disk takes no commits.
    failing: bool,
    last: LastKeys,
    /// How many deliveries and retained topics hold each stored message.
    holders: HashMap<MessageKey, u32>,
    changes: Vec<Change>,
    whole: bool,
    recorded: u64,
    taken: u64,
    committed: u64,
    awaited: u64,
    awaited_taken: u64,
}

impl Journal {
    /// Nothing outlives the process.
    pub(crate) fn off() -> Journal {
        Journal::new(Mode::Off, LastKeys::default())
    }

    /// Nothing is promised until [`Journal::open`].
    pub(crate) fn unread() -> Journal {
        Journal::new(Mode::Unread, LastKeys::default())
    }

    fn new(mode: Mode, last: LastKeys) -> Journal {
        Journal {
            mode,
            failing: mode == Mode::Unread,
            last,
            holders: HashMap::new(),
            changes: Vec::new(),
            whole: false,
            recorded: 0,
            taken: 0,
            committed: 0,
            awaited: 0,
            awaited_taken: 0,
        }
    }

    /// From here on changes are recorded; keys go on behind `last`.
    pub(crate) fn open(&mut self, last: LastKeys) {
        self.mode = Mode::On;
        self.failing = false;
        self.last.session = self.last.session.max(last.session);
        self.last.message = self.last.message.max(last.message);
        self.last.delivery = self.last.delivery.max(last.delivery);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.mode == Mode::On
    }

    /// Whether nothing can be promised for want of the store's content.
    pub(crate) fn is_unread(&self) -> bool {
        self.mode == Mode::Unread
    }

    /// Whether the disk takes no commits.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing
    }

    pub(crate) fn set_failing(&mut self, failing: bool) {
        self.failing = failing;
    }

    /// Number for a new publication.
    pub(crate) fn number(&mut self) -> u64 {
        self.last.message += 1;
        self.last.message
    }

    pub(crate) fn session_begins(&mut self, record: SessionRecord) -> Option<SessionKey> {
        if !self.is_on() {
            return None;
        }
        self.last.session += 1;
        let key = SessionKey(self.last.session);
        self.record(Change::SessionBegins(key, record));
        Some(key)
    }

    /// Enters a message for a session that is stored, and notes its key in `outgoing`.
    pub(crate) fn queued(&mut self, session: Option<SessionKey>, outgoing: &mut Outgoing) {
        let Some(session) = session.filter(|_| outgoing.qos != QoS::AtMostOnce) else {
            return;
        };
        self.hold(&outgoing.publication);
        self.last.delivery += 1;
        let key = DeliveryKey(self.last.delivery);
        outgoing.record = Some(key);
        self.record(Change::Queued(
            key,
            DeliveryRecord {
                session,
                message: outgoing.publication.key(),
                qos: outgoing.qos,
                retain: outgoing.retain,
                subscription_ids: outgoing.subscription_ids.clone(),
                shared: outgoing.shared.clone(),
                progress: Progress::Queued,
            },
        ));
    }

    /// Enters an exchange of which only PUBREL and PUBCOMP are left.
    pub(crate) fn receipt(&mut self, session: SessionKey, packet_id: PacketId) -> DeliveryKey {
        self.last.delivery += 1;
        let key = DeliveryKey(self.last.delivery);
        self.record(Change::Queued(
            key,
            DeliveryRecord {
                session,
                message: MessageKey(0),
                qos: QoS::ExactlyOnce,
                retain: false,
                subscription_ids: Vec::new(),
                shared: None,
                progress: Progress::Received(packet_id),
            },
        ));
        key
    }

    /// A delivery has got its packet identifier.
    pub(crate) fn published(&mut self, record: Option<DeliveryKey>, packet_id: PacketId) {
        if let Some(key) = record {
            self.record(Change::Progressed(key, Progress::Published(packet_id)));
        }
    }

    /// PUBREC came: the message itself is no longer needed.
    pub(crate) fn received(&mut self, outgoing: &Outgoing, packet_id: PacketId) {
        if let Some(key) = outgoing.record {
            self.record(Change::Progressed(key, Progress::Received(packet_id)));
            self.release(outgoing.publication.key());
        }
    }

    /// A delivery whose message is still held is over.
    pub(crate) fn delivered(&mut self, outgoing: &Outgoing) {
        if let Some(key) = outgoing.record {
            self.record(Change::Delivered(key));
            self.release(outgoing.publication.key());
        }
    }

    /// PUBCOMP came.
    pub(crate) fn completed(&mut self, record: Option<DeliveryKey>) {
        if let Some(key) = record {
            self.record(Change::Delivered(key));
        }
    }

    pub(crate) fn retained(
        &mut self,
        publication: &Arc<Publication>,
        publisher: Option<&Arc<Identity>>,
    ) {
        if !self.is_on() {
            return;
        }
        self.hold(publication);
        let record = RetainedRecord {
            message: publication.key(),
            publisher: publisher.cloned(),
        };
        self.record(Change::Retained(publication.message.topic.clone(), record));
    }

    pub(crate) fn retained_gone(&mut self, publication: &Publication) {
        if self.is_on() {
            self.record(Change::RetainedGone(publication.message.topic.clone()));
            self.release(publication.key());
        }
    }

    pub(crate) fn record(&mut self, change: Change) {
        if self.is_on() {
            self.recorded += 1;
            self.changes.push(change);
        }
    }

    /// Another delivery or topic holds a message; the first one stores it.
    pub(crate) fn hold(&mut self, publication: &Arc<Publication>) {
        let holders = self.holders.entry(publication.key()).or_insert(0);
        *holders += 1;
        if *holders == 1 {
            self.record(Change::MessageHeld(Arc::clone(publication)));
        }
    }

    /// As [`Journal::hold`] for what is on disk already.
    pub(crate) fn holds(&mut self, message: MessageKey) {
        *self.holders.entry(message).or_insert(0) += 1;
    }

    fn release(&mut self, message: MessageKey) {
        let Some(holders) = self.holders.get_mut(&message) else {
            return;
        };
        *holders -= 1;
        if *holders == 0 {
            self.holders.remove(&message);
            self.record(Change::MessageGone(message));
        }
    }

    /// Forgets what is stored: the changes recorded next, up to the next take, are everything.
    pub(crate) fn start_over(&mut self) {
        self.holders.clear();
        self.changes.clear();
        self.whole = true;
        // Even an empty state is news to the store.
        self.recorded += 1;
    }

    /// The number up to which changes are recorded.
    pub(crate) fn recorded(&self) -> u64 {
        self.recorded
    }

    /// The number to wait for so that everything until now is on disk; `None` if it is.
    pub(crate) fn gate(&self) -> Option<u64> {
        (self.recorded > self.committed).then_some(self.recorded)
    }

    pub(crate) fn is_committed(&self, number: u64) -> bool {
        number <= self.committed
    }

    /// Somebody waits for this number.
    pub(crate) fn await_commit(&mut self, number: u64) {
        self.awaited = self.awaited.max(number);
    }

    pub(crate) fn committed(&mut self, through: u64) {
        self.committed = self.committed.max(through.min(self.recorded));
    }

    /// The changes since the last call, if there are any or the wait for earlier ones is new.
    pub(crate) fn take(&mut self) -> Option<Changes> {
        if self.recorded == self.taken && self.awaited == self.awaited_taken {
            return None;
        }
        self.taken = self.recorded;
        self.awaited_taken = self.awaited;
        Some(Changes {
            through: self.recorded,
            awaited: self.awaited > self.committed,
            whole: std::mem::take(&mut self.whole),
            changes: std::mem::take(&mut self.changes),
        })
    }
}
