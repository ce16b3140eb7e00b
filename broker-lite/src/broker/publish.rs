//! What clients publish: checked, routed, kept, acknowledged.
//!
//! Core. Invariant: a QoS 2 message is routed once, however often it comes [MQTT-4.3.3-10], and an
//! acknowledgement of a kept message leaves after the keeper's receipt.

use std::{sync::Arc, time::Instant};

use crate::{
    broker::{
        ConnectionId, Core, Gated, Origin, Output, Pending, SessionId, Ticket, Waiter,
        connect::user_properties_fit, pressure::Pressure, welcome::capped_expiry,
    },
    keeper::Kept,
    message::Message,
    observe::audit::Refusal,
    packet::{Ack, Delivery, Details, Packet, PacketId, Publish, QoS, ReasonCode, Text, Version},
    publication::{self, Publication},
    retained::Retained,
    session::{HeldAck, Verdict},
};

/// QoS 2 messages that a 3.1.1 client may leave between PUBLISH and PUBREL: it cannot be told a
/// receive maximum, so it gets more room, but not the memory for 65,535.
const HALF_OPEN_V3_MAX: usize = 1_024;

/// What a message that waits for its commit costs beside itself: its entry, its place in the order of
/// commits, and the acknowledgement that is held.
const PENDING_BYTES: usize = 256;

impl Core {
    /// Whether more packets of this connection may be read now. A 3.1.1 client whose
    /// acknowledgements wait for the keeper is left unread instead of being sent away, and so is
    /// one that takes none of our answers.
    pub(crate) fn accepts(&mut self, connection: ConnectionId, now: Instant) -> bool {
        let Some(link) = self
            .links
            .get(connection.0)
            .filter(|link| !link.is_closing())
        else {
            return false;
        };
        let in_flight = self.rules.limits.in_flight;
        if link.paused_until.is_some_and(|until| now < until) {
            return false;
        }
        if self.draining || link.is_stalled() || link.waits || link.held >= in_flight {
            return false;
        }
        if link.terms.version == Version::V5 {
            return true;
        }
        let in_flight = usize::from(in_flight);
        let inbox = link
            .session()
            .and_then(|session| self.sessions.get_mut(session.0))
            .and_then(|session| session.pending_inbox());
        inbox.is_none_or(|inbox| inbox.acks.len() < in_flight)
    }

    pub(super) fn client_publishes(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        publish: Publish,
        now: Instant,
    ) {
        let payload_len = publish.payload.len();
        self.counters.received += 1;
        self.counters.payload_received += payload_len as u64;
        self.count_message(connection, now);
        let aliases = self.rules.limits.topic_aliases;
        let Some(link) = self.links.get_mut(connection.0) else {
            return;
        };
        link.traffic(now).receive(payload_len, now);
        let topic = match link.resolve(publish.topic, publish.topic_alias, aliases) {
            Ok(topic) => topic,
            Err(wrong) => {
                let (code, why) = wrong.told();
                let refusal = Refusal::ProtocolViolation;
                return self.break_off(connection, code, refusal, why, now);
            }
        };
        let message = Message {
            topic,
            payload: publish.payload,
            qos: publish.delivery.qos(),
            retain: publish.retain,
            expiry_s: capped_expiry(publish.message_expiry_s, &self.rules.limits),
            properties: publish.properties,
            sequence: None,
        };
        if message.retain && !self.rules.limits.retained {
            let why = "retained messages are switched off (limits.retained) [MQTT-3.2.2-14]";
            return self.break_off(
                connection,
                ReasonCode::RetainNotSupported,
                Refusal::RetainNotSupported,
                why,
                now,
            );
        }
        match publish.delivery {
            Delivery::AtMostOnce => {
                if self.check(connection, session, &message, now).is_ok() {
                    self.take(message, session, Waiter::Nobody, now);
                }
            }
            Delivery::AtLeastOnce(packet_id) => {
                self.take_acknowledged(connection, session, message, packet_id, now);
            }
            Delivery::ExactlyOnce(packet_id) => {
                if !self.is_duplicate(connection, session, packet_id) {
                    self.take_acknowledged(connection, session, message, packet_id, now);
                }
            }
        }
    }

