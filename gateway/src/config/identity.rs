//! The `[identity]` table of `gateway.toml`: the device's key, its certificate, their renewal. Values.
//!
//! Invariant: nothing is renewed unless the table says how.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use settings::{Period, Secret};

/// The `[identity]` table. It counts where `[upstream] identity` says so.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Where keys and certificates are kept, for the gateway's user alone.
    pub directory: PathBuf,
    /// Common name asked for; by default the gateway's id.
    #[schemars(length(min = 1, max = 64))]
    pub name: Option<String>,
    /// How certificates are had and renewed.
    pub renew: Renew,
    /// Part of the certificate's life, in percent, after which it is renewed.
    #[schemars(range(min = 10, max = 95))]
    pub renew_at: u8,
    /// First pause after a renewal that failed; it doubles, with jitter, up to `retry_max`.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d"))]
    pub retry: Period,
    /// Longest pause after a renewal that failed.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "7d"))]
    pub retry_max: Period,
    /// The server asked with `renew = "est"`.
    pub est: Option<Est>,
    /// The program run with `renew = "command"`.
    pub command: Option<RenewCommand>,
}

impl Default for Identity {
    fn default() -> Self {
        Identity {
            directory: "/var/lib/gateway/identity".into(),
            name: None,
            renew: Renew::Off,
            renew_at: 66,
            retry: Period::from_secs(60),
            retry_max: Period::from_secs(6 * 3600),
            est: None,
            command: None,
        }
    }
}

/// How certificates are had and renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Renew {
    /// By hand: `gateway identity csr` and `enrol`.
    #[default]
    Off,
    /// From a server that speaks EST (RFC 7030).
    Est,
    /// By a program of one's own.
    Command,
}

/// `[identity.est]`: Enrolment over Secure Transport (RFC 7030).
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Est {
    /// `https://HOST[:PORT]`, with the label of the authority as its path where there is one.
    #[schemars(extend("format" = "est-url"))]
    pub url: String,
    /// Trust anchors for the server's certificate, PEM.
    pub ca: PathBuf,
    /// User for the first enrolment, by HTTP Basic.
    pub user: Option<String>,
    /// That user's password.
    pub password: Option<Secret>,
    /// A certificate for the first enrolment, such as the maker's, PEM.
    pub certificate: Option<PathBuf>,
    /// The private key of that certificate, PEM.
    pub key: Option<PathBuf>,
    /// Time for each question.
    #[serde(default = "default_time_limit")]
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "10m"))]
    pub time_limit: Period,
}

/// `[identity.command]`: a program that has a request signed.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewCommand {
    /// The program and its arguments; the paths of the request and of the certificate follow.
    #[schemars(length(min = 1, max = 64))]
    pub program: Vec<String>,
    /// Time that it may take.
    #[serde(default = "default_time_limit")]
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "10m"))]
    pub time_limit: Period,
}

fn default_time_limit() -> Period {
    Period::from_secs(60)
}
