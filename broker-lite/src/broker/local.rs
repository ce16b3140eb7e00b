//! Publishers and consumers in this process: the same path as a socket's, without packets.
//!
//! Core. Invariant: a local consumer's queue has the bounds of any other client's; one that does
//! not keep up loses messages and is counted.

use std::{sync::Arc, time::Instant};

use crate::{
    access::{Identity, Permissions},
    broker::{Core, Origin, SessionId, Ticket, Waiter},
    message::Message,
    packet::{QoS, SubscribeOptions, SubscribeRequest},
    publication::Outgoing,
    session::{Link, Session, Verdict},
    topic::{SubscriptionFilter, TopicFilter, TopicName},
};

impl Core {
    /// Makes a session for a publisher or consumer in this process. Clients over
    /// the network never meet it: it is found by its handle alone.
    pub(crate) fn open_local(&mut self, client_id: &str) -> SessionId {
        let identity = Identity {
            user: None,
            client: client_id.to_owned(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        let permissions = Arc::new(Permissions::unrestricted());
        SessionId(self.sessions.insert(Session::new(
            Arc::new(identity),
            permissions,
            Link::Local,
            &self.meter,
        )))
    }

    /// Ends a local session.
    pub(crate) fn close_local(&mut self, session: SessionId, now: Instant) {
        self.end_session(session, now);
    }

    /// Publishes; the ticket, if any, is settled when the keeper has answered.
    pub(crate) fn publish_local(
        &mut self,
        session: SessionId,
        message: Message,
        now: Instant,
    ) -> Option<Ticket> {
        self.note_event(now);
        self.counters.received += 1;
        self.counters.payload_received += message.payload.len() as u64;
        let origin = Origin {
            session: Some(session),
            identity: None,
        };
        let publisher = self.sessions.get(session.0);
        let publisher = publisher.map(|publisher| Arc::clone(&publisher.identity));
        let publication = self.publication(message, publisher, now);
        match self.publish(publication, origin, Waiter::Local, now) {
            Verdict::Awaits(ticket) => Some(ticket),
            Verdict::Settled(_) | Verdict::Withheld => None,
        }
    }

    /// Subscribes a local consumer.
    pub(crate) fn subscribe_local(
        &mut self,
        session: SessionId,
        filter: SubscriptionFilter,
        qos: QoS,
        now: Instant,
    ) {
        let request = SubscribeRequest {
            filter,
            options: SubscribeOptions::at(qos),
        };
        let is_new = self.add(session, &request, None);
        self.deliver_retained(session, &request, is_new, None, now);
    }

    /// The next message for a local consumer.
    pub(crate) fn take_delivery(&mut self, session: SessionId, now: Instant) -> Option<Outgoing> {
        let state = self.sessions.get_mut(session.0)?;
        let outbox = state.pending_outbox()?;
        loop {
            let Some(outgoing) = outbox.pop() else {
                state.shrink();
                return None;
            };
            if !outgoing.publication.is_expired(now) {
                self.counters.delivered += 1;
                return Some(outgoing);
            }
        }
    }

    /// Topics matching `filter` whose retained message was published within this process.
    pub(crate) fn retained_locally(&self, filter: &TopicFilter) -> Vec<TopicName> {
        self.retained.of_this_process(filter)
    }

    /// Messages that a local consumer lost because its queue was full.
    pub(crate) fn lost_locally(&self, session: SessionId) -> u64 {
        self.sessions
            .get(session.0)
            .map_or(0, |session| session.dropped)
    }
}
