//! What can be configured of one listener: where, how secured, and whom it lets in. Values.
//!
//! Invariant: a listener that says nothing lets in nobody without an identity, but on this machine.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::address::Endpoint;

/// One place where clients are served: a TCP port or a Unix socket.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// `ADDRESS:PORT` to listen on; port 0 takes a free one. This or `path`.
    #[schemars(with = "Option<String>", extend("format" = "socket-address"))]
    pub address: Option<SocketAddr>,
    /// Unix socket to listen on. One that an earlier run left behind is removed, if nobody
    /// answers there.
    pub path: Option<PathBuf>,
    /// Who may connect to the Unix socket, as file permissions. Default: `"0660"`.
    pub mode: SocketMode,
    /// Serve TLS with this certificate; without it the listener is readable on the wire.
    pub tls: Option<ListenerTls>,
    /// Speak MQTT over WebSocket, to requests for this path: `"/mqtt"`.
    #[schemars(regex(pattern = r"^/[!-~]*$"))]
    pub websocket: Option<String>,
    /// Origins whose pages may open a WebSocket, such as `"https://panel.plant"`; empty: all. A
    /// client that is no browser names none, and is not asked.
    pub websocket_origins: Vec<String>,
    /// What tells who a client is. Default: `"either"`.
    pub identity: IdentitySource,
    /// Which name of a client's certificate counts. Default: `"common-name"`.
    pub certificate_name: CertificateName,
    /// Let clients in that name no identity. Refused from other machines unless it is said here.
    /// Default: yes on loopback and Unix sockets without TLS, no elsewhere.
    pub anonymous: Option<bool>,
    /// Connections at once on this listener; absent: as many as `limits.connections`.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections: Option<u32>,
}

impl Listener {
    /// One that serves plain TCP.
    pub fn at(address: SocketAddr) -> Listener {
        Listener {
            address: Some(address),
            ..Listener::default()
        }
    }

    /// One that serves a Unix socket.
    pub fn on(path: impl Into<PathBuf>) -> Listener {
        Listener {
            path: Some(path.into()),
            ..Listener::default()
        }
    }

    /// Where it serves; `None` unless exactly one of `address` and `path` is given.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match (&self.address, &self.path) {
            (Some(address), None) => Some(Endpoint::Network(*address)),
            (None, Some(path)) => Some(Endpoint::Unix(path.clone())),
            _ => None,
        }
    }

    /// Whether a client without certificate and password may connect here.
    pub fn allows_anonymous(&self) -> bool {
        let is_local = self.endpoint().is_some_and(|endpoint| endpoint.is_local());
        self.anonymous.unwrap_or(is_local && self.tls.is_none())
    }
}

/// Certificates of a TLS listener, as PEM files.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// The server's certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// Trust anchors for clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Certificate revocation lists. Once there are any, each client certificate and intermediate
    /// needs one from its issuer; a list past its own next update still counts.
    #[serde(default)]
    pub crl: Vec<PathBuf>,
    /// Whether clients must show a certificate. Default: required where `client_ca` is given.
    pub client_auth: Option<ClientAuth>,
}

impl ListenerTls {
    /// Whether clients must, may or need not show a certificate.
    pub fn client_auth(&self) -> ClientAuth {
        let default = match self.client_ca {
            Some(_) => ClientAuth::Required,
            None => ClientAuth::None,
        };
        self.client_auth.unwrap_or(default)
    }

    /// Whether clients are asked for a certificate at all.
    pub fn asks_for_certificates(&self) -> bool {
        self.client_auth() != ClientAuth::None
    }
}

/// Whether a TLS client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// No handshake without a certificate from `client_ca`.
    Required,
    /// A certificate is checked when shown; without one a password is needed.
    Optional,
    /// Certificates are not asked for.
    None,
}

/// What tells who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IdentitySource {
    /// The certificate where the client shows one, else user name and password.
    #[default]
    Either,
    /// The certificate; user names and passwords count for nothing.
    Certificate,
    /// User name and password; a certificate opens the door, but its name counts for nothing.
    Password,
    /// Both: the password of the user that the certificate names.
    Both,
}

/// Which name of a client's certificate is its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateName {
    /// The subject's common name; there must be exactly one.
    #[default]
    CommonName,
    /// The URI among the subject's alternative names; there must be exactly one.
    Uri,
}

/// File permissions of a socket, written in octal: `"0660"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(u32);

impl SocketMode {
    /// The permission bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Default for SocketMode {
    fn default() -> SocketMode {
        SocketMode(0o660)
    }
}

impl FromStr for SocketMode {
    type Err = String;

    fn from_str(text: &str) -> Result<SocketMode, String> {
        match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o777 && text.len() >= 3 && !text.starts_with('+') => {
                Ok(SocketMode(bits))
            }
            _ => Err(format!(
                "{text:?} are no file permissions in octal, such as \"0660\""
            )),
        }
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SocketMode, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for SocketMode {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SocketMode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^0?[0-7]{3}$", "examples": ["0660"] })
    }
}
