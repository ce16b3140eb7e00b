//! Signatures on a draft, from one machine or several.
//!
//! Invariant: adding a signature changes nothing else of a file; a key signs once. A core.

use crate::envelope::Envelope;
use crate::json::Malformed;
use crate::repository::{KeyFailure, Signer};

/// A file was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignFailure {
    /// It is no metadata.
    #[error("cannot sign: {0}")]
    Malformed(#[from] Malformed),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyFailure),
    /// Signatures of something else.
    #[error(
        "the two files do not sign the same metadata: they were drafted apart, or one was changed"
    )]
    Different,
}

/// Adds the signature of `signer`'s key, in place of one that it has.
///
/// # Errors
/// When `file` is no metadata, or the key cannot be used.
pub fn sign(file: &[u8], signer: &dyn Signer) -> Result<Vec<u8>, SignFailure> {
    let mut envelope = Envelope::parse(file)?;
    let signature = signer.sign(&envelope.signed.canonical())?;
    envelope
        .signatures
        .insert(signer.public_key().id(), signature);
    Ok(envelope.to_file())
}

/// Joins the signatures of two copies of a file that were signed on separate machines.
///
/// # Errors
/// When they are not copies.
pub fn merge(file: &[u8], copy: &[u8]) -> Result<Vec<u8>, SignFailure> {
    let mut envelope = Envelope::parse(file)?;
    let copy = Envelope::parse(copy)?;
    if envelope.signed != copy.signed {
        return Err(SignFailure::Different);
    }
    for (key_id, signature) in copy.signatures {
        envelope.signatures.entry(key_id).or_insert(signature);
    }
    Ok(envelope.to_file())
}

/// The ids of the keys that a file says it is signed with; whether it is shows when it is published.
///
/// # Errors
/// When `file` is no metadata.
pub fn signed_by(file: &[u8]) -> Result<Vec<String>, Malformed> {
    Ok(Envelope::parse(file)?.signatures.into_keys().collect())
}
