//! Why a broker does not start, and what a reload has changed. Values.

use std::{fmt, path::PathBuf};

use crate::address::Endpoint;

/// Why a broker does not start, or does not take another configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener has no address, or two.
    #[error("listener {number} must have either an address or a path")]
    Nowhere {
        /// The listener's place in the list, from 1.
        number: usize,
    },
    /// An address or path cannot be listened on.
    #[error("cannot listen on {endpoint} ({hint})", hint = bind_hint(source, endpoint))]
    Bind {
        /// The address or path.
        endpoint: Endpoint,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A listener cannot serve TLS.
    #[error("cannot serve TLS on {endpoint}")]
    Tls {
        /// The listener.
        endpoint: Endpoint,
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
    /// The password file cannot be taken.
    #[error(transparent)]
    PasswordFile(#[from] crate::login::password::disk::PasswordFileError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The program ends while passwords are read.
    #[error("the program stopped while passwords were read")]
    Stopped,
    /// A user has two passwords.
    #[error("user {user:?} stands in {path} and in another place, [[broker.user]] or a password file (remove it from one of them)", path = path.display())]
    TwoPasswords {
        /// The user.
        user: String,
        /// The password file.
        path: PathBuf,
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

fn bind_hint(error: &std::io::Error, endpoint: &Endpoint) -> &'static str {
    use std::io::ErrorKind;
    match (error.kind(), endpoint) {
        (ErrorKind::AddrInUse, Endpoint::Network(_)) => {
            "which other program listens there? `ss -ltnp` tells"
        }
        (ErrorKind::AddrInUse, Endpoint::Unix(_)) => {
            "which other program listens there? `ss -lxp` tells"
        }
        (ErrorKind::AlreadyExists, _) => "a file that is no socket is in the way",
        (ErrorKind::AddrNotAvailable, _) => "does this machine have that address?",
        (ErrorKind::PermissionDenied, Endpoint::Network(_)) => {
            "ports below 1024 need CAP_NET_BIND_SERVICE"
        }
        (ErrorKind::PermissionDenied, Endpoint::Unix(_)) => "may this user write to its folder?",
        (ErrorKind::NotFound, _) => "does its folder exist?",
        (_, Endpoint::Network(_)) => "is the network up?",
        (_, Endpoint::Unix(_)) => "a socket's path has at most 107 bytes",
    }
}

/// What a reload has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Addresses and paths that are served from now on.
    pub opened: Vec<Endpoint>,
    /// Addresses and paths that are served no longer.
    pub closed: Vec<Endpoint>,
    /// Clients that were sent away.
    pub disconnected: usize,
}

/// `1 listeners opened, 0 closed, 2 clients sent away`.
impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (opened, closed) = (self.opened.len(), self.closed.len());
        let gone = self.disconnected;
        write!(
            f,
            "{opened} listeners opened, {closed} closed, {gone} clients sent away"
        )
    }
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
    /// No key for session tickets.
    #[error("cannot make a key for session tickets")]
    Tickets(#[source] rustls::Error),
    /// Clients are to show certificates that nothing can verify.
    #[error("client_auth asks for certificates, but client_ca names nobody who issues them")]
    NoAnchors,
}
