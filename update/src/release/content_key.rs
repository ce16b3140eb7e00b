//! Who may open a release: its content key, wrapped for each recipient. Value.
//!
//! Invariant: a content key is neither printed nor written to an index but wrapped; where one is wrapped for a TPM, the
//! vendor's approval for the release's epoch stands beside it.

use std::fmt;

use tpm::{EpochApproval, Layout, PublicKey, Secret, Signature, Use, Wrapped};

use super::{
    Digest, RECIPIENTS_MAX,
    fields::{Malformed, Reader, malformed, put_sized},
    file_key::SealedKey,
    index::hex,
    sha256,
};

/// Bytes of a part of a key wrapped for a TPM; the longest, the private part, has 108.
const PART_MAX: usize = 160;

const FOR_TPM: u8 = 1;
const FOR_FILE: u8 = 2;

/// The states of a device's floor that the vendor approves, in the order of their signatures.
const APPROVED: [(Layout, Use); 4] = [
    (Layout::Platform, Use::Written),
    (Layout::Platform, Use::Locked),
    (Layout::Owner, Use::Written),
    (Layout::Owner, Use::Locked),
];

/// The key from which the keys of a release's chunks follow.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey(Secret);

impl ContentKey {
    /// From its 32 bytes.
    #[must_use]
    pub fn new(bytes: &Digest) -> ContentKey {
        ContentKey(Secret::new(bytes))
    }

    /// From what a TPM gave out, or nothing when that is no content key.
    #[must_use]
    pub fn from_secret(secret: &Secret) -> Option<ContentKey> {
        (secret.bytes().len() == 32).then(|| ContentKey(secret.clone()))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ContentKey(<redacted>)")
    }
}

/// For whom a content key is wrapped: a device or a fleet, by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recipient {
    /// A payload key in a TPM: SHA-256 of its `SubjectPublicKeyInfo`.
    Tpm(Digest),
    /// A key in a file, which anybody who reads the file can use.
    File(Digest),
}

impl Recipient {
    /// The TPM with this payload key.
    #[must_use]
    pub fn tpm(payload: &PublicKey) -> Recipient {
        Recipient::Tpm(sha256(&[&payload.spki()]))
    }

    fn parts(&self) -> (u8, &Digest) {
        match self {
            Recipient::Tpm(id) => (FOR_TPM, id),
            Recipient::File(id) => (FOR_FILE, id),
        }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recipient::Tpm(id) => write!(formatter, "tpm:{}", hex(id)),
            Recipient::File(id) => write!(formatter, "file:{}", hex(id)),
        }
    }
}

/// A content key that one recipient can open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrappedKey {
    /// By its TPM, under the vendor's approval and while the floor is not above the epoch.
    Tpm(Wrapped),
    /// With a key in a file: no floor and no approval is asked.
    File(SealedKey),
}

/// All recipients of a release.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// The vendor's approval for the release's epoch, which every TPM asks for.
    pub approval: Option<EpochApproval>,
    /// In ascending order, each once.
    pub keys: Vec<(Recipient, WrappedKey)>,
}

impl Grants {
    /// The key for one of them.
    #[must_use]
    pub fn key_for(&self, recipient: &Recipient) -> Option<&WrappedKey> {
        let found = self.keys.binary_search_by_key(recipient, |(of, _)| *of);
        found.ok().map(|at| &self.keys[at].1)
    }

    /// Whether they can stand in an index of this epoch.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self, epoch: u64) -> Result<(), Malformed> {
        if self.keys.is_empty() || self.keys.len() > RECIPIENTS_MAX {
            return malformed(format!(
                "it is for {} recipients, not for 1 to {RECIPIENTS_MAX}",
                self.keys.len()
            ));
        }
        if !self.keys.is_sorted_by(|(one, _), (next, _)| one < next) {
            return malformed("its recipients are not in ascending order, each once");
        }
        let mut for_tpm = false;
        for (recipient, key) in &self.keys {
            match (recipient, key) {
                (Recipient::Tpm(_), WrappedKey::Tpm(wrapped)) if wrapped.epoch == epoch => {
                    for_tpm = true;
                }
                (Recipient::File(_), WrappedKey::File(_)) => {}
                _ => {
                    return malformed(format!(
                        "its key for {recipient} is of another kind or epoch"
                    ));
                }
            }
        }
        let approved = self.approval.as_ref();
        if for_tpm != approved.is_some() {
            return malformed("there is an approval of its epoch just where a recipient has a TPM");
        }
        match approved {
            Some(approval) if approval.epoch != epoch || !is_whole(approval) => {
                malformed("its approval is of another epoch, or lacks signatures")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.approval.is_some()));
        for (.., signature) in self
            .approval
            .iter()
            .flat_map(|approval| &approval.signatures)
        {
            out.extend(signature.fixed());
        }
        out.extend((self.keys.len() as u16).to_be_bytes());
        for (recipient, key) in &self.keys {
            let (kind, id) = recipient.parts();
            out.push(kind);
            out.extend(id);
            match key {
                WrappedKey::Tpm(wrapped) => {
                    for part in [&wrapped.public, &wrapped.duplicate, &wrapped.seed] {
                        put_sized(out, part);
                    }
                }
                WrappedKey::File(sealed) => out.extend(sealed.bytes()),
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>, epoch: u64) -> Result<Grants, Malformed> {
        let approval = match reader.byte("approval")? {
            0 => None,
            1 => Some(read_approval(reader, epoch)?),
            _ => return malformed("its approval is neither there nor missing"),
        };
        let count = usize::from(reader.short("number of recipients")?);
        if count > RECIPIENTS_MAX {
            return malformed(format!(
                "it is for {count} recipients, at most {RECIPIENTS_MAX} are read"
            ));
        }
        let keys = (0..count).map(|_| read_key(reader, epoch));
        Ok(Grants {
            keys: keys.collect::<Result<_, _>>()?,
            approval,
        })
    }
}

fn is_whole(approval: &EpochApproval) -> bool {
    let states = approval.signatures.iter();
    states
        .map(|(layout, floor, _)| (*layout, *floor))
        .eq(APPROVED)
}

fn read_approval(reader: &mut Reader<'_>, epoch: u64) -> Result<EpochApproval, Malformed> {
    let signatures = APPROVED.into_iter().map(|(layout, floor)| {
        let bytes = reader.bytes(64, "approval")?;
        let signature = Signature::from_fixed(bytes);
        signature
            .map(|signature| (layout, floor, signature))
            .map_or_else(|| malformed("its approval holds no signature"), Ok)
    });
    let signatures = signatures.collect::<Result<_, _>>()?;
    Ok(EpochApproval { epoch, signatures })
}

fn read_key(reader: &mut Reader<'_>, epoch: u64) -> Result<(Recipient, WrappedKey), Malformed> {
    let kind = reader.byte("recipient")?;
    let id = reader.digest("recipient")?;
    match kind {
        FOR_TPM => {
            let mut part = || reader.sized(PART_MAX, "wrapped key").map(<[u8]>::to_vec);
            let wrapped = Wrapped {
                epoch,
                public: part()?,
                duplicate: part()?,
                seed: part()?,
            };
            Ok((Recipient::Tpm(id), WrappedKey::Tpm(wrapped)))
        }
        FOR_FILE => {
            let sealed = SealedKey::new(reader.array("wrapped key")?);
            Ok((Recipient::File(id), WrappedKey::File(sealed)))
        }
        _ => malformed(format!("it has a recipient of the unknown kind {kind}")),
    }
}
