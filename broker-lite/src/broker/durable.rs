//! What outlives the broker: answers that wait for the disk, and a stored state put back.
//!
//! Core. Invariant: nothing that promises to outlive the broker leaves before the change that it
//! rests on is committed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::{Identity, Permissions},
    broker::{ConnectionId, Core, Gated, SessionId, Timer, Waiter},
    ids::{DeliveryKey, MessageKey, SessionKey},
    journal::{
        Change, Changes, DeliveryRecord, LastKeys, Progress, SessionRecord, SubscriptionRecord,
        WillRecord,
    },
    outbox::Stage,
    packet::{Packet, PacketId, ReasonCode},
    publication::{Outgoing, Publication},
    retained::Retained,
    router::Subscriber,
    session::{self, Session},
    topic::SubscriptionFilter,
};

/// A session as an earlier run has left it.
#[derive(Debug)]
pub(crate) struct StoredSession {
    pub(crate) key: SessionKey,
    pub(crate) record: SessionRecord,
    pub(crate) subscriptions: Vec<(SubscriptionFilter, SubscriptionRecord)>,
    pub(crate) taken: Vec<PacketId>,
    /// In the order of their keys.
    pub(crate) deliveries: Vec<(DeliveryKey, DeliveryRecord)>,
}

/// Everything that an earlier run has left.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) last: LastKeys,
    pub(crate) messages: HashMap<MessageKey, Arc<Publication>>,
    pub(crate) sessions: Vec<StoredSession>,
    pub(crate) retained: Vec<(MessageKey, Option<Arc<Identity>>)>,
    pub(crate) wills: Vec<WillRecord>,
}

impl Core {
    /// What changed since the last call and is to be put on disk.
    pub(crate) fn take_changes(&mut self) -> Option<Changes> {
        self.journal.take()
    }

    /// The store has put on disk what was recorded up to this number.
    pub(crate) fn handle_committed(&mut self, through: u64, now: Instant) {
        self.journal.committed(through);
        while let Some((gate, _)) = self.gated.front()
            && self.journal.is_committed(*gate)
            && let Some((_, gated)) = self.gated.pop_front()
        {
            match gated {
                Gated::Ticket(ticket) => self.ticket_is_committed(ticket, now),
                Gated::Answer {
                    connection, packet, ..
                } => {
                    if let Some(link) = self.links.get_mut(connection.0) {
                        link.held -= 1;
                    }
                    self.send(connection, packet);
                }
                Gated::Welcome(welcome) => self.enter(*welcome, now),
                Gated::Outbox(session) => self.pump(session, now),
            }
        }
    }

    /// The store's disk takes no commits, or takes them again.
    pub(crate) fn handle_store_failing(&mut self, failing: bool) {
        self.journal.set_failing(failing);
    }

    /// The store has lost what it held: it is given everything anew.
    pub(crate) fn handle_store_lost(&mut self) {
        self.record_all();
    }

    /// Puts back what an earlier run has stored, before the first client connects.
    pub(crate) fn restore(&mut self, stored: Stored, now: Instant) {
        self.journal.open(stored.last);
        self.put_back(stored, now);
    }

    /// The store's content could only be read now. Sessions that a client has begun anew stand,
    /// and so do retained messages that were published since.
    pub(crate) fn adopt(&mut self, mut stored: Stored, now: Instant) {
        self.journal.open(stored.last);
        for publication in stored.messages.values_mut() {
            let number = self.journal.number();
            *publication = Arc::new(publication.renumbered(number));
        }
        stored.sessions.retain(|session| {
            !self
                .by_client
                .contains_key(&*session.record.identity.client)
        });
        let is_back = |record: &WillRecord| self.by_client.contains_key(&*record.identity.client);
        stored.wills.retain(|record| !is_back(record));
        let messages = &stored.messages;
        stored.retained.retain(|(message, _)| {
            messages
                .get(message)
                .is_some_and(|known| !self.retained.has(&known.message.topic))
        });
        self.put_back(stored, now);
        self.record_all();
    }

    /// Keeps something back until the change of this number is on disk.
    pub(super) fn gate_at(&mut self, gate: u64, gated: Gated) {
        self.journal.await_commit(gate);
        self.gated.push_back((gate, gated));
    }