    /// PUBREL: the identifier is free again [MQTT-4.3.3-11].
    pub(super) fn released(&mut self, connection: ConnectionId, session: SessionId, ack: &Ack) {
        let Some(state) = self.sessions.get_mut(session.0) else {
            return;
        };
        let known = state.inbox().release(ack.packet_id);
        state.shrink();
        if known {
            self.record_freed(session, ack.packet_id);
        }
        let reason = if known {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdNotFound
        };
        // Once the client uses the identifier anew, we must not take that for a duplicate.
        let answer = Packet::PubComp(Ack::new(ack.packet_id, reason));
        self.send_when_stored(connection, session, answer);
    }

    /// The keeper has answered for a message.
    pub(crate) fn handle_kept(&mut self, ticket: Ticket, kept: Kept, now: Instant) {
        let Some(pending) = self.pending.get_mut(&ticket) else {
            return;
        };
        pending.awaits_keeper = false;
        if kept == Kept::Refused {
            return self.end_wait(ticket, kept, now);
        }
        if let Some((publication, origin)) = pending.deferred.take()
            && let Waiter::Client { session, packet_id } = pending.waiter
        {
            let waiter = Waiter::Client { session, packet_id };
            let (_, gate) = self.take_in(&publication, &origin, &waiter, now);
            if let Some(gate) = gate {
                self.gate_ticket(ticket, gate);
            }
        }
        self.end_wait_if_over(ticket, now);
    }

    /// Our own disk has what a message changed.
    pub(super) fn ticket_is_committed(&mut self, ticket: Ticket, now: Instant) {
        if let Some(pending) = self.pending.get_mut(&ticket) {
            pending.awaits_commit = false;
            self.end_wait_if_over(ticket, now);
        }
    }

    fn gate_ticket(&mut self, ticket: Ticket, gate: u64) {
        if let Some(pending) = self.pending.get_mut(&ticket) {
            pending.awaits_commit = true;
            self.gate_at(gate, Gated::Ticket(ticket));
        }
    }

    fn end_wait_if_over(&mut self, ticket: Ticket, now: Instant) {
        let is_over = |pending: &Pending| !pending.awaits_keeper && !pending.awaits_commit;
        if self.pending.get(&ticket).is_some_and(is_over) {
            self.end_wait(ticket, Kept::Committed, now);
        }
    }

    fn end_wait(&mut self, ticket: Ticket, kept: Kept, now: Instant) {
        let Some(pending) = self.pending.remove(&ticket) else {
            return;
        };
        match pending.waiter {
            Waiter::Client { session, packet_id } => {
                self.settle(session, packet_id, ticket, kept, now)
            }
            Waiter::Local => self.outputs.push_back(Output::Settled { ticket, kept }),
            Waiter::Nobody => {}
        }
    }

    /// Checks, takes and acknowledges a QoS 1 or 2 message.
    fn take_acknowledged(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        message: Message,
        packet_id: PacketId,
        now: Instant,
    ) {
        if !self.within_receive_maximum(connection, session, message.qos, now) {
            return;
        }
        let qos = message.qos;
        let checked = match self.refuse_while_unread(connection, now) {
            Some(reason) => Err(reason),
            None => self.check(connection, session, &message, now),
        };
        let verdict = match checked {
            Ok(()) => {
                if qos == QoS::ExactlyOnce
                    && let Some(session) = self.sessions.get_mut(session.0)
                {
                    session.inbox().received.insert(packet_id);
                }
                self.take(message, session, Waiter::Client { session, packet_id }, now)
            }
            Err(reason) => Verdict::Settled(reason),
        };
        self.acknowledge(
            connection,
            session,
            HeldAck {
                packet_id,
                qos,
                verdict,
                heard: true,
            },
        );
    }

