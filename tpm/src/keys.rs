//! Keys: made, loaded, kept, used. Driver.
//!
//! Invariant: a key's name is computed here from the public part that the TPM showed, never taken from its word alone.

use tpm2_protocol::{
    TpmMarshal,
    basic::{TpmUint16, TpmUint32},
    data::{
        Tpm2bData, Tpm2bDigest, Tpm2bEccParameter, Tpm2bPrivate, Tpm2bPublic, Tpm2bSensitiveCreate,
        Tpm2bSensitiveData, TpmAlgId, TpmCc, TpmRh, TpmSt, TpmlPcrSelection, TpmsSensitiveCreate,
        TpmsSignatureEcc, TpmtSigScheme, TpmtSignature, TpmtTkHashcheck, TpmuSignature,
    },
};

use crate::{
    code::ResponseCode,
    device::{Guard, Tpm},
    ecdsa::{PublicKey, Signature},
    entity::{Entity, name_of},
    error::{Error, Result},
    public::{Public, Template},
    secret::Secret,
    wire::{Fields, Response, malformed, marshal, sized},
};

/// A key or sealed bytes outside the TPM, of use to this TPM alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The public area.
    pub public: Vec<u8>,
    /// The private area, encrypted by the TPM.
    pub private: Vec<u8>,
}

impl Blob {
    /// The public key, when it is one of P-256.
    ///
    /// # Errors
    /// [`Error::Malformed`] otherwise.
    pub fn public_key(&self) -> Result<PublicKey> {
        Public::read(TpmCc::Load, &self.public).map(|public| *public.key())
    }
}

impl Tpm {
    /// Makes the primary key of a hierarchy. The first one is made without a session, because there is nothing yet to
    /// salt one to.
    pub(crate) fn create_primary(
        &mut self,
        hierarchy: &Entity,
        template: &Template,
    ) -> Result<(Entity, Public)> {
        let cc = TpmCc::CreatePrimary;
        let parameters = creation(cc, template, &[])?;
        let guard = if self.is_salted() {
            Guard::Authorise
        } else {
            Guard::Password
        };
        let response = self.run(cc, &[hierarchy], parameters, guard)?;
        let handle = loaded_handle(cc, &response)?;
        let public = Fields::new(cc, &response.parameters)
            .sized()
            .and_then(|bytes| Public::read(cc, bytes));
        match public {
            Ok(public) => Ok((Entity::named(handle, public.name()), public)),
            Err(error) => {
                // The first error counts.
                let _ = self.flush(handle);
                Err(error)
            }
        }
    }

    /// The storage key at `handle`, made when nothing stands there. From now on sessions are salted to it: this first
    /// time it is taken on trust.
    ///
    /// # Errors
    /// Those of the commands; something else stands at the handle.
    pub fn storage_key(&mut self, owner: &Entity, handle: u32) -> Result<Entity> {
        let template = Template::storage();
        let public = match self.read_public(handle)? {
            Some(public) if template.fits(&public)? => public,
            Some(_) => return Err(occupied(handle)),
            None => {
                let (key, public) = self.create_primary(owner, &template)?;
                self.with(&key, |tpm, key| tpm.persist(owner, key, handle))?;
                public
            }
        };
        self.salt_to(handle, Some(&public.name()))?;
        Ok(Entity::named(handle, public.name()))
    }

    /// The key at `handle` below `parent`, made when nothing stands there.
    pub(crate) fn persistent_key(
        &mut self,
        owner: &Entity,
        parent: &Entity,
        template: &Template,
        handle: u32,
    ) -> Result<Public> {
        if let Some(public) = self.read_public(handle)? {
            return match template.fits(&public)? {
                true => Ok(public),
                false => Err(occupied(handle)),
            };
        }
        let blob = self.create(parent, template)?;
        let key = self.load(parent, &blob)?;
        self.with(&key, |tpm, key| tpm.persist(owner, key, handle))?;
        Public::read(TpmCc::Create, &blob.public)
    }

    /// Makes a key below `parent`; it is loaded where it is to be used.
    ///
    /// # Errors
    /// Those of the command.
    pub fn create(&mut self, parent: &Entity, template: &Template) -> Result<Blob> {
        self.create_with(parent, template, &[])
    }

