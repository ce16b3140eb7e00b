//! Software and TPM check every signature, and both have to accept it.

use tpm::Layout;
use tuf::key::PublicKey;
use tuf::repository::{FileKey, Scheme, Signer};
use tuf::verify::{Both, Software, Verdict, Verifier, VerifierFailure};
use update::trust::TpmVerifier;

use crate::device::{Device, p256_repository};
use crate::repository::{Vendor as Repository, key};

#[test]
fn the_tpm_and_the_software_judge_every_signature_alike() {
    let mut device = Device::new(Layout::Platform);
    let hardware = TpmVerifier::new(device.key());
    let owner = key(Scheme::P256);
    let signature = owner.sign(b"message").unwrap();
    let zeros = [0x30, 6, 2, 1, 0, 2, 1, 0];
    let mut beyond = vec![0x30, 38, 2, 33, 0];
    beyond.extend([0xff; 32]);
    beyond.extend([2, 1, 1]);
    let mut trailing = signature.clone();
    trailing.push(0);
    let mut flipped = signature.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (message, signature, verdict) in [
        (&b"message"[..], &signature[..], Verdict::Genuine),
        (b"massage", &signature, Verdict::Forged),
        (b"message", &flipped, Verdict::Forged),
        (b"message", &trailing, Verdict::Forged),
        (b"message", &zeros, Verdict::Forged),
        (b"message", &beyond, Verdict::Forged),
        (b"message", b"", Verdict::Forged),
    ] {
        let asked = Both(Software, hardware.clone()).verify(owner.public_key(), message, signature);
        assert_eq!(asked, Ok(verdict), "{signature:x?}");
    }
    // A point that is not on the curve is no key, to either.
    let mut nowhere = [7; 65];
    nowhere[0] = 4;
    let asked = Both(Software, hardware).verify(&PublicKey::P256(nowhere), b"message", &signature);
    assert_eq!(asked, Ok(Verdict::Forged));
}

/// Software in which somebody has changed one instruction.
struct Fooled;

impl Verifier for Fooled {
    fn name(&self) -> &'static str {
        "software"
    }

    fn verify(&self, _: &PublicKey, _: &[u8], _: &[u8]) -> Result<Verdict, VerifierFailure> {
        Ok(Verdict::Genuine)
    }
}

#[test]
fn software_that_was_fooled_is_stopped_by_the_tpm_that_was_not() {
    let mut device = Device::new(Layout::Platform);
    let verifier = Both(Fooled, TpmVerifier::new(device.key()));
    let shelf = &mut device.repository.shelf;
    let file = String::from_utf8(shelf.metadata["timestamp.json"].clone()).unwrap();
    let altered = file.replace("2026-07-01", "2026-07-02");
    assert_ne!(altered, file);
    let altered = altered.into_bytes();
    shelf.metadata.insert("timestamp.json".into(), altered);
    let mut shelf = std::mem::take(shelf);
    let stopped = device.refresh_with(&verifier, &mut shelf).unwrap_err();
    let stopped = stopped.to_string();
    assert!(
        stopped.contains("software and the TPM disagree"),
        "{stopped}"
    );
}

#[test]
fn signatures_that_the_tpm_cannot_check_do_not_count_and_the_refusal_says_why() {
    // One role's key is of the other kind: the rest of the repository is as it should be.
    let mut keys = [(); 3].map(|()| key(Scheme::P256));
    keys[0] = key(Scheme::Ed25519);
    let roots: Vec<FileKey> = vec![key(Scheme::P256), key(Scheme::P256), key(Scheme::Ed25519)];
    let mut device = Device::of(Repository::with_keys(roots, keys, None), Layout::Platform);
    let refusal = device.refusal();
    assert_eq!(
        refusal,
        "timestamp refused: 0 of the 1 signatures that it needs are by keys trusted for it; 1 more do not count, \
         because this device's TPM cannot check keys of their kind: sign with P-256"
    );
}

#[test]
fn a_threshold_is_met_by_p256_keys_beside_others() {
    let mut repository = p256_repository();
    repository.spare = Some(key(Scheme::Ed25519));
    repository.root_keys[2] = key(Scheme::Ed25519);
    let root = repository.root(&[2, 0, 1]);
    let files = &mut repository.shelf.metadata;
    files.insert("1.root.json".into(), root);
    repository.publish();
    Device::of(repository, Layout::Platform).refresh().unwrap();
}
