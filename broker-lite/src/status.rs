//! What a broker reports about itself. Values.
//!
//! Invariant: a status is a copy; reading it never holds up a message.

use std::collections::BTreeMap;

pub use crate::address::Address;

/// A broker's state at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The clients connected over the network.
    pub clients: Vec<ClientStatus>,
    /// Sessions, those of absent clients included.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Totals since the start.
    pub counters: Counters,
}

/// One connected client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientStatus {
    /// Client identifier.
    pub id: String,
    /// User name or certificate's name; absent for anonymous clients.
    pub identity: Option<String>,
    /// Where it connects from.
    pub address: Address,
    /// Protocol level: 4 for MQTT 3.1.1, 5 for 5.0.
    pub version: u8,
    /// Messages waiting for it.
    pub queued: usize,
    /// Messages it lost because its queue was full.
    pub dropped: u64,
}

/// Totals since the broker started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages published by clients and by the process itself.
    pub received: u64,
    /// Messages handed to subscribers, repetitions not counted.
    pub delivered: u64,
    /// What was refused, by stable reason name.
    pub refused: BTreeMap<&'static str, u64>,
}
