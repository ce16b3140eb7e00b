//! argon2id (RFC 9106) in the PHC string format:
//! `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`. Values.
//!
//! Invariant: one check takes at most [`MEMORY_KIB_MAX`] of memory, [`PASSES_MAX`] times over.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64ct::{Base64Unpadded, Encoding};

use super::{FIELD_BYTES_MAX, SALT_BYTES, VerifierError, equal_in_constant_time, number};

/// What our own verifiers cost: the first choice of OWASP's password storage cheat sheet.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const HASH_BYTES: usize = 32;

/// The most that a verifier made elsewhere may cost; RFC 9106's own choice for small machines.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
const PASSES_MAX: u32 = 10;
const LANES_MAX: u32 = 8;

/// A guesser who needs less memory than this has many goes at once.
const MEMORY_KIB_WEAK: u32 = 7 * 1024;

/// What is allocated for a check at least, though only what it needs is touched: glibc always gives
/// allocations of more than 32 MiB back to the system, while of smaller ones each thread's arena
/// may keep some (mallopt(3), M_MMAP_THRESHOLD). Without this, hundreds of megabytes stay.
const GIVEN_BACK_FROM_KIB: usize = 33 * 1024;

const KIND: &str = "argon2id";
const FORM: &str = "$argon2id$v=19$m=MEMORY,t=PASSES,p=LANES$SALT$HASH";

/// A password's argon2id hash, with the salt and the cost it was made with.
#[derive(Clone, PartialEq, Eq)]
pub struct Argon2id {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Argon2id {
    pub(super) fn new(password: &[u8], salt: [u8; SALT_BYTES]) -> Argon2id {
        let mut made = Argon2id {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: salt.to_vec(),
            hash: vec![0; HASH_BYTES],
        };
        made.hash = made.compute(password).unwrap_or_default();
        made
    }

    /// Reads what follows `$argon2id$`.
    pub(super) fn parse(text: &str) -> Result<Argon2id, VerifierError> {
        let form = || VerifierError::Form {
            kind: KIND,
            form: FORM,
        };
        let parts: Vec<&str> = text.split('$').collect();
        let ["v=19", costs, salt, hash] = parts[..] else {
            return Err(form());
        };
        let costs: Vec<&str> = costs.split(',').collect();
        let [memory, passes, lanes] = costs[..] else {
            return Err(form());
        };
        let memory = memory.strip_prefix("m=").ok_or_else(form)?;
        let passes = passes.strip_prefix("t=").ok_or_else(form)?;
        let lanes = lanes.strip_prefix("p=").ok_or_else(form)?;
        let lanes = number(lanes, "argon2id's p", 1, LANES_MAX)?;
        Ok(Argon2id {
            memory_kib: number(memory, "argon2id's m (KiB)", 8 * lanes, MEMORY_KIB_MAX)?,
            passes: number(passes, "argon2id's t", 1, PASSES_MAX)?,
            lanes,
            salt: unpadded(salt, "salt", 8)?,
            hash: unpadded(hash, "hash", 16)?,
        })
    }

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        self.compute(password)
            .is_some_and(|hash| equal_in_constant_time(&self.hash, &hash))
    }

    pub(super) fn describe(&self) -> String {
        let (memory, passes) = (self.memory_kib, self.passes);
        format!("argon2id, {memory} KiB {passes} times")
    }

    pub(super) fn weakness(&self) -> Option<&'static str> {
        (self.memory_kib < MEMORY_KIB_WEAK).then_some("so little memory keeps no guesser busy")
    }

    /// `None` only for costs that `parse` does not let through.
    fn compute(&self, password: &[u8]) -> Option<Vec<u8>> {
        let length = self.hash.len();
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(length)).ok()?;
        let blocks = params.block_count();
        let mut memory = Vec::with_capacity(blocks.max(GIVEN_BACK_FROM_KIB));
        memory.resize(blocks, Block::default());
        let mut hash = vec![0; length];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password, &self.salt, &mut hash, &mut memory)
            .ok()?;
        Some(hash)
    }
}

impl fmt::Display for Argon2id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (memory, passes, lanes) = (self.memory_kib, self.passes, self.lanes);
        let salt = Base64Unpadded::encode_string(&self.salt);
        let hash = Base64Unpadded::encode_string(&self.hash);
        write!(
            f,
            "$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}"
        )
    }
}

fn unpadded(text: &str, what: &'static str, minimum: usize) -> Result<Vec<u8>, VerifierError> {
    let bytes = Base64Unpadded::decode_vec(text).map_err(|_| VerifierError::Field(what))?;
    if !(minimum..=FIELD_BYTES_MAX).contains(&bytes.len()) {
        return Err(VerifierError::Field(what));
    }
    Ok(bytes)
}
