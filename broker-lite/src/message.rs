//! A message on its way from a publisher to subscribers and keepers. A value.
//!
//! Invariant: cloning a message never copies its payload.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    packet::{MessageProperties, QoS},
    topic::TopicName,
};

/// An application message, as every publisher hands it to the broker [MQTT 5, 1.2].
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Where it is published.
    pub topic: TopicName,
    /// The body, opaque to the broker.
    pub payload: Bytes,
    /// Delivery wished by the publisher.
    pub qos: QoS,
    /// Keep it as the topic's last known value.
    pub retain: bool,
    /// Seconds that it is worth delivering, from its publication on; absent: for ever.
    pub expiry_s: Option<u32>,
    /// MQTT 5 properties that travel with it; shared, since fan-out clones messages.
    pub properties: Option<Arc<MessageProperties>>,
    /// The topic's sequence number, given by the gateway's own publishers; clients give none.
    pub sequence: Option<u64>,
}

impl Message {
    /// A QoS 1 message without properties.
    pub fn new(topic: TopicName, payload: impl Into<Bytes>) -> Message {
        Message {
            topic,
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            expiry_s: None,
            properties: None,
            sequence: None,
        }
    }

    /// The same, retained.
    pub fn retained(self) -> Message {
        Message {
            retain: true,
            ..self
        }
    }

    /// The same, with another QoS.
    pub fn with_qos(self, qos: QoS) -> Message {
        Message { qos, ..self }
    }

    /// The same, numbered within its topic.
    pub fn numbered(self, sequence: u64) -> Message {
        Message {
            sequence: Some(sequence),
            ..self
        }
    }
}
