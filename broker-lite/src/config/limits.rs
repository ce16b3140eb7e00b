//! The `[broker.limits]` table: bounds against faults and floods. Values.
//!
//! Invariant: each is enforced, counted and told under the name of its refusal.

use schemars::JsonSchema;
use serde::Deserialize;
use settings::{Period, Size};

/// Bounds against faults and floods; each is enforced where its name says.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory for all that clients make the broker hold. Near it, in this order: QoS 0 is no longer
    /// queued, new lasting sessions are refused, then new clients, subscriptions and retained messages, then
    /// messages that would have to be kept; at last the largest holders are disconnected.
    #[schemars(extend("x-minimum" = "16MiB"))]
    pub memory: Size,
    /// Connections at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections: u32,
    /// Connections at once from one address; an IPv6 network (/64) counts as one.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_per_address: u32,
    /// New connections of one address in a second, once it has used up `connections_per_address`
    /// at once; 0: any. Loopback is not bounded: one program there would lock out all.
    #[schemars(range(max = 100_000))]
    pub connections_per_second: u32,
    /// Sessions that outlive their connections, those of absent clients included; at most half of them
    /// of one user, or of all anonymous clients. Others need no more than their connection.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sessions: u32,
    /// Time for a TLS handshake with a WebSocket's upgrade, and before it for their turn to come.
    pub handshake_timeout: Period,
    /// TLS handshakes and WebSocket upgrades at once, at most a quarter of them from one address;
    /// others wait for their turn.
    #[schemars(range(min = 1, max = 10_000))]
    pub handshakes: u32,
    /// A TCP peer that vanished is dropped after this, whether bytes wait for it or not. The
    /// system asks an idle one every half of it, which wakes a client that sleeps with its radio
    /// off: made for wires and wireless networks of a plant, not for mobile ones. `"0s"`: never.
    pub half_open_timeout: Period,
    /// Time from connection to a whole CONNECT.
    pub connect_timeout: Period,
    /// Messages that one client may publish in a second; faster ones are read more slowly. 0: any.
    #[schemars(range(max = 10_000_000))]
    pub messages_per_second: u32,
    /// Bytes that one client may send in a second; faster ones are read more slowly. 0: any.
    pub bytes_per_second: Size,
    /// What a client may send at once after a silence: as much as in this time.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    pub burst: Period,
    /// Largest packet accepted.
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "256MiB"))]
    pub packet_size: Size,
    /// Bytes of a topic.
    #[schemars(range(min = 1, max = 65_535))]
    pub topic_length: u32,
    /// Levels of a topic.
    #[schemars(range(min = 1, max = 1_000))]
    pub topic_levels: u32,
    /// User properties of one message or will.
    #[schemars(range(max = 256))]
    pub user_properties: u32,
    /// Bytes of the user properties of one message or will.
    pub user_property_bytes: Size,
    /// Bytes of a will: its topic, payload and properties.
    pub will_size: Size,
    /// Subscriptions of one client.
    #[schemars(range(min = 1, max = 100_000))]
    pub subscriptions: u32,
    /// Subscriptions of all clients together.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub subscriptions_total: u32,
    /// Unacknowledged QoS 1 and 2 messages of one client, each way.
    #[schemars(range(min = 1, max = 65_535))]
    pub in_flight: u16,
    /// Messages waiting for one client.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub queued_messages: u32,
    /// Bytes waiting for one client.
    pub queued_bytes: Size,
    /// What a full queue loses; either way it is counted and told.
    pub queue_when_full: WhenFull,
    /// Queue QoS 0 messages for absent clients too. They do not survive a restart.
    pub queue_qos0: bool,
    /// Take retained messages at all. If not, clients are told so.
    pub retained: bool,
    /// Retained messages.
    #[schemars(range(max = 10_000_000))]
    pub retained_messages: u32,
    /// Bytes of retained messages.
    pub retained_bytes: Size,
    /// Longest session expiry granted. Without `persistence` sessions end with the broker; with it
    /// their time goes on over a restart. An absence of more than 30 days is not believed, so that
    /// a wrong clock ends no session.
    pub session_expiry: Period,
    /// Longest that a client's message may wait or be retained; absent: as long as its publisher
    /// says.
    #[schemars(extend("x-minimum" = "1s"))]
    pub message_expiry: Option<Period>,
    /// Longest keep alive granted; also what a client that asks for none is given.
    pub keep_alive: Period,
    /// Topic aliases a client may set up.
    pub topic_aliases: u16,
    /// Failed logins and handshakes from one address in a minute before it is banned; loopback
    /// never is, for one program there would lock out all.
    #[schemars(range(min = 1, max = 1_000))]
    pub authentication_failures: u32,
    /// Hashed passwords checked at once; each check takes a processor and about 19 MiB for a moment.
    #[schemars(range(min = 1, max = 64))]
    pub password_checks: u32,
    /// Logins that wait for such a check; beyond, those of the address with the most are refused.
    #[schemars(range(min = 1, max = 100_000))]
    pub password_checks_waiting: u32,
    /// First ban; it doubles up to `ban_max`.
    pub ban: Period,
    /// Longest ban.
    pub ban_max: Period,
}

/// What a full queue loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The message that comes: the queue stays without a gap up to its end.
    DropNewest,
    /// The message that has waited longest: the client gets the latest ones.
    DropOldest,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: Size::from_mib(128),
            connections: 1_024,
            connections_per_address: 256,
            connections_per_second: 100,
            sessions: 4_096,
            handshake_timeout: Period::from_secs(10),
            handshakes: 32,
            half_open_timeout: Period::from_secs(10),
            connect_timeout: Period::from_secs(10),
            messages_per_second: 0,
            bytes_per_second: Size::from_bytes(0),
            burst: Period::from_secs(2),
            packet_size: Size::from_kib(256),
            topic_length: 512,
            topic_levels: 32,
            user_properties: 64,
            user_property_bytes: Size::from_kib(16),
            will_size: Size::from_kib(64),
            subscriptions: 256,
            subscriptions_total: 100_000,
            in_flight: 32,
            queued_messages: 10_000,
            queued_bytes: Size::from_mib(16),
            queue_when_full: WhenFull::DropNewest,
            queue_qos0: false,
            retained: true,
            retained_messages: 10_000,
            retained_bytes: Size::from_mib(64),
            session_expiry: Period::from_secs(7 * 86_400),
            message_expiry: None,
            keep_alive: Period::from_secs(3_600),
            topic_aliases: 16,
            authentication_failures: 5,
            password_checks: 2,
            password_checks_waiting: 256,
            ban: Period::from_secs(60),
            ban_max: Period::from_secs(3_600),
        }
    }
}
