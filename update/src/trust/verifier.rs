//! Has the TPM check signatures on release metadata. Driver.
//!
//! Invariant: a verdict is the TPM's own, under the proof of its session; a TPM that does not answer gives none.

use tpm::{DeviceKey, ResponseCode, Signature, sha256};
use tuf::key::PublicKey;
use tuf::verify::{Verdict, Verifier, VerifierFailure};

use super::PATIENCE;

/// The point is not on the curve (Part 2, 6.6.3).
const ECC_POINT: u32 = 0x0a7;

/// Checks signatures by P-256 keys in the TPM. Ed25519 it leaves unjudged, as TPMs do not know it.
#[derive(Debug, Clone)]
pub struct TpmVerifier {
    device: DeviceKey,
}

impl TpmVerifier {
    /// Asks the TPM of this device.
    pub fn new(device: DeviceKey) -> TpmVerifier {
        TpmVerifier { device }
    }
}

impl Verifier for TpmVerifier {
    fn name(&self) -> &'static str {
        "the TPM"
    }

    fn verify(
        &self,
        key: &PublicKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<Verdict, VerifierFailure> {
        let PublicKey::P256(point) = key else {
            return Ok(Verdict::Unjudged);
        };
        let key = tpm::PublicKey::from_sec1(point);
        let (Some(key), Some(signature)) = (key, Signature::from_der(signature)) else {
            return Ok(Verdict::Forged);
        };
        let digest = sha256(&[message]);
        let asked = self.device.ask(PATIENCE, move |tpm, _| {
            match tpm.verify(&key, &digest, &signature) {
                // What is no key of the curve has signed nothing.
                Err(error) if error.is(ECC_POINT) || error.is(ResponseCode::SIGNATURE) => Ok(false),
                other => other,
            }
        });
        match asked {
            Ok(true) => Ok(Verdict::Genuine),
            Ok(false) => Ok(Verdict::Forged),
            Err(error) => Err(VerifierFailure::Unavailable {
                name: "the TPM",
                reason: error.to_string(),
            }),
        }
    }
}
