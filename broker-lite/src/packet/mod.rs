//! The control packets of MQTT 3.1.1 and 5.0 as values, and their encoding.
//!
//! ```text
//! bytes ── decode ── read, property ──> Packet ──> core ──> Packet ──> encode ── write ── bytes
//!                        └── wire: integers, strings ───────────────────────────┘
//!          fault: all that is refused        reason: what is answered
//! ```
//!
//! Values. Invariant: what `decode` returns is well formed and free of protocol errors that one
//! packet alone can show; what needs memory of earlier packets is the session's to judge.
//! One set of types serves both versions: properties are absent in 3.1.1.

mod connection;
mod decode;
mod encode;
mod fault;
mod message;
mod property;
mod read;
mod reason;
mod subscription;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod wire;
mod write;

use std::fmt;

pub use connection::{
    Auth, Authentication, ConnAck, ConnAckProperties, Connect, ConnectProperties, Credential,
    Disconnect, Will,
};
pub use decode::{Expect, Sender, decode};
pub use encode::{EncodeError, encode, encoded_len};
pub use fault::{DecodeError, Fault};
pub use message::{
    Ack, Delivery, Details, MessageProperties, PacketId, PayloadFormat, Publish, QoS, TopicAlias,
};
pub use reason::ReasonCode;
pub use subscription::{
    RetainHandling, SubAck, Subscribe, SubscribeOptions, SubscribeRequest, SubscriptionId,
    UnsubAck, Unsubscribe,
};
pub use text::{Text, TextError, UserProperties};

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
