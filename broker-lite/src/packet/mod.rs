//! The control packets of MQTT 3.1.1 and 5.0 as values, and their encoding.
//!
//! ```text
//! bytes ── decode ── Packet ── broker core ── Packet ── encode ── bytes
//!             │                                           │
//!            wire, property (how a field travels)    reason, fault (what may go wrong)
//! ```
//!
//! Values. Invariant: what `decode` returns is well formed and free of protocol errors that one
//! packet alone can show; what needs memory of earlier packets is the session's to judge.
//! One set of types serves both versions: properties are absent in 3.1.1.

mod body;
mod decode;
mod encode;
mod fault;
mod property;
mod reason;
mod text;
mod wire;

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::Bytes;

pub use decode::{Expect, Sender, decode};
pub use encode::{EncodeError, encode, encoded_len};
pub use fault::{DecodeError, Fault};
pub use reason::ReasonCode;
pub use text::{Text, TextError, UserProperties};

use crate::topic::{SubscriptionFilter, TopicName};

/// The largest packet the format can express, in bytes after the fixed header.
pub const MAX_REMAINING_LENGTH: usize = 268_435_455;
/// More user properties than this in one packet are refused: no use is known, floods are.
pub const MAX_USER_PROPERTIES: usize = 256;
/// More topic filters than this in one SUBSCRIBE or UNSUBSCRIBE are refused: each becomes several
/// allocations, and a client may send a second packet.
pub const MAX_FILTERS: usize = 1_024;
/// More subscription identifiers than this in one PUBLISH are refused: one per overlapping
/// subscription of one client is what a server sends.
pub const MAX_SUBSCRIPTION_IDS: usize = 1_024;

/// The protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V3,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// One control packet.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet {
    /// Client: opens the session.
    Connect(Box<Connect>),
    /// Server: answers CONNECT.
    ConnAck(Box<ConnAck>),
    /// Either: an application message.
    Publish(Publish),
    /// Either: answers a PUBLISH at QoS 1.
    PubAck(Ack),
    /// Either: answers a PUBLISH at QoS 2.
    PubRec(Ack),
    /// Either: answers PUBREC.
    PubRel(Ack),
    /// Either: answers PUBREL.
    PubComp(Ack),
    /// Client: asks for subscriptions.
    Subscribe(Subscribe),
    /// Server: answers SUBSCRIBE.
    SubAck(SubAck),
    /// Client: ends subscriptions.
    Unsubscribe(Unsubscribe),
    /// Server: answers UNSUBSCRIBE.
    UnsubAck(UnsubAck),
    /// Client: says that it is alive.
    PingReq,
    /// Server: answers PINGREQ.
    PingResp,
    /// Client, and in 5.0 either: closes the connection in order.
    Disconnect(Disconnect),
    /// Either, 5.0 only: a step of enhanced authentication.
    Auth(Auth),
}

/// The type of a control packet; the value is the upper half of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the specification's own names")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

/// How surely a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

/// Pairs a packet with its acknowledgements; never zero `[MQTT-2.2.1-3]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(pub NonZeroU16);

/// Stands for a topic name on one connection; never zero `[MQTT-3.3.2-8]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicAlias(pub NonZeroU16);

/// Tells a client which of its subscriptions a message came by: 1 to 268,435,455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(NonZeroU32);

/// A password or authentication data: bytes that never show in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(pub Bytes);

/// CONNECT.
#[derive(Debug, Clone, PartialEq)]
pub struct Connect {
    /// The protocol that this connection speaks from here on.
    pub version: Version,
    /// Whether an existing session is to be dropped ("clean session" in 3.1.1).
    pub clean_start: bool,
    /// Seconds; the client sends something at least this often. Zero: no such promise.
    pub keep_alive_s: u16,
    /// May be empty: the server then assigns one, or refuses.
    pub client_id: Text,
    /// What to publish if the connection ends without DISCONNECT.
    pub will: Option<Will>,
    /// Who it claims to be.
    pub user_name: Option<Text>,
    /// The proof.
    pub password: Option<Credential>,
    /// All absent in 3.1.1.
    pub properties: ConnectProperties,
}

