//! Every decision of the broker: who may connect, what is routed, acknowledged, repeated, ended.
//! A core: it is told what happened and when, and asked what to do.
//!
//! ```text
//!   open, handle_packet, handle_closed ──▶ ┌──────┐ ──▶ poll_output: Flush, Close, Keep, Settled …
//!   handle_kept, handle_timeout        ──▶ │ Core │ ──▶ take_bytes: encoded packets, by connection
//!   handle_committed, restore          ──▶ │      │ ──▶ take_changes: what is to be put on disk
//!                                          └──────┘ ──▶ poll_timeout
//! ```
//!
//! Invariant: each call returns without waiting for anyone, and what one client does or fails to
//! do costs the others nothing but the time of its own calls.

mod connect;

mod authenticate;

mod welcome;

mod catch_up;
mod publish;
mod subscribe;

mod deliver;
mod durable;

mod leave;
mod wills;

mod local;
mod manage;

mod observe;
mod sys;

mod pace;

mod pressure;

#[cfg(test)]
mod crashes;
#[cfg(any(test, feature = "fuzzing"))]
mod invariants;
mod link;
#[cfg(test)]
mod restarts;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), expect(dead_code, reason = "tests use the rest of it"))]
pub(crate) mod sim;
#[cfg(test)]
pub(crate) mod simulation;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::{Identity, Permissions},
    arena::Arena,
    broker::link::Link,
    config::{AccessRule, Limits, Protocol},
    journal::Journal,
    keeper::{Keeper, Kept},
    lasting::Lasting,
    login::arrivals::Arrivals,
    login::bans::Bans,
    login::checks::Checks,
    login::{Check, Logins},
    memory::{Charge, Meter},
    message::Message,
    observe::audit::{Event, Refusal, Who},
    observe::status::Counters,
    packet::{DecodeError, Packet, PacketId, ReasonCode},
    publication::Publication,
    retained::RetainedMessages,
    router::{Match, Router},
    session::{self, Session},
};

pub(crate) use durable::{Stored, StoredSession};
pub(crate) use link::{Admission, Peer};

pub(crate) use crate::ids::{ConnectionId, ListenerId, SessionId, Ticket};

/// More of a topic is not logged.
const SHOWN_TOPIC_CHARS: usize = 200;

/// Something to come back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// No CONNECT yet, or nothing heard for one and a half times the keep alive.
    Connection(ConnectionId),
    /// A client that was too fast is read on.
    Pause(ConnectionId),
    /// A will's delay has passed.
    Will(SessionId),
    /// A session has outlived its connection for long enough.
    Expiry(SessionId),
    /// A new subscription still gets retained messages.
    CatchUp,
    /// Somebody listens to the `$SYS` topics.
    Sys,
    /// An address may come again.
    Ban(IpAddr),
}

/// What the core asks of its driver.
#[derive(Debug)]
pub(crate) enum Output {
    /// Bytes wait for this connection: [`Core::take_bytes`].
    Flush(ConnectionId),
    /// Write what waits for this connection, then close it.
    Close(ConnectionId),
    /// Hand a message to the keeper; its receipt comes back by [`Core::handle_kept`].
    Keep {
        ticket: Ticket,
        publication: Arc<Publication>,
    },
    /// A message published in this process is kept, or not.
    Settled { ticket: Ticket, kept: Kept },
    /// Deliveries wait for a consumer in this process: [`Core::take_delivery`].
    Ready(SessionId),
    /// Check a password where nobody waits for it; the answer comes back by
    /// [`Core::handle_verified`].
    Verify {
        connection: ConnectionId,
        check: Check,
    },
    /// Something to log.
    Tell(Event),
}

/// Who waits for a keeper's receipt.
#[derive(Debug)]
enum Waiter {
    /// A client, for its PUBACK or PUBREC.
    Client {
        session: SessionId,
        packet_id: PacketId,
    },
    /// A publisher in this process.
    Local,
    /// Nobody: QoS 0, wills.
    Nobody,
}

/// A message on its way to the disk.
#[derive(Debug)]
struct Pending {
    waiter: Waiter,
    /// The keeper has not answered yet.
    awaits_keeper: bool,
    /// Our own disk does not have yet what it changed.
    awaits_commit: bool,
    /// A QoS 2 message is routed when it is kept: refused, it may come again as a new one.
    deferred: Option<(Arc<Publication>, Origin)>,
    _charge: Charge,
}

/// What waits for a commit.
#[derive(Debug)]
enum Gated {
    /// A message's acknowledgement.
    Ticket(Ticket),
    /// An answer that says something about a stored session.
    Answer {
        connection: ConnectionId,
        packet: Packet,
        _charge: Charge,
    },
    /// A CONNACK, and with it all of the connection.
    Welcome(Box<welcome::Welcome>),
    /// QoS 2 messages, whose identifiers must not be forgotten once they are out.
    Outbox(SessionId),
}

/// Who published a message.
#[derive(Debug, Clone)]
struct Origin {
    session: Option<SessionId>,
    /// Absent for publishers in this process, which need no permission.
    identity: Option<Arc<Identity>>,
}

