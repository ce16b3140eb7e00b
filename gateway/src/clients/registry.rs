//! Who the local clients are: their certificates or passwords, what they may do, and what was
//! revoked. Core.
//!
//! Invariant: a certificate stands here before anybody has it, and until it ends stands among its
//! client's or among the revoked.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use broker_lite::{
    config::{AccessRule, TopicPattern},
    login::password::Verifier,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ClientName, serial::Serial};
use crate::{config::KeyPlace, payload::renewal};

/// Clients that one gateway keeps; the broker has 1,024 connections.
const CLIENTS_MAX: usize = 2_048;
/// Certificates of one client that have not ended: those of its renewals.
const CERTIFICATES_MAX: usize = 8;
/// Revoked certificates that have not ended. Above that, no more clients are added.
const REVOKED_MAX: usize = 10_000;
/// Filters of one client, each way.
const FILTERS_MAX: usize = 64;
/// The form of the file that this program writes.
const FORM: u32 = 1;

/// Everything that is known of local clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registry {
    form: u32,
    /// Generations of the authority that there ever were.
    pub(crate) made: u32,
    /// The authority's own certificates that have not ended, oldest first.
    pub(crate) generations: Vec<Generation>,
    /// The certificate of listeners that serve with the authority's.
    pub(crate) server: Option<Server>,
    pub(crate) clients: BTreeMap<ClientName, Client>,
    pub(crate) revoked: Vec<Revoked>,
    /// The number of the newest lists; it only rises.
    pub(crate) list_number: u64,
    /// Whether the lists name all that is revoked, and nothing that has ended.
    pub(crate) listed: bool,
}

/// One of the authority's certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(crate) number: u32,
    /// Where its key is.
    pub(crate) key: KeyPlace,
    pub(crate) ends: Timestamp,
    /// Its certificate, PEM.
    pub(crate) certificate: String,
    /// Its list of revoked certificates, PEM.
    pub(crate) list: String,
    /// When that was signed.
    pub(crate) listed_at: Timestamp,
}

/// The broker's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) generation: u32,
    pub(crate) names: Vec<String>,
    pub(crate) ends: Timestamp,
    /// PEM.
    pub(crate) certificate: String,
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) added: Timestamp,
    pub(crate) proof: Proof,
    pub(crate) access: Access,
}

/// By what a client is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Proof {
    /// Certificates that have not ended, oldest first.
    Certificates(Vec<Issued>),
    /// A password's hash, as it stands in a password file.
    Password(String),
}

/// A certificate that was handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Issued {
    pub(crate) serial: Serial,
    pub(crate) generation: u32,
    pub(crate) issued: Timestamp,
    pub(crate) ends: Timestamp,
}

/// A certificate that is not to be trusted any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revoked {
    pub(crate) serial: Serial,
    pub(crate) generation: u32,
    pub(crate) at: Timestamp,
    pub(crate) ends: Timestamp,
}

/// What a client may do: topic filters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    pub(crate) publish: Vec<String>,
    pub(crate) subscribe: Vec<String>,
}

