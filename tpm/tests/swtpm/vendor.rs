//! A vendor with a root-approval key, and devices provisioned for it.

use std::path::Path;

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use tpm::{
    Approval, EpochApproval, FileSigner, PublicKey, Signature, Subject, Tpm, TrustedRoot,
    provision::{Request, Trust, provision},
    recovery_message, sha256,
};

/// Who signs approvals.
pub(crate) struct Vendor {
    signer: FileSigner,
    pub(crate) key: PublicKey,
}

impl Vendor {
    pub(crate) fn new() -> Vendor {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let signer = FileSigner::new(pkcs8.as_ref()).unwrap();
        let key = *signer.public();
        Vendor { signer, key }
    }

    pub(crate) fn approves(&self, subject: Subject) -> Approval {
        Approval::make(subject, &self.key, &mut |message| self.signer.sign(message)).unwrap()
    }

    pub(crate) fn approves_recovery(&self, storage: &[u8]) -> Signature {
        self.signer.sign(&recovery_message(storage)).unwrap()
    }

    pub(crate) fn approves_epoch(&self, epoch: u64) -> EpochApproval {
        EpochApproval::make(epoch, &self.key, &mut |message| self.signer.sign(message)).unwrap()
    }

    /// What a device of this vendor is provisioned with: root 3 and floor 2.
    pub(crate) fn request(&self, directory: &Path) -> Request {
        Request {
            directory: directory.to_owned(),
            trust: Some(Trust {
                key: self.key,
                root: self.approves(root(3)),
                floor: self.approves(Subject::Floor(2)),
            }),
        }
    }

    pub(crate) fn provisions(&self, tpm: &mut Tpm, directory: &Path) {
        provision(tpm, &self.request(directory), &mut |_, _| {}).unwrap();
    }
}

/// A root of that version, its bytes following from it.
pub(crate) fn root(version: u64) -> Subject {
    let digest = sha256(&[b"root", &version.to_be_bytes()]);
    Subject::Root(TrustedRoot { version, digest })
}