/// The part of the configuration that the core applies.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    pub(crate) protocol: Protocol,
    pub(crate) access: Vec<AccessRule>,
    pub(crate) logins: Logins,
    /// Between two rounds of the `$SYS` topics; zero: there are none.
    pub(crate) sys_interval: Duration,
}

/// The broker without its sockets.
pub(crate) struct Core {
    rules: Rules,
    keeper: Option<Arc<dyn Keeper>>,
    links: Arena<Link>,
    arrivals: Arrivals,
    by_listener: HashMap<ListenerId, u32>,
    bans: Bans,
    checks: Checks,
    /// Nonces given so far.
    nonces: u64,
    sessions: Arena<Session>,
    by_client: HashMap<Arc<str>, SessionId>,
    /// Those of the last client; the next one's are most often alike, and take no room then.
    latest_permissions: Arc<Permissions>,
    lasting: Lasting,
    meter: Meter,
    /// Memory was just shed; not again before this.
    next_shedding: Option<Instant>,
    /// The most of it that the operator was told.
    told_pressure: pressure::Pressure,
    router: Router,
    retained: RetainedMessages,
    catching_up: catch_up::CatchingUp,
    journal: Journal,
    /// In the order in which it can leave.
    gated: VecDeque<(u64, Gated)>,
    pending: HashMap<Ticket, Pending>,
    last_ticket: u64,
    timers: BTreeSet<(Instant, Timer)>,
    outputs: VecDeque<Output>,
    counters: Counters,
    load: Option<observe::LoadAverages>,
    sys: sys::Sys,
    listeners: HashMap<ListenerId, Arc<str>>,
    started: Option<Instant>,
    /// Clients that are served now.
    connected: u64,
    /// Refusals by kind; named only when asked.
    refused: [u64; Refusal::ALL.len()],
    /// Prefix of the client identifiers we assign, different at each start.
    assigned_prefix: String,
    assigned: u64,
    /// The broker stops: nothing more is read, what is on its way is finished.
    draining: bool,
    /// Reused by each routing.
    matches: Vec<Match>,
}

impl Core {
    /// `assigned_prefix` begins the client identifiers we assign, so it should differ at each start.
    pub(crate) fn new(
        rules: Rules,
        keeper: Option<Arc<dyn Keeper>>,
        assigned_prefix: String,
    ) -> Core {
        let meter = Meter::default();
        Core {
            rules,
            keeper,
            links: Arena::new(),
            arrivals: Arrivals::default(),
            by_listener: HashMap::new(),
            bans: Bans::default(),
            checks: Checks::default(),
            nonces: 0,
            sessions: Arena::new(),
            by_client: HashMap::new(),
            lasting: Lasting::default(),
            router: Router::new(&meter),
            retained: RetainedMessages::new(&meter),
            catching_up: catch_up::CatchingUp::default(),
            next_shedding: None,
            told_pressure: pressure::Pressure::None,
            meter,
            journal: Journal::off(),
            gated: VecDeque::new(),
            pending: HashMap::new(),
            last_ticket: 0,
            timers: BTreeSet::new(),
            latest_permissions: Arc::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            load: None,
            sys: sys::Sys::default(),
            listeners: HashMap::new(),
            started: None,
            connected: 0,
            refused: [0; Refusal::ALL.len()],
            assigned_prefix,
            assigned: 0,
            draining: false,
            matches: Vec::new(),
        }
    }

    /// The same, with a store that [`Core::restore`] or [`Core::adopt`] will tell of. Until then
    /// nothing can be promised, and what asks for it is refused.
    pub(crate) fn storing(
        rules: Rules,
        keeper: Option<Arc<dyn Keeper>>,
        assigned_prefix: String,
    ) -> Core {
        Core {
            journal: Journal::unread(),
            ..Core::new(rules, keeper, assigned_prefix)
        }
    }