    /// Makes an object below `parent` that holds `data`.
    pub(crate) fn create_with(
        &mut self,
        parent: &Entity,
        template: &Template,
        data: &[u8],
    ) -> Result<Blob> {
        let cc = TpmCc::Create;
        let response = self.run(
            cc,
            &[parent],
            creation(cc, template, data)?,
            Guard::Authorise,
        )?;
        let mut fields = Fields::new(cc, &response.parameters);
        let private = fields.sized()?.to_vec();
        let public = fields.sized()?.to_vec();
        Ok(Blob { public, private })
    }

    /// Loads what was made below `parent`. Whoever loads it flushes it.
    ///
    /// # Errors
    /// Those of the command; it was altered, or belongs to another TPM.
    pub fn load(&mut self, parent: &Entity, blob: &Blob) -> Result<Entity> {
        let cc = TpmCc::Load;
        let mut parameters = marshal(cc, &[&sized::<Tpm2bPrivate>(cc, &blob.private)?])?;
        parameters.extend((blob.public.len() as u16).to_be_bytes());
        parameters.extend(&blob.public);
        let response = self.run(cc, &[parent], parameters, Guard::Authorise)?;
        self.loaded(cc, &response, &blob.public)
    }

    /// Loads a public key to verify signatures with.
    pub(crate) fn load_external(&mut self, key: &PublicKey) -> Result<Entity> {
        let cc = TpmCc::LoadExternal;
        let public = Template::external(key)?;
        // tpm2-protocol cannot leave the private part out, which two bytes of length do.
        let mut parameters = vec![0, 0];
        let inner = Tpm2bPublic {
            inner: public.0.clone(),
        };
        // Tickets about it are good only in a hierarchy other than null.
        let fields: [&dyn TpmMarshal; 2] = [&inner, &TpmRh::Owner];
        parameters.extend(marshal(cc, &fields)?);
        let response = self.run(cc, &[], parameters, Guard::Cover)?;
        self.loaded(cc, &response, &public.bytes()?)
    }

    /// The key just loaded, when the name that the TPM tells is that of `public`.
    fn loaded(&mut self, cc: TpmCc, response: &Response, public: &[u8]) -> Result<Entity> {
        let handle = loaded_handle(cc, response)?;
        let name = name_of(public);
        let told = Fields::new(cc, &response.parameters).sized();
        match told {
            Ok(told) if told == name => Ok(Entity::named(handle, name)),
            told => {
                // The first error counts.
                let _ = self.flush(handle);
                told.and(Err(malformed(
                    cc,
                    "the name is not that of the public part",
                )))
            }
        }
    }

    /// Keeps a loaded key at a persistent handle.
    pub(crate) fn persist(&mut self, owner: &Entity, key: &Entity, handle: u32) -> Result<()> {
        let cc = TpmCc::EvictControl;
        let parameters = marshal(cc, &[&TpmUint32::new(handle)])?;
        let guard = if self.is_salted() {
            Guard::Authorise
        } else {
            Guard::Password
        };
        self.run(cc, &[owner, key], parameters, guard).map(drop)
    }

    /// The public part of what stands at a handle, or nothing where nothing stands.
    ///
    /// # Errors
    /// Those of the command; it is no P-256 key.
    pub fn read_public(&mut self, handle: u32) -> Result<Option<Public>> {
        let cc = TpmCc::ReadPublic;
        // The name in the command's proof is what we do not know yet, so the answer alone is checked: by its proof.
        if !self.handles(handle)?.contains(&handle) {
            return Ok(None);
        }
        let bare = self.run(cc, &[&Entity::unnamed(handle)], Vec::new(), Guard::Bare)?;
        let public = Public::read(cc, Fields::new(cc, &bare.parameters).sized()?)?;
        if self.is_salted() {
            // Holds only when the TPM has this very key there.
            let entity = Entity::named(handle, public.name());
            self.run(cc, &[&entity], Vec::new(), Guard::Cover)?;
        }
        Ok(Some(public))
    }

    /// Signs a SHA-256 digest.
    ///
    /// # Errors
    /// Those of the command.
    pub fn sign(&mut self, key: &Entity, digest: &[u8; 32]) -> Result<Signature> {
        let cc = TpmCc::Sign;
        // The digest is of bytes from outside, which only an unrestricted key signs: so no ticket.
        let ticket = TpmtTkHashcheck {
            tag: TpmSt::HashCheck,
            hierarchy: TpmRh::Null,
            digest: Tpm2bDigest::default(),
        };
        let fields: [&dyn TpmMarshal; 3] = [
            &sized::<Tpm2bDigest>(cc, digest)?,
            &TpmtSigScheme::default(),
            &ticket,
        ];
        let response = self.run(cc, &[key], marshal(cc, &fields)?, Guard::Authorise)?;
        read_signature(cc, Fields::new(cc, &response.parameters))
    }

