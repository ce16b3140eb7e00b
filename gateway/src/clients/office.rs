//! Changes what is known of local clients: adds, certifies, revokes, and keeps the authority in
//! order. Driver: signs, writes files, draws serial numbers.
//!
//! Invariant: each change is made under the directory's lock, from what stands on disk to what
//! stands there; half of one is never seen.

use std::{sync::Arc, time::Duration};

use broker_lite::login::password::disk::PasswordFileError;
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::{
    Access, Certified, ClientName, FileError, Listing, Registry, RegistryError, RequestError,
    authority::{self, Authority, LIST_LIFE, Life},
    directory::{Directory, Lock},
    keys::Keys,
    registry::{Client, Generation, Issued, Proof, Server},
    request::Request,
    serial::Serial,
};
use crate::{
    config::Clients,
    credentials::{self, CredentialError},
    identity::DeviceKey,
};

/// Life of the listeners' certificate; it is renewed when a third of it is left.
const SERVER_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// The authority's successor is made when this part of its life is left.
const OVERLAP: u32 = 5;
/// Part of a certificate's life after which a client had better renew it: two of three.
const RENEW_AFTER: (i64, i64) = (2, 3);

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OfficeError {
    /// The directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is asked for does not fit what is known.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The certificate request is not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The authority's key in a file cannot be used.
    #[error(transparent)]
    Key(#[from] CredentialError),
    /// The authority's key in the TPM cannot be used.
    #[error("the authority's key is to be in the TPM of [tpm]: {0}")]
    Tpm(#[from] tpm::Error),
    /// Nothing says where the TPM is that has the authority's key.
    #[error("the authority's key is in a TPM, but there is no [tpm] any more")]
    NoTpm,
    /// Nothing could be signed.
    #[error("cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
    /// The configuration has a user of that name.
    #[error(
        "the configuration has a user {0} already, in [[broker.user]] or password_file; choose another name"
    )]
    Taken(ClientName),
    /// Whether it has cannot be found out.
    #[error(transparent)]
    Passwords(#[from] PasswordFileError),
    /// The program ends.
    #[error("the program stops; nothing was changed")]
    Stopped,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a serial number")]
    Random,
}

/// By what a client is to be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NewProof {
    /// A certificate for the key of this request, PEM.
    Request(String),
    /// A password with this hash.
    Password(String),
}

/// What the broker needs of the authority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Names of a certificate for listeners; none: no listener serves with one.
    pub(crate) server_names: Option<Vec<String>>,
    /// Whether there has to be an authority.
    pub(crate) authority: bool,
}

/// What a change has come to.
pub(crate) struct Changed<T> {
    /// What is known now.
    pub(crate) registry: Registry,
    /// What was asked for.
    pub(crate) answer: T,
    /// Why the lists of revoked certificates are not signed yet.
    pub(crate) owed: Option<OfficeError>,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Office {
    settings: Clients,
    gateway: Arc<str>,
    pub(super) directory: Directory,
    keys: Keys,
}

impl OfficeError {
    /// The code that a command ends with: wrong usage, refused for a reason of security, or failed.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            OfficeError::Registry(_) | OfficeError::Taken(_) => 2,
            OfficeError::Request(_) => 3,
            _ => 1,
        }
    }
}

impl Office {
    /// Of the gateway of that name; the authority's keys are in the TPM where there is one.
    pub(crate) fn new(
        settings: &Clients,
        gateway: &Arc<str>,
        device: Option<&tpm::DeviceKey>,
    ) -> Office {
        let directory = Directory::new(&settings.directory);
        Office {
            settings: settings.clone(),
            gateway: Arc::clone(gateway),
            keys: Keys::new(directory.clone(), device.cloned()),
            directory,
        }
    }

