//! From an open connection to an accepted CONNECT: whether it may connect, and as what.
//!
//! Core. Invariant: a session belongs to one user.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use crate::{
    access::{Identity, Permissions},
    address::Address,
    broker::{
        ConnectionId, Core, Output, Timer,
        durable::UNREAD,
        link::{Link, Peer, Terms},
        pressure::Pressure,
    },
    config::{Limits, RedirectWhen},
    lasting::Full,
    login::arrivals::TooMany,
    observe::audit::{Event, Refusal, Who},
    packet::{
        ConnAck, ConnAckProperties, Connect, DecodeError, Details, Fault, MessageProperties,
        Packet, PacketType, PayloadFormat, ReasonCode, Text, Version,
    },
    session,
};

/// A longer client identifier is refused: servers may [MQTT-3.1.3-5], and each costs memory.
const CLIENT_ID_BYTES_MAX: usize = 256;

/// A CONNECT that is not accepted.
pub(super) struct Rejected {
    code: ReasonCode,
    refusal: Refusal,
    why: String,
}

pub(super) fn rejected(code: ReasonCode, refusal: Refusal, why: impl Into<String>) -> Rejected {
    Rejected {
        code,
        refusal,
        why: why.into(),
    }
}

impl Core {
    /// A peer has connected; `Err` when it has to go away at once.
    pub(crate) fn open(&mut self, peer: Peer, now: Instant) -> Result<ConnectionId, Refusal> {
        self.note_event(now);
        self.counters.sockets += 1;
        if let Err((refusal, why)) = self.let_in(&peer, now) {
            let who = Who {
                address: Some(peer.address),
                listener: Some(self.listener_name(peer.listener)),
                ..Who::default()
            };
            self.refuse(who, refusal, None, why);
            return Err(refusal);
        }
        *self.by_listener.entry(peer.listener).or_insert(0) += 1;
        let limits = &self.rules.limits;
        let patience =
            limits.handshake_timeout.as_duration() + limits.connect_timeout.as_duration();
        let connection = ConnectionId(self.links.insert(Link::new(peer, now, &self.meter)));
        self.arm(connection, Some(now + patience));
        Ok(connection)
    }

    /// The handshakes below MQTT are done; from here on a whole CONNECT is awaited.
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

    /// A handshake below MQTT failed: counted like a failed login, unless it was not its turn.
    pub(crate) fn handle_handshake_failed(
        &mut self,
        connection: ConnectionId,
        refusal: Refusal,
        why: String,
        now: Instant,
    ) {
        let who = self.who(connection);
        self.refuse(who, refusal, None, why);
        if refusal != Refusal::TooManyHandshakes {
            self.count_failure_of(connection, now);
        }
    }

    /// A peer was closed before it could be admitted.
    pub(crate) fn turned_away(&mut self, address: Address, why: &str) {
        let who = Who {
            address: Some(address),
            ..Who::default()
        };
        self.refuse(who, Refusal::TooManyConnections, None, why.to_owned());
    }

    /// What came is not what its stream may carry: TLS records or WebSocket frames gone wrong.
    pub(crate) fn handle_garbled(&mut self, connection: ConnectionId, why: String) {
        let who = self.who(connection);
        self.refuse(who, Refusal::Malformed, None, why);
    }

    /// Sets when the connection is looked at again.
    pub(super) fn arm(&mut self, connection: ConnectionId, at: Option<Instant>) {
        let Some(link) = self.links.get_mut(connection.0) else {
            return;
        };
        let old = std::mem::replace(&mut link.timer, at);
        self.set_timer(old, at, Timer::Connection(connection));
    }

    pub(super) fn connect(
        &mut self,
        connection: ConnectionId,
        connect: Box<Connect>,
        now: Instant,
    ) {
        self.counters.connects += 1;
        let terms = terms(&connect, self.rules.limits.keep_alive.as_duration());
        if let Some(link) = self.links.get_mut(connection.0) {
            link.terms = terms;
        }
        if let Err(moved) = self.check_place() {
            return self.turn_away(connection, &connect, moved);
        }
        self.authenticate(connection, connect, now);
    }

