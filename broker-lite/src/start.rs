//! Why a broker does not start, and what a reload has changed. Values.

use std::{net::SocketAddr, path::PathBuf};

/// Why a broker does not start, or does not take another configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({hint})", hint = bind_hint(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A listener cannot serve TLS.
    #[error("cannot serve TLS on {address}")]
    Tls {
        /// The listener.
        address: SocketAddr,
        /// Which file, and why.
        source: Box<TlsError>,
    },
    /// The system gives no thread to store sessions with.
    #[error("cannot start the thread that stores sessions")]
    Thread(#[source] std::io::Error),
    /// A user's password cannot be read.
    #[error("cannot take the password of user {user:?}")]
    Password {
        /// The user.
        user: String,
        /// Why.
        source: settings::SecretError,
    },
    /// A pattern of an access rule is no topic filter.
    #[error("access rule {rule}: {pattern:?} is no topic filter: {reason}")]
    Pattern {
        /// The rule's place in the list, from 1.
        rule: usize,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn bind_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "which other program listens there? `ss -ltnp` tells",
        std::io::ErrorKind::AddrNotAvailable => "does this machine have that address?",
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "is the network up?",
    }
}

/// What a reload has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Addresses that are served from now on.
    pub opened: Vec<SocketAddr>,
    /// Addresses that are served no longer.
    pub closed: Vec<SocketAddr>,
    /// Clients that were sent away.
    pub disconnected: usize,
}

/// Why a listener cannot serve TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read, or holds nothing of the kind.
    #[error("cannot take {what} from {path}: {reason} (is it PEM, and may this user read it?)")]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The reader's answer.
        reason: String,
    },
    /// Certificate and key, or the trust anchors, do not work together.
    #[error("certificate {certificate} with key {key} (do they belong together?)")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The trust anchors cannot be used.
    #[error("client CA {path}: {reason}")]
    Anchors {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// Clients are to show certificates that nothing can verify.
    #[error("client_auth asks for certificates, but client_ca names nobody who issues them")]
    NoAnchors,
}
