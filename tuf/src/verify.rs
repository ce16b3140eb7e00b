//! Who checks signatures: software, hardware, or both, which then must agree.
//!
//! Invariant: [`Both`] accepts only what each of the two accepts, and reports it when they differ. A core.

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};

use crate::key::PublicKey;

/// What a verifier says of one signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The key's owner signed the message.
    Genuine,
    /// It is not a signature of this message by this key.
    Forged,
    /// This verifier knows no keys of this kind: the signature counts for nothing, and stops nothing.
    Unjudged,
}

/// Why a verifier gives no verdict. The update stops: neither acceptance nor refusal would be true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierFailure {
    /// The device could not be asked.
    #[error("the verifier {name} does not answer: {reason}; trying again at the next update")]
    Unavailable {
        /// Which verifier.
        name: &'static str,
        /// What it said.
        reason: String,
    },
    /// One accepts what the other refuses.
    #[error(
        "{one} and {other} disagree about a signature: one of them is faulty or has been tampered with"
    )]
    Disagreement {
        /// The verifier asked first.
        one: &'static str,
        /// The verifier asked second.
        other: &'static str,
    },
}

/// Checks one signature.
pub trait Verifier {
    /// What to call it in messages.
    fn name(&self) -> &'static str;

    /// Whether `signature` is one of `message` by `key`: raw for Ed25519, DER for P-256 over SHA-256.
    ///
    /// # Errors
    /// When it cannot tell.
    fn verify(
        &self,
        key: &PublicKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<Verdict, VerifierFailure>;
}

/// Verifies in this process, with ring.
#[derive(Debug, Clone, Copy, Default)]
pub struct Software;

impl Verifier for Software {
    fn name(&self) -> &'static str {
        "software"
    }

    fn verify(
        &self,
        key: &PublicKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<Verdict, VerifierFailure> {
        let verified = match key {
            PublicKey::Ed25519(bytes) => {
                UnparsedPublicKey::new(&ED25519, bytes.as_slice()).verify(message, signature)
            }
            PublicKey::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point.as_slice())
                    .verify(message, signature)
            }
        };
        Ok(match verified {
            Ok(()) => Verdict::Genuine,
            Err(_) => Verdict::Forged,
        })
    }
}

/// Asks two verifiers, which must agree: what fools one of them fools nobody. What one of them cannot judge does not
/// count, whatever the other says.
#[derive(Debug, Clone, Copy)]
pub struct Both<One, Other>(pub One, pub Other);

impl<One: Verifier, Other: Verifier> Verifier for Both<One, Other> {
    fn name(&self) -> &'static str {
        "both"
    }

    fn verify(
        &self,
        key: &PublicKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<Verdict, VerifierFailure> {
        let one = self.0.verify(key, message, signature)?;
        let other = self.1.verify(key, message, signature)?;
        match (one, other) {
            (one, other) if one == other => Ok(one),
            (Verdict::Unjudged, _) | (_, Verdict::Unjudged) => Ok(Verdict::Unjudged),
            _ => Err(VerifierFailure::Disagreement {
                one: self.0.name(),
                other: self.1.name(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{FileKey, Signer};

    /// Stands in for a TPM.
    struct Fake(Result<Verdict, VerifierFailure>);

    impl Verifier for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }

        fn verify(&self, _: &PublicKey, _: &[u8], _: &[u8]) -> Result<Verdict, VerifierFailure> {
            self.0.clone()
        }
    }

    #[test]
    fn a_signature_is_genuine_for_its_key_and_its_message_alone() {
        for key in [FileKey::ed25519(), FileKey::p256()] {
            let key = key.unwrap();
            let signature = key.sign(b"message").unwrap();
            let check = |message: &[u8], signature: &[u8]| {
                Software.verify(key.public_key(), message, signature)
            };
            assert_eq!(check(b"message", &signature), Ok(Verdict::Genuine));
            assert_eq!(check(b"massage", &signature), Ok(Verdict::Forged));
            assert_eq!(
                check(b"message", &signature[..signature.len() - 1]),
                Ok(Verdict::Forged)
            );
            assert_eq!(check(b"message", b""), Ok(Verdict::Forged));
        }
    }

    #[test]
    fn two_verifiers_accept_only_together() {
        let key = FileKey::p256().unwrap();
        let signature = key.sign(b"message").unwrap();
        let ask =
            |fake| Both(Software, Fake(fake)).verify(key.public_key(), b"message", &signature);
        assert_eq!(ask(Ok(Verdict::Genuine)), Ok(Verdict::Genuine));
        assert_eq!(
            ask(Ok(Verdict::Forged)),
            Err(VerifierFailure::Disagreement {
                one: "software",
                other: "fake"
            })
        );
    }

    #[test]
    fn what_one_of_two_verifiers_cannot_judge_does_not_count() {
        let key = FileKey::ed25519().unwrap();
        let signature = key.sign(b"message").unwrap();
        for signature in [signature.as_slice(), b"forged"] {
            let asked = Both(Software, Fake(Ok(Verdict::Unjudged)));
            assert_eq!(
                asked.verify(key.public_key(), b"message", signature),
                Ok(Verdict::Unjudged)
            );
        }
    }

    #[test]
    fn two_verifiers_refuse_together_and_a_silent_one_stops_the_update() {
        let key = FileKey::p256().unwrap();
        let ask = |fake| Both(Software, Fake(fake)).verify(key.public_key(), b"message", b"");
        assert_eq!(ask(Ok(Verdict::Forged)), Ok(Verdict::Forged));
        assert!(matches!(
            ask(Ok(Verdict::Genuine)),
            Err(VerifierFailure::Disagreement { .. })
        ));
        let silent = VerifierFailure::Unavailable {
            name: "fake",
            reason: "locked out".into(),
        };
        assert_eq!(ask(Err(silent.clone())), Err(silent));
    }
}
