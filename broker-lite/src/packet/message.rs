//! The packets that carry and acknowledge messages: PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP.
//!
//! Values. Invariant: a packet identifier exists exactly where the QoS asks for one, and is never
//! zero; what a fan-out may share is apart from what belongs to one connection.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::Bytes;

use super::{ReasonCode, SubscriptionId, Text, UserProperties};
use crate::topic::TopicName;

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

impl MessageProperties {
    /// Bytes that they occupy, about.
    pub(crate) fn size(&self) -> usize {
        let content_type = self
            .content_type
            .as_ref()
            .map_or(0, |text| text.as_str().len());
        let response_topic = self.response_topic.as_ref();
        let response_topic = response_topic.map_or(0, |topic| topic.as_str().len());
        let correlation_data = self.correlation_data.as_ref().map_or(0, |data| data.len());
        let user_properties = self.user_properties.as_wire().len();
        size_of::<Self>() + content_type + response_topic + correlation_data + user_properties
    }
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
/// problem information) forbids; see [`Packet::drop_details`](super::Packet::drop_details).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// For diagnosis; not for programs.
    pub reason_string: Option<Text>,
    /// In the sender's order.
    pub user_properties: UserProperties,
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

impl Details {
    /// A reason string alone.
    pub fn because(reason: Text) -> Box<Self> {
        Box::new(Self {
            reason_string: Some(reason),
            user_properties: UserProperties::default(),
        })
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
