//! What can be configured: listeners, access rules, users, limits. Values only.
//!
//! Invariant: every limit of the broker is a key here, with its default.

mod check;
mod listener;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use settings::{Period, Secret, Size};

use crate::topic::{TopicError, TopicFilter};

pub use check::check;
pub use listener::{
    CertificateName, ClientAuth, IdentitySource, Listener, ListenerTls, SocketMode,
};

/// The `[broker]` table: everything a broker is told from outside.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to serve; none means that only the process itself uses the broker.
    #[serde(rename = "listener")]
    pub listeners: Vec<Listener>,
    /// Access rules: what none allows is refused. Without any rule at all, anonymous clients on
    /// loopback may do everything and others nothing. Topics that begin with `$` are never
    /// published to by clients.
    #[serde(rename = "access")]
    pub access: Vec<AccessRule>,
    /// Users whose passwords are in secrets of their own, such as systemd credentials. Most users
    /// belong into `password_file`, where passwords are hashed.
    #[serde(rename = "user")]
    pub users: Vec<User>,
    /// Users with their hashed passwords, as `broker-lite passwd` writes them. It is read again at
    /// a reload; who is no longer in it, or has another password, is disconnected then.
    pub password_file: Option<PathBuf>,
    /// Keep sessions and retained messages on disk; absent: they end with the broker.
    pub persistence: Option<Persistence>,
    /// While somebody listens to the `$SYS` topics, they are told anew at this interval; `"0s"`: there
    /// are none. Default: 10 s.
    pub sys_interval: Option<Period>,
    /// Bounds against faults and floods.
    pub limits: Limits,
}

impl Config {
    /// Between two rounds of the `$SYS` topics; zero: there are none.
    pub fn sys_interval(&self) -> Period {
        self.sys_interval.unwrap_or(Period::from_secs(10))
    }
}

/// Where sessions and retained messages are kept, and how soon.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// The SQLite file; its folder must exist. A change takes effect at the next start.
    pub path: PathBuf,
    /// Longest wait for others to share a commit with; an acknowledgement waits this long and one
    /// flush of the disk. Default: 5 ms.
    #[serde(default = "default_commit_delay")]
    pub commit_delay: Period,
}

fn default_commit_delay() -> Period {
    Period::from_millis(5)
}

/// One access rule: whom it is for, and what they may do.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessRule {
    /// User name, or the certificate's common name; absent: everyone, anonymous clients included.
    pub user: Option<String>,
    /// Client identifier; absent: any.
    pub client: Option<String>,
    /// Topic filters they may publish to; `%c` stands for the client identifier, `%u` for the user.
    pub publish: Vec<TopicPattern>,
    /// Topic filters they may receive from.
    pub subscribe: Vec<TopicPattern>,
}

impl AccessRule {
    /// Lets every client publish and receive everything, for a broker to try things with.
    pub fn everything() -> AccessRule {
        let pattern = |filter: &str| TopicPattern(filter.to_owned());
        AccessRule {
            publish: vec![pattern("#")],
            subscribe: vec![pattern("#"), pattern("$SYS/#")],
            ..AccessRule::default()
        }
    }
}

/// A topic filter in which `%c` and `%u` stand for one level: the client identifier, the user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("format" = "topic-pattern"))]
pub struct TopicPattern(pub String);

impl TopicPattern {
    /// Whether it is a topic filter once a name stands in for `%c` and `%u`.
    pub fn check(&self) -> Result<(), TopicError> {
        let example = self.0.replace("%c", "c").replace("%u", "u");
        TopicFilter::parse(&example).map(|_| ())
    }
}

/// A user name and where its password is.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The MQTT user name.
    pub name: String,
    /// The password itself, by reference.
    pub password: Secret,
}

/// Bounds against faults and floods; each is enforced where its name says.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections: u32,
    /// Connections at once from one address.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_per_address: u32,
    /// Sessions remembered, those of absent clients included.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sessions: u32,
    /// Time for a TLS handshake and a WebSocket's upgrade, the wait for their turn included.
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
    /// Largest packet accepted.
    pub packet_size: Size,
    /// Bytes of a topic.
    #[schemars(range(min = 1, max = 65_535))]
    pub topic_length: u32,
    /// Levels of a topic.
    #[schemars(range(min = 1, max = 1_000))]
    pub topic_levels: u32,
    /// Subscriptions of one client.
    #[schemars(range(min = 1, max = 100_000))]
    pub subscriptions: u32,
    /// Unacknowledged QoS 1 and 2 messages of one client, each way.
    #[schemars(range(min = 1, max = 65_535))]
    pub in_flight: u16,
    /// Messages waiting for one client.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub queued_messages: u32,
    /// Bytes waiting for one client.
    pub queued_bytes: Size,
    /// Retained messages.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub retained_messages: u32,
    /// Bytes of retained messages.
    pub retained_bytes: Size,
    /// Longest session expiry granted. Without `persistence` sessions end with the broker; with it
    /// their time goes on over a restart. An absence of more than 30 days is not believed, so that
    /// a wrong clock ends no session.
    pub session_expiry: Period,
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

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 1_024,
            connections_per_address: 256,
            sessions: 4_096,
            handshake_timeout: Period::from_secs(10),
            handshakes: 32,
            half_open_timeout: Period::from_secs(10),
            connect_timeout: Period::from_secs(10),
            packet_size: Size::from_kib(256),
            topic_length: 512,
            topic_levels: 32,
            subscriptions: 256,
            in_flight: 32,
            queued_messages: 10_000,
            queued_bytes: Size::from_mib(16),
            retained_messages: 10_000,
            retained_bytes: Size::from_mib(64),
            session_expiry: Period::from_secs(7 * 86_400),
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
