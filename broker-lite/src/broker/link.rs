//! One connection as the core sees it: its peer, its protocol, and the bytes that wait for it.
//!
//! Core. Invariant: no packet larger than the client's maximum is ever encoded [MQTT-3.1.2-24].

use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::{
    address::Address,
    broker::authenticate::Stage,
    broker::pace::Pace,
    config::{IdentitySource, Listener},
    ids::{ListenerId, SessionId},
    memory::{Charge, Meter},
    observe::traffic::ClientTraffic,
    packet::{self, Packet, Publish, ReasonCode, TopicAlias, Version},
    topic::TopicName,
};

/// Past this many waiting bytes messages stay in their queue, where limits apply.
const FULL_BYTES: usize = 64 * 1024;

/// Past this many waiting bytes the client's own packets are left unread: what waits then is our
/// answers to them, and it does not take those.
const STALLED_BYTES: usize = 4 * FULL_BYTES;

/// Topics for which we set up an alias on one connection, if the client takes that many.
const OUTGOING_ALIASES_MAX: u16 = 16;

/// What a connection costs: itself, its task with its socket, its places in three tables and timers,
/// and what the allocator adds.
const LINK_BYTES: usize = 3 * 1_024;

/// What TLS holds for a connection: its state, its keys, and records that are not whole yet.
const TLS_BYTES: usize = 32 * 1_024;

/// Memory is counted in steps of this many bytes, so that a small packet changes no count.
const WEIGHED_BY: usize = 1_024;

/// What a topic alias may add to a packet: the property, and a byte more for the lengths.
const ALIAS_BYTES: usize = 5;

/// What an alias costs beside its topic's text.
const ALIAS_ENTRY_BYTES: usize = 64;

/// Who is at the other end of a connection, before any packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: Address,
    pub(crate) listener: ListenerId,
    pub(crate) admission: Admission,
    /// The name in the client's certificate, if it showed one that was accepted.
    pub(crate) certificate: Option<String>,
}

/// Whom a listener lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) anonymous: bool,
    pub(crate) identity: IdentitySource,
    /// Connections at once; absent: no bound of the listener's own.
    pub(crate) connections: Option<u32>,
    /// What each of its streams occupies beside what waits in it: TLS.
    pub(crate) stream_bytes: usize,
}

impl Admission {
    pub(crate) fn of(listener: &Listener) -> Admission {
        Admission {
            anonymous: listener.allows_anonymous(),
            identity: listener.identity,
            connections: listener.connections,
            stream_bytes: listener.tls.as_ref().map_or(0, |_| TLS_BYTES),
        }
    }
}

/// What the client's CONNECT says about the packets it takes.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    pub(crate) maximum_packet_size: Option<u32>,
    pub(crate) topic_alias_maximum: u16,
    /// Whether reason strings may go along with failures.
    pub(crate) problem_information: bool,
    /// Silence after which the client counts as gone.
    pub(crate) patience: Option<Duration>,
}

#[derive(Debug, Default)]
struct Aliases {
    /// By alias number less one, as the client set them.
    incoming: Vec<Option<TopicName>>,
    /// By alias number less one, as we set them.
    outgoing: Vec<TopicName>,
}

#[derive(Debug)]
enum State {
    /// No CONNECT yet.
    Opened,
    Serving(SessionId),
    /// Bytes may still leave, nothing comes in.
    Closing,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: Peer,
    pub(crate) terms: Terms,
    /// The deadline that stands in the core's timers.
    pub(crate) timer: Option<Instant>,
    /// Answers to it that wait for a commit.
    pub(crate) held: u16,
    /// Its CONNACK waits for a commit, or for the check of its password.
    pub(crate) waits: bool,
    pub(crate) opened_at: Instant,
    /// Absent until it sends or gets a message.
    pub(crate) traffic: Option<Box<ClientTraffic>>,
    /// How it says who it is, where its CONNECT alone does not tell.
    pub(crate) stage: Option<Box<Stage>>,
    /// It is left unread until then, and a timer stands for that.
    pub(crate) paused_until: Option<Instant>,
    /// Where rates are bounded: what it has sent lately.
    pub(super) pace: Option<Box<Pace>>,
    /// It is closed without its last bytes.
    abandoned: bool,
    state: State,
    heard: Instant,
    out: BytesMut,
    flush_asked: bool,
    aliases: Option<Box<Aliases>>,
    alias_bytes: usize,
    /// In its driver's buffers: of packets not complete yet, and not written yet.
    buffered: usize,
    charge: Charge,
}

