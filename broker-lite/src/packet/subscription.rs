//! The packets that make and end subscriptions: SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK.
//!
//! Values. Invariant: filters are well formed and a subscription identifier is one that can travel.

use std::num::NonZeroU32;

use super::{Details, MAX_REMAINING_LENGTH, PacketId, QoS, ReasonCode, UserProperties};
use crate::topic::SubscriptionFilter;

/// Tells a client which of its subscriptions a message came by: 1 to 268,435,455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(NonZeroU32);

/// SUBSCRIBE.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// Of the SUBACK to come.
    pub packet_id: PacketId,
    /// Belongs to every filter below.
    pub subscription_id: Option<SubscriptionId>,
    /// In the client's order.
    pub user_properties: UserProperties,
    /// One to [`MAX_FILTERS`](super::MAX_FILTERS).
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
    /// One to [`MAX_FILTERS`](super::MAX_FILTERS).
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
