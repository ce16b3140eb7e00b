//! Reads who may log in: secrets that the configuration names, and the password file. Driver.
//!
//! Invariant: all of it is taken, or nothing.

use std::collections::HashSet;

use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    config::{Config, User},
    login::password::{Key, ScramKeys, disk, prepare_for_scram},
    login::{Login, Logins, salt},
    start::StartError,
};

/// Draws what strangers are told from; once, so that it stays the same through reloads.
pub(crate) fn chance() -> Result<Key, StartError> {
    let mut chance = Key::default();
    let drawn = SystemRandom::new().fill(&mut chance);
    drawn.map_err(|_| StartError::Random)?;
    Ok(chance)
}

/// Reads everyone's login. Takes a few milliseconds for each user of `config.users`.
pub(crate) fn read(config: &Config, chance: Key) -> Result<Logins, StartError> {
    let mut logins = Vec::new();
    let mut taken = HashSet::new();
    for user in &config.users {
        taken.insert(user.name.clone());
        logins.push(at_hand(user, &chance)?);
    }
    for path in [&config.password_file, &config.kept_passwords]
        .into_iter()
        .flatten()
    {
        for (name, credentials) in disk::read(path)?.users() {
            if !taken.insert(name.to_owned()) {
                return Err(StartError::TwoPasswords {
                    user: name.to_owned(),
                    path: path.clone(),
                });
            }
            logins.push(Login::kept(name, credentials.password, credentials.scram));
        }
    }
    Ok(Logins::new(logins, chance))
}

fn at_hand(user: &User, chance: &Key) -> Result<Login, StartError> {
    let password = user.password.read();
    let password = password.map_err(|source| StartError::Password {
        user: user.name.clone(),
        source,
    })?;
    let prepared = prepare_for_scram(password.expose());
    let keys = prepared.map(|prepared| ScramKeys::new(prepared, salt(chance, &user.name)));
    Ok(Login::plain(&user.name, password, keys))
}
