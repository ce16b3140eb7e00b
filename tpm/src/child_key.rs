//! Signing keys of their own below the storage key, kept as text outside the TPM. Driver.
//!
//! Invariant: the text is of use to the TPM that made it alone, and its private part opens nowhere else.

use std::{fmt, time::Duration};

use tpm2_protocol::data::TpmCc;

use crate::{
    device_key::DeviceKey,
    ecdsa::{PublicKey, Signature},
    error::{Error, Result},
    hex,
    keys::Blob,
    public::{Public, Template},
};

/// How long a signature may take, waiting and loading included.
const PATIENCE: Duration = Duration::from_secs(8);

/// A P-256 signing key that is loaded for each signature, so that any number of them needs no room in the TPM.
#[derive(Clone)]
pub struct ChildKey {
    device: DeviceKey,
    blob: Blob,
    public: PublicKey,
}

impl fmt::Debug for ChildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildKey").field(&self.device).finish()
    }
}

impl ChildKey {
    /// Makes one in the TPM that `device` stands for.
    ///
    /// # Errors
    /// Those of the TPM; it is away, busy, late or not provisioned.
    pub fn create(device: &DeviceKey) -> Result<ChildKey> {
        let storage = device.storage()?;
        let blob = device.queue().ask(PATIENCE, move |tpm| {
            tpm.create(&storage, &Template::signing())
        })?;
        ChildKey::new(device, blob)
    }

    /// Takes up one that was made earlier. Whether this TPM takes it shows when it signs.
    ///
    /// # Errors
    /// [`Error::Rule`]: the text is no such key.
    pub fn from_text(device: &DeviceKey, text: &str) -> Result<ChildKey> {
        let part = |line: Option<&str>| line.and_then(hex::decode);
        let mut lines = text.lines();
        let (public, private) = (part(lines.next()), part(lines.next()));
        let (Some(public), Some(private)) = (public, private) else {
            return Err(Error::Rule(
                "this is no key that a TPM keeps: two lines of hexadecimal digits".to_owned(),
            ));
        };
        ChildKey::new(device, Blob { public, private })
    }

    /// The key as two lines of hexadecimal digits: its public part, and its private part as the TPM encrypted it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Blob { public, private } = &self.blob;
        format!("{}\n{}\n", hex::encode(public), hex::encode(private))
    }

    /// Its public part.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a SHA-256 digest with ECDSA.
    ///
    /// # Errors
    /// Those of the TPM; it is another than the one that made the key.
    pub fn sign_p256_sha256(&self, digest: [u8; 32]) -> Result<Signature> {
        let (storage, blob) = (self.device.storage()?, self.blob.clone());
        self.device.queue().ask(PATIENCE, move |tpm| {
            let key = tpm.load(&storage, &blob)?;
            tpm.with(&key, |tpm, key| tpm.sign(key, &digest))
        })
    }

    fn new(device: &DeviceKey, blob: Blob) -> Result<ChildKey> {
        let public = Public::read(TpmCc::Create, &blob.public)?;
        Ok(ChildKey {
            device: device.clone(),
            public: *public.key(),
            blob,
        })
    }
}
