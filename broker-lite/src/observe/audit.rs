//! What the broker tells its operator: who came, who went, what was refused and why. A value.
//!
//! Invariant: every refusal has a kind with a stable name, so that logs can be searched for it.

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::address::Address;

/// Refusals of one kind that are logged in a minute; the rest are only counted.
const LOGGED_PER_MINUTE: u32 = 10;

const MINUTE: Duration = Duration::from_secs(60);

/// Why something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    TooManyConnections,
    TooManyConnectionsFromAddress,
    TooManyConnectionsOnListener,
    TooManyHandshakes,
    TooManySessions,
    Banned,
    Handshake,
    Revoked,
    ConnectTimeout,
    Malformed,
    ProtocolViolation,
    Authentication,
    TooManyLogins,
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
    Memory,
    Rate,
    ConnectionRate,
    RetainNotSupported,
    UserProperties,
    PayloadFormat,
    Redirected,
    Delivery,
}

impl Refusal {
    /// Every kind, in the order of their numbers.
    pub(crate) const ALL: [Refusal; 35] = [
        Refusal::TooManyConnections,
        Refusal::TooManyConnectionsFromAddress,
        Refusal::TooManyConnectionsOnListener,
        Refusal::TooManyHandshakes,
        Refusal::TooManySessions,
        Refusal::Banned,
        Refusal::Handshake,
        Refusal::Revoked,
        Refusal::ConnectTimeout,
        Refusal::Malformed,
        Refusal::ProtocolViolation,
        Refusal::Authentication,
        Refusal::TooManyLogins,
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
        Refusal::Memory,
        Refusal::Rate,
        Refusal::ConnectionRate,
        Refusal::RetainNotSupported,
        Refusal::UserProperties,
        Refusal::PayloadFormat,
        Refusal::Redirected,
        Refusal::Delivery,
    ];

    /// The stable name, for logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Refusal::TooManyConnections => "too-many-connections",
            Refusal::TooManyConnectionsFromAddress => "too-many-connections-from-address",
            Refusal::TooManyConnectionsOnListener => "too-many-connections-on-listener",
            Refusal::TooManyHandshakes => "too-many-handshakes",
            Refusal::TooManySessions => "too-many-sessions",
            Refusal::Banned => "banned",
            Refusal::Handshake => "handshake",
            Refusal::Revoked => "certificate-revoked",
            Refusal::ConnectTimeout => "connect-timeout",
            Refusal::Malformed => "malformed-packet",
            Refusal::ProtocolViolation => "protocol-violation",
            Refusal::Authentication => "authentication",
            Refusal::TooManyLogins => "too-many-logins",
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
            Refusal::Memory => "memory",
            Refusal::Rate => "rate",
            Refusal::ConnectionRate => "connection-rate",
            Refusal::RetainNotSupported => "retain-not-supported",
            Refusal::UserProperties => "user-properties",
            Refusal::PayloadFormat => "payload-format",
            Refusal::Redirected => "redirected",
            Refusal::Delivery => "delivery-not-allowed",
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
    pub(crate) address: Option<Address>,
    pub(crate) client: Option<Arc<str>>,
    pub(crate) user: Option<String>,
    /// The listener's own address.
    pub(crate) listener: Option<Arc<str>>,
}

/// Something an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Connected {
        who: Who,
        version: u8,
        resumed: bool,
    },
    Disconnected {
        who: Who,
        reason: String,
    },
    /// An address is not served for so long.
    BanBegan {
        address: IpAddr,
        length: Duration,
    },
    BanEnded {
        address: IpAddr,
    },
    /// Memory runs short; told again only when more gives way.
    MemoryShort {
        used: usize,
        limit: usize,
        gives_way: &'static str,
    },
    /// There is enough memory again.
    MemoryEnough {
        used: usize,
        limit: usize,
    },
    Refused {
        who: Who,
        refusal: Refusal,
        /// The access rules that speak for the client, or the key that decides.
        rule: String,
        topic: Option<String>,
        reason: String,
    },
}

/// Keeps a flood of refusals from becoming a flood of log lines.
#[derive(Debug)]
pub(crate) struct Limiter {
    kinds: [Option<Window>; Refusal::ALL.len()],
}

impl Default for Limiter {
    fn default() -> Limiter {
        Limiter {
            kinds: [const { None }; Refusal::ALL.len()],
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    count: u32,
}

/// What to do with one refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logging {
    /// Log it; so many of its kind were left out before.
    Log { left_out: u32 },
    /// Only count it.
    LeaveOut,
}

impl Limiter {
    /// Decides about an event that happened now; changes of state are always logged.
    pub(crate) fn admit_event(&mut self, event: &Event, now: Instant) -> Logging {
        match event {
            Event::Refused { refusal, .. } => self.admit(*refusal, now),
            Event::Connected { .. }
            | Event::Disconnected { .. }
            | Event::BanBegan { .. }
            | Event::BanEnded { .. }
            | Event::MemoryShort { .. }
            | Event::MemoryEnough { .. } => Logging::Log { left_out: 0 },
        }
    }

    /// Decides about a refusal that happened now.
    fn admit(&mut self, refusal: Refusal, now: Instant) -> Logging {
        let slot = &mut self.kinds[refusal as usize];
        let fresh = Window {
            from: now,
            count: 0,
        };
        let old = slot.filter(|window| now.saturating_duration_since(window.from) < MINUTE);
        let left_out = match (&old, &slot) {
            (None, Some(ended)) => ended.count.saturating_sub(LOGGED_PER_MINUTE),
            _ => 0,
        };
        let window = slot.insert(old.unwrap_or(fresh));
        window.count = window.count.saturating_add(1);
        if window.count > LOGGED_PER_MINUTE {
            Logging::LeaveOut
        } else {
            Logging::Log { left_out }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_in_the_order_of_their_list() {
        for (number, kind) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, number, "{kind}");
        }
    }

    #[test]
    fn a_flood_of_one_kind_is_cut_and_counted_and_hides_no_other() {
        let (mut limiter, now) = (Limiter::default(), crate::broker::sim::start());
        let logged =
            |limiter: &mut Limiter| limiter.admit(Refusal::Publish, now) != Logging::LeaveOut;
        assert_eq!((0..25).filter(|_| logged(&mut limiter)).count(), 10);
        assert_eq!(
            limiter.admit(Refusal::Subscribe, now),
            Logging::Log { left_out: 0 }
        );
        assert_eq!(
            limiter.admit(Refusal::Publish, now + MINUTE),
            Logging::Log { left_out: 15 }
        );
    }
}
