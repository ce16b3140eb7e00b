//! Private keys: a trait for wherever they are, and keys in files.
//!
//! Invariant: a private key is never printed. A driver: it owns chance.

use std::fmt;

use base64ct::{Base64, Encoding};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

use crate::key::PublicKey;

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// Signs metadata: a key in a file, a token, a TPM.
pub trait Signer {
    /// The key that verifies what this signs.
    fn public_key(&self) -> &PublicKey;

    /// Signs a message: raw for Ed25519, DER for P-256 over SHA-256.
    ///
    /// # Errors
    /// When the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFailure>;
}

/// Which kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `ed25519`
    Ed25519,
    /// `ecdsa-sha2-nistp256`
    P256,
}

/// A key that does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} a private key: {reason}")]
pub struct KeyFailure {
    /// `make`, `read` or `sign with`.
    pub action: &'static str,
    /// Why.
    pub reason: String,
}

impl KeyFailure {
    fn new(action: &'static str, reason: impl fmt::Display) -> Self {
        Self {
            action,
            reason: reason.to_string(),
        }
    }
}

/// A private key as text (PKCS#8 in PEM, RFC 5958), to be written to a file that its owner alone can read.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivatePem(pub String);

impl fmt::Debug for PrivatePem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivatePem(<redacted>)")
    }
}

/// A private key that was in a file.
#[derive(Debug)]
pub struct FileKey {
    pair: Pair,
    public: PublicKey,
}

#[derive(Debug)]
enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl FileKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate(scheme: Scheme) -> Result<PrivatePem, KeyFailure> {
        let random = SystemRandom::new();
        let made = match scheme {
            Scheme::Ed25519 => Ed25519KeyPair::generate_pkcs8(&random),
            Scheme::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random),
        };
        let der = made.map_err(|error| KeyFailure::new("make", error))?;
        let encoded = Base64::encode_string(der.as_ref());
        let lines: Vec<_> = encoded
            .as_bytes()
            .chunks(64)
            .map(String::from_utf8_lossy)
            .collect();
        Ok(PrivatePem(format!(
            "{PEM_BEGIN}\n{}\n{PEM_END}\n",
            lines.join("\n")
        )))
    }

    /// Reads a key: PKCS#8 in PEM, P-256 or Ed25519, without a password.
    ///
    /// # Errors
    /// For anything else.
    pub fn from_pem(pem: &PrivatePem) -> Result<Self, KeyFailure> {
        let body = pem.0.trim().strip_prefix(PEM_BEGIN);
        let body = body
            .and_then(|body| body.strip_suffix(PEM_END))
            .ok_or_else(|| {
                KeyFailure::new("read", format!("it does not begin with {PEM_BEGIN}"))
            })?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = Base64::decode_vec(&body).map_err(|error| KeyFailure::new("read", error))?;
        let random = SystemRandom::new();
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &random) {
            let point = pair.public_key().as_ref().try_into();
            let public = point.map_err(|error| KeyFailure::new("read", error))?;
            return Ok(Self {
                pair: Pair::P256(pair),
                public: PublicKey::P256(public),
            });
        }
        // Python's cryptography and OpenSSL leave the public key out of Ed25519 files.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|_| KeyFailure::new("read", "it is not a P-256 or Ed25519 key in PKCS#8"))?;
        let point = pair.public_key().as_ref().try_into();
        let public = point.map_err(|error| KeyFailure::new("read", error))?;
        Ok(Self {
            pair: Pair::Ed25519(pair),
            public: PublicKey::Ed25519(public),
        })
    }
}

#[cfg(test)]
impl FileKey {
    /// A new Ed25519 key.
    pub(crate) fn ed25519() -> Result<Self, KeyFailure> {
        Self::from_pem(&Self::generate(Scheme::Ed25519)?)
    }

    /// A new P-256 key.
    pub(crate) fn p256() -> Result<Self, KeyFailure> {
        Self::from_pem(&Self::generate(Scheme::P256)?)
    }
}

impl Signer for FileKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFailure> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|error| KeyFailure::new("sign with", error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    #[test]
    fn a_private_key_is_never_printed() {
        let pem = FileKey::generate(Scheme::P256).unwrap();
        assert_eq!(format!("{pem:?}"), "PrivatePem(<redacted>)");
        let secret: String = pem.0.lines().skip(1).take(1).collect();
        let key = FileKey::from_pem(&pem).unwrap();
        assert!(!format!("{key:?}").contains(&secret));
    }

    /// OpenSSL and Python's cryptography leave the public key out of Ed25519 files (RFC 8410, 7).
    #[test]
    fn a_key_file_without_its_public_part_is_read() {
        let head = hex::decode("302e020100300506032b657004220420").unwrap();
        let encoded = Base64::encode_string(&[head, vec![7; 32]].concat());
        let pem = PrivatePem(format!("{PEM_BEGIN}\n{encoded}\n{PEM_END}\n"));
        let key = FileKey::from_pem(&pem).unwrap();
        let expected = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        assert_eq!(
            key.public_key(),
            &PublicKey::Ed25519(expected.public_key().as_ref().try_into().unwrap())
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(FileKey::from_pem(&PrivatePem(text.into())).is_err());
        }
    }
}
