//! Everything the decoder refuses, each with its reason code and the statement it offends.
//!
//! Values. Invariant: one table; a refusal that is not listed here cannot be made.

use std::fmt;

use super::{PacketType, ReasonCode, Version};

/// Writes the enum and its lookups from one table. The statements are those of 3.1.1 and of 5.0;
/// "" where the rule stands in the text without a number, or the version has no such rule.
macro_rules! faults {
    ($($name:ident: $reason:ident, $v3:literal, $v5:literal, $text:literal;)*) => {
        /// What is wrong with a packet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fault {
            $(#[doc = $text] $name,)*
        }

        impl Fault {
            /// Every fault there is.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What to answer, where the version lets a server answer.
            pub fn reason(self) -> ReasonCode {
                match self {
                    $(Self::$name => ReasonCode::$reason,)*
                }
            }

            /// The statement offended; `None` where the specification gives it no number.
            pub fn statement(self, version: Version) -> Option<&'static str> {
                let (v3, v5) = match self {
                    $(Self::$name => ($v3, $v5),)*
                };
                let statement = match version {
                    Version::V3 => v3,
                    Version::V5 => v5,
                };
                (!statement.is_empty()).then_some(statement)
            }

            /// What is wrong, for people.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

faults! {
    // The fixed header.
    UnknownType: MalformedPacket, "", "", "packet type 0 is reserved";
    AuthInV3: MalformedPacket, "", "", "packet type 15 is reserved in MQTT 3.1.1";
    ReservedFlags: MalformedPacket, "MQTT-2.2.2-2", "MQTT-2.1.3-1", "the fixed header's flags are not those of the packet type";
    LengthTooLong: MalformedPacket, "", "", "a variable byte integer takes more than four bytes";
    LengthNotMinimal: MalformedPacket, "", "MQTT-1.5.5-1", "a variable byte integer takes more bytes than needed";
    PacketTooLarge: PacketTooLarge, "", "MQTT-3.2.2-15", "the packet is larger than the receiver takes";
    NotConnectFirst: ProtocolError, "MQTT-3.1.0-1", "MQTT-3.1.0-1", "the first packet is no CONNECT";
    SecondConnect: ProtocolError, "MQTT-3.1.0-2", "MQTT-3.1.0-2", "CONNECT came a second time";
    WrongDirection: ProtocolError, "", "", "this packet type does not travel in this direction";
    // Fields of every packet.
    Truncated: MalformedPacket, "", "", "the packet ends within a field";
    TrailingBytes: MalformedPacket, "", "", "bytes follow the last field";
    NotUtf8: MalformedPacket, "MQTT-1.5.3-1", "MQTT-1.5.4-1", "a string is not well-formed UTF-8";
    NullCharacter: MalformedPacket, "MQTT-1.5.3-2", "MQTT-1.5.4-2", "a string contains the null character";
    ZeroPacketId: ProtocolError, "MQTT-2.3.1-1", "MQTT-2.2.1-3", "the packet identifier is zero";
    UnknownReason: MalformedPacket, "", "", "the reason code is not one of this packet type";
    // Properties.
    PropertyLength: MalformedPacket, "", "", "the property length exceeds the packet";
    UnknownProperty: MalformedPacket, "", "", "the property identifier is not assigned";
    PropertyNotAllowed: MalformedPacket, "", "", "the property does not belong to this packet";
    DuplicateProperty: ProtocolError, "", "", "the property occurs twice";
    PropertyValue: ProtocolError, "", "", "the property's value is outside its range";
    TooManyUserProperties: QuotaExceeded, "", "", "the packet has more user properties than the receiver takes";
    TooManySubscriptionIds: QuotaExceeded, "", "", "the packet has more subscription identifiers than the receiver takes";
    DataWithoutMethod: ProtocolError, "", "", "authentication data came without an authentication method";
    NoAuthenticationMethod: ProtocolError, "", "", "AUTH names no authentication method";
    // CONNECT.
    ProtocolName: UnsupportedProtocolVersion, "MQTT-3.1.2-1", "MQTT-3.1.2-1", "the protocol name is not MQTT";
    ProtocolVersion: UnsupportedProtocolVersion, "MQTT-3.1.2-2", "MQTT-3.1.2-2", "the protocol version is neither 4 (3.1.1) nor 5";
    ConnectReservedFlag: MalformedPacket, "MQTT-3.1.2-3", "MQTT-3.1.2-3", "the reserved connect flag is set";
    WillQosWithoutWill: MalformedPacket, "MQTT-3.1.2-13", "MQTT-3.1.2-11", "a will QoS is set without a will";
    WillQos: MalformedPacket, "MQTT-3.1.2-14", "MQTT-3.1.2-12", "the will QoS is 3";
    WillRetainWithoutWill: MalformedPacket, "MQTT-3.1.2-15", "MQTT-3.1.2-13", "the will retain flag is set without a will";
    PasswordWithoutUserName: MalformedPacket, "MQTT-3.1.2-22", "", "a password came without a user name";
    // CONNACK.
    ConnAckFlags: MalformedPacket, "", "MQTT-3.2.2-1", "the reserved acknowledge flags are set";
    SessionPresentOnFailure: ProtocolError, "MQTT-3.2.2-4", "MQTT-3.2.2-6", "a refusal claims that a session is present";
    // PUBLISH.
    PublishQos: MalformedPacket, "MQTT-3.3.1-4", "MQTT-3.3.1-4", "both QoS bits are set";
    DupAtQos0: MalformedPacket, "MQTT-3.3.1-2", "MQTT-3.3.1-2", "DUP is set at QoS 0";
    EmptyTopic: ProtocolError, "MQTT-4.7.3-1", "MQTT-4.7.3-1", "the topic name is empty and no topic alias stands for it";
    WildcardInTopic: TopicNameInvalid, "MQTT-3.3.2-2", "MQTT-3.3.2-2", "the topic name contains a wildcard";
    ZeroTopicAlias: TopicAliasInvalid, "", "MQTT-3.3.2-8", "the topic alias is zero";
    WildcardInResponseTopic: TopicNameInvalid, "", "MQTT-3.3.2-14", "the response topic is empty or contains a wildcard";
    SubscriptionIdFromClient: ProtocolError, "", "MQTT-3.3.4-6", "a client sent a subscription identifier in PUBLISH";
    // SUBSCRIBE and UNSUBSCRIBE.
    NoFilters: ProtocolError, "MQTT-3.8.3-3", "MQTT-3.8.3-2", "SUBSCRIBE has no topic filter";
    NoFiltersToEnd: ProtocolError, "MQTT-3.10.3-2", "MQTT-3.10.3-2", "UNSUBSCRIBE has no topic filter";
    TooManyFilters: QuotaExceeded, "", "", "the packet has more topic filters than the receiver takes";
    EmptyFilter: TopicFilterInvalid, "MQTT-4.7.3-1", "MQTT-4.7.3-1", "the topic filter is empty";
    MisplacedHash: TopicFilterInvalid, "MQTT-4.7.1-2", "MQTT-4.7.1-1", "# is not the whole and the last level of the topic filter";
    MisplacedPlus: TopicFilterInvalid, "MQTT-4.7.1-3", "MQTT-4.7.1-2", "+ is not a whole level of the topic filter";
    ShareInvalid: TopicFilterInvalid, "", "MQTT-4.8.2-2", "the shared subscription does not read $share/group/filter";
    ReservedOptions: MalformedPacket, "MQTT-3.8.3-4", "MQTT-3.8.3-5", "reserved bits of the subscription options are set";
    SubscribeQos: ProtocolError, "MQTT-3.8.3-4", "", "the maximum QoS is 3";
    RetainHandling: ProtocolError, "", "", "the retain handling is 3";
    NoLocalOnShared: ProtocolError, "", "MQTT-3.8.3-4", "no local is set on a shared subscription";
    // SUBACK, UNSUBACK, DISCONNECT, AUTH.
    NoReasons: ProtocolError, "", "", "the acknowledgement carries no reason code";
    SessionExpiryFromServer: ProtocolError, "", "MQTT-3.14.2-2", "a server sent a session expiry interval in DISCONNECT";
    ServerReferenceFromClient: ProtocolError, "", "", "a client sent a server reference";
}

/// A packet that was refused. The bytes before it were sound; nothing after it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong.
    pub fault: Fault,
    /// In which packet; `None` where not even that is known.
    pub packet: Option<PacketType>,
    /// By which version's rules; for a CONNECT that does not say, those of 5.0.
    pub version: Version,
}

impl DecodeError {
    /// What to answer, where the version lets a server answer.
    pub fn reason(&self) -> ReasonCode {
        self.fault.reason()
    }

    /// The statement offended, as `MQTT-2.2.1-3`.
    pub fn statement(&self) -> Option<&'static str> {
        self.fault.statement(self.version)
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(packet) = self.packet {
            write!(f, "{packet}: ")?;
        }
        f.write_str(self.fault.text())?;
        if let Some(statement) = self.statement() {
            write!(f, " [{statement}]")?;
        }
        Ok(())
    }
}
