//! The trust anchors: which indices there are, and which policies guard them. Core.
//!
//! The trusted root and the security floor change only under an approval that the vendor's key signed for exactly the new
//! bytes, and only upwards. An approval is good for every device with the same vendor key and layout, because an index'
//! name follows from these alone. `docs/tpm.md` explains the design.
//!
//! Invariant: no policy here can be fulfilled for another command than writing or locking without a signature of the
//! vendor.

use tpm2_protocol::data::{TpmCc, TpmEo, TpmaNv};

use crate::{
    crypt::sha256,
    ecdsa::PublicKey,
    entity::Name,
    error::{Error, Result},
    index::{Index, Use},
    policy::Policy,
    public::external_name,
};

/// The highest version of a root and the highest floor: an approval above it would shut out every later one.
pub const VERSION_MAX: u64 = u32::MAX as u64;

/// Bytes of a name: algorithm and digest.
const NAME: usize = 34;
const RECORD_MAGIC: [u8; 8] = *b"edgegw\x00\x01";
const RECORD: usize = RECORD_MAGIC.len() + 1 + 7 * NAME;

/// Who created the indices, which decides who could remove them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// The platform hierarchy: they outlive a clear, and only the vendor's approval removes them.
    Platform,
    /// The owner hierarchy, where the firmware keeps the platform hierarchy closed: a clear removes them.
    Owner,
}

/// Which anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Root,
    Floor,
    Record,
}

/// The anchors of one vendor key in one layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchors {
    /// Who created them.
    pub layout: Layout,
    /// Whose approvals count.
    pub key: PublicKey,
    key_name: Name,
}

impl Anchors {
    /// The anchors for approvals by `key`.
    ///
    /// # Errors
    /// None in practice: the key's public area cannot be written down.
    pub fn new(key: PublicKey, layout: Layout) -> Result<Anchors> {
        Ok(Anchors {
            layout,
            key,
            key_name: external_name(&key)?,
        })
    }

    /// The name of the vendor's key.
    #[must_use]
    pub fn key_name(&self) -> &[u8] {
        &self.key_name
    }

    pub(crate) fn index(&self, anchor: Anchor) -> Index {
        // Platform indices lie where the registry has them for platforms, owner's where it has those.
        let (base, created) = match self.layout {
            Layout::Platform => (
                0x0150_4700,
                TpmaNv::PLATFORMCREATE.bits() | TpmaNv::POLICY_DELETE.bits(),
            ),
            Layout::Owner => (0x0180_4700, 0),
        };
        let (number, own, size) = match anchor {
            Anchor::Root => (1, TpmaNv::WRITE_STCLEAR.bits(), TrustedRoot::BYTES),
            Anchor::Floor => (2, TpmaNv::WRITE_STCLEAR.bits(), 8),
            Anchor::Record => (3, 0, RECORD),
        };
        let common = TpmaNv::POLICYWRITE.bits() | TpmaNv::AUTHREAD.bits() | TpmaNv::NO_DA.bits();
        Index {
            handle: base + number,
            attributes: created | common | own,
            policy: Policy::any(&self.branches(anchor)),
            size: size as u16,
        }
    }

    /// The policies under which an anchor may be used: one needs no signature, the other is the vendor's.
    pub(crate) fn branches(&self, anchor: Anchor) -> [Policy; 2] {
        let free = match anchor {
            Anchor::Root | Anchor::Floor => Policy::new().command_code(TpmCc::NvWriteLock),
            Anchor::Record => Policy::new().nv_written(false).command_code(TpmCc::NvWrite),
        };
        [free, Policy::authorized(&self.key_name, reference(anchor))]
    }
}

/// Keeps approvals of one kind from being taken for another's.
pub(crate) fn reference(anchor: Anchor) -> &'static [u8] {
    match anchor {
        Anchor::Root => b"edge gateway: trusted root",
        Anchor::Floor => b"edge gateway: security floor",
        Anchor::Record => b"edge gateway: record",
    }
}

/// For what a hierarchy's authorisation value is unsealed: on this device alone.
pub(crate) fn recovery_reference(storage: &[u8]) -> [u8; 32] {
    // A reference is a digest's length at most.
    sha256(&[b"edge gateway: recovery ", storage])
}

/// Under what a hierarchy's authorisation value is sealed.
pub(crate) fn recovery_policy(key: &PublicKey, storage: &[u8]) -> Result<Policy> {
    Ok(Policy::authorized(
        &external_name(key)?,
        &recovery_reference(storage),
    ))
}

/// What recovery is approved for: unsealing, and nothing else.
pub(crate) fn recovery_approved() -> Policy {
    Policy::new().command_code(TpmCc::Unseal)
}

/// The TUF root that the device trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedRoot {
    /// Its version.
    pub version: u64,
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
}

impl TrustedRoot {
    pub(crate) const BYTES: usize = 40;

    pub(crate) fn read(bytes: &[u8]) -> Option<TrustedRoot> {
        let (version, digest) = bytes.split_first_chunk()?;
        Some(TrustedRoot {
            version: u64::from_be_bytes(*version),
            digest: digest.try_into().ok()?,
        })
    }
}

