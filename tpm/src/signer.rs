//! Signs with a private key in a file, for vendors' desks without a hardware module. Driver: owns chance.
//!
//! Invariant: the key is used for signing and shown nowhere.

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};

use crate::{
    ecdsa::{PublicKey, Signature},
    error::{Error, Result},
};

/// A P-256 private key.
pub struct FileSigner {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    public: PublicKey,
}

impl FileSigner {
    /// From PKCS #8 in DER.
    ///
    /// # Errors
    /// It is no P-256 key, or lacks its public part.
    pub fn new(pkcs8: &[u8]) -> Result<FileSigner> {
        let random = SystemRandom::new();
        let wrong =
            || Error::Rule("this is no P-256 key in PKCS #8 with its public part".to_owned());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|_| wrong())?;
        let public = PublicKey::from_sec1(pair.public_key().as_ref()).ok_or_else(wrong)?;
        Ok(FileSigner {
            pair,
            random,
            public,
        })
    }

    /// The public part.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message with ECDSA and SHA-256.
    ///
    /// # Errors
    /// [`Error::NoRandom`].
    pub fn sign(&self, message: &[u8]) -> Result<Signature> {
        let signature = self
            .pair
            .sign(&self.random, message)
            .map_err(|_| Error::NoRandom)?;
        Signature::from_fixed(signature.as_ref()).ok_or(Error::NoRandom)
    }
}