/// Why the registry is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is such a client.
    #[error(
        "there is a client {0} already; `gateway client rotate {0}` gives it a new certificate or password"
    )]
    Known(ClientName),
    /// There is no such client.
    #[error("there is no client {0}; `gateway client list` shows them")]
    Unknown(ClientName),
    /// It is known by something else.
    #[error("client {name} has {has}; revoke it and add it anew to change that")]
    OtherKind {
        /// The client.
        name: ClientName,
        /// What it has.
        has: &'static str,
    },
    /// The registry is full.
    #[error("{what}: {maximum} is the most that is kept; revoke those that are gone")]
    Full {
        /// Of what there are too many.
        what: &'static str,
        /// How many there may be.
        maximum: usize,
    },
    /// A client has many certificates.
    #[error(
        "client {name} has {CERTIFICATES_MAX} certificates that have not ended; the first ends {frees}"
    )]
    TooManyCertificates {
        /// The client.
        name: ClientName,
        /// When the next one may be had.
        frees: Timestamp,
    },
    /// A client has no certificate that counts.
    #[error(
        "the certificate of {0} has ended; `gateway client rotate {0}` gives it another one by hand"
    )]
    Ended(ClientName),
    /// What it is to be allowed is no topic filter.
    #[error("{filter:?} is no topic filter for a client: {why}")]
    Filter {
        /// As it was written.
        filter: String,
        /// What is wrong.
        why: String,
    },
    /// What is to be its password's hash is none.
    #[error("the password's hash cannot be taken: {0}")]
    Verifier(String),
    /// A newer program has written the file.
    #[error("it is of form {0}, which a newer gateway has written; this one knows {FORM}")]
    Newer(u32),
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            form: FORM,
            made: 0,
            generations: Vec::new(),
            server: None,
            clients: BTreeMap::new(),
            revoked: Vec::new(),
            list_number: 0,
            listed: true,
        }
    }
}

impl Access {
    /// What a client gets that nobody said more about: its own telemetry and its own commands.
    pub(crate) fn least(name: &ClientName) -> Access {
        Access {
            publish: vec![format!("telemetry/{name}/#")],
            subscribe: vec![format!("command/{name}/#")],
        }
    }

    /// Refuses what is no topic filter, and too many.
    pub(crate) fn check(&self) -> Result<(), RegistryError> {
        for filters in [&self.publish, &self.subscribe] {
            if filters.len() > FILTERS_MAX {
                return Err(RegistryError::Full {
                    what: "filters of one client",
                    maximum: FILTERS_MAX,
                });
            }
            for filter in filters {
                let pattern = TopicPattern(filter.clone());
                pattern.check().map_err(|error| RegistryError::Filter {
                    filter: filter.clone(),
                    why: error.to_string(),
                })?;
            }
        }
        match self.publish.iter().find(|filter| filter.starts_with('$')) {
            Some(reserved) => Err(RegistryError::Filter {
                filter: reserved.clone(),
                why: "no client publishes to topics that begin with $".to_owned(),
            }),
            None => Ok(()),
        }
    }
}

impl Client {
    /// Whether it is known by certificates.
    pub(crate) fn has_certificates(&self) -> bool {
        matches!(self.proof, Proof::Certificates(_))
    }

    /// Its certificates that have not ended at `now`.
    pub(crate) fn valid(&self, now: Timestamp) -> impl Iterator<Item = &Issued> {
        let all = match &self.proof {
            Proof::Certificates(certificates) => certificates.as_slice(),
            Proof::Password(_) => &[],
        };
        all.iter().filter(move |certificate| certificate.ends > now)
    }

    /// Its newest certificate, ended or not.
    pub(crate) fn newest(&self) -> Option<&Issued> {
        match &self.proof {
            Proof::Certificates(certificates) => certificates.last(),
            Proof::Password(_) => None,
        }
    }

    /// All that it may do: what was said of it, and what every client needs.
    pub(crate) fn may(&self, name: &ClientName) -> Access {
        let mut access = self.access.clone();
        access.subscribe.push(renewal::responses(name));
        if self.has_certificates() {
            access.publish.push(renewal::request_topic(name));
        }
        access
    }

    fn kind(&self) -> &'static str {
        match self.proof {
            Proof::Certificates(_) => "certificates",
            Proof::Password(_) => "a password",
        }
    }
}

impl Issued {
    /// Whether it has ended, or does within a fifth of its life.
    pub(crate) fn ends_soon(&self, now: Timestamp) -> bool {
        let life = self.ends.as_second() - self.issued.as_second();
        self.ends.as_second() - now.as_second() < life / 5
    }
}

impl Registry {
    /// Refuses what this program does not understand.
    pub(crate) fn check(self) -> Result<Registry, RegistryError> {
        match self.form {
            FORM => Ok(self),
            newer => Err(RegistryError::Newer(newer)),
        }
    }

