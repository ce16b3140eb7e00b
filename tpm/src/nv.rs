//! Defines, reads, writes and locks indices in the TPM's own memory. Driver.
//!
//! Invariant: an index is read under a proof over its name, so that the value is that of an index with these attributes and
//! this policy, or there is an error.

use tpm2_protocol::{
    TpmMarshal,
    basic::TpmUint16,
    data::{Tpm2bAuth, Tpm2bNvPublic, TpmCc},
};

use crate::{
    device::{Guard, Tpm},
    entity::{Entity, name_of},
    error::Result,
    index::{Found, Index, Use, write_parameters},
    session::Session,
    wire::{Fields, malformed, marshal},
};

/// Bytes read in one command: the least that TPMs can (Part 2, 6.13: `TPM_PT_NV_BUFFER_MAX`).
const READ_AT_ONCE: u16 = 512;

impl Tpm {
    /// What stands at the number of `index`.
    ///
    /// # Errors
    /// Those of the commands.
    pub fn find_index(&mut self, index: &Index) -> Result<Found> {
        let cc = TpmCc::NvReadPublic;
        if !self.handles(index.handle)?.contains(&index.handle) {
            return Ok(Found::Nothing);
        }
        let response = self.run(
            cc,
            &[&Entity::unnamed(index.handle)],
            Vec::new(),
            Guard::Bare,
        )?;
        let public = Fields::new(cc, &response.parameters).sized()?;
        let mut fields = Fields::new(cc, public);
        fields.bytes(6)?;
        let used = Use::of(fields.u32()?);
        if index.public(used)? != public {
            return Ok(Found::Another);
        }
        if self.is_salted() {
            // Holds only when the TPM has this very index there.
            self.run(cc, &[&index.entity(used)?], Vec::new(), Guard::Cover)?;
        }
        Ok(Found::This(used))
    }

    /// Defines an index.
    pub(crate) fn define(&mut self, hierarchy: &Entity, index: &Index) -> Result<()> {
        let cc = TpmCc::NvDefineSpace;
        let public = Tpm2bNvPublic {
            inner: index.structure(Use::Unwritten)?,
        };
        let parameters = marshal(cc, &[&Tpm2bAuth::default(), &public])?;
        self.run(cc, &[hierarchy], parameters, Guard::Authorise)
            .map(drop)
    }

    /// Reads the whole index.
    pub(crate) fn read_index(&mut self, index: &Index, used: Use) -> Result<Vec<u8>> {
        let cc = TpmCc::NvRead;
        let entity = index.entity(used)?;
        let fields: [&dyn TpmMarshal; 2] = [&TpmUint16::new(index.size), &TpmUint16::new(0)];
        let response = self.run(
            cc,
            &[&entity, &entity],
            marshal(cc, &fields)?,
            Guard::Authorise,
        )?;
        let data = Fields::new(cc, &response.parameters).sized()?;
        match data.len() == usize::from(index.size) {
            true => Ok(data.to_vec()),
            false => Err(malformed(cc, "fewer bytes than the index has")),
        }
    }

    /// Reads an index that others defined, of at most `limit` bytes and readable by anybody; nothing where none stands.
    pub(crate) fn read_foreign(&mut self, handle: u32, limit: u16) -> Result<Option<Vec<u8>>> {
        let cc = TpmCc::NvRead;
        if !self.handles(handle)?.contains(&handle) {
            return Ok(None);
        }
        let asked = TpmCc::NvReadPublic;
        let entity = Entity::unnamed(handle);
        let response = self.run(asked, &[&entity], Vec::new(), Guard::Bare)?;
        let public = Fields::new(asked, &response.parameters).sized()?;
        let size = public
            .last_chunk()
            .map_or(0, |size| u16::from_be_bytes(*size));
        if size > limit {
            return Err(malformed(asked, "more bytes than such an index has"));
        }
        let entity = Entity::named(handle, name_of(public));
        let mut content = Vec::new();
        while let Ok(at) = u16::try_from(content.len())
            && at < size
        {
            let count = (size - at).min(READ_AT_ONCE);
            let fields: [&dyn TpmMarshal; 2] = [&TpmUint16::new(count), &TpmUint16::new(at)];
            let parameters = marshal(cc, &fields)?;
            let response = self.run(cc, &[&entity, &entity], parameters, Guard::Authorise)?;
            let data = Fields::new(cc, &response.parameters).sized()?;
            if data.is_empty() {
                return Err(malformed(cc, "fewer bytes than the index has"));
            }
            content.extend(data);
        }
        Ok(Some(content))
    }

    /// Writes the whole index under a fulfilled policy.
    pub(crate) fn write_index(
        &mut self,
        index: &Index,
        used: Use,
        data: &[u8],
        policy: Session,
    ) -> Result<()> {
        let entity = index.entity(used)?;
        self.run(
            TpmCc::NvWrite,
            &[&entity, &entity],
            write_parameters(data)?,
            Guard::Policy(policy),
        )
        .map(drop)
    }

    /// Closes a written index to writes until the TPM is next reset.
    pub(crate) fn lock_index(&mut self, index: &Index, policy: Session) -> Result<()> {
        let entity = index.entity(Use::Written)?;
        self.run(
            TpmCc::NvWriteLock,
            &[&entity, &entity],
            Vec::new(),
            Guard::Policy(policy),
        )
        .map(drop)
    }
}
