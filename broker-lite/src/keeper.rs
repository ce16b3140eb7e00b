//! The seam to whoever keeps messages beyond the broker: the gateway's buffer. A value and a trait.
//!
//! Invariant: the broker acknowledges a kept message only after its `Receipt` says it is on disk.

use std::fmt;

use crate::message::Message;

/// Keeps the messages that a forward rule matches until they are delivered upstream.
///
/// Both calls come from the broker while it routes: they must return at once.
pub trait Keeper: Send + Sync + 'static {
    /// Whether a message on this topic is to be kept before it is acknowledged.
    fn wants(&self, topic: &crate::topic::TopicName) -> bool;

    /// Takes a message for the next group commit. Calls arrive in publish order.
    fn keep(&self, message: &Message, receipt: Receipt);
}

/// What became of a message handed to a keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The group commit that holds it is on disk; for QoS 0 and what nobody is told of, a keeper may
    /// have it in memory.
    Committed,
    /// It could not be kept: full, or the disk fails. The publisher is told so where MQTT can.
    Refused,
}

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The subscribers have it; no keeper wants it.
    Routed,
    /// The subscribers have it, and the keeper's group commit that holds it is on disk.
    Kept,
    /// The subscribers have it, but the keeper could not keep it.
    Refused,
}

impl From<Kept> for Published {
    fn from(kept: Kept) -> Published {
        match kept {
            Kept::Committed => Published::Kept,
            Kept::Refused => Published::Refused,
        }
    }
}

/// To be answered once per message; dropped unanswered, it counts as refused.
pub struct Receipt(Option<Box<dyn FnOnce(Kept) + Send>>);

impl Receipt {
    /// A receipt that calls back, on whichever thread answers.
    pub fn new(answer: impl FnOnce(Kept) + Send + 'static) -> Receipt {
        Receipt(Some(Box::new(answer)))
    }

    /// Says what became of the message.
    pub fn answer(mut self, kept: Kept) {
        if let Some(answer) = self.0.take() {
            answer(kept);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Kept::Refused);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}
