//! The identity whose key is the TPM's signing key: its certificate is a file, its key stays where
//! it is.
//!
//! Invariant: what is signed here is signed inside the TPM, and a TPM that is away or refuses costs
//! an error that says so. Layer: driver.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::sign::CertifiedKey;

use super::{
    DeviceKey, IdentityError, POINT_BYTES, SignError, TlsKey,
    directory::{TPM_CERTIFICATE, belongs},
};
use crate::{config, credentials};

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct TpmIdentity {
    certificate: PathBuf,
    key: tpm::DeviceKey,
}

impl TpmIdentity {
    /// The certificate is `[upstream] certificate`, or the one that `gateway identity enrol` put
    /// into the identity's directory.
    pub(crate) fn new(
        upstream: &config::Upstream,
        identity: &config::Identity,
        key: tpm::DeviceKey,
    ) -> TpmIdentity {
        TpmIdentity {
            certificate: certificate_of_tpm(upstream, identity),
            key,
        }
    }

    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The key, once the TPM has been opened; waits for that as long as the TPM's queue does.
    pub(crate) fn key(&self) -> Result<Arc<dyn DeviceKey>, IdentityError> {
        Ok(Arc::new(TpmKey {
            point: *self.key.public_key()?.sec1(),
            key: self.key.clone(),
        }))
    }

    /// Certificate and key for TLS, checked for each other.
    pub(crate) fn certified(&self) -> Result<CertifiedKey, IdentityError> {
        let chain = credentials::certificates("certificate", &self.certificate)?;
        let certified = CertifiedKey::new(chain, Arc::new(TlsKey::new(self.key()?)));
        belongs(&certified, || {
            IdentityError::NotOfTpm(self.certificate.clone())
        })?;
        Ok(certified)
    }
}

/// Where the certificate of the TPM's key is.
pub(crate) fn certificate_of_tpm(
    upstream: &config::Upstream,
    identity: &config::Identity,
) -> PathBuf {
    let own = || identity.directory.join(TPM_CERTIFICATE);
    upstream.certificate.clone().unwrap_or_else(own)
}

/// The TPM's signing key as everything else sees a key.
#[derive(Debug)]
struct TpmKey {
    point: [u8; POINT_BYTES],
    key: tpm::DeviceKey,
}

impl DeviceKey for TpmKey {
    fn public_key(&self) -> [u8; POINT_BYTES] {
        self.point
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.key.sign_p256_sha256(tpm::sha256(&[message]));
        let signature = signature.map_err(|error| SignError(error.to_string()))?;
        Ok(signature.der())
    }
}