    /// Routes a message and hands it to the keeper, if that wants it.
    fn take(
        &mut self,
        message: Message,
        session: SessionId,
        waiter: Waiter,
        now: Instant,
    ) -> Verdict {
        let Some(publisher) = self.sessions.get(session.0) else {
            return Verdict::Settled(ReasonCode::UnspecifiedError);
        };
        let identity = Some(Arc::clone(&publisher.identity));
        let origin = Origin {
            session: Some(session),
            identity,
        };
        let publication = self.publication(message, origin.identity.clone(), now);
        self.publish(publication, origin, waiter, now)
    }

    /// The one path of every message: keeper, retained, subscribers.
    pub(super) fn publish(
        &mut self,
        publication: Arc<Publication>,
        origin: Origin,
        waiter: Waiter,
        now: Instant,
    ) -> Verdict {
        let wanted = self
            .keeper
            .as_ref()
            .is_some_and(|keeper| keeper.wants(&publication.message.topic));
        let qos = publication.message.qos;
        let defers = wanted && qos == QoS::ExactlyOnce && matches!(waiter, Waiter::Client { .. });
        let (reached, gate) = match defers {
            true => (0, None),
            false => self.take_in(&publication, &origin, &waiter, now),
        };
        if !wanted && (gate.is_none() || qos == QoS::AtMostOnce) {
            return Verdict::Settled(match reached {
                0 => ReasonCode::NoMatchingSubscribers,
                _ => ReasonCode::Success,
            });
        }
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        if !matches!(waiter, Waiter::Nobody) {
            let pending = Pending {
                waiter,
                awaits_keeper: wanted,
                awaits_commit: false,
                deferred: defers.then(|| (Arc::clone(&publication), origin)),
                _charge: self.meter.charge(PENDING_BYTES),
            };
            self.pending.insert(ticket, pending);
        }
        if let Some(gate) = gate {
            self.gate_ticket(ticket, gate);
        }
        if wanted {
            self.outputs.push_back(Output::Keep {
                ticket,
                publication,
            });
        }
        Verdict::Awaits(ticket)
    }

    /// Routes a message, and enters its QoS 2 identifier with it: says how many sessions it
    /// reached, and what must be on disk before its publisher may forget it.
    fn take_in(
        &mut self,
        publication: &Arc<Publication>,
        origin: &Origin,
        waiter: &Waiter,
        now: Instant,
    ) -> (usize, Option<u64>) {
        let before = self.journal.recorded();
        let reached = self.route(publication, origin, now);
        if publication.message.qos == QoS::ExactlyOnce {
            self.record_taken(waiter);
        }
        let changed = self.journal.recorded() > before;
        (reached, self.journal.gate().filter(|_| changed))
    }

    /// Retains a message where asked to, and delivers it; says how many sessions it reached.
    fn route(&mut self, publication: &Arc<Publication>, origin: &Origin, now: Instant) -> usize {
        if publication.message.retain {
            let retained = Retained {
                publication: Arc::clone(publication),
                publisher: origin.identity.clone(),
            };
            let grows = origin.identity.is_none() || self.refuses_from(Pressure::Growth).is_none();
            if self
                .retained
                .set(retained, &self.rules.limits, grows, now, &mut self.journal)
                .is_err()
            {
                let who = origin
                    .session
                    .map(|session| self.who_is(session))
                    .unwrap_or_default();
                let topic = publication.message.topic.clone();
                let why =
                    "delivered but not retained (limits.retained_messages, retained_bytes, memory)";
                self.refuse(
                    who,
                    Refusal::RetainedFull,
                    Some(topic.as_str()),
                    why.to_owned(),
                );
            }
        }
        self.fan_out(publication, origin.session, now)
    }

