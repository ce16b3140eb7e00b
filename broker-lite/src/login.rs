//! Who may log in, and what each has to show. Values.
//!
//! Invariant: a name that nobody has is answered like a known one, after the same work, and fails.

pub(crate) mod auth;

pub(crate) mod scram;

pub(crate) mod checks;

pub(crate) mod credentials;

pub(crate) mod bans;

pub(crate) mod arrivals;

pub mod password;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use settings::SecretText;

use crate::{
    login::password::{Key, SALT_BYTES, ScramKeys, Verifier, equal_in_constant_time, hmac_sha256},
    packet::Credential,
};

/// How a password is known again.
#[derive(Debug)]
enum Known {
    /// The password itself, from a secret that the configuration names.
    Plain(SecretText),
    /// From the password file.
    Hashed(Verifier),
    /// The file holds the user's keys for SCRAM alone.
    ByScram,
}

/// One user's name with what it is known by.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) name: String,
    known: Known,
    scram: Option<ScramKeys>,
}

impl Login {
    /// With the password at hand, and the keys made from it where SCRAM can use it.
    pub(crate) fn plain(name: &str, password: SecretText, scram: Option<ScramKeys>) -> Login {
        Login {
            name: name.to_owned(),
            known: Known::Plain(password),
            scram,
        }
    }

    /// From a password file; one of the two is there.
    pub(crate) fn kept(name: &str, password: Option<Verifier>, scram: Option<ScramKeys>) -> Login {
        Login {
            name: name.to_owned(),
            known: password.map_or(Known::ByScram, Known::Hashed),
            scram,
        }
    }

    /// Whether both ask for the same, however keys are salted that were made from a password.
    pub(crate) fn is_as(&self, other: &Login) -> bool {
        let same = match (&self.known, &other.known) {
            (Known::Plain(one), Known::Plain(other)) => return one.expose() == other.expose(),
            (Known::Hashed(one), Known::Hashed(other)) => one == other,
            (Known::ByScram, Known::ByScram) => true,
            _ => false,
        };
        same && self.scram == other.scram
    }

    /// Whether a password is compared at once rather than hashed.
    pub(crate) fn is_quick(&self) -> bool {
        matches!(self.known, Known::Plain(_))
    }

    fn is_password(&self, given: &[u8]) -> bool {
        match (&self.known, &self.scram) {
            (Known::Plain(password), _) => {
                equal_in_constant_time(password.expose().as_bytes(), given)
            }
            (Known::Hashed(verifier), _) => verifier.verify(given),
            (Known::ByScram, Some(keys)) => {
                std::str::from_utf8(given).is_ok_and(|given| keys.fits(given))
            }
            (Known::ByScram, None) => false,
        }
    }
}

/// A password to be checked, with all that the check needs.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) login: Arc<Login>,
    given: Option<Credential>,
    /// The name is nobody's: another's login is checked for as long, and never fits.
    hopeless: bool,
}

impl Check {
    /// Whether the password fits. May take long.
    pub(crate) fn run(&self) -> bool {
        let given = self.given.as_ref().map_or(&[][..], |given| &given.0[..]);
        self.login.is_password(given) && !self.hopeless && !given.is_empty()
    }
}

/// Everyone who may log in.
#[derive(Debug)]
pub(crate) struct Logins {
    by_name: HashMap<String, Arc<Login>>,
    all: Vec<Arc<Login>>,
    /// Drawn by chance at the start, and known to nobody: what is told to strangers is made from it.
    chance: Key,
}

impl Logins {
    /// Of several with one name the last counts.
    pub(crate) fn new(logins: Vec<Login>, chance: Key) -> Logins {
        let all: Vec<Arc<Login>> = logins.into_iter().map(Arc::new).collect();
        let by_name = all
            .iter()
            .map(|login| (login.name.clone(), Arc::clone(login)));
        Logins {
            by_name: by_name.collect(),
            all,
            chance,
        }
    }

    /// Names whose logins are gone or others in `new`.
    pub(crate) fn changed_in(&self, new: &Logins) -> HashSet<String> {
        let stays = |login: &Arc<Login>| new.has(login);
        let gone = self.by_name.values().filter(|login| !stays(login));
        gone.map(|login| login.name.clone()).collect()
    }

    /// Whether this login is still in force.
    pub(crate) fn has(&self, login: &Login) -> bool {
        let present = self.by_name.get(&login.name);
        present.is_some_and(|present| present.is_as(login))
    }

    /// What a password is to be checked against; `None` when there are no logins at all.
    pub(crate) fn check(&self, name: &str, given: Option<Credential>) -> Option<Check> {
        let known = self.by_name.get(name).cloned();
        let hopeless = known.is_none();
        let login = known.or_else(|| self.decoy(name, |_| true).cloned())?;
        Some(Check {
            login,
            given,
            hopeless,
        })
    }

    /// The keys that SCRAM asks a name's proof for, and whose they are; a stranger is given keys
    /// that look like anyone's.
    pub(crate) fn scram(&self, name: &str) -> (ScramKeys, Option<Arc<Login>>) {
        let known = self.by_name.get(name);
        match known.and_then(|login| Some((login.scram.clone()?, login))) {
            Some((keys, login)) => (keys, Some(Arc::clone(login))),
            None => {
                let never = self.drawn("no password has this key", name);
                let like = self.decoy(name, |login| login.scram.is_some());
                let like = like.and_then(|login| login.scram.as_ref());
                let salt = salt(&self.chance, name);
                (ScramKeys::of_nobody(salt, never, like), None)
            }
        }
    }

    /// A value that nobody can foresee, different for each number.
    pub(crate) fn nonce(&self, number: u64) -> Key {
        self.drawn("nonce", &number.to_string())
    }

    /// Somebody's login, always the same for a name: as costly as known ones are on the whole.
    fn decoy(&self, name: &str, fits: fn(&Login) -> bool) -> Option<&Arc<Login>> {
        let fitting = || self.all.iter().filter(|login| fits(login));
        let drawn = self.drawn("decoy", name);
        let number = u64::from_be_bytes(drawn[..8].try_into().unwrap_or_default());
        let index = number.checked_rem(fitting().count() as u64)?;
        fitting().nth(usize::try_from(index).ok()?)
    }

    fn drawn(&self, purpose: &str, name: &str) -> Key {
        drawn(&self.chance, purpose, name)
    }
}

/// The salt of keys that are made from a password at hand, or of nobody: the same for the same
/// name, until the broker starts anew.
pub(crate) fn salt(chance: &Key, name: &str) -> [u8; SALT_BYTES] {
    let mut salt = [0; SALT_BYTES];
    salt.copy_from_slice(&drawn(chance, "salt", name)[..SALT_BYTES]);
    salt
}

fn drawn(chance: &Key, purpose: &str, name: &str) -> Key {
    hmac_sha256(chance, format!("{purpose}\0{name}").as_bytes())
}
