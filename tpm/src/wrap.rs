//! Wraps a content key for one TPM, and says under which approval it comes out. Driver: owns chance.
//!
//! A wrapped key is an object for `TPM2_Import` below the device's payload key. Its policy names the vendor's key and the
//! security epoch; what the vendor signs once per epoch demands that the floor is not above it. `docs/tpm.md` and decision
//! record 41 say why.
//!
//! Invariant: no TPM is needed here, and nothing of the device but the payload key's public part.

use serde::{Deserialize, Serialize};
use tpm2_protocol::{
    TpmMarshal,
    data::{
        Tpm2bAuth, Tpm2bDigest, Tpm2bSensitiveData, TpmAlgId, TpmCc, TpmEo, TpmaObject,
        TpmsKeyedhashParms, TpmtPublic, TpmuPublicId, TpmuPublicParms,
    },
};

use crate::{
    anchor::{Anchor, Anchors, Layout},
    crypt::{self, Way, sha256},
    device::fresh_nonce,
    ecdsa::{PublicKey, Signature},
    entity::name_of,
    error::{Error, Result},
    hex,
    index::Use,
    policy::{Policy, approval_message},
    public::{external_name, point},
    salt::share,
    wire::{marshal, sized},
};

/// The longest content key; AES-256 takes half of it.
const KEY_MAX: usize = 64;

/// A content key that only one TPM can open, and only under the vendor's approval for its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The security epoch of the release.
    pub epoch: u64,
    /// The object's public area.
    pub public: Vec<u8>,
    /// Its private part, encrypted to the payload key.
    pub duplicate: Vec<u8>,
    /// Our ephemeral point.
    pub seed: Vec<u8>,
}

/// Wraps `key` for the device whose payload key is `recipient`.
///
/// # Errors
/// The key is too long; the recipient's is no point of P-256.
pub fn wrap(recipient: &PublicKey, vendor: &PublicKey, epoch: u64, key: &[u8]) -> Result<Wrapped> {
    let cc = TpmCc::Import;
    if key.len() > KEY_MAX {
        return Err(Error::Rule(format!(
            "a content key has at most {KEY_MAX} bytes"
        )));
    }
    let obfuscation = fresh_nonce()?;
    let public = marshal(
        cc,
        &[&public_area(vendor, epoch, &sha256(&[&obfuscation, key]))?],
    )?;
    let fields: [&dyn TpmMarshal; 4] = [
        &TpmAlgId::KeyedHash,
        &Tpm2bAuth::default(),
        &sized::<Tpm2bDigest>(cc, &obfuscation)?,
        &sized::<Tpm2bSensitiveData>(cc, key)?,
    ];
    let sensitive = marshal(cc, &fields)?;
    let shared = share(recipient.sec1(), "DUPLICATE")?;
    let ephemeral = PublicKey::from_sec1(&shared.ephemeral).ok_or(Error::NoRandom)?;
    Ok(Wrapped {
        epoch,
        duplicate: protect(shared.secret.bytes(), &name_of(&public), &sensitive),
        public,
        seed: marshal(cc, &[&point(cc, &ephemeral)?])?,
    })
}

fn public_area(vendor: &PublicKey, epoch: u64, unique: &[u8; 32]) -> Result<TpmtPublic> {
    let cc = TpmCc::Import;
    Ok(TpmtPublic {
        object_type: TpmAlgId::KeyedHash,
        name_alg: TpmAlgId::Sha256,
        object_attributes: TpmaObject::NO_DA,
        auth_policy: sized::<Tpm2bDigest>(cc, payload_policy(vendor, epoch)?.digest())?,
        parameters: TpmuPublicParms::KeyedHash(TpmsKeyedhashParms::default()),
        unique: TpmuPublicId::KeyedHash(sized::<Tpm2bDigest>(cc, unique)?),
    })
}

/// The outer protection of what is imported (TPM 2.0 Part 1, 23.3): encrypted, and bound to the name.
fn protect(seed: &[u8], name: &[u8], sensitive: &[u8]) -> Vec<u8> {
    // At most a few hundred bytes.
    let mut encrypted = (sensitive.len() as u16).to_be_bytes().to_vec();
    encrypted.extend(sensitive);
    crypt::cfb(
        Way::Encrypt,
        &crypt::kdfa(seed, "STORAGE", name, &[]),
        &[0; 16],
        &mut encrypted,
    );
    let key: [u8; 32] = crypt::kdfa(seed, "INTEGRITY", &[], &[]);
    let mut duplicate = vec![0, 32];
    duplicate.extend(crypt::hmac(&key, &[&encrypted, name]));
    duplicate.extend(encrypted);
    duplicate
}

/// Keeps approvals of one epoch from opening another's keys.
pub(crate) fn payload_reference(epoch: u64) -> [u8; 32] {
    sha256(&[b"edge gateway: payload ", &epoch.to_be_bytes()])
}