    /// Whether the client may publish this; the reason to answer if not.
    fn check(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        message: &Message,
        now: Instant,
    ) -> Result<(), ReasonCode> {
        let topic = message.topic.as_str();
        if !self.topic_fits(topic) {
            let why =
                "the topic is too long or too deep (limits.topic_length, topic_levels)".to_owned();
            let who = self.who(connection);
            self.refuse(who, Refusal::TopicLimit, Some(topic), why);
            return Err(ReasonCode::TopicNameInvalid);
        }
        let session = self.sessions.get(session.0);
        let may = session.is_some_and(|session| session.permissions.may_publish(&message.topic));
        let properties = message.properties.as_deref();
        let (code, refusal, why) = if !may {
            let why = "no access rule lets this client publish here";
            (ReasonCode::NotAuthorized, Refusal::Publish, why)
        } else if properties.is_some_and(|p| !user_properties_fit(p, &self.rules.limits)) {
            let why = "too many user properties (limits.user_properties, user_property_bytes)";
            (ReasonCode::QuotaExceeded, Refusal::UserProperties, why)
        } else if message.qos > QoS::AtMostOnce
            && let Some(why) = self.refuses_from(Pressure::Keeping)
        {
            (ReasonCode::QuotaExceeded, Refusal::Memory, why)
        } else if self.refuses_to_retain(connection, message, now) {
            let why = "no room to retain it (limits.retained_messages, retained_bytes, memory)";
            (ReasonCode::QuotaExceeded, Refusal::RetainedFull, why)
        } else if !self.payload_is_as_said(properties, &message.payload) {
            let why = "said to be text, and is not (protocol.validate_payload_format)";
            (
                ReasonCode::PayloadFormatInvalid,
                Refusal::PayloadFormat,
                why,
            )
        } else {
            return Ok(());
        };
        let who = self.who(connection);
        self.refuse(who, refusal, Some(topic), why.to_owned());
        Err(code)
    }

    /// Whether a message to be retained is refused because it cannot be: only where its publisher
    /// can be told so, others' are at least delivered.
    fn refuses_to_retain(
        &mut self,
        connection: ConnectionId,
        message: &Message,
        now: Instant,
    ) -> bool {
        let version = self.links.get(connection.0).map(|link| link.terms.version);
        if !message.retain
            || message.payload.is_empty()
            || message.qos == QoS::AtMostOnce
            || version != Some(Version::V5)
        {
            return false;
        }
        let grows = self.refuses_from(Pressure::Growth).is_none();
        let (limits, size) = (&self.rules.limits, publication::size(message));
        let journal = &mut self.journal;
        !self
            .retained
            .takes(&message.topic, size, limits, grows, now, journal)
    }

    /// Answers a repetition as the first time, without routing it again.
    fn is_duplicate(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        packet_id: PacketId,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(session.0) else {
            return true;
        };
        let Some(inbox) = session
            .pending_inbox()
            .filter(|inbox| inbox.received.contains(&packet_id))
        else {
            return false;
        };
        let held = inbox
            .acks
            .iter_mut()
            .find(|ack| ack.packet_id == packet_id && ack.qos == QoS::ExactlyOnce);
        if let Some(held) = held {
            held.heard = true;
        } else {
            self.send(connection, Packet::PubRec(Ack::success(packet_id)));
        }
        true
    }

    fn within_receive_maximum(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        qos: QoS,
        now: Instant,
    ) -> bool {
        let Some(inbox) = self
            .sessions
            .get_mut(session.0)
            .and_then(|session| session.pending_inbox())
        else {
            return true;
        };
        let in_flight = usize::from(self.rules.limits.in_flight);
        let version = self.links.get(connection.0).map(|link| link.terms.version);
        let (count, maximum) = match version {
            Some(Version::V5) => (inbox.outstanding(), in_flight),
            // Held acknowledgements stop the reading of a 3.1.1 client, see `accepts`.
            _ if qos == QoS::ExactlyOnce => (inbox.received.len(), HALF_OPEN_V3_MAX.max(in_flight)),
            _ => return true,
        };
        if count < maximum {
            return true;
        }
        let why = "more unacknowledged messages than the receive maximum [MQTT-3.3.4-7]";
        self.break_off(
            connection,
            ReasonCode::ReceiveMaximumExceeded,
            Refusal::ReceiveMaximum,
            why,
            now,
        );
        false
    }

