//! Certificate requests (PKCS#10, RFC 2986) signed by whatever holds the device's key. Core.
//!
//! Invariant: what is asked for is a name for TLS clients and nothing more.

use rcgen::{
    CertificateParams, CertificateSigningRequest, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey,
};

use super::{DeviceKey, POINT_BYTES};

/// A request for a certificate with this common name.
///
/// # Errors
/// The key does not sign.
pub(crate) fn request(
    key: &dyn DeviceKey,
    common_name: &str,
) -> Result<CertificateSigningRequest, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serialize_request(&Requester::new(key))
}

/// The device's key as rcgen wants it.
pub(crate) struct Requester<'a> {
    key: &'a dyn DeviceKey,
    point: [u8; POINT_BYTES],
}

impl Requester<'_> {
    pub(crate) fn new(key: &dyn DeviceKey) -> Requester<'_> {
        Requester {
            key,
            point: key.public_key(),
        }
    }
}

impl PublicKeyData for Requester<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Requester<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        // rcgen's error cannot carry the key's own words; whoever asks has them in the log.
        self.key.sign(message).map_err(|error| {
            tracing::warn!(%error, "cannot sign a certificate or a request for one");
            rcgen::Error::RemoteKeyError
        })
    }
}
