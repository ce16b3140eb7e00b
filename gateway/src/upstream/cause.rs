//! Why the link to the upstream is down, in words that say whose turn it is. A value.

use std::fmt;

/// Why there is no link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No address, no route, no listener, or no answer in time.
    Unreachable(String),
    /// The server's certificate does not pass.
    ServerCertificate(String),
    /// The server does not take our certificate.
    OurCertificate(String),
    /// The server knows us but does not let us in.
    NotAuthorised(String),
    /// Our own certificate, key or trust anchors cannot be used.
    Credentials(String),
    /// The `[upstream]`, `[[forward]]` or `[[receive]]` tables make no sense.
    Configuration(String),
    /// The server ended the link.
    Closed(String),
    /// The server fell silent.
    Silent(String),
    /// The server sent what MQTT does not allow.
    Protocol(String),
}

impl Cause {
    /// Whether the server may have ended the link because of what we sent.
    pub(crate) fn is_by_upstream(&self) -> bool {
        matches!(self, Cause::Closed(_))
    }

    /// A short stable word, for metrics and status.
    pub fn as_str(&self) -> &'static str {
        match self {
            Cause::Unreachable(_) => "unreachable",
            Cause::ServerCertificate(_) => "server-certificate",
            Cause::OurCertificate(_) => "our-certificate",
            Cause::NotAuthorised(_) => "not-authorised",
            Cause::Credentials(_) => "credentials",
            Cause::Configuration(_) => "configuration",
            Cause::Closed(_) => "closed",
            Cause::Silent(_) => "silent",
            Cause::Protocol(_) => "protocol",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Unreachable(why) => write!(f, "unreachable: {why}"),
            Cause::ServerCertificate(why) => {
                write!(
                    f,
                    "its certificate does not pass: {why} (check [upstream] ca and server_name, and the clock)"
                )
            }
            Cause::OurCertificate(why) => {
                write!(
                    f,
                    "it does not take our certificate: {why} (check [upstream] certificate with its operator)"
                )
            }
            Cause::NotAuthorised(why) => write!(f, "it does not let us in: {why}"),
            Cause::Credentials(why) | Cause::Configuration(why) => f.write_str(why),
            Cause::Closed(why) | Cause::Silent(why) => write!(f, "the link ended: {why}"),
            Cause::Protocol(why) => write!(f, "it broke the protocol: {why}"),
        }
    }
}
