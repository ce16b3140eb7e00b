//! Messages to subscribers: one copy each, within the client's window, in order.
//!
//! Core. Invariant: a consumer that does not keep up loses its own messages once its queue is
//! full, and delays nobody else's.

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;

use crate::{
    broker::{ConnectionId, Core, Gated, Output, SessionId, pressure::Pressure},
    observe::audit::Refusal,
    outbox::{Next, Queued, Receival, Stage},
    packet::{Ack, Delivery, Packet, PacketId, Publish, QoS, ReasonCode, Version},
    publication::{Outgoing, Publication},
    router::{Match, Router},
    session::{Link, Session},
};

impl Core {
    /// The bytes that wait for a connection; queued messages take their place.
    pub(crate) fn take_bytes(&mut self, connection: ConnectionId, now: Instant) -> BytesMut {
        let Some(link) = self.links.get_mut(connection.0) else {
            return BytesMut::new();
        };
        let bytes = link.take();
        self.counters.bytes_sent += bytes.len() as u64;
        if let Some(session) = link.session() {
            self.pump(session, now);
        }
        bytes
    }

    /// Delivers a message to every session it matches; says to how many.
    pub(super) fn fan_out(
        &mut self,
        publication: &Arc<Publication>,
        publisher: Option<SessionId>,
        now: Instant,
    ) -> usize {
        let mut matches = std::mem::take(&mut self.matches);
        self.find_subscribers(publication, &mut matches);
        matches.retain(|found| {
            !(found.subscriber.options.no_local && Some(found.subscriber.session) == publisher)
        });
        // Shared ones stay apart: each is a delivery of its own (MQTT 5, 4.8.2).
        matches.sort_by_key(|found| (found.subscriber.session, found.shared.is_some()));
        let mut reached = 0;
        let mut rest = matches.as_slice();
        while let Some(first) = rest.first() {
            let alike = |found: &&Match| {
                found.shared.is_none() && found.subscriber.session == first.subscriber.session
            };
            let count = if first.shared.is_some() {
                1
            } else {
                rest.iter().take_while(alike).count()
            };
            let (overlapping, others) = rest.split_at(count);
            self.deliver(
                first.subscriber.session,
                outgoing(publication, overlapping),
                now,
            );
            reached += 1;
            rest = others;
        }
        matches.clear();
        self.matches = matches;
        reached
    }

    /// Sends a message if nothing stands before it, else queues it.
    pub(super) fn deliver(&mut self, id: SessionId, mut outgoing: Outgoing, now: Instant) {
        let Some(session) = self.sessions.get_mut(id.0) else {
            return;
        };
        if outgoing.publication.is_late(now) {
            return;
        }
        if !session
            .permissions
            .may_receive(&outgoing.publication.message.topic)
        {
            return self.withhold(id, &outgoing);
        }
        // Its identifier must be on disk before it leaves, see `Outbox::start`.
        let waits = session.key.is_some() && outgoing.qos == QoS::ExactlyOnce;
        // What waits for a disk that fails must not hold up what needs none.
        let passes = outgoing.qos == QoS::AtMostOnce && self.journal.is_failing();
        if let Link::Connected(connection) = session.link
            && let Some(link) = self.links.get_mut(connection.0)
            && link.has_room()
            && (passes || !waits && is_open(session, outgoing.qos))
        {
            self.counters.delivered += 1;
            let packet_id = match outgoing.qos {
                QoS::AtMostOnce => None,
                _ => {
                    self.journal.queued(session.key, &mut outgoing);
                    let outbox = session.outbox();
                    Some(outbox.start(outgoing.clone(), &mut self.journal))
                }
            };
            if !self.transmit(id, connection, &outgoing, packet_id, false, now) {
                // Space in the window again; what is queued behind may go.
                self.pump(id, now);
            }
            return;
        }
        self.enqueue(id, outgoing);
        if waits {
            self.pump(id, now);
        }
    }

    /// Sends what the window and the connection's buffer allow.
    pub(super) fn pump(&mut self, id: SessionId, now: Instant) {
        while let Some(session) = self.sessions.get_mut(id.0)
            && let Link::Connected(connection) = session.link
            && self
                .links
                .get(connection.0)
                .is_some_and(|link| link.has_room())
        {
            let window = session.window;
            let journal = &mut self.journal;
            let outbox = session.pending_outbox();
            let next = outbox.and_then(|outbox| outbox.next(window, now, journal));
            let Some(next) = next else {
                let outbox = session.pending_outbox();
                let gate = outbox.and_then(|outbox| outbox.gate(&self.journal));
                session.shrink();
                if let Some(gate) = gate {
                    self.gate_at(gate, Gated::Outbox(id));
                }
                return;
            };
            let allowed = |outgoing: &Outgoing| {
                session
                    .permissions
                    .may_receive(&outgoing.publication.message.topic)
            };
            match next {
                Next::Release(packet_id) => {
                    self.send(connection, Packet::PubRel(Ack::success(packet_id)))
                }
                Next::Once(outgoing) if allowed(&outgoing) => {
                    self.counters.delivered += 1;
                    self.transmit(id, connection, &outgoing, None, false, now);
                }
                Next::Publish {
                    packet_id,
                    outgoing,
                    dup,
                } if allowed(&outgoing) => {
                    self.counters.delivered += u64::from(!dup);
                    self.transmit(id, connection, &outgoing, Some(packet_id), dup, now);
                }
                Next::Publish {
                    packet_id,
                    outgoing,
                    ..
                } => {
                    let outbox = session.outbox();
                    outbox.complete(packet_id, |_| true, &mut self.journal);
                    self.withhold(id, &outgoing);
                }
                Next::Once(outgoing) => self.withhold(id, &outgoing),
            }
        }
    }

