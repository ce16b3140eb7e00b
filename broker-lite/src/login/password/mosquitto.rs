//! The two kinds of hash that `mosquitto_passwd` writes, so that its users keep their passwords:
//! `$7$ITERATIONS$SALT$HASH` (PBKDF2 with HMAC-SHA-512) and `$6$SALT$HASH` (SHA-512 of password
//! and salt). Values.
//!
//! Invariant: one check takes at most [`ITERATIONS_MAX`] rounds.

use std::{fmt, num::NonZeroU32};

use ring::{digest, pbkdf2};

use super::{VerifierError, decode, encode, equal_in_constant_time, number};

/// About a second on a small board; mosquitto_passwd itself uses 101.
const ITERATIONS_MAX: u32 = 1_000_000;

/// A guesser is not kept busy by fewer; mosquitto_passwd stays far below.
const ITERATIONS_WEAK: u32 = 100_000;

/// A password's PBKDF2 hash, with the salt and the iterations it was made with.
#[derive(Clone, PartialEq, Eq)]
pub struct Pbkdf2Sha512 {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

/// SHA-512 over a password and its salt.
#[derive(Clone, PartialEq, Eq)]
pub struct SaltedSha512 {
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Pbkdf2Sha512 {
    /// Reads what follows `$7$`.
    pub(super) fn parse(text: &str) -> Result<Pbkdf2Sha512, VerifierError> {
        let parts: Vec<&str> = text.split('$').collect();
        let [iterations, salt, hash] = parts[..] else {
            return Err(VerifierError::Form {
                kind: "mosquitto $7$",
                form: "$7$ITERATIONS$SALT$HASH",
            });
        };
        let what = "the number of iterations";
        let iterations = number(iterations, what, 1, ITERATIONS_MAX)?;
        Ok(Pbkdf2Sha512 {
            iterations: NonZeroU32::new(iterations).ok_or(VerifierError::Field(what))?,
            salt: decode(salt, "salt")?,
            hash: whole_hash(hash)?,
        })
    }

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        pbkdf2::verify(
            pbkdf2::PBKDF2_HMAC_SHA512,
            self.iterations,
            &self.salt,
            password,
            &self.hash,
        )
        .is_ok()
    }

    pub(super) fn describe(&self) -> String {
        format!("mosquitto $7$, {} iterations", self.iterations)
    }

    pub(super) fn weakness(&self) -> Option<&'static str> {
        (self.iterations.get() < ITERATIONS_WEAK)
            .then_some("so few iterations keep no guesser busy")
    }
}

impl SaltedSha512 {
    /// Reads what follows `$6$`.
    pub(super) fn parse(text: &str) -> Result<SaltedSha512, VerifierError> {
        let Some((salt, hash)) = text.split_once('$') else {
            return Err(VerifierError::Form {
                kind: "mosquitto $6$",
                form: "$6$SALT$HASH",
            });
        };
        Ok(SaltedSha512 {
            salt: decode(salt, "salt")?,
            hash: whole_hash(hash)?,
        })
    }

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        let mut context = digest::Context::new(&digest::SHA512);
        context.update(password);
        context.update(&self.salt);
        equal_in_constant_time(&self.hash, context.finish().as_ref())
    }
}

impl fmt::Display for Pbkdf2Sha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, hash) = (encode(&self.salt), encode(&self.hash));
        write!(f, "$7${}${salt}${hash}", self.iterations)
    }
}

impl fmt::Display for SaltedSha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$6${}${}", encode(&self.salt), encode(&self.hash))
    }
}

/// A shorter one would be met by chance the sooner.
fn whole_hash(text: &str) -> Result<Vec<u8>, VerifierError> {
    let hash = decode(text, "hash")?;
    match hash.len() {
        digest::SHA512_OUTPUT_LEN => Ok(hash),
        _ => Err(VerifierError::Field("hash")),
    }
}
