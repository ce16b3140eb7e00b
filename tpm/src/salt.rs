//! Secrets that only the TPM and we derive: a fresh key of ours, agreed with one of its. Driver: owns chance.
//!
//! Invariant: the ephemeral private part is used once and never leaves this file.

use ring::{agreement, rand::SystemRandom};

use crate::{
    crypt,
    error::{Error, Result},
    secret::Secret,
};

/// The public point of a key to which salts are encrypted.
pub(crate) type Point = [u8; 65];

/// A secret for the TPM alone.
pub(crate) struct Shared {
    /// The secret, as both ends derive it.
    pub(crate) secret: Secret,
    /// Our ephemeral point, which goes to the TPM.
    pub(crate) ephemeral: Point,
}

/// Derives a secret that only the holder of `recipient`'s private part can derive too (Part 1, C.6.1).
pub(crate) fn share(recipient: &Point, label: &str) -> Result<Shared> {
    let random = SystemRandom::new();
    let private = agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P256, &random)
        .map_err(|_| Error::NoRandom)?;
    let public = private.compute_public_key().map_err(|_| Error::NoRandom)?;
    let mut ephemeral = [0; 65];
    ephemeral.copy_from_slice(public.as_ref());
    let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, recipient);
    let secret = agreement::agree_ephemeral(private, &peer, |z| {
        Secret::new(&crypt::kdfe(z, label, &ephemeral[1..33], &recipient[1..33]))
    })
    .map_err(|_| Error::Rule("the TPM's key is not a point of P-256".to_owned()))?;
    Ok(Shared { secret, ephemeral })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shared_with_the_holder_of_the_key_alone() {
        let random = SystemRandom::new();
        let private =
            agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P256, &random).unwrap();
        let mut point = [0; 65];
        point.copy_from_slice(private.compute_public_key().unwrap().as_ref());
        let shared = share(&point, "SECRET").unwrap();
        let peer = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, shared.ephemeral);
        let theirs = agreement::agree_ephemeral(private, &peer, |z| {
            crypt::kdfe(z, "SECRET", &shared.ephemeral[1..33], &point[1..33])
        });
        assert_eq!(theirs.unwrap(), shared.secret.bytes());
    }
}