    /// Does not deliver what was subscribed to, and may no longer be read.
    fn withhold(&mut self, id: SessionId, outgoing: &Outgoing) {
        let who = self.who_is(id);
        let topic = outgoing.publication.message.topic.as_str();
        let why = "no access rule lets this client read it any more";
        self.refuse(who, Refusal::Delivery, Some(topic), why.to_owned());
    }

    /// PUBACK.
    pub(super) fn acknowledged(&mut self, session: SessionId, ack: &Ack, now: Instant) {
        self.complete(
            session,
            ack.packet_id,
            now,
            |stage| matches!(stage, Stage::Published(outgoing) if outgoing.qos == QoS::AtLeastOnce),
        );
    }

    /// PUBREC: answered with PUBREL, unless the client refuses the message.
    pub(super) fn received(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        ack: &Ack,
        now: Instant,
    ) {
        if ack.reason.is_failure() {
            return self.complete(session, ack.packet_id, now, |stage| {
                matches!(stage, Stage::Published(outgoing) if outgoing.qos == QoS::ExactlyOnce)
            });
        }
        let outbox = self
            .sessions
            .get_mut(session.0)
            .and_then(|session| session.pending_outbox());
        let journal = &mut self.journal;
        let receival = outbox.map_or(Receival::Unknown, |outbox| {
            outbox.received(ack.packet_id, journal)
        });
        if receival == Receival::ReleaseLater {
            return self.pump(session, now);
        }
        let known = receival == Receival::Release;
        let v3 = self
            .links
            .get(connection.0)
            .is_some_and(|link| link.terms.version == Version::V3);
        // 3.1.1 has no other answer than PUBREL [MQTT-4.3.3-1].
        let reason = if known || v3 {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdNotFound
        };
        self.send(connection, Packet::PubRel(Ack::new(ack.packet_id, reason)));
    }

    /// PUBCOMP.
    pub(super) fn completed(&mut self, session: SessionId, ack: &Ack, now: Instant) {
        self.complete(session, ack.packet_id, now, |stage| {
            matches!(stage, Stage::Received(_))
        });
    }

    /// Hands the messages that a shared subscription's leaving member did not acknowledge to
    /// another one (MQTT 5, 4.8.2), unless their time has passed [MQTT-3.3.2-5].
    pub(super) fn hand_over(&mut self, orphans: impl Iterator<Item = Outgoing>, now: Instant) {
        for orphan in orphans.filter(|orphan| !orphan.publication.is_expired(now)) {
            let Some(filter) = orphan.shared.clone() else {
                continue;
            };
            let sessions = &self.sessions;
            let chosen = self
                .router
                .choose(&filter, &|id| is_connected(sessions.get(id.0)));
            if let Some(heir) = chosen {
                let found = [Match {
                    subscriber: heir,
                    shared: Some(filter),
                }];
                self.deliver(heir.session, outgoing(&orphan.publication, &found), now);
            }
        }
    }

    fn complete(
        &mut self,
        id: SessionId,
        packet_id: PacketId,
        now: Instant,
        expected: fn(&Stage) -> bool,
    ) {
        let outbox = self
            .sessions
            .get_mut(id.0)
            .and_then(|session| session.pending_outbox());
        let journal = &mut self.journal;
        if outbox.is_some_and(|outbox| outbox.complete(packet_id, expected, journal)) {
            self.pump(id, now);
        }
    }

    fn find_subscribers(&mut self, publication: &Publication, matches: &mut Vec<Match>) {
        let sessions = &self.sessions;
        let router: &mut Router = &mut self.router;
        let connected = |id: SessionId| is_connected(sessions.get(id.0));
        router.matches(&publication.message.topic, &connected, matches);
    }

