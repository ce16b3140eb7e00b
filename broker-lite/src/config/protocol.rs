//! What 5.0 clients are told and held to beyond limits. Values.
//!
//! Invariant: the default asks nothing of a client that the specification does not ask.

use schemars::JsonSchema;
use serde::Deserialize;

use super::TopicPattern;

/// Choices that MQTT 5.0 leaves to a server.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Protocol {
    /// Refuse messages and wills that call their payload text when it is not UTF-8. Default: no.
    pub validate_payload_format: bool,
    /// Where a client may have its requests answered, told to clients that ask for response
    /// information; `%c` stands for the client identifier, `%u` for the user. Default: nothing.
    pub response_topics: Option<TopicPattern>,
    /// Another broker for the clients of this one. Default: none.
    pub redirect: Option<Redirect>,
}

/// Another broker, and when clients are sent there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Where it is, in a form that the clients know, such as `standby.plant:8883`.
    pub server: String,
    /// When clients are sent there. Default: when this broker stops.
    #[serde(default)]
    pub when: RedirectWhen,
}

/// When clients are sent to another broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RedirectWhen {
    /// When this broker stops: "use another server", for now.
    #[default]
    Stop,
    /// As soon as they connect: "server moved", for good.
    Always,
}