/// The properties of CONNECT; `None` is "absent", for which the specification states a default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectProperties {
    /// Seconds that the session outlives the connection; `u32::MAX` is for ever. Absent: 0.
    pub session_expiry_s: Option<u32>,
    /// How many QoS 1 and 2 messages the client takes unacknowledged. Absent: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet the client takes, in bytes, fixed header included. Absent: no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The highest topic alias the client takes. Absent: 0.
    pub topic_alias_maximum: Option<u16>,
    /// Whether CONNACK may carry response information. Absent: no.
    pub request_response_information: Option<bool>,
    /// Whether reason strings and user properties may accompany failures. Absent: yes.
    pub request_problem_information: Option<bool>,
    /// In the client's order.
    pub user_properties: UserProperties,
    /// Asks for enhanced authentication.
    pub authentication: Option<Authentication>,
}

/// An authentication method and, where a step has any, its data.
#[derive(Debug, Clone, PartialEq)]
pub struct Authentication {
    /// The method's name, such as `SCRAM-SHA-256`.
    pub method: Text,
    /// What the method exchanges.
    pub data: Option<Credential>,
}

/// The message that the server publishes for a client that vanished.
#[derive(Debug, Clone, PartialEq)]
pub struct Will {
    /// Where it is published.
    pub topic: TopicName,
    /// What is published.
    pub payload: Bytes,
    /// How surely.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Seconds to wait before publishing. Absent: 0.
    pub delay_s: Option<u32>,
    /// Seconds that it lives once published. Absent: for ever.
    pub message_expiry_s: Option<u32>,
    /// What travels with it unaltered; `None` when there is nothing.
    pub properties: Option<Arc<MessageProperties>>,
}

/// CONNACK.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnAck {
    /// Whether the server resumed a session.
    pub session_present: bool,
    /// Success, or why the connection is refused.
    pub reason: ReasonCode,
    /// All absent in 3.1.1.
    pub properties: ConnAckProperties,
}

/// The properties of CONNACK; `None` is "absent", for which the specification states a default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnAckProperties {
    /// Seconds; absent: what the client asked for.
    pub session_expiry_s: Option<u32>,
    /// How many QoS 1 and 2 messages the server takes unacknowledged. Absent: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// 0 or 1; absent: 2.
    pub maximum_qos: Option<QoS>,
    /// Absent: yes.
    pub retain_available: Option<bool>,
    /// Bytes, fixed header included. Absent: no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// For a client that gave none.
    pub assigned_client_id: Option<Text>,
    /// The highest topic alias the server takes. Absent: 0.
    pub topic_alias_maximum: Option<u16>,
    /// Absent: yes.
    pub wildcards_available: Option<bool>,
    /// Absent: yes.
    pub subscription_ids_available: Option<bool>,
    /// Absent: yes.
    pub shared_available: Option<bool>,
    /// Seconds; overrides the client's keep alive.
    pub server_keep_alive_s: Option<u16>,
    /// From which a client builds response topics.
    pub response_information: Option<Text>,
    /// Another server to use.
    pub server_reference: Option<Text>,
    /// The last step of enhanced authentication.
    pub authentication: Option<Authentication>,
    /// Why, for people.
    pub details: Option<Box<Details>>,
}

/// PUBLISH. What belongs to one hop stands here; what travels end to end is in `properties`,
/// which a fan-out shares.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// Whether this may be a repetition; false at QoS 0 `[MQTT-3.3.1-2]`.
    pub dup: bool,
    /// To the server: keep it. From the server: it was kept.
    pub retain: bool,
    /// QoS and packet identifier.
    pub delivery: Delivery,
    /// Absent only where `topic_alias` stands for it.
    pub topic: Option<TopicName>,
    /// Names the topic, or with `topic` sets what the alias stands for.
    pub topic_alias: Option<TopicAlias>,
    /// Seconds that the message still lives. Absent: for ever.
    pub message_expiry_s: Option<u32>,
    /// From the server only: the subscriptions that matched.
    pub subscription_ids: Vec<SubscriptionId>,
    /// What travels unaltered; `None` when there is nothing.
    pub properties: Option<Arc<MessageProperties>>,
    /// What is published.
    pub payload: Bytes,
}