    /// A file that the broker reads.
    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.file(name)
    }

    /// What is known, without a change.
    pub(crate) fn look(&self) -> Result<Registry, OfficeError> {
        Ok(self.directory.registry()?.unwrap_or_default())
    }

    /// Brings everything in order: files that a power cut left old, lists that are due, the
    /// authority's succession, the listeners' certificate.
    ///
    /// The second value says what could not be signed, though what there is goes on.
    ///
    /// # Errors
    /// The directory cannot be used, or there is no authority and none can be made.
    pub(crate) fn keep(
        &self,
        wanted: &Wanted,
    ) -> Result<(Registry, Option<OfficeError>), OfficeError> {
        let known = self.directory.registry()?;
        if known.is_none() && !wanted.authority {
            return Ok((Registry::default(), None));
        }
        let lock = self.directory.lock()?;
        let mut registry = self.look()?;
        let before = registry.clone();
        let now = now();
        let ended: Vec<u32> = numbers(&registry);
        registry.prune(now);
        let needs_one = wanted.authority || !registry.generations.is_empty();
        let trouble = match self.put_in_order(&mut registry, wanted, needs_one, now, &lock) {
            Ok(()) => None,
            Err(error) if registry.generations.is_empty() && wanted.authority => return Err(error),
            Err(error) => Some(error),
        };
        let stored = match registry == before {
            true => self.directory.write_out(&registry),
            false => self.directory.put(&registry, &lock),
        };
        if let Err(error) = stored {
            // A full disk leaves everything as it was, if there was something to go on with.
            let serves = !before.generations.is_empty() || !wanted.authority;
            return match serves {
                true => Ok((before, Some(error.into()))),
                false => Err(error.into()),
            };
        }
        let present = numbers(&registry);
        for gone in ended.iter().filter(|number| !present.contains(number)) {
            self.keys.forget(*gone, &lock)?;
        }
        Ok((registry, trouble))
    }

    /// Adds a client; with a certificate request, gives its certificate.
    pub(crate) fn add(
        &self,
        name: &ClientName,
        proof: &NewProof,
        access: Access,
    ) -> Result<Changed<Option<Certified>>, OfficeError> {
        self.change(|registry, now, lock| {
            registry.may_add(name, &access)?;
            let (proof, certified) = match proof {
                NewProof::Password(hash) => (Proof::Password(hash.clone()), None),
                NewProof::Request(request) => {
                    let (issued, certified) = self.certify(registry, name, request, now, lock)?;
                    (Proof::Certificates(vec![issued]), Some(certified))
                }
            };
            let client = Client {
                added: now,
                proof,
                access,
            };
            registry.add(name, client)?;
            Ok(certified)
        })
    }

    /// Gives a client another certificate or password; with `alone` its other certificates are
    /// revoked.
    pub(crate) fn rotate(
        &self,
        name: &ClientName,
        proof: &NewProof,
        alone: bool,
    ) -> Result<Changed<Option<Certified>>, OfficeError> {
        self.change(|registry, now, lock| match proof {
            NewProof::Password(hash) => {
                registry.set_password(name, hash.clone())?;
                Ok(None)
            }
            NewProof::Request(request) => {
                if !alone {
                    registry.may_certify(name, now)?;
                }
                let (issued, certified) = self.certify(registry, name, request, now, lock)?;
                registry.certify(name, issued, alone)?;
                Ok(Some(certified))
            }
        })
    }

    /// Gives a client that asks for it another certificate, while it has one that counts.
    pub(crate) fn renew(
        &self,
        name: &ClientName,
        request: String,
    ) -> Result<Changed<Certified>, OfficeError> {
        self.change(|registry, now, lock| {
            registry.may_renew(name, now)?;
            let (issued, certified) = self.certify(registry, name, &request, now, lock)?;
            registry.certify(name, issued, false)?;
            Ok(certified)
        })
    }

    /// Takes a client away; gives how many certificates that makes void.
    pub(crate) fn revoke(&self, name: &ClientName) -> Result<Changed<usize>, OfficeError> {
        self.change(|registry, now, _| Ok(registry.revoke(name, now)?))
    }

    /// One change, from disk to disk. A TPM that is away keeps nobody from being revoked: the list
    /// is then owed.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Registry, Timestamp, &Lock) -> Result<T, OfficeError>,
    ) -> Result<Changed<T>, OfficeError> {
        let lock = self.directory.lock()?;
        let (mut registry, now) = (self.look()?, now());
        registry.prune(now);
        let answer = change(&mut registry, now, &lock)?;
        let owed = match registry.listed {
            true => None,
            false => self.sign_lists(&mut registry, now).err(),
        };
        self.directory.put(&registry, &lock)?;
        Ok(Changed {
            registry,
            answer,
            owed,
        })
    }

    fn put_in_order(
        &self,
        registry: &mut Registry,
        wanted: &Wanted,
        needs_one: bool,
        now: Timestamp,
        lock: &Lock,
    ) -> Result<(), OfficeError> {
        if needs_one {
            self.issuer(registry, now, lock)?;
        }
        if registry.lists_are_due(now, LIST_LIFE / 2) {
            self.sign_lists(registry, now)?;
        }
        if let Some(names) = &wanted.server_names {
            self.certify_server(registry, names, now, lock)?;
        }
        Ok(())
    }

    /// The generation that signs now. Makes the authority, or its successor once a part of its
    /// life is left.
    fn issuer(
        &self,
        registry: &mut Registry,
        now: Timestamp,
        lock: &Lock,
    ) -> Result<Generation, OfficeError> {
        let life = self.settings.ca_life.as_duration();
        let overlap = life / OVERLAP;
        let newest = registry.generations.last();
        if let Some(newest) = newest.filter(|newest| lasts(newest.ends, now, overlap)) {
            return Ok(newest.clone());
        }
        let number = registry.made + 1;
        let key = self.keys.prepare(number, lock)?;
        let life = Life::of(now, life, Timestamp::MAX);
        let certificate =
            authority::certify_self(&*key, &self.gateway, number, &self.serial()?, life)?;
        registry.list_number += 1;
        let list = Authority::new(&certificate, &*key)?.list(
            std::iter::empty(),
            registry.list_number,
            now,
        )?;
        registry.made = number;
        let generation = Generation {
            number,
            key: self.keys.place(),
            ends: life.ends,
            certificate,
            list,
            listed_at: now,
        };
        registry.generations.push(generation.clone());
        Ok(generation)
    }

    fn sign_lists(&self, registry: &mut Registry, now: Timestamp) -> Result<(), OfficeError> {
        let number = registry.list_number + 1;
        let mut lists = Vec::with_capacity(registry.generations.len());
        for generation in &registry.generations {
            let key = self.keys.of(generation)?;
            let revoked = registry
                .revoked
                .iter()
                .filter(|revoked| revoked.generation == generation.number)
                .map(|revoked| (&revoked.serial, revoked.at));
            lists.push(Authority::new(&generation.certificate, &*key)?.list(revoked, number, now)?);
        }
        for (generation, list) in registry.generations.iter_mut().zip(lists) {
            generation.list = list;
            generation.listed_at = now;
        }
        registry.list_number = number;
        registry.listed = true;
        Ok(())
    }

    fn certify(
        &self,
        registry: &mut Registry,
        name: &ClientName,
        request: &str,
        now: Timestamp,
        lock: &Lock,
    ) -> Result<(Issued, Certified), OfficeError> {
        let request = Request::parse(request)?;
        request.is_for(name)?;
        let newest = self.issuer(registry, now, lock)?;
        let key = self.keys.of(&newest)?;
        let life = Life::of(
            now,
            self.settings.certificate_life.as_duration(),
            newest.ends,
        );
        let serial = self.serial()?;
        let certificate = Authority::new(&newest.certificate, &*key)?
            .certify_client(&request, name, &serial, life)?;
        let issued = Issued {
            serial,
            generation: newest.number,
            issued: now,
            ends: life.ends,
        };
        let certified = Certified {
            certificate,
            ca: registry.anchors(),
            ends: life.ends,
            renew: renewal(now, life.ends),
        };
        Ok((issued, certified))
    }

    /// The oldest generation that lasts signs for the broker, because clients know it longest.
    fn certify_server(
        &self,
        registry: &mut Registry,
        names: &[String],
        now: Timestamp,
        lock: &Lock,
    ) -> Result<(), OfficeError> {
        let margin = self.settings.ca_life.as_duration() / OVERLAP / 2;
        let lasting = |generation: &&Generation| lasts(generation.ends, now, margin);
        let issuer = registry.generations.iter().find(lasting);
        let Some(issuer) = issuer.or(registry.generations.last()).cloned() else {
            return Ok(());
        };
        let (pair, is_new) = self.keys.server(lock)?;
        let serves_on = registry.server.as_ref().is_some_and(|server| {
            server.generation == issuer.number
                && server.names == names
                && lasts(server.ends, now, SERVER_LIFE.min(margin) / 3)
        });
        if serves_on && !is_new {
            return Ok(());
        }
        let key: Arc<dyn DeviceKey> = self.keys.of(&issuer)?;
        let life = Life::of(now, SERVER_LIFE, issuer.ends);
        let authority = Authority::new(&issuer.certificate, &*key)?;
        let certificate = authority.certify_server(&pair, names, &self.serial()?, life)?;
        registry.server = Some(Server {
            generation: issuer.number,
            names: names.to_vec(),
            ends: life.ends,
            certificate,
        });
        Ok(())
    }

    fn serial(&self) -> Result<Serial, OfficeError> {
        let mut drawn = [0; 16];
        let filled = SystemRandom::new().fill(&mut drawn);
        filled.map_err(|_| OfficeError::Random)?;
        Ok(Serial::new(drawn))
    }
}

/// `registry` as people are shown it.
pub(crate) fn shown(registry: &Registry) -> Listing {
    Listing::new(registry, now())
}

fn numbers(registry: &Registry) -> Vec<u32> {
    let numbers = registry.generations.iter().map(|one| one.number);
    numbers.collect()
}

/// Whether what ends then lasts at least so long from `now`.
fn lasts(ends: Timestamp, now: Timestamp, least: Duration) -> bool {
    now.saturating_add(least).is_ok_and(|until| until < ends)
}

fn renewal(now: Timestamp, ends: Timestamp) -> Timestamp {
    let life = ends.as_second() - now.as_second();
    let (part, of) = RENEW_AFTER;
    Timestamp::from_second(now.as_second() + life * part / of).unwrap_or(ends)
}

/// The time, but never before this program was built: what a clock without battery tells after a
/// power cut would make certificates that ended long ago.
fn now() -> Timestamp {
    let now = credentials::time_not_before(Timestamp::UNIX_EPOCH);
    // Whole seconds, as certificates have.
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// An error with its causes.
pub(crate) fn told(error: &OfficeError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
