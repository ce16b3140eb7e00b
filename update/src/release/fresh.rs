//! New keys. Driver: owns chance.
//!
//! Invariant: a key is 32 bytes of the system's randomness, or there is none.

use ring::rand::{SecureRandom, SystemRandom};

use super::{ContentKey, Digest, FileKey};

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot make a key: the system gives no randomness")]
pub struct NoRandomness;

/// A content key for one release.
///
/// # Errors
/// [`NoRandomness`].
pub fn content_key() -> Result<ContentKey, NoRandomness> {
    random().map(|bytes| ContentKey::new(&bytes))
}

/// A file key for a fleet or a device.
///
/// # Errors
/// [`NoRandomness`].
pub fn file_key() -> Result<FileKey, NoRandomness> {
    random().map(|bytes| FileKey::new(&bytes))
}

fn random() -> Result<Digest, NoRandomness> {
    let mut bytes = [0; 32];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| NoRandomness)
}
