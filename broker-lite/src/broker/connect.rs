//! From an open connection to a session: who it is, which session it gets, what was agreed.
//!
//! Core. Invariant: at most one connection serves a session, and a session belongs to one user.

use std::{
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::{Identity, Permissions},
    audit::{Event, Refusal, Who},
    broker::{
        ConnectionId, Core, Gated, Login, SessionId, Timer,
        durable::UNREAD,
        link::{Link, Peer, Terms},
    },
    message::Message,
    packet::{ConnAck, ConnAckProperties, Connect, Packet, ReasonCode, Text, Version},
    session::{self, Session, Will},
};

/// A longer client identifier is refused: servers may [MQTT-3.1.3-5], and each costs memory.
const CLIENT_ID_BYTES_MAX: usize = 256;

/// A CONNECT that is not accepted.
struct Rejected {
    code: ReasonCode,
    refusal: Refusal,
    why: String,
}

/// A CONNECT that is accepted, and what it gets.
#[derive(Debug)]
pub(super) struct Welcome {
    connection: ConnectionId,
    session: SessionId,
    connect: Box<Connect>,
    assigned: Option<Text>,
    present: bool,
}

fn rejected(code: ReasonCode, refusal: Refusal, why: impl Into<String>) -> Rejected {
    Rejected {
        code,
        refusal,
        why: why.into(),
    }
}

impl Core {
    /// A peer has connected; `Err` when it has to go away at once.
    pub(crate) fn open(&mut self, peer: Peer, now: Instant) -> Result<ConnectionId, Refusal> {
        let address = peer.address.ip();
        if let Some((refusal, why)) = self.why_not_open(address, now) {
            let who = Who {
                address: Some(peer.address),
                ..Who::default()
            };
            self.refuse(who, refusal, None, why);
            return Err(refusal);
        }
        *self.by_address.entry(address).or_insert(0) += 1;
        let limits = &self.rules.limits;
        let patience =
            limits.handshake_timeout.as_duration() + limits.connect_timeout.as_duration();
        let connection = ConnectionId(self.links.insert(Link::new(peer, now)));
        self.arm(connection, Some(now + patience));
        Ok(connection)
    }

    /// The TLS handshake is done; from here on a whole CONNECT is awaited.
    pub(crate) fn handle_secured(
        &mut self,
        connection: ConnectionId,
        certificate: Option<String>,
        now: Instant,
    ) {
        let patience = self.rules.limits.connect_timeout.as_duration();
        if let Some(link) = self.links.get_mut(connection.0) {
            link.peer.certificate = certificate;
            self.arm(connection, Some(now + patience));
        }
    }

    /// The TLS handshake failed: counted like a failed login.
    pub(crate) fn handle_handshake_failed(
        &mut self,
        connection: ConnectionId,
        why: String,
        now: Instant,
    ) {
        let who = self.who(connection);
        let address = who.address;
        self.refuse(who, Refusal::Handshake, None, why);
        if let Some(address) = address {
            self.count_failure(address.ip(), now);
        }
    }

    /// Sets when the connection is looked at again.
    pub(super) fn arm(&mut self, connection: ConnectionId, at: Option<Instant>) {
        let Some(link) = self.links.get_mut(connection.0) else {
            return;
        };
        let old = std::mem::replace(&mut link.timer, at);
        self.set_timer(old, at, Timer::Connection(connection));
    }

    pub(super) fn connect(&mut self, connection: ConnectionId, connect: Connect, now: Instant) {
        let terms = terms(&connect, self.rules.limits.keep_alive.as_duration());
        if let Some(link) = self.links.get_mut(connection.0) {
            link.terms = terms;
        }
        match self.admit(connection, &connect, now) {
            Ok((identity, permissions)) => {
                self.welcome(connection, connect, identity, permissions, now)
            }
            Err(rejected) => self.turn_away(connection, &connect, rejected),
        }
    }

    fn why_not_open(&self, address: IpAddr, now: Instant) -> Option<(Refusal, String)> {
        let limits = &self.rules.limits;
        if self.bans.is_banned(address, now) {
            return Some((Refusal::Banned, "too many failed logins".to_owned()));
        }
        if self.links.len() >= limits.connections as usize {
            let why = format!(
                "{} connections are open (limits.connections)",
                limits.connections
            );
            return Some((Refusal::TooManyConnections, why));
        }
        let from_there = self.by_address.get(&address).copied().unwrap_or(0);
        (from_there >= limits.connections_per_address).then(|| {
            let why =
                format!("{from_there} connections from there (limits.connections_per_address)");
            (Refusal::TooManyConnectionsFromAddress, why)
        })
    }

