//! What a server keeps of a password for SCRAM-SHA-256 (RFC 5802, 7677), written as
//! `SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY`, as PostgreSQL writes it. Values.
//!
//! Invariant: the keys prove a client's knowledge of the password, but do not replace it.

use std::{fmt, num::NonZeroU32};

use ring::{digest, hmac, pbkdf2};

use super::{SALT_BYTES, VerifierError, decode, encode, equal_in_constant_time, number};

/// What our own keys cost, and the client pays: a small one computes this in about a second.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).expect("10,000 is not 0");

/// RFC 7677, section 4, asks for this many at least.
const ITERATIONS_MIN: u32 = 4_096;

/// A client computes them all, before it knows whom it talks to.
const ITERATIONS_MAX: u32 = 1_000_000;

const PREFIX: &str = "SCRAM-SHA-256$";

/// A SHA-256 value.
pub(crate) type Key = [u8; digest::SHA256_OUTPUT_LEN];

/// A user's keys for SCRAM-SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    pub(crate) iterations: NonZeroU32,
    pub(crate) salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl ScramKeys {
    /// Makes keys at our own cost; `password` as [`prepare`] returns it.
    pub fn new(password: &str, salt: [u8; SALT_BYTES]) -> ScramKeys {
        ScramKeys::derive(password, &salt, ITERATIONS)
    }

    /// RFC 5802, section 3.
    pub(crate) fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> ScramKeys {
        let mut salted: Key = [0; 32];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(
            algorithm,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        let client_key = hmac_sha256(&salted, b"Client Key");
        ScramKeys {
            iterations,
            salt: salt.to_vec(),
            stored_key: sha256(&client_key),
            server_key: hmac_sha256(&salted, b"Server Key"),
        }
    }

    /// Keys that no password has, for a user who is not known; at the cost of somebody's.
    pub(crate) fn of_nobody(
        salt: [u8; SALT_BYTES],
        never: Key,
        like: Option<&ScramKeys>,
    ) -> ScramKeys {
        ScramKeys {
            iterations: like.map_or(ITERATIONS, |keys| keys.iterations),
            salt: salt.to_vec(),
            stored_key: never,
            server_key: never,
        }
    }

    /// Reads the text form, `SCRAM-SHA-256$` included.
    pub fn parse(text: &str) -> Result<ScramKeys, VerifierError> {
        let form = || VerifierError::Form {
            kind: "SCRAM-SHA-256",
            form: "SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY",
        };
        let rest = text.strip_prefix(PREFIX).ok_or_else(form)?;
        let (cost, keys) = rest.split_once('$').ok_or_else(form)?;
        let (iterations, salt) = cost.split_once(':').ok_or_else(form)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or_else(form)?;
        let what = "the number of iterations";
        let iterations = number(iterations, what, ITERATIONS_MIN, ITERATIONS_MAX)?;
        Ok(ScramKeys {
            iterations: NonZeroU32::new(iterations).ok_or(VerifierError::Field(what))?,
            salt: decode(salt, "salt")?,
            stored_key: key(stored_key, "stored key")?,
            server_key: key(server_key, "server key")?,
        })
    }

    /// Whether a text in a password file is meant to be keys for SCRAM.
    pub(super) fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Whether this is the password; as slow as a client.
    pub fn fits(&self, password: &str) -> bool {
        let given = ScramKeys::derive(password, &self.salt, self.iterations);
        equal_in_constant_time(&self.stored_key, &given.stored_key)
    }

    /// Whether a client's proof shows that it knows the password (RFC 5802, section 3).
    pub(crate) fn accepts(&self, auth_message: &[u8], proof: &Key) -> bool {
        let signature = hmac_sha256(&self.stored_key, auth_message);
        let mut client_key = *proof;
        for (byte, other) in client_key.iter_mut().zip(signature) {
            *byte ^= other;
        }
        equal_in_constant_time(&self.stored_key, &sha256(&client_key))
    }

    /// By which a client sees that the server knows it.
    pub(crate) fn server_signature(&self, auth_message: &[u8]) -> Key {
        hmac_sha256(&self.server_key, auth_message)
    }

    /// The method and its cost.
    pub fn describe(&self) -> String {
        format!("SCRAM-SHA-256, {} iterations", self.iterations)
    }
}

/// As it stands in a password file.
impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (iterations, salt) = (self.iterations, encode(&self.salt));
        let (stored, server) = (encode(&self.stored_key), encode(&self.server_key));
        write!(f, "{PREFIX}{iterations}:{salt}${stored}:{server}")
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// A password as SCRAM computes with it. SASLprep (RFC 4013) leaves printable ASCII as it is; for
/// other characters its outcome depends on tables that clients seldom have, so that the same
/// password fits with one client and not with the next: such passwords get no keys.
pub fn prepare(password: &str) -> Option<&str> {
    let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    (!password.is_empty() && password.bytes().all(printable)).then_some(password)
}

fn key(text: &str, what: &'static str) -> Result<Key, VerifierError> {
    let bytes = decode(text, what)?;
    Key::try_from(bytes).map_err(|_| VerifierError::Field(what))
}

pub(crate) fn hmac_sha256(key: &[u8], data: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    as_key(tag.as_ref())
}

fn sha256(data: &[u8]) -> Key {
    as_key(digest::digest(&digest::SHA256, data).as_ref())
}

fn as_key(bytes: &[u8]) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(bytes);
    key
}
