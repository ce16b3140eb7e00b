//! Buffer, upstream and the rules between them, in `gateway.toml`. Values.
//!
//! Invariant: nothing goes up or comes down unless a rule says so.

use std::path::PathBuf;

use broker_lite::{packet::QoS, topic::TopicFilter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use settings::{Period, Secret, Size};

use super::drain::{Budget, Drain};

/// The `[buffer]` table.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Buffer {
    /// The SQLite file.
    pub path: PathBuf,
    /// Most that the file and its log may take on disk.
    #[schemars(extend("x-minimum" = "1MiB"))]
    pub max_size: Size,
    /// Older messages are dropped, each in a gap marker; by default none is too old.
    #[schemars(extend("x-minimum" = "1s"))]
    pub max_age: Option<Period>,
    /// What happens when `max_size` or a rule's quota is reached.
    pub when_full: WhenFull,
    /// Longest wait of an acknowledgement for its group commit.
    #[schemars(extend("x-maximum" = "1s"))]
    pub commit_delay: Period,
    /// Most that messages of memory-first rules may take in memory, with what holds them.
    #[schemars(extend("x-minimum" = "64KiB", "x-maximum" = "1GiB"))]
    pub memory_size: Size,
    /// Longest that such a message waits in memory, and is lost with the power, while the link is up.
    #[schemars(extend("x-maximum" = "1h"))]
    pub spill_after: Period,
    /// The same while the link is down.
    #[schemars(extend("x-maximum" = "1h"))]
    pub spill_offline_after: Period,
    /// Bytes that can be written to the medium, by its data sheet (TBW); by default 300 times its
    /// size. Only the projection of its life depends on it.
    #[schemars(extend("x-minimum" = "1GiB"))]
    pub endurance: Option<Size>,
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer {
            path: "/var/lib/gateway/buffer.db".into(),
            max_size: Size::from_gib(2),
            max_age: None,
            when_full: WhenFull::DropOldest,
            commit_delay: Period::from_millis(10),
            memory_size: Size::from_mib(8),
            spill_after: Period::from_secs(30),
            spill_offline_after: Period::from_secs(5),
            endurance: None,
        }
    }
}

/// What a full buffer does with a new message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The oldest of the lowest priority makes room.
    DropOldest,
    /// The new message is dropped, and counted.
    DropNewest,
    /// The publisher is refused.
    Refuse,
}

/// The `[upstream]` table: the broker that the gateway forwards to.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `mqtts://HOST:PORT`; `mqtt://` only to loopback. In a list the first that lets us in counts.
    pub url: Urls,
    /// Client identifier; by default the gateway's id.
    pub client_id: Option<String>,
    /// MQTT version spoken.
    #[serde(default)]
    pub protocol: Protocol,
    /// Trust anchors for the server's certificate, PEM. Needed with `mqtts`.
    pub ca: Option<PathBuf>,
    /// In the place of `key`: `file`, the identity that `[identity]` keeps and renews, or `tpm`, the
    /// same with keys in the TPM of `[tpm]`.
    pub identity: Option<KeyPlace>,
    /// The gateway's certificate for mutual TLS, PEM, followed by its intermediates.
    pub certificate: Option<PathBuf>,
    /// The private key of that certificate, PEM.
    pub key: Option<PathBuf>,
    /// Name expected in the server's certificate; by default the host of `url`.
    pub server_name: Option<String>,
    /// `http://HOST:PORT` (CONNECT) or `socks5://HOST:PORT`: a proxy on the way, which also
    /// resolves the names in `url`.
    #[schemars(extend("format" = "proxy-url"))]
    pub proxy: Option<String>,
    /// User for that proxy.
    pub proxy_user: Option<String>,
    /// That user's password.
    pub proxy_password: Option<Secret>,
    /// Longest silence before the link is probed.
    #[serde(default = "default_keep_alive")]
    #[schemars(extend("x-minimum" = "5s", "x-maximum" = "18h"))]
    pub keep_alive: Period,
    /// Time to connect and be accepted.
    #[serde(default = "default_connect_timeout")]
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "5m"))]
    pub connect_timeout: Period,
    /// Messages under way at once.
    #[serde(default = "default_in_flight")]
    #[schemars(range(min = 1, max = 65_535))]
    pub in_flight: u16,
    /// How what has waited goes up beside what is new.
    #[serde(default)]
    pub drain: Drain,
    /// What the link may cost, for cellular ones.
    #[serde(default)]
    pub budget: Budget,
    /// The gateway as a Sparkplug B edge node; by default messages go up as they were published.
    pub sparkplug: Option<Sparkplug>,
    /// First pause before trying again; it doubles, with jitter, up to `retry_max`.
    #[serde(default = "default_retry")]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    pub retry: Period,
    /// Longest pause before trying again.
    #[serde(default = "default_retry_max")]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1d"))]
    pub retry_max: Period,
}