    /// Decides whether a CONNECT is accepted, and as whom.
    fn admit(
        &mut self,
        connection: ConnectionId,
        connect: &Connect,
        now: Instant,
    ) -> Result<(Identity, Permissions), Rejected> {
        if connect.properties.authentication.is_some() {
            return Err(rejected(
                ReasonCode::BadAuthenticationMethod,
                Refusal::Authentication,
                "no enhanced authentication method is offered [MQTT-4.12.0-1]",
            ));
        }
        let Some(link) = self.links.get(connection.0) else {
            return Err(rejected(
                ReasonCode::UnspecifiedError,
                Refusal::ClientId,
                "the connection is gone",
            ));
        };
        let address = link.peer.address.ip();
        if self.bans.is_banned(address, now) {
            return Err(rejected(
                ReasonCode::Banned,
                Refusal::Banned,
                "too many failed logins",
            ));
        }
        let user = match authenticate(&link.peer, connect, &self.rules.logins) {
            Ok(user) => user,
            Err(failure) => {
                self.count_failure(address, now);
                return Err(failure);
            }
        };
        let client = self.client_id(connect)?;
        self.check_owner(&client, user.as_deref())?;
        self.check_room(&client)?;
        self.check_store(connect, &client)?;
        let identity = Identity {
            user,
            client,
            address,
        };
        let permissions = Permissions::of(&identity, &self.rules.access);
        if permissions.is_nothing() {
            let why = "no access rule speaks for this client";
            return Err(rejected(
                ReasonCode::NotAuthorized,
                Refusal::Authentication,
                why,
            ));
        }
        if let Some(will) = &connect.will
            && !(permissions.may_publish(&will.topic) && self.topic_fits(will.topic.as_str()))
        {
            let why = format!("its will may not be published to {}", will.topic);
            return Err(rejected(ReasonCode::NotAuthorized, Refusal::Will, why));
        }
        Ok((identity, permissions))
    }

    fn count_failure(&mut self, address: IpAddr, now: Instant) {
        if address.is_loopback() {
            // Whoever is on this machine already would lock out everyone else on it.
            return;
        }
        if let Some(ban) = self.bans.failed(address, &self.rules.limits, now) {
            let who = Who {
                address: Some((address, 0).into()),
                ..Who::default()
            };
            let why = format!("failed too often; not served for {} s", ban.as_secs());
            self.refuse(who, Refusal::Banned, None, why);
        }
    }

    fn client_id(&mut self, connect: &Connect) -> Result<String, Rejected> {
        let id = connect.client_id.as_str();
        if id.len() > CLIENT_ID_BYTES_MAX {
            let why = format!("the client identifier has more than {CLIENT_ID_BYTES_MAX} bytes");
            return Err(rejected(
                ReasonCode::ClientIdNotValid,
                Refusal::ClientId,
                why,
            ));
        }
        if !id.is_empty() {
            return Ok(id.to_owned());
        }
        if connect.version == Version::V3 && !connect.clean_start {
            let why = "a lasting session needs a client identifier [MQTT-3.1.3-8]";
            return Err(rejected(
                ReasonCode::ClientIdNotValid,
                Refusal::ClientId,
                why,
            ));
        }
        self.assigned += 1;
        Ok(format!("{}-{}", self.assigned_prefix, self.assigned))
    }