    /// Sends an acknowledgement, or puts it behind those that wait.
    fn acknowledge(&mut self, connection: ConnectionId, session: SessionId, ack: HeldAck) {
        let Some(state) = self.sessions.get_mut(session.0) else {
            return;
        };
        let waits = matches!(ack.verdict, Verdict::Awaits(_))
            || state
                .pending_inbox()
                .is_some_and(|inbox| !inbox.acks.is_empty());
        if waits {
            state.inbox().acks.push_back(ack);
        } else {
            self.send_ack(connection, &ack);
        }
    }

    fn send_ack(&mut self, connection: ConnectionId, ack: &HeldAck) {
        let Verdict::Settled(reason) = ack.verdict else {
            return;
        };
        let answer = Ack {
            details: why_refused(reason).map(|why| Details::because(Text::lossy(why))),
            ..Ack::new(ack.packet_id, reason)
        };
        let packet = match ack.qos {
            QoS::ExactlyOnce => Packet::PubRec(answer),
            QoS::AtMostOnce | QoS::AtLeastOnce => Packet::PubAck(answer),
        };
        self.send(connection, packet);
    }

    /// Enters the keeper's answer and lets go of every acknowledgement that is no longer held.
    fn settle(
        &mut self,
        session: SessionId,
        packet_id: PacketId,
        ticket: Ticket,
        kept: Kept,
        now: Instant,
    ) {
        if kept == Kept::Refused {
            let who = self.who_is(session);
            self.refuse(
                who,
                Refusal::NotKept,
                None,
                format!("packet {packet_id} could not be kept"),
            );
        }
        let Some(state) = self.sessions.get_mut(session.0) else {
            return;
        };
        let connection = match state.link {
            crate::session::Link::Connected(connection) => Some(connection),
            _ => None,
        };
        let version = connection
            .and_then(|c| self.links.get(c.0))
            .map(|link| link.terms.version);
        let verdict = match (kept, version) {
            (Kept::Committed, _) => Verdict::Settled(ReasonCode::Success),
            (Kept::Refused, Some(Version::V5)) => Verdict::Settled(ReasonCode::QuotaExceeded),
            (Kept::Refused, _) => Verdict::Withheld,
        };
        let inbox = state.inbox();
        if let Some(ack) = inbox
            .acks
            .iter_mut()
            .find(|ack| ack.verdict == Verdict::Awaits(ticket))
        {
            ack.verdict = verdict;
        }
        self.release_acks(session, connection, now);
    }

    fn release_acks(&mut self, session: SessionId, connection: Option<ConnectionId>, now: Instant) {
        loop {
            let Some(state) = self.sessions.get_mut(session.0) else {
                return;
            };
            let Some(ack) = state.pending_inbox().and_then(|inbox| inbox.pop_ready()) else {
                state.shrink();
                return;
            };
            let Some(connection) = connection.filter(|_| ack.heard) else {
                continue;
            };
            if ack.verdict == Verdict::Withheld {
                let why = "a message could not be kept; it is to be sent again";
                return self.disconnect(connection, ReasonCode::QuotaExceeded, why, now);
            }
            self.send_ack(connection, &ack);
        }
    }

    /// Refuses to go on with a client that broke an agreement.
    pub(super) fn break_off(
        &mut self,
        connection: ConnectionId,
        code: ReasonCode,
        refusal: Refusal,
        why: &str,
        now: Instant,
    ) {
        let who = self.who(connection);
        self.refuse(who, refusal, None, why.to_owned());
        self.disconnect(connection, code, why, now);
    }
}

/// What the client is told beside the reason code, where there is more to say.
fn why_refused(reason: ReasonCode) -> Option<&'static str> {
    Some(match reason {
        ReasonCode::NotAuthorized => "no access rule lets this client publish here",
        ReasonCode::TopicNameInvalid => "the topic is longer or deeper than this broker takes",
        ReasonCode::PayloadFormatInvalid => "the payload is said to be UTF-8 and is not",
        ReasonCode::QuotaExceeded => "the message could not be kept; send it again later",
        _ => return None,
    })
}
