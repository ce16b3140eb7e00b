//! Reason codes: what each is called, which packets may carry it, and what 3.1.1 says instead.
//!
//! Values. Invariant: the table below is MQTT 5.0 section 2.4 row by row; nothing else lists them.

use std::fmt;

use super::PacketType;

/// Writes the enum, its numbers, texts and packets from one table.
macro_rules! reason_codes {
    ($($name:ident = $value:literal, $text:literal, [$($packet:ident)*];)*) => {
        /// The outcome of an operation; 0x80 and above is failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = $text] $name = $value,)*
        }

        impl ReasonCode {
            /// Every code, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// From its number; `None` where the specification assigns none.
            pub fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// What it means, for logs and reason strings.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Whether packets of this type may carry it.
            pub fn allowed_in(self, packet: PacketType) -> bool {
                match self {
                    $(Self::$name => matches!(packet, $(PacketType::$packet)|*),)*
                }
            }
        }
    };
}

reason_codes! {
    Success = 0x00, "success", [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth];
    GrantedQos1 = 0x01, "granted QoS 1", [SubAck];
    GrantedQos2 = 0x02, "granted QoS 2", [SubAck];
    DisconnectWithWill = 0x04, "disconnect with will message", [Disconnect];
    NoMatchingSubscribers = 0x10, "no matching subscribers", [PubAck PubRec];
    NoSubscriptionExisted = 0x11, "no subscription existed", [UnsubAck];
    ContinueAuthentication = 0x18, "continue authentication", [Auth];
    ReAuthenticate = 0x19, "re-authenticate", [Auth];
    UnspecifiedError = 0x80, "unspecified error", [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    MalformedPacket = 0x81, "malformed packet", [ConnAck Disconnect];
    ProtocolError = 0x82, "protocol error", [ConnAck Disconnect];
    ImplementationError = 0x83, "implementation specific error", [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    UnsupportedProtocolVersion = 0x84, "unsupported protocol version", [ConnAck];
    ClientIdNotValid = 0x85, "client identifier not valid", [ConnAck];
    BadUserNameOrPassword = 0x86, "bad user name or password", [ConnAck];
    NotAuthorized = 0x87, "not authorized", [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    ServerUnavailable = 0x88, "server unavailable", [ConnAck];
    ServerBusy = 0x89, "server busy", [ConnAck Disconnect];
    Banned = 0x8a, "banned", [ConnAck];
    ServerShuttingDown = 0x8b, "server shutting down", [Disconnect];
    BadAuthenticationMethod = 0x8c, "bad authentication method", [ConnAck Disconnect];
    KeepAliveTimeout = 0x8d, "keep alive timeout", [Disconnect];
    SessionTakenOver = 0x8e, "session taken over", [Disconnect];
    TopicFilterInvalid = 0x8f, "topic filter invalid", [SubAck UnsubAck Disconnect];
    TopicNameInvalid = 0x90, "topic name invalid", [ConnAck PubAck PubRec Disconnect];
    PacketIdInUse = 0x91, "packet identifier in use", [PubAck PubRec SubAck UnsubAck];
    PacketIdNotFound = 0x92, "packet identifier not found", [PubRel PubComp];
    ReceiveMaximumExceeded = 0x93, "receive maximum exceeded", [Disconnect];
    TopicAliasInvalid = 0x94, "topic alias invalid", [Disconnect];
    PacketTooLarge = 0x95, "packet too large", [ConnAck Disconnect];
    MessageRateTooHigh = 0x96, "message rate too high", [Disconnect];
    QuotaExceeded = 0x97, "quota exceeded", [ConnAck PubAck PubRec SubAck Disconnect];
    AdministrativeAction = 0x98, "administrative action", [Disconnect];
    PayloadFormatInvalid = 0x99, "payload format invalid", [ConnAck PubAck PubRec Disconnect];
    RetainNotSupported = 0x9a, "retain not supported", [ConnAck Disconnect];
    QosNotSupported = 0x9b, "QoS not supported", [ConnAck Disconnect];
    UseAnotherServer = 0x9c, "use another server", [ConnAck Disconnect];
    ServerMoved = 0x9d, "server moved", [ConnAck Disconnect];
    SharedSubscriptionsNotSupported = 0x9e, "shared subscriptions not supported", [SubAck Disconnect];
    ConnectionRateExceeded = 0x9f, "connection rate exceeded", [ConnAck Disconnect];
    MaximumConnectTime = 0xa0, "maximum connect time", [Disconnect];
    SubscriptionIdsNotSupported = 0xa1, "subscription identifiers not supported", [SubAck Disconnect];
    WildcardSubscriptionsNotSupported = 0xa2, "wildcard subscriptions not supported", [SubAck Disconnect];
}

/// The CONNACK return codes of 3.1.1, table 3.1, from 0 up.
const CONNECT_RETURN_CODES: [ReasonCode; 6] = [
    ReasonCode::Success,
    ReasonCode::UnsupportedProtocolVersion,
    ReasonCode::ClientIdNotValid,
    ReasonCode::ServerUnavailable,
    ReasonCode::BadUserNameOrPassword,
    ReasonCode::NotAuthorized,
];

impl ReasonCode {
    /// The number on the wire.
    pub fn value(self) -> u8 {
        self as u8
    }

    /// Whether what was asked did not happen.
    pub fn is_failure(self) -> bool {
        self.value() >= 0x80
    }

    /// The return code of a 3.1.1 CONNACK. `None` where that version has none: the server then
    /// closes the connection without a CONNACK (3.1.1, `[MQTT-3.2.2-6]`).
    pub fn connect_return_code(self) -> Option<u8> {
        Some(match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdNotValid => 2,
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved => 3,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => 5,
            _ => return None,
        })
    }

    /// From the return code of a 3.1.1 CONNACK.
    pub fn from_connect_return_code(code: u8) -> Option<Self> {
        CONNECT_RETURN_CODES.get(usize::from(code)).copied()
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_leads_to_its_code_and_back() {
        let listed: Vec<u8> = (0..=u8::MAX)
            .filter(|n| ReasonCode::from_u8(*n).is_some())
            .collect();
        let all: Vec<u8> = ReasonCode::ALL.iter().map(|code| code.value()).collect();
        assert_eq!(listed, all);
        assert_eq!(all.len(), 43);
    }

    #[test]
    fn every_connect_return_code_survives_a_round_trip() {
        for code in 0..6 {
            let reason = ReasonCode::from_connect_return_code(code);
            assert_eq!(reason.and_then(ReasonCode::connect_return_code), Some(code));
        }
        assert_eq!(ReasonCode::from_connect_return_code(6), None);
    }

    #[test]
    fn failures_without_a_return_code_have_none() {
        assert_eq!(ReasonCode::MalformedPacket.connect_return_code(), None);
        assert_eq!(ReasonCode::NotAuthorized.to_string(), "not authorized");
    }
}
