//! The device's key as everything else sees it: a public part, and a signature on demand.
//!
//! Invariant: the private part never passes this seam, so that it may as well be inside a TPM.
//! Layer: driver.

use std::{fmt, path::Path, sync::Arc};

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls::{
    OtherError, SignatureAlgorithm, SignatureScheme,
    pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, alg_id, pem::PemObject},
    sign::{Signer, SigningKey, public_key_to_spki},
};

use super::SignError;
use crate::credentials::{self, CredentialError};

/// Bytes of a P-256 point, uncompressed (SEC 1, 2.3.3).
pub const POINT_BYTES: usize = 65;

/// A P-256 key whose private part stays where it is.
pub trait DeviceKey: fmt::Debug + Send + Sync {
    /// Its public point, uncompressed (SEC 1, 2.3.3).
    fn public_key(&self) -> [u8; POINT_BYTES];

    /// ECDSA with SHA-256 of `message`, in DER (RFC 3279, 2.2.3). It may block for as long as the
    /// key's home takes, so it is called on threads that may block.
    ///
    /// # Errors
    /// The key's home refuses or is gone.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// A key in a file, PKCS#8 in PEM.
pub struct FileKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl FileKey {
    /// Reads a key that only its owner and group may read.
    ///
    /// # Errors
    /// It cannot be read, others may read it, or it is no P-256 key in PKCS#8.
    pub fn read(path: &Path) -> Result<FileKey, CredentialError> {
        let text = credentials::private_file(path)?;
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|source| CredentialError::Pem {
                what: "private key",
                path: path.to_owned(),
                source,
            })?;
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der(), &random);
        let pair = pair.map_err(|why| CredentialError::Kind {
            path: path.to_owned(),
            why: why.to_string(),
        })?;
        Ok(FileKey { pair, random })
    }
}

impl DeviceKey for FileKey {
    fn public_key(&self) -> [u8; POINT_BYTES] {
        let mut point = [0; POINT_BYTES];
        point.copy_from_slice(self.pair.public_key().as_ref());
        point
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.pair.sign(&self.random, message);
        let signature = signature.map_err(|_| SignError("no random numbers".to_owned()))?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(<redacted>)")
    }
}

/// A device's key as rustls wants it.
#[derive(Debug, Clone)]
pub struct TlsKey(Arc<dyn DeviceKey>);

impl TlsKey {
    /// Signs with `key` in handshakes.
    pub fn new(key: Arc<dyn DeviceKey>) -> TlsKey {
        TlsKey(key)
    }
}

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours = SignatureScheme::ECDSA_NISTP256_SHA256;
        offered
            .contains(&ours)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let point = self.0.public_key();
        Some(public_key_to_spki(&alg_id::ECDSA_P256, point))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signature = self.0.sign(message);
        // As itself, for the link tells it from what the upstream did.
        signature.map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
