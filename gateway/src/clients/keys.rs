//! Where the authority's keys are: in the TPM below its storage key, or in files. Driver.
//!
//! Invariant: with a TPM configured no key is ever made in a file; a key is made once, and one that a
//! power cut left unused is taken up.

use std::sync::Arc;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use tpm::DeviceKey as Tpm;

use super::{
    OfficeError,
    directory::{Directory, Lock, SERVER_KEY},
    registry::Generation,
};
use crate::{
    config::KeyPlace,
    identity::{DeviceKey, FileKey, POINT_BYTES, SignError},
};

/// The authority's keys.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    directory: Directory,
    tpm: Option<Tpm>,
}

impl Keys {
    pub(crate) fn new(directory: Directory, tpm: Option<Tpm>) -> Keys {
        Keys { directory, tpm }
    }

    /// Where a new key would be.
    pub(crate) fn place(&self) -> KeyPlace {
        match self.tpm {
            Some(_) => KeyPlace::Tpm,
            None => KeyPlace::File,
        }
    }

    /// The key of a generation that is about to be, made if need be.
    pub(crate) fn prepare(
        &self,
        number: u32,
        lock: &Lock,
    ) -> Result<Arc<dyn DeviceKey>, OfficeError> {
        let place = self.place();
        let name = file_name(number, place);
        if self.directory.read(&name)?.is_none() {
            let text = match &self.tpm {
                Some(tpm) => tpm::ChildKey::create(tpm)?.to_text(),
                None => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem(),
            };
            self.directory.put_secret(&name, &text, lock)?;
        }
        self.open(number, place)
    }

    /// The key of a generation.
    pub(crate) fn of(&self, generation: &Generation) -> Result<Arc<dyn DeviceKey>, OfficeError> {
        self.open(generation.number, generation.key)
    }

    /// Takes the key of a generation away that has ended.
    pub(crate) fn forget(&self, number: u32, lock: &Lock) -> Result<(), OfficeError> {
        for place in [KeyPlace::File, KeyPlace::Tpm] {
            self.directory.remove(&file_name(number, place), lock)?;
        }
        Ok(())
    }

    /// The key of the broker's listeners, and whether it was made just now.
    pub(crate) fn server(&self, lock: &Lock) -> Result<(KeyPair, bool), OfficeError> {
        if let Some(text) = self.directory.read(SERVER_KEY)? {
            return Ok((KeyPair::from_pem(&text)?, false));
        }
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        self.directory
            .put_secret(SERVER_KEY, &pair.serialize_pem(), lock)?;
        Ok((pair, true))
    }

    fn open(&self, number: u32, place: KeyPlace) -> Result<Arc<dyn DeviceKey>, OfficeError> {
        let name = file_name(number, place);
        if place == KeyPlace::File {
            return Ok(Arc::new(FileKey::read(&self.directory.file(&name))?));
        }
        let tpm = self.tpm.as_ref().ok_or(OfficeError::NoTpm)?;
        let text = self.directory.read(&name)?.unwrap_or_default();
        let key = tpm::ChildKey::from_text(tpm, &text)?;
        Ok(Arc::new(InTpm {
            point: *key.public_key().sec1(),
            key,
        }))
    }
}

fn file_name(number: u32, place: KeyPlace) -> String {
    match place {
        KeyPlace::File => format!("ca-{number}.key"),
        KeyPlace::Tpm => format!("ca-{number}.tpm"),
    }
}

/// The authority's key in the TPM as everything else sees a key.
#[derive(Debug)]
struct InTpm {
    point: [u8; POINT_BYTES],
    key: tpm::ChildKey,
}

impl DeviceKey for InTpm {
    fn public_key(&self) -> [u8; POINT_BYTES] {
        self.point
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.key.sign_p256_sha256(tpm::sha256(&[message]));
        let signature = signature.map_err(|error| SignError(error.to_string()))?;
        Ok(signature.der())
    }
}
