//! Reads the trust anchors and moves them under the vendor's approval. Driver.
//!
//! Invariant: whether an approval holds and rises is the TPM's decision; nothing here is asked to be believed.

use tpm2_protocol::data::{TpmAlgId, TpmCc, TpmEo};

use crate::{
    anchor::{
        Anchor, Anchors, Record, Subject, TrustedRoot, recovery_approved, recovery_policy,
        recovery_reference, reference,
    },
    approval::Approval,
    code::ResponseCode,
    device::{Guard, Tpm},
    ecdsa::{PublicKey, Signature},
    entity::Entity,
    error::{Error, Result},
    index::{Found, Index, Use},
    keys::Blob,
    provision::existing_layout,
    public::Template,
    secret::Secret,
    session::Session,
    wire::Fields,
    wrap::{EpochApproval, Wrapped, payload_approved, payload_reference},
};

impl Tpm {
    /// The trust anchors that stand in this TPM for the vendor's `key`.
    ///
    /// # Errors
    /// There are none; those of the commands.
    pub fn anchors(&mut self, key: &PublicKey) -> Result<Anchors> {
        existing_layout(self, key)?.ok_or_else(|| {
            Error::Rule(
                "the TPM holds no trust anchors for the vendor's key: it was cleared, exchanged or never provisioned; run \
                 gateway tpm provision with the vendor's approvals"
                    .to_owned(),
            )
        })
    }

    /// The root that the device trusts, or nothing before there is one.
    ///
    /// # Errors
    /// Those of the commands; [`Error::Exchanged`] when another index stands at its number.
    pub fn trusted_root(&mut self, anchors: &Anchors) -> Result<Option<TrustedRoot>> {
        let bytes = self.anchor_bytes(anchors, Anchor::Root)?;
        Ok(bytes.as_deref().and_then(TrustedRoot::read))
    }