/// How one PUBLISH is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Not at all `[MQTT-2.2.1-2]`.
    AtMostOnce,
    /// By PUBACK.
    AtLeastOnce(PacketId),
    /// By PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce(PacketId),
}

/// The properties of a message that every receiver gets as the publisher sent them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MessageProperties {
    /// Whether the payload claims to be UTF-8.
    pub payload_format: Option<PayloadFormat>,
    /// What the payload is, by convention a MIME type.
    pub content_type: Option<Text>,
    /// Where an answer is expected.
    pub response_topic: Option<TopicName>,
    /// Pairs the answer with its question; at most 65,535 bytes.
    pub correlation_data: Option<Bytes>,
    /// In the publisher's order `[MQTT-3.3.2-18]`.
    pub user_properties: UserProperties,
}

/// The payload format indicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadFormat {
    /// Not said.
    Unspecified,
    /// UTF-8 text.
    Utf8,
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP.
#[derive(Debug, Clone, PartialEq)]
pub struct Ack {
    /// Of the PUBLISH.
    pub packet_id: PacketId,
    /// Always `Success` in 3.1.1, which cannot say otherwise.
    pub reason: ReasonCode,
    /// Why, for people.
    pub details: Option<Box<Details>>,
}

/// What explains a reason code. Left out where the receiver's packet size or its wish (request
/// problem information) forbids; see [`Packet::drop_details`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// For diagnosis; not for programs.
    pub reason_string: Option<Text>,
    /// In the sender's order.
    pub user_properties: UserProperties,
}

/// SUBSCRIBE.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// Of the SUBACK to come.
    pub packet_id: PacketId,
    /// Belongs to every filter below.
    pub subscription_id: Option<SubscriptionId>,
    /// In the client's order.
    pub user_properties: UserProperties,
    /// One to [`MAX_FILTERS`].
    pub requests: Vec<SubscribeRequest>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscribeRequest {
    /// What topics, and shared by whom.
    pub filter: SubscriptionFilter,
    /// How.
    pub options: SubscribeOptions,
}

/// How a subscription delivers; 3.1.1 sets `qos` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The highest QoS to deliver at.
    pub qos: QoS,
    /// Whether the client's own messages are left out.
    pub no_local: bool,
    /// Whether messages keep their retain flag.
    pub retain_as_published: bool,
    /// Which retained messages come at once.
    pub retain_handling: RetainHandling,
}

/// Which retained messages a new subscription gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// All that match.
    Send = 0,
    /// All that match, unless the subscription existed.
    SendIfNew = 1,
    /// None.
    DoNotSend = 2,
}

/// SUBACK.
#[derive(Debug, Clone, PartialEq)]
pub struct SubAck {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// One per filter, in order: a granted QoS or a failure (0x80 whatever it is, in 3.1.1).
    pub reasons: Vec<ReasonCode>,
    /// Why, for people.
    pub details: Option<Box<Details>>,
}

/// UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsubscribe {
    /// Of the UNSUBACK to come.
    pub packet_id: PacketId,
    /// In the client's order.
    pub user_properties: UserProperties,
    /// One to [`MAX_FILTERS`].
    pub filters: Vec<SubscriptionFilter>,
}

/// UNSUBACK.
#[derive(Debug, Clone, PartialEq)]
pub struct UnsubAck {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One per filter, in order; not sent in 3.1.1.
    pub reasons: Vec<ReasonCode>,
    /// Why, for people.
    pub details: Option<Box<Details>>,
}

