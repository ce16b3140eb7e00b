//! From an accepted CONNECT to a served session: found or made, stored if it is to last, agreed.
//!
//! Core. Invariant: at most one connection serves a session, and CONNACK leaves when the session
//! that it tells of is on disk.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::{Identity, Permissions, fill_in},
    broker::{ConnectionId, Core, Gated, Output, SessionId, Timer, link::Link},
    config::Limits,
    observe::audit::{Event, Refusal},
    packet::{ConnAck, ConnAckProperties, Connect, Packet, ReasonCode, Text, Version},
    session::{self, Session, Will},
};

/// A CONNECT that is accepted, and what it gets.
#[derive(Debug)]
pub(super) struct Welcome {
    connection: ConnectionId,
    session: SessionId,
    connect: Box<Connect>,
    assigned: Option<Text>,
    present: bool,
}

impl Core {
    pub(super) fn welcome(
        &mut self,
        connection: ConnectionId,
        connect: Box<Connect>,
        identity: Identity,
        permissions: Permissions,
        now: Instant,
    ) {
        let assigned = connect
            .client_id
            .is_empty()
            .then(|| Text::lossy(&identity.client));
        let before = self.journal.recorded();
        let (session, present) = self.claim(&connect, identity, permissions, now);
        if let Some(will) = &connect.will {
            self.record_announced_will(session, will);
        }
        let begun = self.sessions.get(session.0).map_or(0, |state| state.begun);
        let gate = match self.journal.recorded() {
            recorded if recorded > before && !self.journal.is_failing() => recorded,
            // A session that is on disk goes on without it; its will is stored when that is back.
            _ => begun,
        };
        let welcome = Welcome {
            connection,
            session,
            connect,
            assigned,
            present,
        };
        if self.journal.is_committed(gate) {
            return self.enter(welcome, now);
        }
        if let Some(link) = self.links.get_mut(connection.0) {
            link.waits = true;
            self.gate_at(gate, Gated::Welcome(Box::new(welcome)));
        }
    }

    /// Joins a connection with its session, which is on disk if it is to be.
    pub(super) fn enter(&mut self, welcome: Welcome, now: Instant) {
        let Welcome {
            connection,
            session,
            connect,
            assigned,
            present,
        } = welcome;
        let is_there = |link: &&mut Link| !link.is_closing();
        let Some(link) = self.links.get_mut(connection.0).filter(is_there) else {
            return self.abandon(session, connect.will.is_some(), now);
        };
        link.waits = false;
        let connect = &connect;
        // Another connection may have come for it meanwhile.
        let taken_over = self.take_over(session, now);
        if self.sessions.get(session.0).is_none() {
            return self.close(connection);
        }
        let called_off = self.call_off_end(session);
        self.agree(session, connection, connect);
        if (taken_over || called_off) && connect.will.is_some() {
            self.record_will(session);
        }
        if let Some(link) = self.links.get_mut(connection.0) {
            link.serve(session);
            let due = link.gone_at();
            self.arm(connection, due);
            self.client_came();
        }
        let properties = match connect.version {
            Version::V3 => ConnAckProperties::default(),
            Version::V5 => ConnAckProperties {
                authentication: self.last_step(connection),
                ..self.offer(session, connect, assigned)
            },
        };
        let answer = ConnAck {
            session_present: present,
            reason: ReasonCode::Success,
            properties,
        };
        let answer = Packet::ConnAck(Box::new(answer));
        let is_taken = |link: &mut Link| link.takes(&answer, 0);
        if !self.links.get_mut(connection.0).is_some_and(is_taken) {
            let (who, why) = (
                self.who(connection),
                "CONNACK is larger than the client takes",
            );
            self.refuse(who, Refusal::PacketTooLarge, None, why.to_owned());
            return self.detach(connection, why, now);
        }
        self.send(connection, answer);
        let (who, version) = (self.who(connection), level(connect.version));
        self.outputs.push_back(Output::Tell(Event::Connected {
            who,
            version,
            resumed: present,
        }));
        self.watch_sys_again(session, now);
        self.pump(session, now);
    }

    /// The client did not wait for its CONNACK.
    fn abandon(&mut self, id: SessionId, had_will: bool, now: Instant) {
        if had_will {
            self.record_will(id);
        }
        let Some(session) = self.sessions.get_mut(id.0) else {
            return;
        };
        if session.link != session::Link::Absent || session.expires_at.is_some() {
            return;
        }
        if session.is_transient() {
            return self.end_session(id, now);
        }
        let expires_at = now.checked_add(session.expiry);
        session.expires_at = expires_at;
        self.record_expiry(id);
        self.set_timer(None, expires_at, Timer::Expiry(id));
    }

    /// Finds or makes the session [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6]; an earlier
    /// connection of it is closed first [MQTT-3.1.4-3].
    fn claim(
        &mut self,
        connect: &Connect,
        identity: Identity,
        permissions: Permissions,
        now: Instant,
    ) -> (SessionId, bool) {
        let before = self.journal.recorded();
        let expiry = self.granted_expiry(connect);
        if let Some(existing) = self.by_client.get(identity.client.as_str()).copied() {
            self.take_over(existing, now);
            if connect.clean_start {
                self.end_session(existing, now);
            }
        }
        let permissions = self.shared_permissions(permissions);
        if let Some(existing) = self.by_client.get(identity.client.as_str()).copied() {
            self.resume(existing, identity, permissions);
            self.set_expiry(existing, expiry);
            return (existing, true);
        }
        let client: Arc<str> = identity.client.as_str().into();
        let session = Session::new(
            Arc::new(identity),
            permissions,
            session::Link::Absent,
            &self.meter,
        );
        let session = SessionId(self.sessions.insert(session));
        self.by_client.insert(client, session);
        self.set_expiry(session, expiry);
        let recorded = self.journal.recorded();
        if recorded > before
            && let Some(session) = self.sessions.get_mut(session.0)
        {
            session.begun = recorded;
        }
        (session, false)
    }