    /// Nobody takes over the session of another user, whatever identifier he gives.
    fn check_owner(&self, client: &str, user: Option<&str>) -> Result<(), Rejected> {
        let owner = self
            .by_client
            .get(client)
            .and_then(|session| self.sessions.get(session.0));
        match owner {
            Some(owner)
                if owner.identity.user.as_deref() != user || owner.link == session::Link::Local =>
            {
                let why = format!("client identifier {client:?} belongs to another user's session");
                Err(rejected(
                    ReasonCode::NotAuthorized,
                    Refusal::ForeignSession,
                    why,
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_room(&self, client: &str) -> Result<(), Rejected> {
        let maximum = self.rules.limits.sessions as usize;
        if self.by_client.len() < maximum || self.by_client.contains_key(client) {
            return Ok(());
        }
        let why = format!("{maximum} sessions are remembered (limits.sessions)");
        Err(rejected(
            ReasonCode::QuotaExceeded,
            Refusal::TooManySessions,
            why,
        ))
    }

    /// While the disk fails, no session is begun or ended that would have to be on it.
    fn check_store(&self, connect: &Connect, client: &str) -> Result<(), Rejected> {
        let known = self
            .by_client
            .get(client)
            .and_then(|session| self.sessions.get(session.0));
        let lasts = !self.granted_expiry(connect).is_zero();
        let needs_commit = match known {
            Some(known) if !connect.clean_start => !self.journal.is_committed(known.begun),
            Some(known) => lasts || known.key.is_some(),
            None => lasts,
        };
        if !self.journal.is_failing() || !needs_commit {
            return Ok(());
        }
        let why = match self.journal.is_unread() {
            true => UNREAD,
            false => "its session would have to be stored, and the disk takes no commits",
        };
        Err(rejected(
            ReasonCode::ServerUnavailable,
            Refusal::NotKept,
            why,
        ))
    }

    fn turn_away(&mut self, connection: ConnectionId, connect: &Connect, rejected: Rejected) {
        let mut who = self.who(connection);
        who.client = Some(connect.client_id.as_str().into());
        who.user = connect
            .user_name
            .as_ref()
            .map(|name| name.as_str().to_owned());
        self.refuse(who, rejected.refusal, None, rejected.why);
        let answer = ConnAck {
            session_present: false,
            reason: rejected.code,
            properties: ConnAckProperties::default(),
        };
        self.send(connection, Packet::ConnAck(Box::new(answer)));
        self.close(connection);
    }

    fn welcome(
        &mut self,
        connection: ConnectionId,
        connect: Connect,
        identity: Identity,
        permissions: Permissions,
        now: Instant,
    ) {
        let connect = Box::new(connect);
        let assigned = connect
            .client_id
            .is_empty()
            .then(|| Text::lossy(&identity.client));
        let (session, present) = self.claim(&connect, identity, permissions, now);
        let begun = self.sessions.get(session.0).map_or(0, |state| state.begun);
        let welcome = Welcome {
            connection,
            session,
            connect,
            assigned,
            present,
        };
        if self.journal.is_committed(begun) {
            return self.enter(welcome, now);
        }
        if let Some(link) = self.links.get_mut(connection.0) {
            link.waits = true;
            self.gate_at(begun, Gated::Welcome(Box::new(welcome)));
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
            return self.abandon(session, now);
        };
        link.waits = false;
        let connect = &connect;
        // Another connection may have come for it meanwhile.
        self.take_over(session, now);
        if self.sessions.get(session.0).is_none() {
            return self.close(connection);
        }
        self.agree(session, connection, connect);
        if let Some(link) = self.links.get_mut(connection.0) {
            link.serve(session);
            let due = link.gone_at();
            self.arm(connection, due);
        }
        let properties = match connect.version {
            Version::V3 => ConnAckProperties::default(),
            Version::V5 => self.offer(connect, assigned),
        };
        let answer = ConnAck {
            session_present: present,
            reason: ReasonCode::Success,
            properties,
        };
        self.send(connection, Packet::ConnAck(Box::new(answer)));
        let (who, version) = (self.who(connection), level(connect.version));
        self.outputs
            .push_back(crate::broker::Output::Tell(Event::Connected {
                who,
                version,
                resumed: present,
            }));
        self.pump(session, now);
    }

    /// The client did not wait for its CONNACK.
    fn abandon(&mut self, id: SessionId, now: Instant) {
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
        if let Some(existing) = self.by_client.get(identity.client.as_str()).copied() {
            self.resume(existing, identity, permissions);
            self.set_expiry(existing, expiry);
            return (existing, true);
        }
        let client: Arc<str> = identity.client.as_str().into();
        let session = Session::new(
            Arc::new(identity),
            Arc::new(permissions),
            session::Link::Absent,
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

    fn take_over(&mut self, existing: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(existing.0) else {
            return;
        };
        if let session::Link::Connected(old) = session.link {
            self.disconnect(
                old,
                ReasonCode::SessionTakenOver,
                "the client connected again",
                now,
            );
        }
    }

    /// A known session goes on: its will and its end are called off [MQTT-3.1.3-9], and
    /// subscriptions that the rules no longer allow are left behind.
    fn resume(&mut self, existing: SessionId, identity: Identity, permissions: Permissions) {
        let Some(session) = self.sessions.get_mut(existing.0) else {
            return;
        };
        session.identity = Arc::new(identity);
        session.permissions = Arc::new(permissions);
        session.will = None;
        let (will_at, expires_at) = (session.will_at.take(), session.expires_at.take());
        self.set_timer(will_at, None, Timer::Will(existing));
        self.set_timer(expires_at, None, Timer::Expiry(existing));
        self.drop_forbidden_subscriptions(existing);
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
        session.will = connect.will.as_ref().map(|will| {
            Box::new(Will {
                message: Message {
                    topic: will.topic.clone(),
                    payload: will.payload.clone(),
                    qos: will.qos,
                    retain: will.retain,
                    expiry_s: will.message_expiry_s,
                    properties: will.properties.clone(),
                    sequence: None,
                },
                delay: Duration::from_secs(will.delay_s.unwrap_or(0).into()),
            })
        });
    }

    /// How long the session outlives its connection: what the client asks for, up to our maximum.
    /// In 3.1.1 a session that is not clean lasts for that maximum.
    fn granted_expiry(&self, connect: &Connect) -> Duration {
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
    fn offer(&self, connect: &Connect, assigned: Option<Text>) -> ConnAckProperties {
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
            topic_alias_maximum: (limits.topic_aliases > 0).then_some(limits.topic_aliases),
            server_keep_alive_s: shorter.then_some(keep_alive),
            ..ConnAckProperties::default()
        }
    }

    /// Whether a topic or filter is within the configured length and depth.
    pub(super) fn topic_fits(&self, topic: &str) -> bool {
        let limits = &self.rules.limits;
        topic.len() <= limits.topic_length as usize
            && topic.bytes().filter(|byte| *byte == b'/').count() < limits.topic_levels as usize
    }

    /// Nothing was heard of a connection for too long, or no CONNECT came.
    pub(super) fn connection_is_due(&mut self, connection: ConnectionId, now: Instant) {
        let Some(link) = self.links.get_mut(connection.0) else {
            return;
        };
        link.timer = None;
        let serving = link.session().is_some();
        if serving && let Some(due) = link.gone_at().filter(|due| *due > now) {
            return self.arm(connection, Some(due));
        }
        let who = self.who(connection);
        if serving {
            let why = "nothing heard for one and a half times the keep alive [MQTT-3.1.2-22]";
            self.refuse(who, Refusal::KeepAlive, None, why.to_owned());
            self.disconnect(connection, ReasonCode::KeepAliveTimeout, why, now);
        } else {
            let why = "no whole CONNECT came (limits.connect_timeout)";
            self.refuse(who, Refusal::ConnectTimeout, None, why.to_owned());
            self.close(connection);
        }
    }
}

/// Who the client is: the name in its certificate, else the user whose password it knows, else,
/// where the listener allows it, nobody.
fn authenticate(
    peer: &Peer,
    connect: &Connect,
    logins: &[Login],
) -> Result<Option<String>, Rejected> {
    if let Some(name) = &peer.certificate {
        return Ok(Some(name.clone()));
    }
    let Some(user) = &connect.user_name else {
        return if peer.anonymous {
            Ok(None)
        } else {
            let why = "this listener serves no anonymous clients";
            Err(rejected(
                ReasonCode::NotAuthorized,
                Refusal::Authentication,
                why,
            ))
        };
    };
    let given = connect
        .password
        .as_ref()
        .map_or(&[][..], |password| &password.0[..]);
    // Every login is compared in full, so that time tells neither names nor passwords.
    let mut known = false;
    for login in logins {
        let name_fits = equal_in_constant_time(login.name.as_bytes(), user.as_str().as_bytes());
        let password_fits = equal_in_constant_time(login.password.expose().as_bytes(), given);
        known |= name_fits & password_fits;
    }
    if known {
        Ok(Some(user.as_str().to_owned()))
    } else {
        let why = "unknown user name or wrong password";
        Err(rejected(
            ReasonCode::BadUserNameOrPassword,
            Refusal::Authentication,
            why,
        ))
    }
}

/// Takes a time that depends on the lengths alone.
fn equal_in_constant_time(expected: &[u8], given: &[u8]) -> bool {
    let mut difference = u8::from(expected.len() != given.len());
    for (index, byte) in given.iter().enumerate() {
        difference |= byte ^ expected.get(index).copied().unwrap_or(0);
    }
    std::hint::black_box(difference) == 0
}

/// Reads the agreement about packets out of CONNECT. A 3.1.1 client cannot be told another keep
/// alive, so its own holds.
fn terms(connect: &Connect, keep_alive_max: Duration) -> Terms {
    let asked = Duration::from_secs(connect.keep_alive_s.into());
    let keep_alive = match connect.version {
        Version::V3 => asked,
        Version::V5 if asked.is_zero() => keep_alive_max,
        Version::V5 => asked.min(keep_alive_max),
    };
    let properties = &connect.properties;
    Terms {
        version: connect.version,
        maximum_packet_size: properties.maximum_packet_size.map(NonZeroU32::get),
        topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
        problem_information: properties.request_problem_information.unwrap_or(true),
        patience: (!keep_alive.is_zero()).then(|| keep_alive * 3 / 2),
    }
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