    /// Sends an answer that says something about a session's state, once that state is on disk.
    pub(super) fn send_when_stored(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        packet: Packet,
    ) {
        let key = self.sessions.get(session.0).and_then(|state| state.key);
        match (key, self.journal.gate()) {
            (Some(_), Some(gate)) => {
                if let Some(link) = self.links.get_mut(connection.0) {
                    link.held += 1;
                    let answer = Gated::Answer {
                        connection,
                        packet,
                        _charge: self.meter.charge(ANSWER_BYTES),
                    };
                    self.gate_at(gate, answer);
                }
            }
            _ => self.send(connection, packet),
        }
    }

    /// Sets how long a session outlives its connection, and with that whether it is stored.
    pub(super) fn set_expiry(&mut self, id: SessionId, expiry: Duration) {
        let Some(session) = self.sessions.get_mut(id.0) else {
            return;
        };
        let changed = session.expiry != expiry;
        let lasted = !session.is_transient();
        session.expiry = expiry;
        let user = session.identity.user.as_deref();
        match (lasted, !expiry.is_zero()) {
            (false, true) => self.lasting.begins(user),
            (true, false) => self.lasting.ends(user),
            _ => {}
        }
        let record = session.record();
        match session.key {
            None if !expiry.is_zero() => session.key = self.journal.session_begins(record),
            Some(_) if expiry.is_zero() => self.forget(id),
            Some(key) if changed => self.journal.record(Change::SessionChanges(key, record)),
            _ => {}
        }
    }

    /// Enters when a session ends, or that its client is back.
    pub(super) fn record_expiry(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(id.0)
            && let Some(key) = session.key
        {
            let change = Change::SessionChanges(key, session.record());
            self.journal.record(change);
        }
    }