    /// Queues a message for a session that is busy or away; at QoS 0 only for one that is there,
    /// unless absent ones are to get them too.
    fn enqueue(&mut self, id: SessionId, outgoing: Outgoing) {
        let needs = match outgoing.qos {
            QoS::AtMostOnce => Pressure::Queueing,
            _ => Pressure::Everything,
        };
        let refused = self.refuses_from(needs);
        let limits = &self.rules.limits;
        let Some(session) = self.sessions.get_mut(id.0) else {
            return;
        };
        let is_absent = session.link == Link::Absent;
        if outgoing.qos == QoS::AtMostOnce && is_absent && !limits.queue_qos0 {
            return;
        }
        let topic = outgoing.publication.message.topic.clone();
        let key = session.key;
        let queued = match refused {
            Some(_) => Queued::Dropped,
            None => session
                .outbox()
                .push(outgoing, limits, key, &mut self.journal),
        };
        if queued != Queued::Dropped && session.link == Link::Local {
            self.outputs.push_back(Output::Ready(id));
        }
        let lost = match queued {
            Queued::Whole => return,
            Queued::InPlaceOf(lost) => lost,
            Queued::Dropped => 1,
        };
        session.dropped += lost;
        self.counters.dropped += lost;
        if std::mem::replace(&mut session.overflowing, true) {
            // Told once until the queue was empty again: this may be every message.
            self.refused[Refusal::QueueFull as usize] += lost;
            return;
        }
        let who = self.who_is(id);
        let why = refused.unwrap_or(match queued {
            Queued::Dropped => {
                "the queue is full (limits.queued_messages, queued_bytes); the message is lost to it"
            }
            _ => "the queue is full (limits.queued_messages, queued_bytes); older messages are lost to it",
        });
        self.refused[Refusal::QueueFull as usize] += lost - 1;
        self.refuse(
            who,
            Refusal::QueueFull,
            Some(topic.as_str()),
            why.to_owned(),
        );
    }

    /// Encodes one message; false when it is too large for the client and so counts as delivered
    /// [MQTT-3.1.2-25].
    fn transmit(
        &mut self,
        session: SessionId,
        connection: ConnectionId,
        outgoing: &Outgoing,
        packet_id: Option<PacketId>,
        dup: bool,
        now: Instant,
    ) -> bool {
        let Some(link) = self.links.get_mut(connection.0) else {
            return true;
        };
        let sent = link.send_publish(publish(outgoing, packet_id, dup, link.terms.version, now));
        if sent == Some(true) {
            self.outputs.push_back(Output::Flush(connection));
        }
        if sent.is_some() {
            let len = outgoing.publication.message.payload.len();
            link.traffic(now).send(len, now);
            self.counters.packets_sent += 1;
            self.counters.payload_sent += len as u64;
        }
        if sent.is_none() {
            let who = self.who(connection);
            let topic = outgoing.publication.message.topic.as_str();
            let why = "larger than the client's maximum packet size".to_owned();
            self.refuse(who, Refusal::PacketTooLarge, Some(topic), why);
            if let Some(packet_id) = packet_id
                && let Some(state) = self.sessions.get_mut(session.0)
            {
                let outbox = state.outbox();
                outbox.complete(packet_id, |_| true, &mut self.journal);
            }
        }
        sent.is_some()
    }
}

fn is_connected(session: Option<&Session>) -> bool {
    session.is_some_and(|session| session.link != Link::Absent)
}

fn is_open(session: &mut Session, qos: QoS) -> bool {
    let window = session.window;
    session
        .pending_outbox()
        .is_none_or(|outbox| outbox.is_open(qos, window))
}

/// One copy for all the subscriptions of a session that match: with the highest of their QoS and
/// all of their identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3].
fn outgoing(publication: &Arc<Publication>, matches: &[Match]) -> Outgoing {
    let options = || matches.iter().map(|found| found.subscriber.options);
    let granted = options()
        .map(|options| options.qos)
        .max()
        .unwrap_or(QoS::AtMostOnce);
    let as_published = options().any(|options| options.retain_as_published);
    Outgoing {
        qos: granted.min(publication.message.qos),
        retain: publication.message.retain && as_published,
        subscription_ids: matches
            .iter()
            .filter_map(|found| found.subscriber.id)
            .collect(),
        shared: matches.first().and_then(|found| found.shared.clone()),
        publication: Arc::clone(publication),
        record: None,
    }
}

fn publish(
    outgoing: &Outgoing,
    packet_id: Option<PacketId>,
    dup: bool,
    version: Version,
    now: Instant,
) -> Publish {
    let message = &outgoing.publication.message;
    let v5 = version == Version::V5;
    Publish {
        dup,
        retain: outgoing.retain,
        delivery: match (outgoing.qos, packet_id) {
            (QoS::AtLeastOnce, Some(id)) => Delivery::AtLeastOnce(id),
            (QoS::ExactlyOnce, Some(id)) => Delivery::ExactlyOnce(id),
            _ => Delivery::AtMostOnce,
        },
        topic: Some(message.topic.clone()),
        topic_alias: None,
        message_expiry_s: if v5 {
            outgoing.publication.remaining_s(now)
        } else {
            None
        },
        subscription_ids: if v5 {
            outgoing.subscription_ids.clone()
        } else {
            Vec::new()
        },
        properties: if v5 { message.properties.clone() } else { None },
        payload: message.payload.clone(),
    }
}
