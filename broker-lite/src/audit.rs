//! What the broker tells its operator: who came, who went, what was refused and why. A value.
//!
//! Invariant: every refusal has a kind with a stable name, so that logs can be searched for it.

use std::{fmt, net::SocketAddr, sync::Arc};

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    TooManyConnections,
    TooManyConnectionsFromAddress,
    Banned,
    Handshake,
    ConnectTimeout,
    Malformed,
    ProtocolViolation,
    Authentication,
    ClientId,
    ForeignSession,
    Publish,
    Subscribe,
    Will,
    TopicLimit,
    SubscriptionLimit,
    ReceiveMaximum,
    QueueFull,
    RetainedFull,
    NotKept,
    PacketTooLarge,
    KeepAlive,
    ConfigurationChanged,
}

impl Refusal {
    /// Every kind, in the order of their numbers.
    pub(crate) const ALL: [Refusal; 22] = [
        Refusal::TooManyConnections,
        Refusal::TooManyConnectionsFromAddress,
        Refusal::Banned,
        Refusal::Handshake,
        Refusal::ConnectTimeout,
        Refusal::Malformed,
        Refusal::ProtocolViolation,
        Refusal::Authentication,
        Refusal::ClientId,
        Refusal::ForeignSession,
        Refusal::Publish,
        Refusal::Subscribe,
        Refusal::Will,
        Refusal::TopicLimit,
        Refusal::SubscriptionLimit,
        Refusal::ReceiveMaximum,
        Refusal::QueueFull,
        Refusal::RetainedFull,
        Refusal::NotKept,
        Refusal::PacketTooLarge,
        Refusal::KeepAlive,
        Refusal::ConfigurationChanged,
    ];

    /// The stable name, for logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Refusal::TooManyConnections => "too-many-connections",
            Refusal::TooManyConnectionsFromAddress => "too-many-connections-from-address",
            Refusal::Banned => "banned",
            Refusal::Handshake => "handshake",
            Refusal::ConnectTimeout => "connect-timeout",
            Refusal::Malformed => "malformed-packet",
            Refusal::ProtocolViolation => "protocol-violation",
            Refusal::Authentication => "authentication",
            Refusal::ClientId => "client-id",
            Refusal::ForeignSession => "foreign-session",
            Refusal::Publish => "publish-not-allowed",
            Refusal::Subscribe => "subscribe-not-allowed",
            Refusal::Will => "will-not-allowed",
            Refusal::TopicLimit => "topic-limit",
            Refusal::SubscriptionLimit => "subscription-limit",
            Refusal::ReceiveMaximum => "receive-maximum",
            Refusal::QueueFull => "queue-full",
            Refusal::RetainedFull => "retained-full",
            Refusal::NotKept => "not-kept",
            Refusal::PacketTooLarge => "packet-too-large",
            Refusal::KeepAlive => "keep-alive",
            Refusal::ConfigurationChanged => "configuration-changed",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whom an event is about, as far as known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) client: Option<Arc<str>>,
    pub(crate) user: Option<String>,
}

/// Something an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Connected { who: Who, version: u8, resumed: bool },
    Disconnected { who: Who, reason: String },
    Refused { who: Who, refusal: Refusal, topic: Option<String>, reason: String },
}