    /// What to do next; drain until `None` after every call.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Core::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does what is due; early and repeated calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Connection(connection) => self.connection_is_due(connection, now),
                Timer::Pause(connection) => self.pause_is_over(connection, now),
                Timer::Will(session) => self.will_is_due(session, now),
                Timer::Expiry(session) => self.expiry_is_due(session, now),
                Timer::CatchUp => self.catch_up_is_due(now),
                Timer::Sys => self.sys_is_due(now),
                Timer::Ban(address) => self.ban_is_due(address, now),
            }
        }
    }

    /// A message as the core carries it.
    fn publication(
        &mut self,
        message: Message,
        publisher: Option<Arc<Identity>>,
        now: Instant,
    ) -> Arc<Publication> {
        self.shed_if_full(now);
        let number = self.journal.number();
        let publication = Publication::new(message, now, number, &self.meter);
        Arc::new(publication.by(publisher))
    }

    /// A packet came over a connection.
    pub(crate) fn handle_packet(&mut self, connection: ConnectionId, packet: Packet, now: Instant) {
        let Some(link) = self
            .links
            .get_mut(connection.0)
            .filter(|link| !link.is_closing())
        else {
            return;
        };
        link.heard(now);
        let session = link.session();
        self.note_event(now);
        self.counters.packets_received += 1;
        let Some(session) = session else {
            return match packet {
                _ if self.handle_proof(connection, &packet, now) => {}
                Packet::Connect(connect) => self.connect(connection, connect, now),
                _ => self.violated(
                    connection,
                    "the first packet is no CONNECT [MQTT-3.1.0-1]",
                    now,
                ),
            };
        };
        match packet {
            Packet::Publish(publish) => self.client_publishes(connection, session, publish, now),
            Packet::PubAck(ack) => self.acknowledged(session, &ack, now),
            Packet::PubRec(ack) => self.received(connection, session, &ack, now),
            Packet::PubRel(ack) => self.released(connection, session, &ack),
            Packet::PubComp(ack) => self.completed(session, &ack, now),
            Packet::Subscribe(subscribe) => self.subscribe(connection, session, subscribe, now),
            Packet::Unsubscribe(packet) => self.unsubscribe(connection, session, &packet),
            Packet::PingReq => self.send(connection, Packet::PingResp),
            Packet::Disconnect(disconnect) => {
                self.client_leaves(connection, session, &disconnect, now)
            }
            Packet::Auth(auth) => self.prove_again(connection, session, &auth, now),
            Packet::Connect(_) => self.violated(connection, "a second CONNECT [MQTT-3.1.0-2]", now),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                self.violated(connection, "a packet that only servers send", now);
            }
        }
    }

    /// The bytes of a connection are no packet.
    pub(crate) fn handle_malformed(
        &mut self,
        connection: ConnectionId,
        error: &DecodeError,
        now: Instant,
    ) {
        let who = self.who(connection);
        let refusal = match error.reason() {
            ReasonCode::PacketTooLarge => Refusal::PacketTooLarge,
            _ => Refusal::Malformed,
        };
        self.refuse(who, refusal, None, error.to_string());
        if !self.turn_away_unread(connection, error) {
            self.disconnect(connection, error.reason(), &error.to_string(), now);
        }
    }

    fn violated(&mut self, connection: ConnectionId, rule: &str, now: Instant) {
        let who = self.who(connection);
        self.refuse(who, Refusal::ProtocolViolation, None, rule.to_owned());
        self.disconnect(connection, ReasonCode::ProtocolError, rule, now);
    }

    /// Encodes a packet for a connection and asks for a flush, once until the bytes are taken.
    fn send(&mut self, connection: ConnectionId, packet: Packet) {
        if let Some(link) = self.links.get_mut(connection.0) {
            self.counters.packets_sent += 1;
            if link.send(packet) {
                self.outputs.push_back(Output::Flush(connection));
            }
        }
    }

    fn shared_permissions(&mut self, permissions: Permissions) -> Arc<Permissions> {
        if *self.latest_permissions != permissions {
            self.latest_permissions = Arc::new(permissions);
        }
        Arc::clone(&self.latest_permissions)
    }

    fn set_timer(&mut self, old: Option<Instant>, at: Option<Instant>, timer: Timer) {
        if let Some(old) = old {
            self.timers.remove(&(old, timer));
        }
        if let Some(at) = at {
            self.timers.insert((at, timer));
        }
    }

    fn refuse(&mut self, who: Who, refusal: Refusal, topic: Option<&str>, reason: String) {
        self.refused[refusal as usize] += 1;
        let rule = match refusal {
            Refusal::Publish | Refusal::Subscribe | Refusal::Will | Refusal::Delivery => {
                self.rules_for(&who)
            }
            _ => refusal.kind().rule.to_owned(),
        };
        let topic = topic.map(shown);
        self.outputs.push_back(Output::Tell(Event::Refused {
            who,
            refusal,
            rule,
            topic,
            reason,
        }));
    }

    fn who(&self, connection: ConnectionId) -> Who {
        let Some(link) = self.links.get(connection.0) else {
            return Who::default();
        };
        let session = link
            .session()
            .and_then(|session| self.sessions.get(session.0));
        Who {
            address: Some(link.peer.address),
            client: session.map(|session| session.identity.client.as_str().into()),
            user: session.and_then(|session| session.identity.user.clone()),
            listener: Some(self.listener_name(link.peer.listener)),
        }
    }

    fn who_is(&self, session: SessionId) -> Who {
        let Some(session) = self.sessions.get(session.0) else {
            return Who::default();
        };
        if let session::Link::Connected(connection) = session.link {
            return self.who(connection);
        }
        Who {
            client: Some(session.identity.client.as_str().into()),
            user: session.identity.user.clone(),
            ..Who::default()
        }
    }
}

/// The topic as an event names it: a client's own may have 65,535 bytes.
fn shown(topic: &str) -> String {
    match topic.char_indices().nth(SHOWN_TOPIC_CHARS) {
        Some((end, _)) => format!("{}…", &topic[..end]),
        None => topic.to_owned(),
    }
}
