//! Why the link to the upstream is down, in words that say whose turn it is. A value.

use std::{error::Error, fmt, io};

use crate::{alert::is_about_our_certificate, identity::refusal::SignError, wording::plain};

/// Why there is no link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No address, no route, no listener, or no answer in time.
    Unreachable(String),
    /// The proxy on the way refuses us or does not answer as a proxy does.
    Proxy(String),
    /// The server's certificate does not pass.
    ServerCertificate(String),
    /// The server does not take our certificate.
    OurCertificate(String),
    /// The server knows us but does not let us in.
    NotAuthorised(String),
    /// Our own certificate, key or trust anchors cannot be used.
    Credentials(String),
    /// The key's home, such as a TPM, is away or does not sign.
    DeviceKey(String),
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

    /// Whether another identity might fare better.
    pub(crate) fn is_about_us(&self) -> bool {
        matches!(
            self,
            Cause::OurCertificate(_)
                | Cause::NotAuthorised(_)
                | Cause::Credentials(_)
                | Cause::Closed(_)
                | Cause::Protocol(_)
        )
    }

    /// Finds the TLS or socket error inside another one.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Cause {
        let mut next = Some(error);
        while let Some(link) = next {
            if let Some(tls) = link.downcast_ref::<rustls::Error>() {
                return tls_cause(tls);
            }
            if let Some(io) = link.downcast_ref::<io::Error>() {
                if let Some(tls) = io
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                {
                    return tls_cause(tls);
                }
                return io_cause(io);
            }
            next = link.source();
        }
        Cause::Closed(error.to_string())
    }

    /// A short stable word, for metrics and status.
    pub fn as_str(&self) -> &'static str {
        match self {
            Cause::Unreachable(_) => "unreachable",
            Cause::Proxy(_) => "proxy",
            Cause::ServerCertificate(_) => "server-certificate",
            Cause::OurCertificate(_) => "our-certificate",
            Cause::NotAuthorised(_) => "not-authorised",
            Cause::Credentials(_) => "credentials",
            Cause::DeviceKey(_) => "device-key",
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
            Cause::Proxy(why) => write!(f, "the proxy lets nobody through: {why}"),
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
            Cause::Credentials(why) | Cause::DeviceKey(why) | Cause::Configuration(why) => {
                f.write_str(why)
            }
            Cause::Closed(why) | Cause::Silent(why) => write!(f, "the link ended: {why}"),
            Cause::Protocol(why) => write!(f, "it broke the protocol: {why}"),
        }
    }
}

fn tls_cause(error: &rustls::Error) -> Cause {
    match error {
        rustls::Error::InvalidCertificate(why) => Cause::ServerCertificate(why.to_string()),
        rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
            Cause::OurCertificate(words(alert))
        }
        rustls::Error::Other(other) => {
            refusal(other).unwrap_or_else(|| Cause::Protocol(other.to_string()))
        }
        error => Cause::Protocol(error.to_string()),
    }
}

/// What the key's home said, where that is what ended the handshake.
fn refusal(other: &rustls::OtherError) -> Option<Cause> {
    let why = other.0.downcast_ref::<SignError>()?;
    Some(Cause::DeviceKey(why.to_string()))
}

fn io_cause(error: &io::Error) -> Cause {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => Cause::Closed(error.to_string()),
        _ => Cause::Unreachable(plain(error)),
    }
}

/// An enumeration's name as words: `TopicNameInvalid` becomes `topic name invalid`.
pub(crate) fn words(name: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    for character in format!("{name:?}").chars() {
        if character.is_uppercase() && text.ends_with(|last: char| last.is_lowercase()) {
            text.push(' ');
        }
        text.extend(character.to_lowercase());
    }
    text
}
