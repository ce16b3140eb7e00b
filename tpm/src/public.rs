//! The public parts of the keys that we make, and what is read of one. Value.
//!
//! Invariant: a key that fits a template differs from it in its point alone.

use tpm2_protocol::{
    basic::TpmUint16,
    data::{
        Tpm2bDigest, Tpm2bEccParameter, TpmAlgId, TpmCc, TpmEccCurve, TpmaObject, TpmsEccParms,
        TpmsEccPoint, TpmsKeyedhashParms, TpmsSchemeHash, TpmtEccScheme, TpmtKdfScheme, TpmtPublic,
        TpmtSymDef, TpmuAsymScheme, TpmuPublicId, TpmuPublicParms, TpmuSymKeyBits, TpmuSymMode,
    },
};

use crate::{
    crypt::DIGEST,
    ecdsa::PublicKey,
    entity::{Name, name_of},
    error::{Error, Result},
    wire::{Fields, malformed, marshal, sized},
};

/// Bytes of an empty point behind everything else of a template: two lengths.
const EMPTY_POINT: usize = 4;

/// AES-128 in CFB mode, for storage keys and sessions alike.
pub(crate) fn aes128_cfb() -> TpmtSymDef {
    TpmtSymDef {
        algorithm: TpmAlgId::Aes,
        key_bits: TpmuSymKeyBits::Aes(TpmUint16::new(128)),
        mode: TpmuSymMode::Aes(TpmAlgId::Cfb),
    }
}

/// What all keys have in common that never leave the TPM.
const NEVER_LEAVES: u32 = TpmaObject::FIXED_TPM.bits()
    | TpmaObject::FIXED_PARENT.bits()
    | TpmaObject::SENSITIVE_DATA_ORIGIN.bits()
    | TpmaObject::USER_WITH_AUTH.bits()
    | TpmaObject::NO_DA.bits();

/// A public area without its point, as the TPM is asked to make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub(crate) TpmtPublic);

impl Template {
    /// A key that protects others and receives secrets; lockouts do not concern it.
    #[must_use]
    pub fn storage() -> Template {
        let use_bits = TpmaObject::RESTRICTED.bits() | TpmaObject::DECRYPT.bits();
        ecc(
            NEVER_LEAVES | use_bits,
            aes128_cfb(),
            TpmtEccScheme::default(),
        )
    }

    /// A key that signs digests with ECDSA and SHA-256; lockouts do not concern it.
    #[must_use]
    pub fn signing() -> Template {
        let scheme = TpmtEccScheme {
            scheme: TpmAlgId::Ecdsa,
            details: TpmuAsymScheme::Hash(TpmsSchemeHash {
                hash_alg: TpmAlgId::Sha256,
            }),
        };
        ecc(
            NEVER_LEAVES | TpmaObject::SIGN_ENCRYPT.bits(),
            TpmtSymDef::default(),
            scheme,
        )
    }

    /// A key that signs only what the TPM itself says, with ECDSA and SHA-256; lockouts do not concern it.
    #[must_use]
    pub fn attestation() -> Template {
        let mut template = Template::signing();
        template.0.object_attributes = TpmaObject::from_bits_truncate(
            NEVER_LEAVES | TpmaObject::SIGN_ENCRYPT.bits() | TpmaObject::RESTRICTED.bits(),
        );
        template
    }

    /// A key of which only the public part is known, to verify signatures with.
    pub(crate) fn external(key: &PublicKey) -> Result<Template> {
        let bits = TpmaObject::SIGN_ENCRYPT.bits() | TpmaObject::USER_WITH_AUTH.bits();
        let mut template = ecc(bits, TpmtSymDef::default(), TpmtEccScheme::default());
        template.0.unique = TpmuPublicId::Ecc(point(TpmCc::LoadExternal, key)?);
        Ok(template)
    }

    /// Bytes that come out again only under `policy`.
    pub(crate) fn sealed(policy: &[u8; DIGEST]) -> Result<Template> {
        let bits = TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT | TpmaObject::NO_DA;
        Ok(Template(TpmtPublic {
            object_type: TpmAlgId::KeyedHash,
            name_alg: TpmAlgId::Sha256,
            object_attributes: bits,
            auth_policy: sized::<Tpm2bDigest>(TpmCc::Create, policy)?,
            parameters: TpmuPublicParms::KeyedHash(TpmsKeyedhashParms::default()),
            unique: TpmuPublicId::KeyedHash(Tpm2bDigest::default()),
        }))
    }

