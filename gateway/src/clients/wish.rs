//! What is asked of the office, and what comes of it, over the control socket or at once. Shell.
//!
//! Invariant: the same wish has the same effect whether the service runs or not.

use std::fmt;

use broker_lite::{
    config::Config as Broker,
    login::password::disk::{self, PasswordFileError},
};
use serde::{Deserialize, Serialize};

use super::{
    Access, Certified, ClientName, Listing, NewProof, Office, OfficeError, Registry, office,
};
use crate::wording::counted;

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wish {
    /// Show clients and authority.
    List,
    /// Add a client.
    Add {
        name: ClientName,
        proof: NewProof,
        /// `None`: its own telemetry, its own commands.
        publish: Option<Vec<String>>,
        subscribe: Option<Vec<String>>,
    },
    /// Give it another certificate or password.
    Rotate {
        name: ClientName,
        proof: NewProof,
        /// Revoke the certificates that it has.
        alone: bool,
    },
    /// Take it away.
    Revoke { name: ClientName },
}

/// What came of a wish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Done {
    /// What there is.
    Listed(Listing),
    /// A certificate.
    Certified(Certified),
    /// A password counts.
    PasswordSet {
        /// The authority's certificates, PEM; empty where there are none.
        ca: String,
    },
    /// A client is gone.
    Revoked {
        /// Certificates that this made void.
        certificates: usize,
        /// Sessions that it ended; `None`: no service runs.
        sent_away: Option<usize>,
        /// Why the list of revoked certificates is not signed yet.
        owed: Option<String>,
    },
}

/// In a few words, for the log.
impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Done::Listed(_) => f.write_str("listed"),
            Done::Certified(certified) => write!(f, "a certificate until {}", certified.ends),
            Done::PasswordSet { .. } => f.write_str("a password"),
            Done::Revoked {
                certificates,
                sent_away,
                owed,
            } => {
                let void = counted(*certificates, "certificate", "certificates");
                let sessions = counted(sent_away.unwrap_or(0), "session", "sessions");
                write!(f, "{void} void, {sessions} ended")?;
                match owed {
                    Some(why) => write!(f, "; the list of them is not signed yet: {why}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Wish {
    /// Fulfils it for a broker of this configuration; gives what is known after that.
    pub(crate) fn fulfil(
        &self,
        office: &Office,
        broker: &Broker,
    ) -> Result<(Registry, Done), OfficeError> {
        let given = |registry: &Registry, certified: Option<Certified>| {
            let ca = registry.anchors();
            certified.map_or(Done::PasswordSet { ca }, Done::Certified)
        };
        Ok(match self {
            Wish::List => {
                let registry = office.look()?;
                let listing = office::shown(&registry);
                (registry, Done::Listed(listing))
            }
            Wish::Add {
                name,
                proof,
                publish,
                subscribe,
            } => {
                if has_user(broker, name)? {
                    return Err(OfficeError::Taken(name.clone()));
                }
                let least = Access::least(name);
                let access = Access {
                    publish: publish.clone().unwrap_or(least.publish),
                    subscribe: subscribe.clone().unwrap_or(least.subscribe),
                };
                let added = office.add(name, proof, access)?;
                let done = given(&added.registry, added.answer);
                (added.registry, done)
            }
            Wish::Rotate { name, proof, alone } => {
                let rotated = office.rotate(name, proof, *alone)?;
                let done = given(&rotated.registry, rotated.answer);
                (rotated.registry, done)
            }
            Wish::Revoke { name } => {
                let revoked = office.revoke(name)?;
                let done = Done::Revoked {
                    certificates: revoked.answer,
                    sent_away: None,
                    owed: revoked.owed.map(|error| office::told(&error)),
                };
                (revoked.registry, done)
            }
        })
    }
}

/// Whether the configuration knows a user of that name, who would be the same to the broker.
fn has_user(broker: &Broker, name: &ClientName) -> Result<bool, PasswordFileError> {
    let configured = broker.users.iter().any(|user| user.name == name.as_str());
    Ok(match &broker.password_file {
        Some(path) if !configured => disk::read(path)?.has(name.as_str()),
        _ => configured,
    })
}
