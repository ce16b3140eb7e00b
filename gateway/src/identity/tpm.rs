//! The TPM's keys as everything else sees a key.
//!
//! Invariant: what is signed here is signed inside the TPM, and a TPM that is away or refuses costs
//! an error that says so. Layer: driver.

use super::{DeviceKey, POINT_BYTES, SignError};

/// A signing key of the TPM.
#[derive(Debug)]
pub(super) struct TpmKey {
    point: [u8; POINT_BYTES],
    tpm: tpm::DeviceKey,
    /// What the TPM made of the key; nothing for the one that it was provisioned with and keeps.
    blob: Option<tpm::Blob>,
}

impl TpmKey {
    /// The key that the TPM was provisioned with, once the TPM has been opened; waits for that as long
    /// as the TPM's queue does.
    pub(super) fn provisioned(tpm: &tpm::DeviceKey) -> Result<TpmKey, tpm::Error> {
        Ok(TpmKey {
            point: *tpm.public_key()?.sec1(),
            tpm: tpm.clone(),
            blob: None,
        })
    }

    /// A key that the TPM made later, from its file's text; nothing when that is none.
    pub(super) fn made(tpm: &tpm::DeviceKey, text: &[u8]) -> Option<TpmKey> {
        let blob = tpm::Blob::from_json(std::str::from_utf8(text).ok()?)?;
        Some(TpmKey {
            point: *blob.public_key().ok()?.sec1(),
            tpm: tpm.clone(),
            blob: Some(blob),
        })
    }
}

impl DeviceKey for TpmKey {
    fn public_key(&self) -> [u8; POINT_BYTES] {
        self.point
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let digest = tpm::sha256(&[message]);
        let signature = match &self.blob {
            None => self.tpm.sign_p256_sha256(digest),
            Some(blob) => self.tpm.sign_with(blob, digest),
        };
        let signature = signature.map_err(|error| SignError(error.to_string()))?;
        Ok(signature.der())
    }
}
