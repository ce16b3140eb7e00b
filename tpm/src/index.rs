//! An index in the TPM's own memory: how it is defined, and the name that follows from it. Value.
//!
//! Invariant: the name is a digest over all that the index allows, and over whether it was written or locked.

use tpm2_protocol::{
    TpmMarshal,
    basic::{TpmUint16, TpmUint32},
    data::{Tpm2bDigest, Tpm2bMaxNvBuffer, TpmAlgId, TpmCc, TpmaNv, TpmsNvPublic},
};

use crate::{
    crypt::DIGEST,
    entity::{Entity, Name, name_of},
    error::Result,
    policy::Policy,
    session::cp_hash,
    wire::{marshal, sized},
};

/// Attributes that the TPM sets as an index is used.
const STATE: u32 = TpmaNv::WRITTEN.bits() | TpmaNv::WRITELOCKED.bits();

/// An index as it is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its number.
    pub handle: u32,
    /// What it allows, without what the TPM sets as it is used.
    pub attributes: u32,
    /// Under which policy it is written or removed.
    pub policy: Policy,
    /// Bytes.
    pub size: u16,
}

/// What has been done with an index so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Defined only.
    Unwritten,
    /// It holds a value.
    Written,
    /// It holds a value and takes no other until the TPM is next reset.
    Locked,
}

impl Use {
    fn bits(self) -> u32 {
        match self {
            Use::Unwritten => 0,
            Use::Written => TpmaNv::WRITTEN.bits(),
            Use::Locked => STATE,
        }
    }

    pub(crate) fn of(attributes: u32) -> Use {
        match (
            attributes & TpmaNv::WRITTEN.bits(),
            attributes & TpmaNv::WRITELOCKED.bits(),
        ) {
            (0, _) => Use::Unwritten,
            (_, 0) => Use::Written,
            _ => Use::Locked,
        }
    }
}

impl Index {
    /// Its name after such use.
    ///
    /// # Errors
    /// None in practice: the public area cannot be written down.
    pub fn name(&self, used: Use) -> Result<Name> {
        Ok(name_of(&self.public(used)?))
    }

    /// The index as what a command refers to.
    pub(crate) fn entity(&self, used: Use) -> Result<Entity> {
        Ok(Entity::named(self.handle, self.name(used)?))
    }

    /// What the proof of a write of `data` to the whole index covers.
    pub(crate) fn write_hash(&self, used: Use, data: &[u8]) -> Result<[u8; DIGEST]> {
        let name = self.name(used)?;
        Ok(cp_hash(
            TpmCc::NvWrite,
            &[&name, &name],
            &write_parameters(data)?,
        ))
    }

    pub(crate) fn public(&self, used: Use) -> Result<Vec<u8>> {
        marshal(TpmCc::NvDefineSpace, &[&self.structure(used)?])
    }

    pub(crate) fn structure(&self, used: Use) -> Result<TpmsNvPublic> {
        Ok(TpmsNvPublic {
            nv_index: TpmUint32::new(self.handle),
            name_alg: TpmAlgId::Sha256,
            attributes: TpmaNv::from_bits_truncate(self.attributes | used.bits()),
            auth_policy: sized::<Tpm2bDigest>(TpmCc::NvDefineSpace, self.policy.digest())?,
            data_size: TpmUint16::new(self.size),
        })
    }
}

/// The parameters of a write of `data` to the whole index.
pub(crate) fn write_parameters(data: &[u8]) -> Result<Vec<u8>> {
    let cc = TpmCc::NvWrite;
    let fields: [&dyn TpmMarshal; 2] = [&sized::<Tpm2bMaxNvBuffer>(cc, data)?, &TpmUint16::new(0)];
    marshal(cc, &fields)
}

/// What stands at an index' number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// The index asked for.
    This(Use),
    /// An index with other attributes, another policy or size.
    Another,
}