/// What an approval is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// This root is to be trusted.
    Root(TrustedRoot),
    /// Nothing below this security epoch is to be installed.
    Floor(u64),
}

impl Subject {
    pub(crate) fn anchor(&self) -> Anchor {
        match self {
            Subject::Root(_) => Anchor::Root,
            Subject::Floor(_) => Anchor::Floor,
        }
    }

    /// What rises: the version or the floor itself.
    #[must_use]
    pub fn version(&self) -> u64 {
        match self {
            Subject::Root(root) => root.version,
            Subject::Floor(floor) => *floor,
        }
    }

    /// The bytes as they are to stand in the index.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.version().to_be_bytes().to_vec();
        if let Subject::Root(root) = self {
            bytes.extend(root.digest);
        }
        bytes
    }

    /// Refuses what would shut out every later approval.
    pub(crate) fn check(&self) -> Result<()> {
        match self.version() <= VERSION_MAX {
            true => Ok(()),
            false => Err(Error::Rule(format!(
                "version {} is above {VERSION_MAX}, after which none could rise any more",
                self.version()
            ))),
        }
    }

    /// The policy that an approval signs: for an index that was never written these bytes, for one that was these bytes
    /// over a lower version.
    pub(crate) fn approved(&self, anchors: &Anchors, used: Use) -> Result<Policy> {
        let index = anchors.index(self.anchor());
        let condition = match used {
            Use::Unwritten => Policy::new().nv_written(false),
            Use::Written | Use::Locked => Policy::new().nv(
                &index.name(used)?,
                &self.version().to_be_bytes(),
                TpmEo::UnsignedLt,
            ),
        };
        Ok(condition.cp_hash(&index.write_hash(used, &self.bytes())?))
    }
}

/// What was provisioned: names, so that an exchange shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who created the indices.
    pub layout: Layout,
    /// The vendor's key.
    pub approval_key: Name,
    /// The storage key.
    pub storage: Name,
    /// The device's signing key.
    pub signing: Name,
    /// The key to which payloads are encrypted.
    pub payload: Name,
    /// The key that signs what the TPM says.
    pub attestation: Name,
    /// The trusted root's index, written.
    pub root: Name,
    /// The security floor's index, written.
    pub floor: Name,
}

impl Record {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = RECORD_MAGIC.to_vec();
        bytes.push(match self.layout {
            Layout::Platform => b'p',
            Layout::Owner => b'o',
        });
        for name in [
            &self.approval_key,
            &self.storage,
            &self.signing,
            &self.payload,
            &self.attestation,
            &self.root,
            &self.floor,
        ] {
            bytes.extend(name);
        }
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Record> {
        let bytes = bytes.strip_prefix(&RECORD_MAGIC)?;
        let (layout, names) = bytes.split_first()?;
        let layout = match layout {
            b'p' => Layout::Platform,
            b'o' => Layout::Owner,
            _ => return None,
        };
        let mut names = names.chunks_exact(NAME).map(<[u8]>::to_vec);
        let mut next = || names.next();
        Some(Record {
            layout,
            approval_key: next()?,
            storage: next()?,
            signing: next()?,
            payload: next()?,
            attestation: next()?,
            root: next()?,
            floor: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchors(layout: Layout) -> Anchors {
        let key = PublicKey::from_coordinates(&[1; 32], &[2; 32]).unwrap();
        Anchors::new(key, layout).unwrap()
    }

    #[test]
    fn an_approval_is_for_one_subject_one_use_and_one_layout() {
        let root = |version, digest| {
            Subject::Root(TrustedRoot {
                version,
                digest: [digest; 32],
            })
        };
        let mut policies = Vec::new();
        for layout in [Layout::Platform, Layout::Owner] {
            for subject in [
                root(1, 1),
                root(1, 2),
                root(2, 1),
                Subject::Floor(1),
                Subject::Floor(2),
            ] {
                for used in [Use::Unwritten, Use::Written] {
                    policies.push(subject.approved(&anchors(layout), used).unwrap());
                }
            }
        }
        let count = policies.len();
        policies.sort_by_key(|policy| *policy.digest());
        policies.dedup();
        assert_eq!(policies.len(), count);
    }

    #[test]
    fn a_record_reads_back_and_a_torn_one_does_not() {
        let name = |byte| vec![byte; NAME];
        let record = Record {
            layout: Layout::Owner,
            approval_key: name(1),
            storage: name(2),
            signing: name(3),
            payload: name(4),
            attestation: name(5),
            root: name(6),
            floor: name(7),
        };
        let bytes = record.bytes();
        assert_eq!(bytes.len(), RECORD);
        assert_eq!(Record::read(&bytes), Some(record));
        assert_eq!(Record::read(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Record::read(&[0; RECORD]), None);
    }

    #[test]
    fn a_version_that_would_shut_out_all_others_is_refused() {
        assert!(Subject::Floor(VERSION_MAX).check().is_ok());
        assert!(Subject::Floor(u64::MAX).check().is_err());
    }
}
