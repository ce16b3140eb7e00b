//! What can be configured: listeners, access rules, users, limits. Values only.
//!
//! Invariant: every limit of the broker is a key here, with its default.

mod check;
mod limits;
mod listener;
mod observe;
mod protocol;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use settings::{Period, Secret};

use crate::topic::{TopicError, TopicFilter};

pub use check::check;
pub use limits::{Limits, WhenFull};
pub use listener::{
    CertificateName, ClientAuth, IdentitySource, Listener, ListenerTls, SocketMode,
};
pub use observe::{Log, LogFormat, Metrics};
pub use protocol::{Protocol, Redirect, RedirectWhen};

/// The `[broker]` table: everything a broker is told from outside.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to serve; none means that only the process itself uses the broker.
    #[serde(rename = "listener")]
    pub listeners: Vec<Listener>,
    /// Access rules: what none allows is refused. Without any rule nobody may do
    /// anything, on loopback neither. Topics that begin with `$` are never
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
    /// A second password file, of a program that keeps users of its own; never written in a file.
    #[serde(skip)]
    pub kept_passwords: Option<PathBuf>,
    /// Keep sessions and retained messages on disk; absent: they end with the broker.
    pub persistence: Option<Persistence>,
    /// While somebody listens to the `$SYS` topics, they are told anew at this interval; `"0s"`: there
    /// are none. Default: 10 s.
    pub sys_interval: Option<Period>,
    /// Bounds against faults and floods.
    pub limits: Limits,
    /// What 5.0 clients are told and held to.
    pub protocol: Protocol,
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
    /// Longest wait for others to share a commit with; an acknowledgement waits at most this long
    /// and one flush of the disk. Many that wait go sooner, when nobody joins them any more.
    /// Default: 5 ms.
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