    /// The public area's bytes.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        marshal(TpmCc::Create, &[&self.0])
    }

    /// Whether `public` is of a key made from this template.
    ///
    /// # Errors
    /// None in practice: the template cannot be written down.
    pub fn fits(&self, public: &Public) -> Result<bool> {
        let template = self.bytes()?;
        Ok(public
            .bytes
            .starts_with(&template[..template.len() - EMPTY_POINT]))
    }
}

fn ecc(bits: u32, symmetric: TpmtSymDef, scheme: TpmtEccScheme) -> Template {
    Template(TpmtPublic {
        object_type: TpmAlgId::Ecc,
        name_alg: TpmAlgId::Sha256,
        object_attributes: TpmaObject::from_bits_truncate(bits),
        auth_policy: Tpm2bDigest::default(),
        parameters: TpmuPublicParms::Ecc(TpmsEccParms {
            symmetric,
            scheme,
            curve_id: TpmEccCurve::NistP256,
            kdf: TpmtKdfScheme::default(),
        }),
        unique: TpmuPublicId::Ecc(TpmsEccPoint::default()),
    })
}

/// A point as the TPM writes it.
pub(crate) fn point(cc: TpmCc, key: &PublicKey) -> Result<TpmsEccPoint> {
    Ok(TpmsEccPoint {
        x: sized::<Tpm2bEccParameter>(cc, key.x())?,
        y: sized::<Tpm2bEccParameter>(cc, key.y())?,
    })
}

/// The name that the TPM gives to `key` when it is loaded to verify signatures.
///
/// # Errors
/// None in practice: the public area cannot be written down.
pub fn external_name(key: &PublicKey) -> Result<Name> {
    Ok(name_of(&Template::external(key)?.bytes()?))
}

/// The public part of a P-256 key in the TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    bytes: Vec<u8>,
    key: PublicKey,
}

impl Public {
    /// Reads a public area.
    ///
    /// # Errors
    /// [`Error::Malformed`], also for a key that is not of P-256.
    pub(crate) fn read(cc: TpmCc, bytes: &[u8]) -> Result<Public> {
        let mut fields = Fields::new(cc, bytes);
        let object_type = fields.take::<TpmAlgId>()?;
        let name_alg = fields.take::<TpmAlgId>()?;
        if object_type != TpmAlgId::Ecc || name_alg != TpmAlgId::Sha256 {
            return Err(malformed(
                cc,
                &format!("the key is of type {object_type} named by {name_alg}"),
            ));
        }
        fields.u32()?;
        fields.sized()?;
        fields.raw::<TpmtSymDef>()?;
        fields.raw::<TpmtEccScheme>()?;
        let curve = fields.take::<TpmEccCurve>()?;
        fields.raw::<TpmtKdfScheme>()?;
        let (x, y) = (fields.sized()?, fields.sized()?);
        fields.end()?;
        let key = PublicKey::from_coordinates(x, y)
            .filter(|_| curve == TpmEccCurve::NistP256)
            .ok_or_else(|| malformed(cc, &format!("the key is on curve {curve}")))?;
        Ok(Public {
            bytes: bytes.to_vec(),
            key,
        })
    }

    /// The name, computed here.
    #[must_use]
    pub fn name(&self) -> Name {
        name_of(&self.bytes)
    }

    /// The public area (TPMT_PUBLIC).
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// Refuses a key whose name is not the recorded one.
pub(crate) fn expect_name(what: &str, recorded: &[u8], found: &[u8]) -> Result<()> {
    match recorded == found {
        true => Ok(()),
        false => Err(Error::Exchanged {
            what: what.to_owned(),
            recorded: short(recorded),
            found: short(found),
        }),
    }
}

/// The first digits of a name's digest, to compare by eye.
#[must_use]
pub fn short(name: &[u8]) -> String {
    let digest = name.get(2..10).unwrap_or(name);
    format!("{}…", crate::hex::encode(digest))
}