    /// Nothing of a session is to be kept on disk any more.
    pub(super) fn forget(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id.0) else {
            return;
        };
        let Some(key) = session.key.take() else {
            return;
        };
        if let Some(outbox) = session.pending_outbox() {
            outbox.forget(&mut self.journal);
        }
        self.journal.record(Change::SessionEnds(key));
    }

    /// Enters that a QoS 2 message came under an identifier.
    pub(super) fn record_taken(&mut self, waiter: &Waiter) {
        if let Waiter::Client { session, packet_id } = waiter
            && let Some(state) = self.sessions.get_mut(session.0)
            && let Some(key) = state.key
            && state.inbox().received.contains(packet_id)
        {
            self.journal.record(Change::Took(key, *packet_id));
        }
    }

    /// Enters that an identifier is free again.
    pub(super) fn record_freed(&mut self, session: SessionId, packet_id: PacketId) {
        if let Some(key) = self.sessions.get(session.0).and_then(|state| state.key) {
            self.journal.record(Change::Freed(key, packet_id));
        }
    }

    fn put_back(&mut self, stored: Stored, now: Instant) {
        let Stored {
            mut messages,
            sessions,
            retained,
            wills,
            ..
        } = stored;
        for publication in messages.values_mut().filter_map(Arc::get_mut) {
            publication.charge_to(&self.meter);
        }
        for (message, publisher) in retained {
            if let Some(publication) = messages.get(&message) {
                self.journal.holds(publication.key());
                self.retained.restore(Retained {
                    publication: Arc::clone(publication),
                    publisher,
                });
            }
        }
        for session in sessions {
            self.put_back_session(session, &messages, now);
        }
        self.recheck_retained();
        self.put_back_wills(wills, now);
    }

    fn put_back_session(
        &mut self,
        stored: StoredSession,
        messages: &HashMap<MessageKey, Arc<Publication>>,
        now: Instant,
    ) {
        let identity = stored.record.identity;
        let permissions = Permissions::of(&identity, &self.rules.access);
        let permissions = self.shared_permissions(permissions);
        let client: Arc<str> = identity.client.as_str().into();
        let mut session = Session::new(identity, permissions, session::Link::Absent, &self.meter);
        session.key = Some(stored.key);
        session.expiry = stored.record.expiry;
        if !session.is_transient() {
            self.lasting.begins(session.identity.user.as_deref());
        }
        // A connection that ended with the broker begins its session's time now.
        let counts_already = stored.record.expires_at.is_some();
        let expires_at = stored.record.expires_at;
        let expires_at = expires_at.or_else(|| now.checked_add(session.expiry));
        session.expires_at = expires_at;
        if !stored.taken.is_empty() {
            session.inbox().received.extend(stored.taken);
            session.inbox().carry(self.rules.limits.in_flight);
        }
        for (key, record) in stored.deliveries {
            self.journal.put_back(&mut session, key, record, messages);
        }
        let id = SessionId(self.sessions.insert(session));
        self.by_client.insert(client, id);
        self.set_timer(None, expires_at, Timer::Expiry(id));
        if !counts_already {
            self.record_expiry(id);
        }
        for (filter, record) in stored.subscriptions {
            let subscriber = Subscriber {
                session: id,
                options: record.options,
                id: record.id,
            };
            self.router.subscribe(&filter, subscriber);
            if let Some(session) = self.sessions.get_mut(id.0) {
                session.subscribed(filter);
            }
        }
        self.drop_forbidden_subscriptions(id);
    }

    /// Enters the whole state, under new keys.
    fn record_all(&mut self) {
        self.journal.start_over();
        let undecided: HashSet<(SessionId, PacketId)> = self
            .pending
            .values()
            .filter(|pending| pending.deferred.is_some())
            .filter_map(|pending| match pending.waiter {
                Waiter::Client { session, packet_id } => Some((session, packet_id)),
                Waiter::Local | Waiter::Nobody => None,
            })
            .collect();
        self.retained.record_all(&mut self.journal);
        let sessions: Vec<SessionId> = self.by_client.values().copied().collect();
        for id in sessions {
            self.record_session(id, &undecided);
            let session = self.sessions.get(id.0);
            if session.is_some_and(|session| session.will.is_some()) {
                self.record_will(id);
            }
        }
        if self.journal.is_on() {
            // Whatever waits, waits for this state.
            self.journal.await_commit(self.journal.recorded());
        }
    }

    fn record_session(&mut self, id: SessionId, undecided: &HashSet<(SessionId, PacketId)>) {
        let (journal, router) = (&mut self.journal, &self.router);
        let Some(session) = self.sessions.get_mut(id.0) else {
            return;
        };
        if session.is_transient() {
            return;
        }
        session.key = journal.session_begins(session.record());
        let Some(key) = session.key else { return };
        for filter in &session.subscriptions {
            if let Some(found) = router.find(filter, id) {
                let record = SubscriptionRecord {
                    options: found.options,
                    id: found.id,
                };
                journal.record(Change::Subscribed(key, filter.clone(), record));
            }
        }
        if let Some(inbox) = session.pending_inbox() {
            let taken = inbox.received.iter();
            for packet_id in taken.filter(|packet_id| !undecided.contains(&(id, **packet_id))) {
                journal.record(Change::Took(key, *packet_id));
            }
        }
        if let Some(outbox) = session.pending_outbox() {
            outbox.record_all(key, journal);
        }
    }

    /// Refuses a message while nothing can be promised; true if it was refused.
    pub(super) fn refuse_while_unread(
        &mut self,
        connection: ConnectionId,
        now: Instant,
    ) -> Option<ReasonCode> {
        if !self.journal.is_unread() {
            return None;
        }
        let is_v3 = self
            .links
            .get(connection.0)
            .is_some_and(|link| link.terms.version == crate::packet::Version::V3);
        if is_v3 {
            // 3.1.1 has no word for it; the client sends the message again.
            self.break_off(
                connection,
                ReasonCode::QuotaExceeded,
                crate::observe::audit::Refusal::NotKept,
                UNREAD,
                now,
            );
        }
        Some(ReasonCode::QuotaExceeded)
    }
}

/// What an answer costs that waits for the disk: a SUBACK may have a thousand reasons.
const ANSWER_BYTES: usize = 1_280;

/// Why a message or a session is refused before the store was read.
pub(super) const UNREAD: &str =
    "the stored sessions cannot be read yet ([broker.persistence] path), so nothing can be kept";

impl crate::journal::Journal {
    /// Puts a stored delivery back into its session's outbox.
    fn put_back(
        &mut self,
        session: &mut Session,
        key: DeliveryKey,
        record: DeliveryRecord,
        messages: &HashMap<MessageKey, Arc<Publication>>,
    ) {
        let packet_id = match record.progress {
            Progress::Received(packet_id) => {
                let stage = Stage::Received(Some(key));
                return session.outbox().restore_stage(packet_id, stage);
            }
            Progress::Published(packet_id) => Some(packet_id),
            Progress::Queued => None,
        };
        let Some(publication) = messages.get(&record.message) else {
            // Only a damaged file has a delivery without its message.
            return self.completed(Some(key));
        };
        self.holds(publication.key());
        let outgoing = Outgoing {
            publication: Arc::clone(publication),
            qos: record.qos,
            retain: record.retain,
            subscription_ids: record.subscription_ids,
            shared: record.shared,
            record: Some(key),
        };
        session.outbox().restore(outgoing, packet_id);
    }
}
