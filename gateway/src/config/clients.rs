//! The `[clients]` table of `gateway.toml`: the authority that issues local clients' certificates. Values.
//!
//! Invariant: without a client or a listener that asks for it, no authority is made.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use settings::Period;

/// In the place of a path of a listener's `tls`: what the gateway's own authority makes.
pub(crate) const OWN: &str = "own";

/// The `[clients]` table: clients of the local broker that `gateway client` adds.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Clients {
    /// Where the authority, its clients and its revocations are kept, for the gateway's user alone.
    pub directory: PathBuf,
    /// Life of the authority's own certificate. Its successor is made when a fifth of it is left.
    #[schemars(extend("x-minimum" = "1d", "x-maximum" = "18250d"))]
    pub ca_life: Period,
    /// Life of a client's certificate.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "3650d"))]
    pub certificate_life: Period,
    /// Renew certificates for clients that ask on `client/NAME/renew`.
    pub renewal: bool,
    /// Renewals of one client in an hour; what is more is refused.
    #[schemars(range(min = 1, max = 1000))]
    pub renewals_per_hour: u32,
    /// Names and addresses by which clients reach listeners with `certificate = "own"`, beside those
    /// that this machine knows of itself.
    pub server_names: Vec<String>,
}

impl Default for Clients {
    fn default() -> Self {
        let days = |days: u64| Period::from_secs(days * 86_400);
        Clients {
            directory: "/var/lib/gateway/clients".into(),
            ca_life: days(3650),
            certificate_life: days(30),
            renewal: true,
            renewals_per_hour: 4,
            server_names: Vec::new(),
        }
    }
}
