//! Ends: of connections and of sessions.
//!
//! Core. Invariant: a session ends once, and nothing of it is left behind.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use crate::{
    broker::{ConnectionId, Core, Output, SessionId, Timer},
    login::bans::source_of,
    observe::audit::Event,
    packet::{Details, Disconnect, Packet, ReasonCode, Text, Version},
    session::Link,
};

impl Core {
    /// The socket is closed, by either side.
    pub(crate) fn handle_closed(&mut self, connection: ConnectionId, now: Instant) {
        self.detach(connection, "the connection was lost", now);
        self.note_pressure();
        let Some(link) = self.links.remove(connection.0) else {
            return;
        };
        self.set_timer(link.timer, None, Timer::Connection(connection));
        if link.stage.is_some() {
            self.checks.leave(source_of(&link.peer.address), connection);
        }
        self.set_timer(link.paused_until, None, Timer::Pause(connection));
        if let Some(address) = link.peer.address.ip() {
            self.arrivals.leave(address, now);
        }
        uncount(&mut self.by_listener, &link.peer.listener);
    }

    /// DISCONNECT from a client.
    pub(super) fn client_leaves(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        disconnect: &Disconnect,
        now: Instant,
    ) {
        let maximum = self.rules.limits.session_expiry.as_duration();
        let Some(state) = self.sessions.get_mut(session.0) else {
            return;
        };
        if let Some(expiry_s) = disconnect.session_expiry_s {
            if state.is_transient() && expiry_s > 0 {
                let rule = "a session that ends with its connection cannot be prolonged (MQTT 5, 3.14.2.2.2)";
                return self.violated(connection, rule, now);
            }
            let expiry = Duration::from_secs(expiry_s.into()).min(maximum);
            self.set_expiry(session, expiry);
        }
        let Some(state) = self.sessions.get_mut(session.0) else {
            return;
        };
        if disconnect.reason == ReasonCode::Success && state.will.take().is_some() {
            self.record_will(session);
        }
        self.detach(connection, disconnect.reason.text(), now);
        self.close(connection);
    }

    /// Ends a connection with a word to the client, where its version has one.
    pub(super) fn disconnect(
        &mut self,
        connection: ConnectionId,
        code: ReasonCode,
        why: &str,
        now: Instant,
    ) {
        let Some(link) = self.links.get(connection.0) else {
            return;
        };
        if link.session().is_some() && link.terms.version == Version::V5 {
            let details = link
                .terms
                .problem_information
                .then(|| Details::because(Text::lossy(why)));
            let disconnect = Disconnect {
                details,
                server_reference: self.reference(code),
                ..Disconnect::new(code)
            };
            self.send(connection, Packet::Disconnect(disconnect));
        }
        self.detach(connection, why, now);
        self.close(connection);
    }

    /// Has the driver close a connection once its bytes are written.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        if let Some(link) = self.links.get_mut(connection.0)
            && !link.is_closing()
        {
            link.close();
            self.arm(connection, None);
            self.outputs.push_back(Output::Close(connection));
        }
    }

    /// Parts a session from its connection: its will and its end are set in motion.
    pub(super) fn detach(&mut self, connection: ConnectionId, why: &str, now: Instant) {
        let Some(session) = self.links.get(connection.0).and_then(|link| link.session()) else {
            return;
        };
        let who = self.who(connection);
        self.outputs.push_back(Output::Tell(Event::Disconnected {
            who,
            reason: why.to_owned(),
        }));
        if let Some(link) = self.links.get_mut(connection.0) {
            link.close();
            self.connected -= 1;
            self.outputs.push_back(Output::Close(connection));
            self.arm(connection, None);
        }
        let Some(state) = self.sessions.get_mut(session.0) else {
            return;
        };
        let limits = &self.rules.limits;
        state.disconnected(limits.queue_qos0, limits.in_flight);
        if state.is_transient() {
            return self.end_session(session, now);
        }
        let expires_at = now.checked_add(state.expiry);
        let will_delay = state.will.as_ref().map(|will| will.delay);
        state.expires_at = expires_at;
        self.record_expiry(session);
        self.set_timer(None, expires_at, Timer::Expiry(session));
        match will_delay {
            Some(Duration::ZERO) => self.publish_will(session, now),
            Some(delay) => self.delay_will(session, now + delay),
            None => {}
        }
    }

    /// The session is over: its will is due now [MQTT-3.1.2-8], its messages are nobody's.
    pub(super) fn end_session(&mut self, session: SessionId, now: Instant) {
        self.publish_will(session, now);
        let Some(state) = self.sessions.get_mut(session.0) else {
            return;
        };
        for filter in std::mem::take(&mut state.subscriptions) {
            self.router.unsubscribe(&filter, session);
        }
        let orphans = state.pending_outbox().map(|outbox| outbox.shared());
        self.hand_over(orphans.into_iter().flatten(), now);
        self.forget(session);
        let Some(state) = self.sessions.remove(session.0) else {
            return;
        };
        if !state.is_transient() {
            self.lasting.ends(state.identity.user.as_deref());
        }
        self.by_client.remove(state.identity.client.as_str());
        self.set_timer(state.will_at, None, Timer::Will(session));
        self.set_timer(state.expires_at, None, Timer::Expiry(session));
    }

    pub(super) fn expiry_is_due(&mut self, session: SessionId, now: Instant) {
        if let Some(state) = self.sessions.get_mut(session.0) {
            state.expires_at = None;
            if state.link == Link::Absent {
                self.counters.sessions_expired += 1;
                self.end_session(session, now);
            }
        }
    }
}

fn uncount<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