    /// The security epoch below which nothing is to be installed, or nothing before there is one.
    ///
    /// # Errors
    /// As of [`Tpm::trusted_root`].
    pub fn security_floor(&mut self, anchors: &Anchors) -> Result<Option<u64>> {
        let bytes = self.anchor_bytes(anchors, Anchor::Floor)?;
        Ok(bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes))
    }

    /// What was provisioned, or nothing before that is done.
    ///
    /// # Errors
    /// As of [`Tpm::trusted_root`].
    pub fn provisioning_record(&mut self, anchors: &Anchors) -> Result<Option<Record>> {
        let bytes = self.anchor_bytes(anchors, Anchor::Record)?;
        Ok(bytes.as_deref().and_then(Record::read))
    }

    fn anchor_bytes(&mut self, anchors: &Anchors, anchor: Anchor) -> Result<Option<Vec<u8>>> {
        let index = anchors.index(anchor);
        match self.anchor_use(&index)? {
            None | Some(Use::Unwritten) => Ok(None),
            Some(used) => self.read_index(&index, used).map(Some),
        }
    }

    pub(crate) fn anchor_use(&mut self, index: &Index) -> Result<Option<Use>> {
        match self.find_index(index)? {
            Found::Nothing => Ok(None),
            Found::This(used) => Ok(Some(used)),
            Found::Another => Err(Error::Exchanged {
                what: format!("NV index {:#x}", index.handle),
                recorded: crate::public::short(&index.name(Use::Written)?),
                found: "one with other attributes or under another vendor's key".to_owned(),
            }),
        }
    }

    /// Moves the trusted root or the security floor to what the vendor approved. A rise closes the index until the TPM
    /// is next reset, so that no session prepared for an older approval can follow it.
    ///
    /// # Errors
    /// The TPM refuses: the signature is another's, the version does not rise, the index is closed or missing.
    pub fn apply(&mut self, anchors: &Anchors, approval: &Approval) -> Result<()> {
        let subject = approval.subject();
        subject.check()?;
        let index = anchors.index(subject.anchor());
        let used = match self.anchor_use(&index)? {
            None => {
                return Err(Error::Rule(
                    "the TPM is not provisioned; run gateway tpm provision".to_owned(),
                ));
            }
            Some(Use::Locked) => {
                return Err(Error::Rule(format!(
                    "NV index {:#x} took a new value already since the device started; restart it, then apply this",
                    index.handle
                )));
            }
            Some(used) => used,
        };
        let Some(signature) = approval.signature(anchors.layout, used) else {
            return Err(Error::Rule(
                "the approval has no signature for this layout and occasion".to_owned(),
            ));
        };
        let session = self
            .fulfil_approval(anchors, subject, used, signature)
            .map_err(|error| self.explain(anchors, subject, error))?;
        self.write_index(&index, used, &subject.bytes(), session)?;
        match used {
            Use::Unwritten => Ok(()),
            Use::Written | Use::Locked => self.lock_anchor(anchors, subject.anchor()),
        }
    }

    fn fulfil_approval(
        &mut self,
        anchors: &Anchors,
        subject: &Subject,
        used: Use,
        signature: &Signature,
    ) -> Result<Session> {
        let anchor = subject.anchor();
        let index = anchors.index(anchor);
        let entity = index.entity(used)?;
        let write_hash = index.write_hash(used, &subject.bytes())?;
        let approved = subject.approved(anchors, used)?;
        self.fulfil(|tpm, session| {
            match used {
                Use::Unwritten => tpm.policy_nv_written(session, false)?,
                Use::Written | Use::Locked => {
                    tpm.policy_nv(
                        session,
                        &entity,
                        &subject.version().to_be_bytes(),
                        TpmEo::UnsignedLt,
                    )?;
                }
            }
            tpm.policy_cp_hash(session, &write_hash)?;
            tpm.policy_authorize(
                session,
                &approved,
                reference(anchor),
                &anchors.key,
                signature,
            )?;
            tpm.policy_or(session, &anchors.branches(anchor))
        })
    }

    /// Says in numbers why the TPM did not let a version rise.
    fn explain(&mut self, anchors: &Anchors, subject: &Subject, error: Error) -> Error {
        if !error.is(ResponseCode::POLICY) {
            return error;
        }
        let (what, stands) = match subject {
            Subject::Root(_) => (
                "root version",
                self.trusted_root(anchors)
                    .map(|root| root.map(|root| root.version)),
            ),
            Subject::Floor(_) => ("security floor", self.security_floor(anchors)),
        };
        match stands {
            Ok(Some(stands)) => Error::Rule(format!(
                "the TPM refuses {what} {}: it holds {stands}, and lets it only rise",
                subject.version()
            )),
            _ => error,
        }
    }

    fn lock_anchor(&mut self, anchors: &Anchors, anchor: Anchor) -> Result<()> {
        let session = self.fulfil(|tpm, session| {
            tpm.policy_command_code(session, TpmCc::NvWriteLock)?;
            tpm.policy_or(session, &anchors.branches(anchor))
        })?;
        self.lock_index(&anchors.index(anchor), session)
    }

    /// Writes the provisioning record, which can be done once.
    pub(crate) fn write_record(&mut self, anchors: &Anchors, record: &Record) -> Result<()> {
        let session = self.fulfil(|tpm, session| {
            tpm.policy_nv_written(session, false)?;
            tpm.policy_command_code(session, TpmCc::NvWrite)?;
            tpm.policy_or(session, &anchors.branches(Anchor::Record))
        })?;
        self.write_index(
            &anchors.index(Anchor::Record),
            Use::Unwritten,
            &record.bytes(),
            session,
        )
    }

    /// Seals a hierarchy's authorisation value: it comes out again only when the vendor approves that for this device.
    pub(crate) fn seal_for_recovery(
        &mut self,
        storage: &Entity,
        key: &PublicKey,
        secret: &Secret,
    ) -> Result<Blob> {
        let policy = recovery_policy(key, storage.name())?;
        self.create_with(storage, &Template::sealed(policy.digest())?, secret.bytes())
    }

    /// Unseals what was sealed so. `signature` is the vendor's over the recovery message of this device.
    ///
    /// # Errors
    /// The signature is not the vendor's, or for another device; the blob is another TPM's.
    pub fn recover(
        &mut self,
        storage: &Entity,
        blob: &Blob,
        key: &PublicKey,
        signature: &Signature,
    ) -> Result<Secret> {
        let sealed = self.load(storage, blob)?;
        self.with(&sealed, |tpm, sealed| {
            let session = tpm.fulfil(|tpm, session| {
                tpm.policy_command_code(session, TpmCc::Unseal)?;
                let reference = recovery_reference(storage.name());
                tpm.policy_authorize(session, &recovery_approved(), &reference, key, signature)
            })?;
            let response = tpm.run(TpmCc::Unseal, &[sealed], Vec::new(), Guard::Policy(session))?;
            Ok(Secret::new(
                Fields::new(TpmCc::Unseal, &response.parameters).sized()?,
            ))
        })
    }

    /// Opens a content key that was wrapped for this device's payload key.
    ///
    /// # Errors
    /// The floor is above the epoch; the approval is another epoch's or another's; it was altered, or is for another
    /// device.
    pub fn unwrap_key(
        &mut self,
        anchors: &Anchors,
        payload: &Entity,
        wrapped: &Wrapped,
        approval: &EpochApproval,
    ) -> Result<Secret> {
        let index = anchors.index(Anchor::Floor);
        let Some(floor) = self.anchor_use(&index)? else {
            return Err(Error::Rule(
                "the TPM has no security floor; run gateway tpm provision".to_owned(),
            ));
        };
        let signature = approval
            .signatures
            .iter()
            .find(|(layout, used, _)| (*layout, *used) == (anchors.layout, floor))
            .map(|(.., signature)| signature)
            .ok_or_else(|| {
                Error::Rule("the approval has no signature for this layout".to_owned())
            })?;
        let (entity, epoch) = (index.entity(floor)?, wrapped.epoch);
        let approved = payload_approved(anchors, epoch, floor)?;
        let private = self.import(payload, wrapped)?;
        let sealed = self.load(
            payload,
            &Blob {
                public: wrapped.public.clone(),
                private,
            },
        )?;
        let opened = self.with(&sealed, |tpm, sealed| {
            let session = tpm.fulfil(|tpm, session| {
                tpm.policy_nv(session, &entity, &epoch.to_be_bytes(), TpmEo::UnsignedLe)?;
                tpm.policy_command_code(session, TpmCc::Unseal)?;
                tpm.policy_authorize(
                    session,
                    &approved,
                    &payload_reference(epoch),
                    &anchors.key,
                    signature,
                )
            })?;
            let response = tpm.run(TpmCc::Unseal, &[sealed], Vec::new(), Guard::Policy(session))?;
            Ok(Secret::new(
                Fields::new(TpmCc::Unseal, &response.parameters).sized()?,
            ))
        });
        match opened {
            Err(error) if error.is(ResponseCode::POLICY) => Err(Error::Rule(format!(
                "the TPM does not open a release of security epoch {epoch}: its floor is above that"
            ))),
            other => other,
        }
    }

    fn import(&mut self, parent: &Entity, wrapped: &Wrapped) -> Result<Vec<u8>> {
        let cc = TpmCc::Import;
        let mut parameters = vec![0, 0];
        // A wrapped key is a few hundred bytes; one that is not fits no length and is refused.
        for part in [&wrapped.public, &wrapped.duplicate, &wrapped.seed] {
            parameters.extend((part.len() as u16).to_be_bytes());
            parameters.extend(part);
        }
        parameters.extend(TpmAlgId::Null.value().to_be_bytes());
        let response = self.run(cc, &[parent], parameters, Guard::Authorise)?;
        Ok(Fields::new(cc, &response.parameters).sized()?.to_vec())
    }
}
