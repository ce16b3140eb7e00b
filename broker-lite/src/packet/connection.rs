//! The packets that open and close a connection: CONNECT, CONNACK, AUTH, DISCONNECT.
//!
//! Values. Invariant: a number that the specification forbids to be zero cannot be zero here; an
//! absent property is `None`, never its default.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::Bytes;

use super::{Details, MessageProperties, QoS, ReasonCode, Text, UserProperties, Version};
use crate::topic::TopicName;

/// A password or authentication data: bytes that never show in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(pub Bytes);

/// CONNECT.
#[derive(Debug, Clone, PartialEq)]
pub struct Connect {
    /// The protocol that this connection speaks from here on.
    pub version: Version,
    /// Whether an existing session is to be dropped ("clean session" in 3.1.1).
    pub clean_start: bool,
    /// Seconds; the client sends something at least this often. Zero: no such promise.
    pub keep_alive_s: u16,
    /// May be empty: the server then assigns one, or refuses.
    pub client_id: Text,
    /// What to publish if the connection ends without DISCONNECT.
    pub will: Option<Will>,
    /// Who it claims to be.
    pub user_name: Option<Text>,
    /// The proof.
    pub password: Option<Credential>,
    /// All absent in 3.1.1.
    pub properties: ConnectProperties,
}

/// The properties of CONNECT; `None` is "absent", for which the specification states a default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectProperties {
    /// Seconds that the session outlives the connection; `u32::MAX` is for ever. Absent: 0.
    pub session_expiry_s: Option<u32>,
    /// How many QoS 1 and 2 messages the client takes unacknowledged. Absent: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet the client takes, in bytes, fixed header included. Absent: no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The highest topic alias the client takes. Absent: 0.
    pub topic_alias_maximum: Option<u16>,
    /// Whether CONNACK may carry response information. Absent: no.
    pub request_response_information: Option<bool>,
    /// Whether reason strings and user properties may accompany failures. Absent: yes.
    pub request_problem_information: Option<bool>,
    /// In the client's order.
    pub user_properties: UserProperties,
    /// Asks for enhanced authentication.
    pub authentication: Option<Authentication>,
}

/// An authentication method and, where a step has any, its data.
#[derive(Debug, Clone, PartialEq)]
pub struct Authentication {
    /// The method's name, such as `SCRAM-SHA-256`.
    pub method: Text,
    /// What the method exchanges.
    pub data: Option<Credential>,
}

/// The message that the server publishes for a client that vanished.
#[derive(Debug, Clone, PartialEq)]
pub struct Will {
    /// Where it is published.
    pub topic: TopicName,
    /// What is published.
    pub payload: Bytes,
    /// How surely.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Seconds to wait before publishing. Absent: 0.
    pub delay_s: Option<u32>,
    /// Seconds that it lives once published. Absent: for ever.
    pub message_expiry_s: Option<u32>,
    /// What travels with it unaltered; `None` when there is nothing.
    pub properties: Option<Arc<MessageProperties>>,
}

/// CONNACK.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnAck {
    /// Whether the server resumed a session.
    pub session_present: bool,
    /// Success, or why the connection is refused.
    pub reason: ReasonCode,
    /// All absent in 3.1.1.
    pub properties: ConnAckProperties,
}

/// The properties of CONNACK; `None` is "absent", for which the specification states a default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnAckProperties {
    /// Seconds; absent: what the client asked for.
    pub session_expiry_s: Option<u32>,
    /// How many QoS 1 and 2 messages the server takes unacknowledged. Absent: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// 0 or 1; absent: 2.
    pub maximum_qos: Option<QoS>,
    /// Absent: yes.
    pub retain_available: Option<bool>,
    /// Bytes, fixed header included. Absent: no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// For a client that gave none.
    pub assigned_client_id: Option<Text>,
    /// The highest topic alias the server takes. Absent: 0.
    pub topic_alias_maximum: Option<u16>,
    /// Absent: yes.
    pub wildcards_available: Option<bool>,
    /// Absent: yes.
    pub subscription_ids_available: Option<bool>,
    /// Absent: yes.
    pub shared_available: Option<bool>,
    /// Seconds; overrides the client's keep alive.
    pub server_keep_alive_s: Option<u16>,
    /// From which a client builds response topics.
    pub response_information: Option<Text>,
    /// Another server to use.
    pub server_reference: Option<Text>,
    /// The last step of enhanced authentication.
    pub authentication: Option<Authentication>,
    /// Why, for people.
    pub details: Option<Box<Details>>,
}

/// DISCONNECT.
#[derive(Debug, Clone, PartialEq)]
pub struct Disconnect {
    /// `Success` is the normal disconnection; 3.1.1 cannot say otherwise.
    pub reason: ReasonCode,
    /// From the client only: seconds that the session outlives the connection.
    pub session_expiry_s: Option<u32>,
    /// From the server only: another server to use.
    pub server_reference: Option<Text>,
    /// Why, for people.
    pub details: Option<Box<Details>>,
}

/// AUTH.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// `Success`, `ContinueAuthentication` or `ReAuthenticate`.
    pub reason: ReasonCode,
    /// The step; absent only in the shortest form, which means success.
    pub authentication: Option<Authentication>,
    /// Why, for people.
    pub details: Option<Box<Details>>,
}

impl Disconnect {
    /// A reason without further words.
    pub fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry_s: None,
            server_reference: None,
            details: None,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