/// DISCONNECT.
#[derive(Debug, Clone, PartialEq)]
pub struct Disconnect {
    /// `Success` is the normal disconnection; 3.1.1 cannot say otherwise.
    pub reason: ReasonCode,
    /// From the client only: seconds that the session outlives the connection.
    pub session_expiry_s: Option<u32>,
    /// From the server only: another server to use.
    pub server_reference: Option<Text>,
    /// Why, for people.
    pub details: Option<Box<Details>>,
}

/// AUTH.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// `Success`, `ContinueAuthentication` or `ReAuthenticate`.
    pub reason: ReasonCode,
    /// The step; absent only in the shortest form, which means success.
    pub authentication: Option<Authentication>,
    /// Why, for people.
    pub details: Option<Box<Details>>,
}

impl Packet {
    /// Which of the fifteen it is.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Removes the reason string and its user properties, which a sender must leave out rather
    /// than exceed the receiver's maximum packet size `[MQTT-3.2.2-19]`, `[MQTT-3.4.2-2]`.
    pub fn drop_details(&mut self) {
        match self {
            Self::ConnAck(packet) => packet.properties.details = None,
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => {
                ack.details = None;
            }
            Self::SubAck(packet) => packet.details = None,
            Self::UnsubAck(packet) => packet.details = None,
            Self::Disconnect(packet) => packet.details = None,
            Self::Auth(packet) => packet.details = None,
            Self::Connect(_)
            | Self::Publish(_)
            | Self::Subscribe(_)
            | Self::Unsubscribe(_)
            | Self::PingReq
            | Self::PingResp => {}
        }
    }
}

impl Publish {
    /// The QoS of this hop.
    pub fn qos(&self) -> QoS {
        self.delivery.qos()
    }

    /// Absent at QoS 0.
    pub fn packet_id(&self) -> Option<PacketId> {
        self.delivery.packet_id()
    }
}

impl Delivery {
    /// The QoS alone.
    pub fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce(_) => QoS::AtLeastOnce,
            Self::ExactlyOnce(_) => QoS::ExactlyOnce,
        }
    }

    /// Absent at QoS 0.
    pub fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce(id) | Self::ExactlyOnce(id) => Some(id),
        }
    }
}

impl Ack {
    /// A plain success.
    pub fn success(packet_id: PacketId) -> Self {
        Self::new(packet_id, ReasonCode::Success)
    }

    /// A reason without further words.
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            details: None,
        }
    }
}

impl Disconnect {
    /// A reason without further words.
    pub fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry_s: None,
            server_reference: None,
            details: None,
        }
    }
}

impl Details {
    /// A reason string alone.
    pub fn because(reason: Text) -> Box<Self> {
        Box::new(Self {
            reason_string: Some(reason),
            user_properties: UserProperties::default(),
        })
    }
}

impl SubscribeOptions {
    /// What 3.1.1 can ask for: retained messages always come, the retain flag is cleared.
    pub fn at(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }
}

impl QoS {
    /// From its number; `None` above 2.
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

impl PacketId {
    /// `None` for zero.
    pub fn new(value: u16) -> Option<Self> {
        NonZeroU16::new(value).map(Self)
    }

    /// The number on the wire.
    pub fn value(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TopicAlias {
    /// `None` for zero.
    pub fn new(value: u16) -> Option<Self> {
        NonZeroU16::new(value).map(Self)
    }

    /// The number on the wire.
    pub fn value(self) -> u16 {
        self.0.get()
    }
}

impl SubscriptionId {
    /// `None` for zero and above 268,435,455.
    pub fn new(value: u32) -> Option<Self> {
        let value = NonZeroU32::new(value)?;
        (value.get() as usize <= MAX_REMAINING_LENGTH).then_some(Self(value))
    }

    /// The number on the wire.
    pub fn value(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

impl<'de> serde::Deserialize<'de> for QoS {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = <u8 as serde::Deserialize>::deserialize(deserializer)?;
        QoS::from_u8(value).ok_or_else(|| serde::de::Error::custom("a QoS is 0, 1 or 2"))
    }
}
