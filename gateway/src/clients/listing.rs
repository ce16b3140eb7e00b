//! Clients and the authority as people and programs are shown them. Values.
//!
//! Invariant: nothing secret is shown, hashed or not.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    ClientName,
    registry::{Client, Generation, Registry},
};
use crate::config::KeyPlace;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// All clients, and who certifies them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// The authority's certificates, oldest first; none: there is no authority yet.
    pub authority: Vec<AuthorityShown>,
    /// By name.
    pub clients: Vec<ClientShown>,
    /// Revoked certificates that have not ended.
    pub revoked: usize,
    /// Whether the list of revoked certificates still has to be signed.
    #[serde(default)]
    pub list_is_due: bool,
}

/// One of the authority's certificates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuthorityShown {
    /// Its generation, from 1.
    pub number: u32,
    /// Where its key is: `file` or `tpm`.
    pub key: KeyPlace,
    /// When it ends.
    pub ends: Timestamp,
    /// Whole days until then; negative when it has ended.
    pub days_left: i64,
}

/// One client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientShown {
    /// Its name.
    pub name: ClientName,
    /// `certificate` or `password`.
    pub by: String,
    /// When it was added.
    pub added: Timestamp,
    /// When its newest certificate ends.
    pub ends: Option<Timestamp>,
    /// Whole days until then; negative when it has ended.
    pub days_left: Option<i64>,
    /// Whether that has passed, or comes within a fifth of its life.
    pub ends_soon: bool,
    /// Its certificates that have not ended.
    pub certificates: usize,
    /// Topics it may publish to.
    pub publish: Vec<String>,
    /// Topics it may receive from.
    pub subscribe: Vec<String>,
}

/// A certificate as it is handed out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certified {
    /// The certificate, PEM.
    pub certificate: String,
    /// The authority's certificates, PEM, by which clients know the broker.
    pub ca: String,
    /// When it ends.
    pub ends: Timestamp,
    /// When a client that renews by itself had better begin to.
    pub renew: Timestamp,
}

impl Listing {
    /// What `registry` says at `now`.
    pub(super) fn new(registry: &Registry, now: Timestamp) -> Listing {
        Listing {
            authority: registry
                .generations
                .iter()
                .map(|generation| authority(generation, now))
                .collect(),
            clients: registry
                .clients
                .iter()
                .map(|(name, client)| shown(name, client, now))
                .collect(),
            revoked: registry.revoked.len(),
            list_is_due: !registry.listed,
        }
    }
}

fn authority(generation: &Generation, now: Timestamp) -> AuthorityShown {
    AuthorityShown {
        number: generation.number,
        key: generation.key,
        ends: generation.ends,
        days_left: days_between(now, generation.ends),
    }
}

fn shown(name: &ClientName, client: &Client, now: Timestamp) -> ClientShown {
    let by = match client.has_certificates() {
        true => "certificate",
        false => "password",
    };
    let ends = client.newest().map(|newest| newest.ends);
    let access = client.may(name);
    ClientShown {
        name: name.clone(),
        by: by.to_owned(),
        added: client.added,
        ends,
        days_left: ends.map(|ends| days_between(now, ends)),
        ends_soon: client.newest().is_some_and(|newest| newest.ends_soon(now)),
        certificates: client.valid(now).count(),
        publish: access.publish,
        subscribe: access.subscribe,
    }
}

fn days_between(now: Timestamp, then: Timestamp) -> i64 {
    (then.as_second() - now.as_second()).div_euclid(DAY)
}
