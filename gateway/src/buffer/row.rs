//! What waits for the upstream, and what will never arrive there. Values.

use broker_lite::{
    packet::{MessageProperties, QoS},
    topic::TopicName,
};
use bytes::Bytes;
use jiff::Timestamp;

use super::retention::{Cursor, RANKS, Rank};
use crate::{config::Priority, reading::ClockState};

/// A message that waits for the upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Names the row; ascends within a priority.
    pub id: i64,
    /// The local topic.
    pub topic: TopicName,
    /// Its number within the topic.
    pub seq: u64,
    /// As published.
    pub qos: QoS,
    /// As published.
    pub retain: bool,
    /// When the broker took it; put right when the clock was not known then and is now.
    pub received: Timestamp,
    /// What that time is worth.
    pub clock: ClockState,
    /// MQTT 5 properties as published.
    pub properties: Option<MessageProperties>,
    /// As published.
    pub payload: Bytes,
}

impl Row {
    /// Of the rule that took it.
    pub fn priority(&self) -> Priority {
        Rank::of_row(self.id).priority()
    }
}

/// Rows in sending order, and how far reading has come.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) rows: Vec<Row>,
    /// The last row looked at, per rank.
    pub(crate) reached: Cursor,
    /// Ranks in which nothing more was there.
    pub(crate) ended: [bool; RANKS],
}

/// What waits behind a position.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The last row of each rank.
    pub(crate) until: Cursor,
    /// The last row of each topic that has any.
    pub(crate) waiting: Vec<(TopicName, i64)>,
}

/// Messages of a topic that will never arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Names the gap.
    pub id: i64,
    /// The local topic.
    pub topic: String,
    /// A [`Reason`](super::Reason) as a word.
    pub reason: String,
    /// Number of the first missing message.
    pub first_seq: u64,
    /// Number of the last one; some in between may have arrived, see `count`.
    pub last_seq: u64,
    /// When the first was received.
    pub from: Timestamp,
    /// When the last was received.
    pub to: Timestamp,
    /// How many are missing; 0 when that is not known.
    pub count: u64,
}
