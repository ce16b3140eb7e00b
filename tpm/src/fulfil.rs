//! Fulfils policies in the TPM, assertion by assertion. Driver.
//!
//! Invariant: a session in which an assertion failed is flushed.

use tpm2_protocol::{
    TpmMarshal,
    basic::TpmUint16,
    data::{Tpm2bDigest, Tpm2bMaxBuffer, Tpm2bName, Tpm2bNonce, TpmCc, TpmEo, TpmiYesNo},
};

use crate::{
    crypt::{DIGEST, sha256},
    device::{Guard, Tpm},
    ecdsa::{PublicKey, Signature},
    entity::Entity,
    error::Result,
    policy::{Policy, approval_message},
    session::Session,
    wire::{marshal, sized},
};

impl Tpm {
    /// Fulfils a policy assertion by assertion in a fresh session, which is flushed when one fails.
    pub(crate) fn fulfil(
        &mut self,
        assert: impl FnOnce(&mut Tpm, &Entity) -> Result<()>,
    ) -> Result<Session> {
        let session = self.start_policy()?;
        match assert(self, &Entity::unnamed(session.handle)) {
            Ok(()) => Ok(session),
            Err(error) => {
                // The first error counts.
                let _ = self.flush(session.handle);
                Err(error)
            }
        }
    }

    pub(crate) fn policy_command_code(&mut self, session: &Entity, code: TpmCc) -> Result<()> {
        self.assert(TpmCc::PolicyCommandCode, session, &[&code])
    }

    pub(crate) fn policy_cp_hash(
        &mut self,
        session: &Entity,
        cp_hash: &[u8; DIGEST],
    ) -> Result<()> {
        let cc = TpmCc::PolicyCpHash;
        self.assert(cc, session, &[&sized::<Tpm2bDigest>(cc, cp_hash)?])
    }

    pub(crate) fn policy_nv_written(&mut self, session: &Entity, written: bool) -> Result<()> {
        self.assert(TpmCc::PolicyNvWritten, session, &[&TpmiYesNo(written)])
    }

    pub(crate) fn policy_nv(
        &mut self,
        session: &Entity,
        index: &Entity,
        operand: &[u8],
        comparison: TpmEo,
    ) -> Result<()> {
        let cc = TpmCc::PolicyNv;
        let fields: [&dyn TpmMarshal; 3] = [
            &sized::<Tpm2bMaxBuffer>(cc, operand)?,
            &TpmUint16::new(0),
            &comparison,
        ];
        // The index authorises its own reading.
        self.run(
            cc,
            &[index, index, session],
            marshal(cc, &fields)?,
            Guard::Authorise,
        )
        .map(drop)
    }

    /// Puts in place of the fulfilled `policy` that it was approved: `signature` is `key`'s over it and `reference`.
    pub(crate) fn policy_authorize(
        &mut self,
        session: &Entity,
        policy: &Policy,
        reference: &[u8],
        key: &PublicKey,
        signature: &Signature,
    ) -> Result<()> {
        let cc = TpmCc::PolicyAuthorize;
        let digest = sha256(&[&approval_message(policy, reference)]);
        let key = self.load_external(key)?;
        let name = key.name().to_vec();
        let ticket = self.with(&key, |tpm, key| tpm.verify_loaded(key, &digest, signature))?;
        let mut parameters = marshal(
            cc,
            &[
                &sized::<Tpm2bDigest>(cc, policy.digest())?,
                &sized::<Tpm2bNonce>(cc, reference)?,
                &sized::<Tpm2bName>(cc, &name)?,
            ],
        )?;
        parameters.extend(ticket);
        self.run(cc, &[session], parameters, Guard::Bare).map(drop)
    }

    pub(crate) fn policy_or(&mut self, session: &Entity, branches: &[Policy]) -> Result<()> {
        let cc = TpmCc::PolicyOr;
        let mut parameters = (branches.len() as u32).to_be_bytes().to_vec();
        for branch in branches {
            parameters.extend(marshal(cc, &[&sized::<Tpm2bDigest>(cc, branch.digest())?])?);
        }
        self.run(cc, &[session], parameters, Guard::Bare).map(drop)
    }

    fn assert(&mut self, cc: TpmCc, session: &Entity, fields: &[&dyn TpmMarshal]) -> Result<()> {
        self.run(cc, &[session], marshal(cc, fields)?, Guard::Bare)
            .map(drop)
    }
}
