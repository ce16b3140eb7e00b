//! Changes on their way to one commit, each thing at most once. A core.
//!
//! Invariant: what began and ended within a batch is not in it, so a message that was delivered
//! before its commit was due costs no write, and a batch is never larger than the broker's state.

use std::{collections::HashMap, sync::Arc};

use super::{
    Change, Changes, DeliveryRecord, Progress, RetainedRecord, SessionRecord, SubscriptionRecord,
    WillRecord,
};
use crate::{
    ids::{DeliveryKey, MessageKey, SessionKey},
    packet::PacketId,
    publication::Publication,
    topic::{SubscriptionFilter, TopicName},
};

/// What becomes of a session.
#[derive(Debug, Default)]
pub(crate) struct SessionChange {
    /// Written anew.
    pub(crate) record: Option<SessionRecord>,
    /// Not on disk before this batch.
    is_new: bool,
    /// With all that belongs to it.
    pub(crate) ended: bool,
    /// `None`: unsubscribed.
    pub(crate) subscriptions: HashMap<SubscriptionFilter, Option<SubscriptionRecord>>,
    /// Whether the identifier is taken.
    pub(crate) taken: HashMap<PacketId, bool>,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum MessageChange {
    Insert(Arc<Publication>),
    Delete,
    /// Deleted, then held again.
    Replace(Arc<Publication>),
}

/// What becomes of a delivery.
#[derive(Debug)]
pub(crate) enum DeliveryChange {
    Insert(DeliveryRecord),
    Update(Progress),
    Delete,
}

/// One commit's worth of changes.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The number of the last change in it.
    pub(crate) through: u64,
    /// What is on disk before is to go.
    pub(crate) whole: bool,
    pub(crate) sessions: HashMap<SessionKey, SessionChange>,
    pub(crate) messages: HashMap<MessageKey, MessageChange>,
    pub(crate) deliveries: HashMap<DeliveryKey, DeliveryChange>,
    /// `None`: cleared.
    pub(crate) retained: HashMap<TopicName, Option<RetainedRecord>>,
    /// By client identifier; `None`: published or called off.
    pub(crate) wills: HashMap<String, Option<WillRecord>>,
}

impl Batch {
    /// Whether committing it would write anything.
    pub(crate) fn writes(&self) -> bool {
        self.whole
            || !(self.sessions.is_empty()
                && self.messages.is_empty()
                && self.deliveries.is_empty()
                && self.retained.is_empty()
                && self.wills.is_empty())
    }

    /// Adds what the core handed over; the whole state takes the place of what was gathered.
    pub(crate) fn add(&mut self, changes: Changes) {
        if changes.whole {
            *self = Batch {
                whole: true,
                ..Batch::default()
            };
        }
        self.through = changes.through;
        for change in changes.changes {
            self.enter(change);
        }
    }

    fn enter(&mut self, change: Change) {
        match change {
            Change::SessionBegins(key, record) => {
                let session = self.session(key);
                session.is_new = true;
                session.record = Some(record);
            }
            Change::SessionChanges(key, record) => self.session(key).record = Some(record),
            Change::SessionEnds(key) => self.end_session(key),
            Change::Subscribed(key, filter, record) => {
                self.session(key).subscriptions.insert(filter, Some(record));
            }
            Change::Unsubscribed(key, filter) => {
                self.session(key).subscriptions.insert(filter, None);
            }
            Change::Took(key, packet_id) => {
                self.session(key).taken.insert(packet_id, true);
            }
            Change::Freed(key, packet_id) => {
                self.session(key).taken.insert(packet_id, false);
            }
            Change::MessageHeld(publication) => self.hold(publication),
            Change::MessageGone(key) => self.drop_message(key),
            Change::Queued(key, record) => {
                self.deliveries.insert(key, DeliveryChange::Insert(record));
            }
            Change::Progressed(key, progress) => self.progress(key, progress),
            Change::Delivered(key) => self.end_delivery(key),
            Change::Retained(topic, record) => {
                self.retained.insert(topic, Some(record));
            }
            Change::RetainedGone(topic) => {
                self.retained.insert(topic, None);
            }
            Change::WillLeft(record) => {
                let client = record.identity.client.clone();
                self.wills.insert(client, Some(record));
            }
            Change::WillGone(client) => {
                self.wills.insert(client, None);
            }
        }
    }

    fn session(&mut self, key: SessionKey) -> &mut SessionChange {
        self.sessions.entry(key).or_default()
    }

    fn end_session(&mut self, key: SessionKey) {
        let is_new = self.sessions.get(&key).is_some_and(|known| known.is_new);
        if is_new {
            self.sessions.remove(&key);
        } else {
            let ended = SessionChange {
                ended: true,
                ..SessionChange::default()
            };
            self.sessions.insert(key, ended);
        }
    }

    fn hold(&mut self, publication: Arc<Publication>) {
        let key = publication.key();
        let change = match self.messages.get(&key) {
            Some(MessageChange::Delete) => MessageChange::Replace(publication),
            _ => MessageChange::Insert(publication),
        };
        self.messages.insert(key, change);
    }

    fn drop_message(&mut self, key: MessageKey) {
        match self.messages.get(&key) {
            Some(MessageChange::Insert(_)) => self.messages.remove(&key),
            _ => self.messages.insert(key, MessageChange::Delete),
        };
    }

    fn progress(&mut self, key: DeliveryKey, progress: Progress) {
        match self.deliveries.get_mut(&key) {
            Some(DeliveryChange::Insert(record)) => record.progress = progress,
            _ => {
                self.deliveries
                    .insert(key, DeliveryChange::Update(progress));
            }
        }
    }

    fn end_delivery(&mut self, key: DeliveryKey) {
        match self.deliveries.get(&key) {
            Some(DeliveryChange::Insert(_)) => self.deliveries.remove(&key),
            _ => self.deliveries.insert(key, DeliveryChange::Delete),
        };
    }
}