    /// Whether `signature` is `key`'s over a SHA-256 digest, by the TPM's own judgement.
    ///
    /// # Errors
    /// Those of the commands; a signature that does not verify is no error.
    pub fn verify(
        &mut self,
        key: &PublicKey,
        digest: &[u8; 32],
        signature: &Signature,
    ) -> Result<bool> {
        let key = self.load_external(key)?;
        match self.with(&key, |tpm, key| tpm.verify_loaded(key, digest, signature)) {
            Ok(_) => Ok(true),
            Err(error) if error.is(ResponseCode::SIGNATURE) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The ticket that says so, as its own bytes.
    pub(crate) fn verify_loaded(
        &mut self,
        key: &Entity,
        digest: &[u8; 32],
        signature: &Signature,
    ) -> Result<Vec<u8>> {
        let cc = TpmCc::VerifySignature;
        let signature = TpmtSignature {
            sig_alg: TpmAlgId::Ecdsa,
            signature: TpmuSignature::Ecdsa(TpmsSignatureEcc {
                hash: TpmAlgId::Sha256,
                signature_r: sized::<Tpm2bEccParameter>(cc, &signature.r)?,
                signature_s: sized::<Tpm2bEccParameter>(cc, &signature.s)?,
            }),
        };
        let parameters = marshal(cc, &[&sized::<Tpm2bDigest>(cc, digest)?, &signature])?;
        let response = self.run(cc, &[key], parameters, Guard::Cover)?;
        Ok(response.parameters)
    }

    /// Random bytes of the TPM's own, 32 of them.
    ///
    /// # Errors
    /// Those of the command; it gave fewer.
    pub fn random(&mut self) -> Result<[u8; 32]> {
        let cc = TpmCc::GetRandom;
        let response = self.run(cc, &[], marshal(cc, &[&TpmUint16::new(32)])?, Guard::Cover)?;
        let bytes = Fields::new(cc, &response.parameters).sized()?;
        bytes
            .try_into()
            .map_err(|_| malformed(cc, "fewer bytes than asked for"))
    }

    /// Changes a hierarchy's authorisation value.
    pub(crate) fn change_auth(&mut self, hierarchy: &Entity, auth: &Secret) -> Result<()> {
        let cc = TpmCc::HierarchyChangeAuth;
        let parameters = marshal(
            cc,
            &[&sized::<tpm2_protocol::data::Tpm2bAuth>(cc, auth.bytes())?],
        )?;
        self.run(cc, &[hierarchy], parameters, Guard::AuthoriseTo(auth))
            .map(drop)
    }
}

fn occupied(handle: u32) -> Error {
    Error::Rule(format!(
        "another key than ours stands at persistent handle {handle:#x}; if nobody needs it, remove it with \
         tpm2_evictcontrol -c {handle:#x}, and run this again"
    ))
}

fn creation(cc: TpmCc, template: &Template, data: &[u8]) -> Result<Vec<u8>> {
    let sensitive = Tpm2bSensitiveCreate {
        inner: TpmsSensitiveCreate {
            user_auth: Default::default(),
            data: sized::<Tpm2bSensitiveData>(cc, data)?,
        },
    };
    let public = Tpm2bPublic {
        inner: template.0.clone(),
    };
    marshal(
        cc,
        &[
            &sensitive,
            &public,
            &Tpm2bData::default(),
            &TpmlPcrSelection::default(),
        ],
    )
}

/// The signature that ends an answer.
pub(crate) fn read_signature(cc: TpmCc, mut fields: Fields<'_>) -> Result<Signature> {
    let (scheme, hash) = (fields.take::<TpmAlgId>()?, fields.take::<TpmAlgId>()?);
    let (r, s) = (fields.sized()?, fields.sized()?);
    fields.end()?;
    Signature::from_numbers(r, s)
        .filter(|_| scheme == TpmAlgId::Ecdsa && hash == TpmAlgId::Sha256)
        .ok_or_else(|| malformed(cc, &format!("a signature by {scheme} with {hash}")))
}

fn loaded_handle(cc: TpmCc, response: &Response) -> Result<u32> {
    response.handle.ok_or_else(|| malformed(cc, "no handle"))
}
