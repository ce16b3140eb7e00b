//! Passwords as they are kept: salted and hashed, to be checked but never read back. Values.
//!
//! ```text
//! file   the password file: lines, users, problems ─┐
//! disk   read and replaced as a whole ──────────────┴─▶ Verifier: argon2id · mosquitto
//!                                                       ScramKeys: scram
//! ```
//!
//! Invariant: a verifier that exists can be checked, and its check stays within the bounds that
//! its own module names; nothing that is not understood ever stands for "no password".

mod argon2id;
mod mosquitto;
mod scram;

pub mod file;

pub mod disk;

use std::fmt;

use base64ct::{Base64, Encoding};

pub use argon2id::Argon2id;
pub use mosquitto::{Pbkdf2Sha512, SaltedSha512};
pub(crate) use scram::{Key, hmac_sha256};
pub use scram::{ScramKeys, prepare as prepare_for_scram};

/// Bytes of salt in what we make ourselves.
pub const SALT_BYTES: usize = 16;

/// Longest salt or hash that is taken, in bytes.
const FIELD_BYTES_MAX: usize = 64;

/// A salted hash by which a password is known again.
#[derive(Clone, PartialEq, Eq)]
pub enum Verifier {
    /// RFC 9106, in the PHC string format: what we make.
    Argon2id(Argon2id),
    /// `$7$` of mosquitto_passwd.
    Pbkdf2Sha512(Pbkdf2Sha512),
    /// `$6$` of mosquitto_passwd: one round, so a stolen file is soon read.
    SaltedSha512(SaltedSha512),
}

/// Why a text is no verifier, or none that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// Nothing is there, which must never mean "no password" (CVE-2018-12551).
    #[error("there is no password hash")]
    Empty,
    /// Not hashed at all.
    #[error("this is no password hash but perhaps a password in plain text")]
    PlainText,
    /// A hash of a kind that is not known here.
    #[error("password hashes of the kind {0:?} are not known; known are $argon2id$, $7$ and $6$")]
    UnknownKind(String),
    /// A part is missing, or more follows.
    #[error("the {kind} hash is not of the form {form}")]
    Form {
        /// Which kind.
        kind: &'static str,
        /// How it is written.
        form: &'static str,
    },
    /// A part is not Base64 of a possible length.
    #[error("the {0} is not Base64, or is too short or too long")]
    Field(&'static str),
    /// A check would take more than is given to it, or nothing at all.
    #[error("{what} {value} is out of bounds: {minimum} to {maximum} are taken")]
    Cost {
        /// Which factor.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The least that is taken.
        minimum: u64,
        /// The most that is taken.
        maximum: u64,
    },
}

impl Verifier {
    /// Reads a verifier as it stands in a password file.
    pub fn parse(text: &str) -> Result<Verifier, VerifierError> {
        if text.is_empty() {
            return Err(VerifierError::Empty);
        }
        let Some((kind, rest)) = text.strip_prefix('$').and_then(|text| text.split_once('$'))
        else {
            return Err(VerifierError::PlainText);
        };
        match kind {
            "argon2id" => Argon2id::parse(rest).map(Verifier::Argon2id),
            "7" => Pbkdf2Sha512::parse(rest).map(Verifier::Pbkdf2Sha512),
            "6" => SaltedSha512::parse(rest).map(Verifier::SaltedSha512),
            other => Err(VerifierError::UnknownKind(format!("${other}$"))),
        }
    }

    /// Makes what is kept of a password: argon2id at our own cost.
    pub fn new(password: &[u8], salt: [u8; SALT_BYTES]) -> Verifier {
        Verifier::Argon2id(Argon2id::new(password, salt))
    }

    /// Whether this is the password. Takes the time and the memory of the verifier's kind, so
    /// never call it where others wait. An empty password never is.
    pub fn verify(&self, password: &[u8]) -> bool {
        let fits = match self {
            Verifier::Argon2id(verifier) => verifier.verify(password),
            Verifier::Pbkdf2Sha512(verifier) => verifier.verify(password),
            Verifier::SaltedSha512(verifier) => verifier.verify(password),
        };
        fits && !password.is_empty()
    }

    /// The kind, and its cost.
    pub fn describe(&self) -> String {
        match self {
            Verifier::Argon2id(verifier) => verifier.describe(),
            Verifier::Pbkdf2Sha512(verifier) => verifier.describe(),
            Verifier::SaltedSha512(_) => "mosquitto $6$, SHA-512 once".to_owned(),
        }
    }

    /// Why a better one should take its place, if so.
    pub fn weakness(&self) -> Option<&'static str> {
        match self {
            Verifier::Argon2id(verifier) => verifier.weakness(),
            Verifier::Pbkdf2Sha512(verifier) => verifier.weakness(),
            Verifier::SaltedSha512(_) => Some("one round of SHA-512 keeps no guesser busy"),
        }
    }
}

/// As it stands in a password file.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verifier::Argon2id(verifier) => verifier.fmt(f),
            Verifier::Pbkdf2Sha512(verifier) => verifier.fmt(f),
            Verifier::SaltedSha512(verifier) => verifier.fmt(f),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Takes a time that depends on the lengths alone.
pub(crate) fn equal_in_constant_time(expected: &[u8], given: &[u8]) -> bool {
    let mut difference = u8::from(expected.len() != given.len());
    for (index, byte) in given.iter().enumerate() {
        difference |= byte ^ expected.get(index).copied().unwrap_or(0);
    }
    std::hint::black_box(difference) == 0
}

/// Bytes from Base64 with padding.
fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, VerifierError> {
    let bytes = Base64::decode_vec(text).map_err(|_| VerifierError::Field(what))?;
    if bytes.is_empty() || bytes.len() > FIELD_BYTES_MAX {
        return Err(VerifierError::Field(what));
    }
    Ok(bytes)
}

fn encode(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// A decimal number within its bounds.
fn number(
    text: &str,
    what: &'static str,
    minimum: u32,
    maximum: u32,
) -> Result<u32, VerifierError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value: u64 = match digits {
        true => text.parse().unwrap_or(u64::MAX),
        false => return Err(VerifierError::Field(what)),
    };
    match u32::try_from(value) {
        Ok(value) if (minimum..=maximum).contains(&value) => Ok(value),
        _ => Err(VerifierError::Cost {
            what,
            value,
            minimum: minimum.into(),
            maximum: maximum.into(),
        }),
    }
}

#[cfg(test)]
mod tests;