    /// Ends the connection that serves a session; tells whether there was one.
    fn take_over(&mut self, existing: SessionId, now: Instant) -> bool {
        let session = self.sessions.get(existing.0);
        let Some(session::Link::Connected(old)) = session.map(|session| session.link) else {
            return false;
        };
        self.disconnect(
            old,
            ReasonCode::SessionTakenOver,
            "the client connected again",
            now,
        );
        true
    }

    /// A known session goes on, without the subscriptions that the rules no longer allow.
    fn resume(&mut self, existing: SessionId, identity: Identity, permissions: Arc<Permissions>) {
        let Some(session) = self.sessions.get_mut(existing.0) else {
            return;
        };
        session.identity = Arc::new(identity);
        session.permissions = permissions;
        session.weigh();
        self.call_off_end(existing);
        self.drop_forbidden_subscriptions(existing);
    }

    /// The client is back: neither the will [MQTT-3.1.3-9] nor the end that its last connection
    /// set in motion comes. Tells whether there was a will.
    fn call_off_end(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(id.0) else {
            return false;
        };
        let had_will = session.will.take().is_some();
        let (will_at, expires_at) = (session.will_at.take(), session.expires_at.take());
        self.set_timer(will_at, None, Timer::Will(id));
        self.set_timer(expires_at, None, Timer::Expiry(id));
        if had_will {
            self.record_will(id);
        }
        if expires_at.is_some() {
            // A crash from now on must find a session that was connected.
            self.record_expiry(id);
        }
        had_will
    }

    /// Applies what CONNECT says about the session.
    fn agree(&mut self, session: SessionId, connection: ConnectionId, connect: &Connect) {
        let wished = connect
            .properties
            .receive_maximum
            .map_or(u16::MAX, NonZeroU16::get);
        let window = wished.min(self.rules.limits.in_flight);
        let Some(session) = self.sessions.get_mut(session.0) else {
            return;
        };
        session.link = session::Link::Connected(connection);
        session.window = window;
        let limits = &self.rules.limits;
        let will = connect.will.as_ref();
        session.leave_will(will.map(|will| Will::of(will, limits)));
    }

    /// How long the session outlives its connection: what the client asks for, up to our maximum.
    /// In 3.1.1 a session that is not clean lasts for that maximum.
    pub(super) fn granted_expiry(&self, connect: &Connect) -> Duration {
        let maximum = self.rules.limits.session_expiry.as_duration();
        match connect.version {
            Version::V3 if connect.clean_start => Duration::ZERO,
            Version::V3 => maximum,
            Version::V5 => {
                Duration::from_secs(connect.properties.session_expiry_s.unwrap_or(0).into())
                    .min(maximum)
            }
        }
    }

    /// What CONNACK tells a 5.0 client: only what differs from its wish or the standard's default.
    fn offer(
        &self,
        session: SessionId,
        connect: &Connect,
        assigned: Option<Text>,
    ) -> ConnAckProperties {
        let limits = &self.rules.limits;
        let wished = connect.properties.session_expiry_s.unwrap_or(0);
        let granted = u32::try_from(self.granted_expiry(connect).as_secs()).unwrap_or(u32::MAX);
        let keep_alive = whole_seconds(limits.keep_alive.as_duration());
        let shorter = connect.keep_alive_s == 0 || connect.keep_alive_s > keep_alive;
        ConnAckProperties {
            session_expiry_s: (granted != wished).then_some(granted),
            receive_maximum: NonZeroU16::new(limits.in_flight),
            maximum_packet_size: u32::try_from(limits.packet_size.as_bytes())
                .ok()
                .and_then(NonZeroU32::new),
            assigned_client_id: assigned,
            retain_available: (!limits.retained).then_some(false),
            topic_alias_maximum: (limits.topic_aliases > 0).then_some(limits.topic_aliases),
            server_keep_alive_s: shorter.then_some(keep_alive),
            response_information: self.response_information(session, connect),
            ..ConnAckProperties::default()
        }
    }

    /// Where answers may be expected, for a client that asks [MQTT-3.1.2-28].
    fn response_information(&self, session: SessionId, connect: &Connect) -> Option<Text> {
        let asked = connect.properties.request_response_information == Some(true);
        let pattern = self
            .rules
            .protocol
            .response_topics
            .as_ref()
            .filter(|_| asked)?;
        let identity = &self.sessions.get(session.0)?.identity;
        Some(Text::lossy(fill_in(&pattern.0, identity)?.as_str()))
    }
}

/// How long a client's message lives: as long as it says, up to our maximum.
pub(super) fn capped_expiry(asked_s: Option<u32>, limits: &Limits) -> Option<u32> {
    let Some(maximum) = limits.message_expiry else {
        return asked_s;
    };
    let maximum_s = u32::try_from(maximum.as_duration().as_secs()).unwrap_or(u32::MAX);
    Some(asked_s.map_or(maximum_s, |asked_s| asked_s.min(maximum_s)))
}

fn whole_seconds(period: Duration) -> u16 {
    u16::try_from(period.as_secs()).unwrap_or(u16::MAX)
}

pub(super) fn level(version: Version) -> u8 {
    match version {
        Version::V3 => 4,
        Version::V5 => 5,
    }
}