/// Where the key of the gateway's own identity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPlace {
    /// In a file of `[identity] directory`.
    File,
    /// In the TPM of `[tpm]`, which it never leaves.
    Tpm,
}

/// The `[upstream.sparkplug]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sparkplug {
    /// Group of edge nodes that this one belongs to.
    #[schemars(extend("format" = "name"))]
    pub group: String,
    /// Name of this edge node; by default the gateway's id.
    #[schemars(extend("format" = "name"))]
    pub node: Option<String>,
    /// Host application without which nothing is sent, but kept; by default none is waited for.
    #[schemars(extend("format" = "name"))]
    pub primary_host: Option<String>,
}

/// One address of the upstream, or several in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Urls {
    /// The only one.
    One(Url),
    /// While the first cannot be reached the next is used, until the first is back.
    #[schemars(extend("minItems" = 1, "maxItems" = 8))]
    Several(Vec<Url>),
}

/// `mqtts://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("format" = "upstream-url"))]
pub struct Url(pub String);

impl Urls {
    /// In the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let urls = match self {
            Urls::One(url) => std::slice::from_ref(url),
            Urls::Several(urls) => urls,
        };
        urls.iter().map(|url| url.0.as_str())
    }
}

impl From<String> for Urls {
    fn from(url: String) -> Urls {
        Urls::One(Url(url))
    }
}

fn default_keep_alive() -> Period {
    Period::from_secs(30)
}

fn default_connect_timeout() -> Period {
    Period::from_secs(10)
}

fn default_in_flight() -> u16 {
    100
}

fn default_retry() -> Period {
    Period::from_secs(1)
}

fn default_retry_max() -> Period {
    Period::from_secs(120)
}

/// MQTT version of the upstream link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum Protocol {
    /// MQTT 5.0.
    #[default]
    #[serde(rename = "5")]
    V5,
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V3,
}

/// A `[[forward]]`: local messages that go upstream. The first rule that matches counts.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Local topics taken.
    pub filter: TopicFilter,
    /// Topic upstream; `{gateway}` and `{topic}` are replaced.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// Delivery upstream.
    #[serde(default = "default_qos")]
    #[schemars(with = "u8", range(min = 0, max = 1))]
    pub qos: QoS,
    /// What leaves last when the buffer is full, and first when the link returns.
    #[serde(default)]
    pub priority: Priority,
    /// Whether new messages wait for older ones of their topic.
    #[serde(default)]
    pub order: Order,
    /// Most that this rule's messages may take in the buffer; by default as much as there is.
    pub quota: Option<Size>,
    /// Several messages in one packet, a JSON array; by default each goes alone.
    pub batch: Option<Batch>,
    /// Compression of what is sent; by default none.
    pub compress: Option<Compression>,
    /// Whether each message is on disk before it goes up, or waits in memory for a while.
    #[serde(default)]
    pub store: Store,
}

#[cfg(test)]
impl Forward {
    /// A rule with every default.
    pub(crate) fn example(filter: &str) -> Forward {
        serde_json::from_value(serde_json::json!({ "filter": filter })).expect("a rule")
    }
}

/// When a batch is full; what is reached first ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// Messages in it.
    #[schemars(range(min = 1, max = 1_000))]
    pub messages: u16,
    /// Bytes of it before compression; a message that is larger alone goes alone.
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "1MiB"))]
    pub bytes: Size,
    /// How long its first message waits for others.
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "30s"))]
    pub delay: Period,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            messages: 100,
            bytes: Size::from_kib(32),
            delay: Period::from_secs(1),
        }
    }
}

/// How a payload is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// A zstd frame (RFC 8878) that `zstd -d` reads.
    Zstd,
}

/// Where the messages of a forward rule wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Store {
    /// On disk: what a kill or the power takes is still sent.
    #[default]
    Durable,
    /// QoS 0 and the gateway's own readings in memory while the upstream takes them; on disk once it
    /// does not. What was published with QoS 1 or 2 is on disk before it is acknowledged.
    MemoryFirst,
}

/// A `[[receive]]`: upstream messages that are published locally.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Receive {
    /// Local topics that the upstream may publish to, such as `command/#`.
    pub filter: TopicFilter,
    /// Where upstream finds them; `{gateway}` and `{topic}` are replaced.
    #[serde(default = "default_topic")]
    pub topic: String,
}

/// Where messages go upstream, and come from.
pub(crate) const DEFAULT_TOPIC: &str = "{gateway}/{topic}";

fn default_topic() -> String {
    DEFAULT_TOPIC.to_owned()
}

fn default_qos() -> QoS {
    QoS::AtLeastOnce
}

/// In which order the messages of one topic go up while some of them wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// In the order of their numbers: a new one waits until the older ones are sent.
    #[default]
    Sequence,
    /// New ones at once, older ones beside them; receivers sort by `seq`.
    LiveFirst,
}

/// Rank of a forward rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Evicted first.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Evicted last, sent first.
    High,
}

impl Priority {
    /// In the order in which they are sent.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];
}