    /// Whether clients are served here at all.
    fn check_place(&self) -> Result<(), Rejected> {
        match &self.rules.protocol.redirect {
            Some(redirect) if redirect.when == RedirectWhen::Always => {
                let why = format!("this broker's clients are served by {}", redirect.server);
                Err(rejected(ReasonCode::ServerMoved, Refusal::Redirected, why))
            }
            _ => Ok(()),
        }
    }

    /// It is known who the client is; anonymous ones have no user.
    pub(super) fn identified(
        &mut self,
        connection: ConnectionId,
        connect: Box<Connect>,
        user: Option<String>,
        now: Instant,
    ) {
        match self.admit(connection, &connect, user) {
            Ok((identity, permissions)) => {
                self.welcome(connection, connect, identity, permissions, now)
            }
            Err(rejected) => self.turn_away(connection, &connect, rejected),
        }
    }

    fn let_in(&mut self, peer: &Peer, now: Instant) -> Result<(), (Refusal, String)> {
        let limits = &self.rules.limits;
        let address = peer.address.ip();
        if self.is_banned(&peer.address, now) {
            return Err((Refusal::Banned, "too many failed logins".to_owned()));
        }
        if let Some(why) = self.refuses_from(Pressure::Growth) {
            return Err((Refusal::Memory, why.to_owned()));
        }
        if self.links.len() >= limits.connections as usize {
            let why = format!(
                "{} connections are open (limits.connections)",
                limits.connections
            );
            return Err((Refusal::TooManyConnections, why));
        }
        let on_listener = self.by_listener.get(&peer.listener).copied().unwrap_or(0);
        let maximum = peer.admission.connections;
        if maximum.is_some_and(|maximum| on_listener >= maximum) {
            let why = format!("{on_listener} connections are open there (listener.connections)");
            return Err((Refusal::TooManyConnectionsOnListener, why));
        }
        let Some(address) = address else {
            return Ok(());
        };
        let admitted = self.arrivals.admit(address, limits, now);
        admitted.map_err(|too_many| match too_many {
            TooMany::AtOnce(count) => {
                let why =
                    format!("{count} connections from there (limits.connections_per_address)");
                (Refusal::TooManyConnectionsFromAddress, why)
            }
            TooMany::InShortTime => {
                let why =
                    "new connections come too fast from there (limits.connections_per_second)";
                (Refusal::ConnectionRate, why.to_owned())
            }
        })
    }

