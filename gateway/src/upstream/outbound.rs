//! A message on its way up, and what in the buffer it stands for. Values.

use broker_lite::{
    packet::{MessageProperties, QoS},
    topic::TopicName,
};
use bytes::Bytes;
use serde_json::json;

/// What in the buffer a message stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A row.
    Row(i64),
    /// A gap, as far as it went when it was read.
    Gap { id: i64, count: u64 },
    /// Nothing: it is sent in the place of a message over which the upstream closes the link.
    StandIn,
}

/// A message ready for the upstream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outbound {
    pub(crate) key: Key,
    pub(crate) topic: TopicName,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: MessageProperties,
}

impl Outbound {
    /// A few words about this message, to see whether the upstream takes at least those.
    pub(crate) fn stand_in(&self, topic: TopicName) -> Outbound {
        let users = &self.properties.user_properties;
        let seq = users.iter().find(|(name, _)| *name == "seq");
        let words = json!({
            "topic": self.topic.as_str(),
            "seq": seq.and_then(|(_, seq)| seq.parse::<u64>().ok()),
            "bytes": self.payload.len(),
            "reason": "the link closes whenever this message is sent; it goes to the dead letters",
        });
        Outbound {
            key: Key::StandIn,
            topic,
            payload: Bytes::from(words.to_string()),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: MessageProperties::default(),
        }
    }

    /// Bytes on the wire at most, so that the upstream's packet limit is known to hold.
    pub(crate) fn wire_len(&self) -> usize {
        let properties = &self.properties;
        let users: usize = properties
            .user_properties
            .iter()
            .map(|(name, value)| name.len() + value.len() + 5)
            .sum();
        let texts = properties
            .content_type
            .as_ref()
            .map_or(0, |text| text.as_str().len() + 3)
            + properties
                .response_topic
                .as_ref()
                .map_or(0, |text| text.as_str().len() + 3)
            + properties
                .correlation_data
                .as_ref()
                .map_or(0, |data| data.len() + 3);
        // Fixed header, topic length, packet identifier, properties' length, format indicator.
        self.topic.as_str().len() + self.payload.len() + users + texts + 5 + 2 + 2 + 4 + 2
    }
}
