//! A message on its way up, and what in the buffer it stands for. Values.

use broker_lite::{
    packet::{MessageProperties, QoS},
    topic::TopicName,
};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use super::budget::Account;
use crate::{
    config::{Batch, Compression},
    reading::ClockState,
};

/// What in the buffer a message stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A row.
    Row(i64),
    /// A gap, as far as it went when it was read.
    Gap { id: i64, count: u64 },
    /// Nothing: it is sent in the place of a message over which the upstream closes the link.
    StandIn,
    /// Nothing: it tells of the link itself.
    Notice,
}

/// A message ready for the upstream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outbound {
    pub(crate) key: Key,
    /// The local topic, within which order is kept.
    pub(crate) source: TopicName,
    /// Whether it may leave before older messages of its topic.
    pub(crate) overtakes: bool,
    pub(crate) topic: TopicName,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: MessageProperties,
    /// What it is packed from and how; `None`: it goes as it is.
    pub(crate) packing: Option<Box<Packing>>,
}

/// How a row is packed, and what of it only the packed form tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Packing {
    /// Bounds of the batch that it travels in; `None`: it travels alone.
    pub(crate) batch: Option<Batch>,
    pub(crate) compress: Option<Compression>,
    pub(crate) origin: Origin,
}

/// A row as the local broker took it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Origin {
    pub(crate) topic: TopicName,
    pub(crate) seq: u64,
    pub(crate) received: Timestamp,
    pub(crate) clock: ClockState,
}

/// Where the link's own words go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Notices {
    /// Those that stand in for a message over which the upstream closes the link.
    pub(crate) stand_ins: TopicName,
    /// That a budget is used up.
    pub(crate) budget: TopicName,
}

impl Notices {
    /// Tells that a budget is used up.
    pub(crate) fn of_budget(&self, account: &Account) -> Outbound {
        let words = json!({
            "period": account.period.as_str(),
            "limit": account.limit,
            "used": account.used,
            "until": account.until.map(|until| until.to_string()),
            "reason": "the link's budget is used up; only messages of high priority are sent",
        });
        Outbound::new(Key::Notice, self.budget.clone(), words.to_string())
    }
}

impl Outbound {
    /// A message on its own topic, in its order and alone, at QoS 1.
    pub(crate) fn new(key: Key, topic: TopicName, payload: impl Into<Bytes>) -> Outbound {
        Outbound {
            key,
            source: topic.clone(),
            overtakes: false,
            topic,
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: MessageProperties::default(),
            packing: None,
        }
    }

    /// A few words about this message, to see whether the upstream takes at least those.
    pub(crate) fn stand_in(&self, topic: TopicName) -> Outbound {
        let users = &self.properties.user_properties;
        let noted = users.iter().find(|(name, _)| *name == "seq");
        let noted = noted.and_then(|(_, seq)| seq.parse::<u64>().ok());
        let (topic_of_row, seq) = match &self.packing {
            Some(packing) => (&packing.origin.topic, Some(packing.origin.seq)),
            None => (&self.topic, noted),
        };
        let words = json!({
            "topic": topic_of_row.as_str(),
            "seq": seq,
            "bytes": self.payload.len(),
            "reason": "the link closes whenever this message is sent; it goes to the dead letters",
        });
        Outbound::new(Key::StandIn, topic, words.to_string())
    }

    /// Bytes on the wire at most, so that the upstream's packet limit is known to hold.
    pub(crate) fn wire_len(&self) -> usize {
        let properties = &self.properties;
        let users = properties.user_properties.wire_len();
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