    /// Whether a client of that name may be added.
    pub(crate) fn may_add(&self, name: &ClientName, access: &Access) -> Result<(), RegistryError> {
        access.check()?;
        let full = |what, maximum| Err(RegistryError::Full { what, maximum });
        if self.clients.contains_key(name) {
            Err(RegistryError::Known(name.clone()))
        } else if self.clients.len() >= CLIENTS_MAX {
            full("clients", CLIENTS_MAX)
        } else if self.revoked.len() >= REVOKED_MAX {
            full("revoked certificates that have not ended", REVOKED_MAX)
        } else {
            Ok(())
        }
    }

    /// Adds a client, which is not there yet.
    pub(crate) fn add(&mut self, name: &ClientName, client: Client) -> Result<(), RegistryError> {
        self.may_add(name, &client.access)?;
        if let Proof::Password(hash) = &client.proof {
            check_hash(hash)?;
        }
        self.clients.insert(name.clone(), client);
        Ok(())
    }

    /// Whether a known client may have one more certificate.
    pub(crate) fn may_certify(
        &self,
        name: &ClientName,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let client = self.known(name)?;
        if !client.has_certificates() {
            return Err(other_kind(name, client));
        }
        let mut ends: Vec<Timestamp> = client.valid(now).map(|valid| valid.ends).collect();
        ends.sort_unstable();
        match ends.first() {
            Some(frees) if ends.len() >= CERTIFICATES_MAX => {
                Err(RegistryError::TooManyCertificates {
                    name: name.clone(),
                    frees: *frees,
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether a client may have one more certificate because it holds one that counts.
    pub(crate) fn may_renew(&self, name: &ClientName, now: Timestamp) -> Result<(), RegistryError> {
        self.may_certify(name, now)?;
        match self.known(name)?.valid(now).next() {
            Some(_) => Ok(()),
            None => Err(RegistryError::Ended(name.clone())),
        }
    }

    /// Enters one more certificate of a known client; with `alone` the others are revoked.
    pub(crate) fn certify(
        &mut self,
        name: &ClientName,
        issued: Issued,
        alone: bool,
    ) -> Result<(), RegistryError> {
        let now = issued.issued;
        let client = self.known_mut(name)?;
        let kind = client.kind();
        let Proof::Certificates(certificates) = &mut client.proof else {
            return Err(RegistryError::OtherKind {
                name: name.clone(),
                has: kind,
            });
        };
        let former = match alone {
            true => std::mem::take(certificates),
            false => Vec::new(),
        };
        certificates.push(issued);
        self.distrust(former, now);
        Ok(())
    }

    /// Gives a client another password.
    pub(crate) fn set_password(
        &mut self,
        name: &ClientName,
        hash: String,
    ) -> Result<(), RegistryError> {
        check_hash(&hash)?;
        let client = self.known_mut(name)?;
        if client.has_certificates() {
            return Err(other_kind(name, client));
        }
        client.proof = Proof::Password(hash);
        Ok(())
    }

    /// Takes a client away with all that it may do; gives how many certificates that makes void.
    pub(crate) fn revoke(
        &mut self,
        name: &ClientName,
        now: Timestamp,
    ) -> Result<usize, RegistryError> {
        let client = self.clients.remove(name);
        let client = client.ok_or_else(|| RegistryError::Unknown(name.clone()))?;
        let certificates = match client.proof {
            Proof::Certificates(certificates) => certificates,
            Proof::Password(_) => Vec::new(),
        };
        Ok(self.distrust(certificates, now))
    }

    fn distrust(&mut self, certificates: Vec<Issued>, now: Timestamp) -> usize {
        let before = self.revoked.len();
        let valid = certificates.into_iter().filter(|issued| issued.ends > now);
        self.revoked.extend(valid.map(|issued| Revoked {
            serial: issued.serial,
            generation: issued.generation,
            at: now,
            ends: issued.ends,
        }));
        let count = self.revoked.len() - before;
        self.listed &= count == 0;
        count
    }

    /// Forgets what has ended. A revoked certificate leaves only once a list has named it.
    pub(crate) fn prune(&mut self, now: Timestamp) {
        for client in self.clients.values_mut() {
            if let Proof::Certificates(certificates) = &mut client.proof
                && let Some(newest) = certificates.pop()
            {
                // The newest tells since when a client is gone.
                certificates.retain(|certificate| certificate.ends > now);
                certificates.push(newest);
            }
        }
        if self.listed {
            let before = self.revoked.len();
            self.revoked.retain(|revoked| revoked.ends > now);
            self.listed = self.revoked.len() == before;
        }
        // Its clients' certificates ended before it did.
        self.generations.retain(|generation| generation.ends > now);
    }

    /// Whether the lists are to be signed anew: something changed, or half of their life is over.
    pub(crate) fn lists_are_due(&self, now: Timestamp, half_life: Duration) -> bool {
        let old = |generation: &Generation| {
            generation
                .listed_at
                .saturating_add(half_life)
                .map_or(true, |due| due <= now)
        };
        !self.listed || self.generations.iter().any(old)
    }

    /// Whether the lists name all that is revoked.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed
    }

    /// When the next certificate of a client ends after `now`.
    pub(crate) fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.clients.values().flat_map(|client| client.valid(now));
        ends.map(|certificate| certificate.ends).min()
    }

    /// The access rules of all clients.
    pub(crate) fn rules(&self) -> Vec<AccessRule> {
        let patterns = |filters: Vec<String>| filters.into_iter().map(TopicPattern).collect();
        let rule = |(name, client): (&ClientName, &Client)| {
            let access = client.may(name);
            AccessRule {
                user: Some(name.to_string()),
                client: None,
                publish: patterns(access.publish),
                subscribe: patterns(access.subscribe),
            }
        };
        self.clients.iter().map(rule).collect()
    }

    /// Whether anybody is known by a password.
    pub(crate) fn has_passwords(&self) -> bool {
        !self.clients.values().all(Client::has_certificates)
    }

    /// The password file's text.
    pub(crate) fn passwords(&self) -> String {
        let mut text = String::from("# written by `gateway client`; changes here are lost\n");
        for (name, client) in &self.clients {
            if let Proof::Password(hash) = &client.proof {
                let _infallible = writeln!(text, "{name}:{hash}");
            }
        }
        text
    }

    /// The authority's certificates, one after the other.
    pub(crate) fn anchors(&self) -> String {
        let certificates = self.generations.iter().map(|one| one.certificate.as_str());
        certificates.collect()
    }

    /// The lists of revoked certificates, one after the other.
    pub(crate) fn lists(&self) -> String {
        let lists = self.generations.iter().map(|one| one.list.as_str());
        lists.collect()
    }

    fn known(&self, name: &ClientName) -> Result<&Client, RegistryError> {
        let client = self.clients.get(name);
        client.ok_or_else(|| RegistryError::Unknown(name.clone()))
    }

    fn known_mut(&mut self, name: &ClientName) -> Result<&mut Client, RegistryError> {
        let client = self.clients.get_mut(name);
        client.ok_or_else(|| RegistryError::Unknown(name.clone()))
    }
}

fn other_kind(name: &ClientName, client: &Client) -> RegistryError {
    RegistryError::OtherKind {
        name: name.clone(),
        has: client.kind(),
    }
}

fn check_hash(hash: &str) -> Result<(), RegistryError> {
    let verifier = Verifier::parse(hash);
    verifier
        .map(drop)
        .map_err(|error| RegistryError::Verifier(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn day(number: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + number * DAY).unwrap()
    }

    fn name(text: &str) -> ClientName {
        text.parse().unwrap()
    }

    fn issued(number: u8, from: i64, until: i64) -> Issued {
        Issued {
            serial: Serial::new([number; 16]),
            generation: 1,
            issued: day(from),
            ends: day(until),
        }
    }

    fn with_client(certificates: Vec<Issued>) -> Registry {
        let mut registry = Registry::default();
        let press = name("press-3");
        let client = Client {
            added: day(0),
            proof: Proof::Certificates(certificates),
            access: Access::least(&press),
        };
        registry.add(&press, client).unwrap();
        registry
    }

    #[test]
    fn a_revoked_certificate_is_listed_until_it_ends_and_forgotten_after() {
        let mut registry = with_client(vec![issued(1, 0, 2), issued(2, 0, 30)]);
        let voided = registry.revoke(&name("press-3"), day(3)).unwrap();
        assert_eq!(voided, 1, "the other one had ended");
        assert!(registry.clients.is_empty() && !registry.listed);
        registry.prune(day(40));
        assert_eq!(registry.revoked.len(), 1, "no list has named it yet");
        registry.listed = true;
        registry.prune(day(29));
        assert!(registry.listed && registry.revoked.len() == 1);
        registry.prune(day(30));
        assert!(!registry.listed && registry.revoked.is_empty());
    }

    #[test]
    fn a_rotation_leaves_the_old_certificate_or_revokes_it() {
        let mut registry = with_client(vec![issued(1, 0, 30)]);
        let press = name("press-3");
        registry.certify(&press, issued(2, 1, 31), false).unwrap();
        assert_eq!(registry.clients[&press].valid(day(1)).count(), 2);
        registry.certify(&press, issued(3, 2, 32), true).unwrap();
        assert_eq!(registry.clients[&press].valid(day(2)).count(), 1);
        assert_eq!(registry.revoked.len(), 2);
    }

    #[test]
    fn a_client_has_so_many_certificates_and_no_more_until_one_ends() {
        let all: Vec<Issued> = (0..8)
            .map(|number| issued(number, 0, 10 + i64::from(number)))
            .collect();
        let registry = with_client(all);
        let press = name("press-3");
        let full = registry.may_certify(&press, day(9)).unwrap_err();
        assert!(full.to_string().contains("8 certificates"), "{full}");
        assert_eq!(registry.may_certify(&press, day(10)), Ok(()));
    }

    #[test]
    fn rules_allow_a_client_its_own_topics_and_what_was_said_of_it() {
        let registry = with_client(vec![issued(1, 0, 30)]);
        let rule = &registry.rules()[0];
        let texts = |patterns: &[TopicPattern]| {
            let texts = patterns.iter().map(|pattern| pattern.0.clone());
            texts.collect::<Vec<_>>()
        };
        assert_eq!(rule.user.as_deref(), Some("press-3"));
        assert_eq!(
            texts(&rule.publish),
            ["telemetry/press-3/#", "client/press-3/renew"]
        );
        assert_eq!(
            texts(&rule.subscribe),
            ["command/press-3/#", "response/press-3/#"]
        );
    }

    #[test]
    fn what_is_no_filter_or_no_hash_is_refused_and_names_stand_once() {
        let mut registry = with_client(Vec::new());
        let client = |proof, publish: &str| Client {
            added: day(0),
            proof,
            access: Access {
                publish: vec![publish.to_owned()],
                subscribe: Vec::new(),
            },
        };
        let certificates = || Proof::Certificates(Vec::new());
        let known = registry.add(&name("press-3"), client(certificates(), "a"));
        assert_eq!(known, Err(RegistryError::Known(name("press-3"))));
        for filter in ["a/#/b", "", "$SYS/#", "a+"] {
            let refused = registry.add(&name("new"), client(certificates(), filter));
            assert!(
                matches!(refused, Err(RegistryError::Filter { .. })),
                "{filter:?}"
            );
        }
        for hash in ["", "plain", "$argon2id$v=19$m=1"] {
            let proof = Proof::Password(hash.to_owned());
            let refused = registry.add(&name("new"), client(proof, "a"));
            assert!(
                matches!(refused, Err(RegistryError::Verifier(_))),
                "{hash:?}"
            );
        }
    }
}
