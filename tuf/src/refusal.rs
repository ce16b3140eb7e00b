//! Why metadata from a repository is refused, in words for the operator. A value.

use jiff::Timestamp;

use crate::json::Malformed;
use crate::limits::{MAX_LIFETIME, MAX_VERSION_JUMP};
use crate::verify::VerifierFailure;

/// What was wrong. Nothing of a refused file is kept, and the next update starts from what was trusted before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not as the specification's chapter 4 says.
    #[error("{file} refused: {reason}")]
    Malformed {
        /// The role.
        file: String,
        /// What is wrong.
        reason: Malformed,
    },
    /// 5.3.4, 5.4.2, 5.5.3, 5.6.3: an arbitrary software attack, or a role that has not finished signing.
    #[error(
        "{file} refused: {genuine} of the {threshold} signatures that it needs are by keys trusted for it{}",
        uncounted(*.unjudged)
    )]
    TooFewSignatures {
        /// The role.
        file: String,
        /// Different keys whose signatures hold.
        genuine: usize,
        /// How many it takes.
        threshold: usize,
        /// Signatures by trusted keys of a kind that the verifier does not know.
        unjudged: usize,
    },
    /// No verdict on a signature.
    #[error("{file} not judged: {reason}")]
    NoVerdict {
        /// The role.
        file: String,
        /// What the verifier said.
        reason: VerifierFailure,
    },
    /// 5.3.5, 5.5.4, 5.6.4: not the version that was asked for.
    #[error("{file} refused: it is version {found} in the place of version {expected}")]
    WrongVersion {
        /// The role.
        file: String,
        /// The version that belongs there.
        expected: u64,
        /// The version that it says it is.
        found: u64,
    },
    /// 5.4.3, 5.5.5: a rollback attack.
    #[error(
        "{file} refused: version {found} is older than version {trusted}, which is trusted already"
    )]
    Rollback {
        /// The role.
        file: String,
        /// The version trusted.
        trusted: u64,
        /// The version offered.
        found: u64,
    },
    /// Older than what is remembered outside the directory.
    #[error("{file} refused: version {found} is below the floor of {floor}")]
    BelowFloor {
        /// The role.
        file: String,
        /// The least version.
        floor: u64,
        /// The version offered.
        found: u64,
    },
    /// Another root than the one that is remembered outside the directory.
    #[error(
        "root refused: version {found} is not proven by the pinned root, version {pinned}; restore the root that came with the device"
    )]
    NotThePinnedRoot {
        /// The pinned version.
        pinned: u64,
        /// The version found.
        found: u64,
    },
    /// 5.5.5: a role is no longer listed.
    #[error("snapshot refused: it no longer lists the role {role}")]
    RoleRemoved {
        /// The role.
        role: String,
    },
    /// 5.5, 5.6: a role that the timestamp or the snapshot does not vouch for.
    #[error("{role} refused: the trusted metadata do not list it")]
    NotListed {
        /// The role.
        role: String,
    },
    /// A version that would lock out every later one.
    #[error(
        "{file} refused: version {found} is more than {MAX_VERSION_JUMP} beyond version {trusted}"
    )]
    VersionJump {
        /// The role.
        file: String,
        /// The version trusted, or 0.
        trusted: u64,
        /// The version offered.
        found: u64,
    },
    /// 5.3.10, 5.4.4, 5.5.6, 5.6.5: a freeze attack, or a repository that nobody looks after.
    #[error("{file} has expired at {expires}: nothing newer is offered, or the clock is wrong")]
    Expired {
        /// The role.
        file: String,
        /// When.
        expires: Timestamp,
    },
    /// Metadata that would practically never expire.
    #[error("{file} refused: it expires at {expires}, more than {} days ahead", MAX_LIFETIME.as_secs() / 86400)]
    FarFuture {
        /// The role.
        file: String,
        /// When.
        expires: Timestamp,
    },
    /// 5.3.3, 5.4.1, 5.5.1, 5.6.1, 5.7.3: endless data, or more than was announced.
    #[error("{file} refused: more than the {limit} bytes that it may have")]
    Oversized {
        /// The role or target.
        file: String,
        /// Bytes.
        limit: u64,
    },
    /// Fewer bytes than the metadata says.
    #[error("{file} refused: {found} bytes instead of {expected}")]
    WrongLength {
        /// The role or target.
        file: String,
        /// Bytes that the metadata says.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// 5.5.2, 5.6.2, 5.7.3: a mix-and-match attack, or a damaged file.
    #[error("{file} refused: its digest is not the one that the metadata says")]
    WrongHash {
        /// The role or target.
        file: String,
    },
    /// 5.6.7.1: the search has taken enough.
    #[error("the search for {target} ended at its limit of {limit}")]
    SearchTooLong {
        /// The target's path.
        target: String,
        /// Which limit.
        limit: String,
    },
}

/// The end of the sentence for signatures that the device could not check.
fn uncounted(unjudged: usize) -> String {
    match unjudged {
        0 => String::new(),
        count => format!(
            "; {count} more do not count, because this device's TPM cannot check keys of their kind: sign with P-256"
        ),
    }
}