impl Link {
    pub(crate) fn new(peer: Peer, now: Instant, meter: &Meter) -> Link {
        let terms = Terms {
            version: Version::V5,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            problem_information: true,
            patience: None,
        };
        let mut link = Link {
            peer,
            terms,
            timer: None,
            held: 0,
            waits: false,
            opened_at: now,
            traffic: None,
            stage: None,
            paused_until: None,
            pace: None,
            abandoned: false,
            state: State::Opened,
            heard: now,
            out: BytesMut::new(),
            flush_asked: false,
            aliases: None,
            alias_bytes: 0,
            buffered: 0,
            charge: meter.charge(0),
        };
        link.weigh();
        link
    }

    pub(crate) fn serve(&mut self, session: SessionId) {
        self.state = State::Serving(session);
    }

    pub(crate) fn close(&mut self) {
        self.state = State::Closing;
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.state {
            State::Serving(session) => Some(session),
            State::Opened | State::Closing => None,
        }
    }

    /// Gives up what waits for it.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
        self.out = BytesMut::new();
        self.set_buffered(0);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing)
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// When the client counts as gone unless it is heard.
    pub(crate) fn gone_at(&self) -> Option<Instant> {
        self.heard.checked_add(self.terms.patience?)
    }

    /// Whether a message may be encoded, or has to wait in its queue.
    pub(crate) fn has_room(&self) -> bool {
        self.out.len() < FULL_BYTES
    }

    /// Whether it leaves our answers untaken.
    pub(crate) fn is_stalled(&self) -> bool {
        self.out.len() >= STALLED_BYTES
    }

    /// What it sent and got.
    pub(crate) fn traffic(&mut self, now: Instant) -> &mut ClientTraffic {
        self.traffic
            .get_or_insert_with(|| Box::new(ClientTraffic::new(now)))
    }

    /// Hands over the bytes that wait.
    pub(crate) fn take(&mut self) -> BytesMut {
        self.flush_asked = false;
        let bytes = std::mem::take(&mut self.out);
        self.buffered += bytes.capacity();
        self.weigh();
        bytes
    }

    /// Bytes that wait in its buffers, here and in its driver's.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered + self.out.capacity()
    }

    /// The driver's buffers have this size.
    pub(crate) fn set_buffered(&mut self, bytes: usize) {
        self.buffered = bytes;
        self.weigh();
    }

    fn weigh(&mut self) {
        let own = LINK_BYTES + self.peer.admission.stream_bytes + self.alias_bytes;
        self.charge.set((own + self.buffered()) & !(WEIGHED_BY - 1));
    }

    /// Encodes a packet; true when a flush has to be asked for. One that the client would not
    /// take goes without its details, or not at all [MQTT-3.1.2-25].
    pub(crate) fn send(&mut self, mut packet: Packet) -> bool {
        if !self.terms.problem_information {
            drop_unwanted_details(&mut packet);
        }
        if !self.takes(&packet, 0) {
            packet.drop_details();
            if !self.takes(&packet, 0) {
                return false;
            }
        }
        self.encode(&packet)
    }

    /// Encodes a message; `None` when it is larger than the client takes.
    pub(crate) fn send_publish(&mut self, publish: Publish) -> Option<bool> {
        let mut packet = Packet::Publish(publish);
        if !self.takes(&packet, 0) {
            return None;
        }
        if self.terms.topic_alias_maximum > 0
            && self.takes(&packet, ALIAS_BYTES)
            && let Packet::Publish(publish) = &mut packet
        {
            self.shorten(publish);
        }
        Some(self.encode(&packet))
    }

    /// The topic that a client's PUBLISH means; `Err` when its alias stands for none.
    pub(crate) fn resolve(
        &mut self,
        topic: Option<TopicName>,
        alias: Option<TopicAlias>,
        maximum: u16,
    ) -> Result<TopicName, WrongAlias> {
        let Some(alias) = alias else {
            return topic.ok_or(WrongAlias::Unknown);
        };
        if alias.value() > maximum {
            return Err(WrongAlias::TooHigh);
        }
        let index = usize::from(alias.value()) - 1;
        let aliases = &mut self.aliases.get_or_insert_default().incoming;
        let Some(topic) = topic else {
            return aliases
                .get(index)
                .cloned()
                .flatten()
                .ok_or(WrongAlias::Unknown);
        };
        if aliases.len() <= index {
            aliases.resize(index + 1, None);
        }
        let old = aliases[index].replace(topic.clone());
        self.alias_bytes += topic.as_str().len() + ALIAS_ENTRY_BYTES;
        self.alias_bytes -= old.map_or(0, |old| old.as_str().len() + ALIAS_ENTRY_BYTES);
        self.weigh();
        Ok(topic)
    }

    /// Puts an alias in the topic's place, or introduces one while there are any left.
    fn shorten(&mut self, publish: &mut Publish) {
        let Some(topic) = &publish.topic else { return };
        let maximum = self.terms.topic_alias_maximum.min(OUTGOING_ALIASES_MAX);
        let aliases = &mut self.aliases.get_or_insert_default().outgoing;
        let number = |index: usize| TopicAlias::new(u16::try_from(index + 1).unwrap_or(0));
        if let Some(index) = aliases.iter().position(|known| known == topic) {
            publish.topic_alias = number(index);
            publish.topic = None;
        } else if aliases.len() < usize::from(maximum) {
            publish.topic_alias = number(aliases.len());
            aliases.push(topic.clone());
            self.alias_bytes += topic.as_str().len() + ALIAS_ENTRY_BYTES;
        }
    }

    /// Whether a packet is no larger than the client takes, if it grows by so many bytes more.
    pub(crate) fn takes(&self, packet: &Packet, more: usize) -> bool {
        let Some(maximum) = self.terms.maximum_packet_size else {
            return true;
        };
        packet::encoded_len(packet, self.terms.version)
            .is_ok_and(|len| len + more <= maximum as usize)
    }

    fn encode(&mut self, packet: &Packet) -> bool {
        if self.is_closing() || packet::encode(packet, self.terms.version, &mut self.out).is_err() {
            return false;
        }
        self.weigh();
        !std::mem::replace(&mut self.flush_asked, true)
    }
}

/// A topic alias that stands for no topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrongAlias {
    /// Not set up on this connection [MQTT-3.3.2-7].
    Unknown,
    /// Above what CONNACK allows [MQTT-3.3.2-9].
    TooHigh,
}

impl WrongAlias {
    /// What the client is told (5.0, 3.3.2.3.4).
    pub(crate) fn told(self) -> (ReasonCode, &'static str) {
        match self {
            WrongAlias::Unknown => {
                let why = "the topic alias was not set up on this connection [MQTT-3.3.2-7]";
                (ReasonCode::ProtocolError, why)
            }
            WrongAlias::TooHigh => {
                let why = "the topic alias is above the maximum [MQTT-3.3.2-9]";
                (ReasonCode::TopicAliasInvalid, why)
            }
        }
    }
}

/// Without "request problem information" only CONNACK, PUBLISH and DISCONNECT may explain
/// themselves [MQTT-3.1.2-29].
fn drop_unwanted_details(packet: &mut Packet) {
    if !matches!(
        packet,
        Packet::ConnAck(_) | Packet::Publish(_) | Packet::Disconnect(_)
    ) {
        packet.drop_details();
    }
}