    /// Decides whether a CONNECT of this user is accepted.
    fn admit(
        &mut self,
        connection: ConnectionId,
        connect: &Connect,
        user: Option<String>,
    ) -> Result<(Identity, Permissions), Rejected> {
        let Some(link) = self.links.get(connection.0) else {
            return Err(rejected(
                ReasonCode::UnspecifiedError,
                Refusal::ClientId,
                "the connection is gone",
            ));
        };
        let address = link.peer.address.ip();
        let client = self.client_id(connect)?;
        self.check_owner(&client, user.as_deref())?;
        self.check_room(connect, &client, user.as_deref())?;
        self.check_store(connect, &client)?;
        let identity = Identity {
            user,
            client,
            address: address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
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
        self.check_will(connect)?;
        if let Some(will) = &connect.will
            && !(permissions.may_publish(&will.topic) && self.topic_fits(will.topic.as_str()))
        {
            let why = format!("its will may not be published to {}", will.topic);
            return Err(rejected(ReasonCode::NotAuthorized, Refusal::Will, why));
        }
        Ok((identity, permissions))
    }

    /// Whether a payload that is said to be text is; true where nobody asks.
    pub(super) fn payload_is_as_said(
        &self,
        properties: Option<&MessageProperties>,
        payload: &[u8],
    ) -> bool {
        let said = properties.and_then(|properties| properties.payload_format);
        !self.rules.protocol.validate_payload_format
            || said != Some(PayloadFormat::Utf8)
            || std::str::from_utf8(payload).is_ok()
    }

    pub(super) fn is_banned(&self, address: &Address, now: Instant) -> bool {
        let address = address.ip();
        address.is_some_and(|address| self.bans.is_banned(address, now))
    }

    /// Counts a failed login or handshake against where it came from. Whoever is on this machine
    /// already would lock out everyone else on it, so that counts nothing.
    pub(super) fn count_failure_of(&mut self, connection: ConnectionId, now: Instant) {
        let address = self
            .links
            .get(connection.0)
            .and_then(|link| link.peer.address.ip());
        let Some(address) = address.filter(|address| !address.is_loopback()) else {
            return;
        };
        if let Some(length) = self.bans.failed(address, &self.rules.limits, now) {
            self.set_timer(None, now.checked_add(length), Timer::Ban(address));
            let event = Event::BanBegan { address, length };
            self.outputs.push_back(Output::Tell(event));
        }
    }

    pub(super) fn ban_is_due(&mut self, address: IpAddr, now: Instant) {
        if !self.bans.is_banned(address, now) {
            let event = Event::BanEnded { address };
            self.outputs.push_back(Output::Tell(event));
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
            let why = "a lasting session needs a client identifier (3.1.1 [MQTT-3.1.3-8])";
            return Err(rejected(
                ReasonCode::ClientIdNotValid,
                Refusal::ClientId,
                why,
            ));
        }
        Ok(self.unused_client_id())
    }

    /// One that no session has, however clients name theirs [MQTT-3.2.2-16].
    fn unused_client_id(&mut self) -> String {
        loop {
            self.assigned += 1;
            let id = format!("{}-{}", self.assigned_prefix, self.assigned);
            if !self.by_client.contains_key(id.as_str()) {
                return id;
            }
        }
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

    /// Whether there is room for the session asked for: one that ends with its connection and leaves
    /// no will needs no more than that connection.
    fn check_room(
        &self,
        connect: &Connect,
        client: &str,
        user: Option<&str>,
    ) -> Result<(), Rejected> {
        let known = self
            .by_client
            .get(client)
            .and_then(|session| self.sessions.get(session.0));
        let lasts = !self.granted_expiry(connect).is_zero();
        if known.is_none()
            && (lasts || connect.will.is_some())
            && let Some(why) = self.refuses_from(Pressure::Arrivals)
        {
            return Err(rejected(ReasonCode::QuotaExceeded, Refusal::Memory, why));
        }
        let lasts_already = known.is_some_and(|known| !known.is_transient());
        if lasts_already || !lasts {
            return Ok(());
        }
        let room = self.lasting.room(user, self.rules.limits.sessions as usize);
        room.map_err(|full| {
            let why = match full {
                Full::OfAll(count) => format!("{count} sessions are remembered (limits.sessions)"),
                Full::OfUser(count) => {
                    format!(
                        "{count} sessions of this user are remembered (half of limits.sessions)"
                    )
                }
            };
            rejected(ReasonCode::QuotaExceeded, Refusal::TooManySessions, why)
        })
    }

    /// Whether a will is within the limits that hold for wills alone.
    fn check_will(&self, connect: &Connect) -> Result<(), Rejected> {
        let Some(will) = &connect.will else {
            return Ok(());
        };
        let limits = &self.rules.limits;
        let properties = will.properties.as_deref();
        let size = will.topic.as_str().len()
            + will.payload.len()
            + properties.map_or(0, MessageProperties::size);
        let (code, refusal, why) = if will.retain && !limits.retained {
            let why = "its will asks to be retained (limits.retained)";
            (
                ReasonCode::RetainNotSupported,
                Refusal::RetainNotSupported,
                why,
            )
        } else if size > limits.will_size.as_len() {
            let why = "its will is too large (limits.will_size)";
            (ReasonCode::QuotaExceeded, Refusal::Will, why)
        } else if properties.is_some_and(|properties| !user_properties_fit(properties, limits)) {
            let why = "its will has too many user properties (limits.user_properties, user_property_bytes)";
            (ReasonCode::QuotaExceeded, Refusal::UserProperties, why)
        } else if !self.payload_is_as_said(properties, &will.payload) {
            let why = "its will is said to be text and is not (protocol.validate_payload_format)";
            let code = ReasonCode::PayloadFormatInvalid;
            (code, Refusal::PayloadFormat, why)
        } else if let Some(why) = self.refuses_from(Pressure::Growth) {
            (ReasonCode::QuotaExceeded, Refusal::Memory, why)
        } else {
            return Ok(());
        };
        Err(rejected(code, refusal, why))
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

    pub(super) fn turn_away(
        &mut self,
        connection: ConnectionId,
        connect: &Connect,
        rejected: Rejected,
    ) {
        let mut who = self.who(connection);
        who.client = Some(connect.client_id.as_str().into());
        if who.user.is_none() {
            who.user = self.name_in(connection, connect);
        }
        // That an identifier is in use is nobody else's business.
        let told = (rejected.refusal != Refusal::ForeignSession).then(|| rejected.why.clone());
        self.refuse(who, rejected.refusal, None, rejected.why);
        self.answer_refusal(connection, rejected.code, told);
    }

    /// Answers a CONNECT that cannot be read; false where there was none. A 3.1.1 client learns
    /// only that its protocol level is not served [MQTT-3.1.2-2].
    pub(super) fn turn_away_unread(
        &mut self,
        connection: ConnectionId,
        error: &DecodeError,
    ) -> bool {
        // Refused by its fixed header it has not shown its version, nor that it is a CONNECT at
        // all: a TLS greeting begins like one with wrong flags.
        let by_header = matches!(
            error.fault,
            Fault::ReservedFlags
                | Fault::PacketTooLarge
                | Fault::LengthTooLong
                | Fault::LengthNotMinimal
        );
        let is_connect = error.packet == Some(PacketType::Connect) && !by_header;
        let Some(link) = self.links.get_mut(connection.0) else {
            return false;
        };
        if !is_connect || link.session().is_some() || link.is_closing() {
            return false;
        }
        link.terms.version = error.version;
        self.answer_refusal(connection, error.reason(), Some(error.to_string()));
        true
    }

    /// CONNACK, where the client's version has a word for the reason, and the end.
    fn answer_refusal(&mut self, connection: ConnectionId, code: ReasonCode, why: Option<String>) {
        let properties = ConnAckProperties {
            details: why.map(|why| Details::because(Text::lossy(&why))),
            server_reference: self.reference(code),
            ..ConnAckProperties::default()
        };
        let answer = ConnAck {
            session_present: false,
            reason: code,
            properties,
        };
        self.send(connection, Packet::ConnAck(Box::new(answer)));
        self.close(connection);
    }

    /// The name that a client gives itself, by certificate or user name.
    fn name_in(&self, connection: ConnectionId, connect: &Connect) -> Option<String> {
        let link = self.links.get(connection.0)?;
        let user_name = || {
            connect
                .user_name
                .as_ref()
                .map(|name| name.as_str().to_owned())
        };
        link.peer.certificate.clone().or_else(user_name)
    }

    /// Where a client goes that is told to go elsewhere.
    pub(super) fn reference(&self, code: ReasonCode) -> Option<Text> {
        let redirect = self.rules.protocol.redirect.as_ref()?;
        let elsewhere = matches!(code, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved);
        elsewhere.then(|| Text::lossy(&redirect.server))
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
        let has_connected = link.stage.is_some();
        if serving && let Some(until) = link.paused_until {
            link.heard(until);
        }
        if serving && let Some(due) = link.gone_at().filter(|due| *due > now) {
            return self.arm(connection, Some(due));
        }
        let who = self.who(connection);
        if serving {
            let why = "nothing heard for one and a half times the keep alive [MQTT-3.1.2-22]";
            self.refuse(who, Refusal::KeepAlive, None, why.to_owned());
            self.disconnect(connection, ReasonCode::KeepAliveTimeout, why, now);
        } else {
            let why = match has_connected {
                true => "it was not known in time who the client is (limits.connect_timeout)",
                false => "no whole CONNECT came (limits.connect_timeout)",
            };
            self.refuse(who, Refusal::ConnectTimeout, None, why.to_owned());
            self.close(connection);
        }
    }
}

/// Whether a message's user properties are few and small enough.
pub(super) fn user_properties_fit(properties: &MessageProperties, limits: &Limits) -> bool {
    let user_properties = &properties.user_properties;
    user_properties.len() <= limits.user_properties as usize
        && user_properties.as_wire().len() <= limits.user_property_bytes.as_len()
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