fn payload_policy(vendor: &PublicKey, epoch: u64) -> Result<Policy> {
    Ok(Policy::authorized(
        &external_name(vendor)?,
        &payload_reference(epoch),
    ))
}

/// What is approved: unsealing while the floor is not above the epoch.
pub(crate) fn payload_approved(anchors: &Anchors, epoch: u64, floor: Use) -> Result<Policy> {
    let name = anchors.index(Anchor::Floor).name(floor)?;
    Ok(Policy::new()
        .nv(&name, &epoch.to_be_bytes(), TpmEo::UnsignedLe)
        .command_code(TpmCc::Unseal))
}

/// The states of a floor's index that are approved, in the order of their signatures. A rise of the floor closes its index
/// until the restart, which changes its name.
const APPROVED: [(Layout, Use); 4] = [
    (Layout::Platform, Use::Written),
    (Layout::Platform, Use::Locked),
    (Layout::Owner, Use::Written),
    (Layout::Owner, Use::Locked),
];

fn message(epoch: u64, vendor: &PublicKey, layout: Layout, floor: Use) -> Result<Vec<u8>> {
    let policy = payload_approved(&Anchors::new(*vendor, layout)?, epoch, floor)?;
    Ok(approval_message(&policy, &payload_reference(epoch)))
}

/// The words of an approval's file; `signatures` in the order of [`APPROVED`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochWords {
    approves: Approves,
    epoch: u64,
    signatures: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Approves {
    Epoch,
}

/// The vendor's approval of releases of one epoch, for every device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochApproval {
    /// The epoch.
    pub epoch: u64,
    /// A signature for each layout and state of the floor's index.
    pub signatures: Vec<(Layout, Use, Signature)>,
}

impl EpochApproval {
    /// Approves releases of `epoch`; `sign` signs a message with the vendor's key.
    ///
    /// # Errors
    /// What `sign` says.
    pub fn make(
        epoch: u64,
        vendor: &PublicKey,
        sign: &mut dyn FnMut(&[u8]) -> Result<Signature>,
    ) -> Result<EpochApproval> {
        let mut signatures = Vec::new();
        for (layout, floor) in APPROVED {
            let message = message(epoch, vendor, layout, floor)?;
            signatures.push((layout, floor, sign(&message)?));
        }
        Ok(EpochApproval { epoch, signatures })
    }

    /// Whether it is whole, and every signature is `vendor`'s; a TPM would find out as well, but on the device.
    #[must_use]
    pub fn is_by(&self, vendor: &PublicKey) -> bool {
        let states = self.signatures.iter();
        states
            .clone()
            .map(|(layout, floor, _)| (*layout, *floor))
            .eq(APPROVED)
            && states.clone().all(|(layout, floor, signature)| {
                message(self.epoch, vendor, *layout, *floor)
                    .is_ok_and(|message| vendor.verifies(&message, signature))
            })
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let signatures = self.signatures.iter();
        let words = EpochWords {
            approves: Approves::Epoch,
            epoch: self.epoch,
            signatures: signatures
                .map(|(.., signature)| hex::encode(&signature.fixed()))
                .collect(),
        };
        serde_json::to_string_pretty(&words).unwrap_or_default() + "\n"
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(text: &str) -> std::result::Result<EpochApproval, String> {
        let words: EpochWords = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if words.signatures.len() != APPROVED.len() {
            return Err(format!("it has no {} signatures", APPROVED.len()));
        }
        let signatures = APPROVED
            .iter()
            .zip(&words.signatures)
            .map(|((layout, floor), text)| {
                let signature = hex::decode(text).and_then(|bytes| Signature::from_fixed(&bytes));
                let signature = signature.ok_or("a signature is not 128 hexadecimal digits")?;
                Ok((*layout, *floor, signature))
            });
        Ok(EpochApproval {
            epoch: words.epoch,
            signatures: signatures.collect::<std::result::Result<_, &str>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
    };

    use super::*;
    use crate::FileSigner;

    fn vendor() -> FileSigner {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        FileSigner::new(pkcs8.unwrap().as_ref()).unwrap()
    }

    #[test]
    fn an_approval_of_an_epoch_survives_its_file_and_is_known_by_its_vendor_alone() {
        let (ours, theirs) = (vendor(), vendor());
        let approval = EpochApproval::make(3, ours.public(), &mut |message| ours.sign(message));
        let approval = approval.unwrap();
        let read = EpochApproval::from_json(&approval.to_json()).unwrap();
        assert_eq!(read, approval);
        assert!(read.is_by(ours.public()));
        assert!(!read.is_by(theirs.public()));
        assert!(!EpochApproval { epoch: 4, ..read }.is_by(ours.public()));
        assert!(
            EpochApproval::from_json(r#"{"approves":"epoch","epoch":3,"signatures":[]}"#).is_err()
        );
    }
}
