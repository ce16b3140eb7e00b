//! The device's signing key as others use it. Driver.
//!
//! Invariant: signatures come from the recorded key or not at all.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    address::Address,
    device::Tpm,
    ecdsa::{PublicKey, Signature},
    entity::Entity,
    error::{Error, Result},
    evidence::Evidence,
    keys::Blob,
    provision::Keys,
    public::Template,
    queue::{Queue, State},
};

/// How long a signature may take, waiting included. A handshake ends later.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a key's making may take, waiting included: chips search for random numbers.
const PATIENCE_TO_MAKE: Duration = Duration::from_secs(75);

/// The device's signing key behind the queue to the TPM; clones share it.
#[derive(Clone)]
pub struct DeviceKey {
    queue: Queue,
    keys: Arc<Mutex<Option<Keys>>>,
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.state()).finish()
    }
}

impl DeviceKey {
    /// Starts the owner of the provisioned TPM at `address`. A TPM that is away is no error: it is opened when it comes.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(address: Address, directory: PathBuf) -> io::Result<DeviceKey> {
        let keys = Arc::new(Mutex::new(None));
        let found = Arc::clone(&keys);
        let queue = Queue::start(Box::new(move || {
            let (tpm, opened) = Tpm::open_provisioned(&address, &directory)?;
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
            Ok(tpm)
        }))?;
        Ok(DeviceKey { queue, keys })
    }

    /// How the TPM is.
    #[must_use]
    pub fn state(&self) -> State {
        self.queue.state()
    }

    /// The way to the TPM, for what else is asked of it.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The public key, once the TPM was opened for the first time; waits for that.
    ///
    /// # Errors
    /// The TPM is away.
    pub fn public_key(&self) -> Result<PublicKey> {
        self.keys().map(|keys| keys.public)
    }

    /// The parent of keys that the device makes later.
    ///
    /// # Errors
    /// The TPM is away.
    pub fn storage(&self) -> Result<Entity> {
        self.keys().map(|keys| keys.storage)
    }

    /// Signs a SHA-256 digest with ECDSA.
    ///
    /// # Errors
    /// Those of the TPM; it is away, busy or late.
    pub fn sign_p256_sha256(&self, digest: [u8; 32]) -> Result<Signature> {
        let signing: Entity = self.keys()?.signing;
        self.queue
            .ask(PATIENCE, move |tpm| tpm.sign(&signing, &digest))
    }

    /// Makes another signing key below the storage key. It stays outside as a blob that this TPM alone can use: removing that
    /// removes the key.
    ///
    /// # Errors
    /// Those of the TPM; it is away, busy or late.
    pub fn make_key(&self) -> Result<Blob> {
        self.ask(PATIENCE_TO_MAKE, |tpm, keys| {
            tpm.create(&keys.storage, &Template::signing())
        })
    }

    /// Signs a SHA-256 digest with such a key, which is loaded for it.
    ///
    /// # Errors
    /// Those of the TPM; the blob is another TPM's; it is away, busy or late.
    pub fn sign_with(&self, blob: &Blob, digest: [u8; 32]) -> Result<Signature> {
        let blob = blob.clone();
        self.ask(PATIENCE, move |tpm, keys| {
            let key = tpm.load(&keys.storage, &blob)?;
            tpm.with(&key, |tpm, key| tpm.sign(key, &digest))
        })
    }

    /// What the TPM says about a key made so, or about the one that it was provisioned with, bound to a certificate request
    /// in DER.
    ///
    /// # Errors
    /// Those of the TPM; it is away, busy or late.
    pub fn evidence(&self, blob: Option<Blob>, request: &[u8]) -> Result<Evidence> {
        let request = request.to_vec();
        self.ask(PATIENCE_TO_MAKE, move |tpm, keys| match blob {
            None => tpm.evidence(keys, &keys.signing, &request),
            Some(blob) => {
                let key = tpm.load(&keys.storage, &blob)?;
                tpm.with(&key, |tpm, key| tpm.evidence(keys, key, &request))
            }
        })
    }

    /// Does something with the TPM and the keys that were provisioned in it, and waits for what comes of it.
    ///
    /// # Errors
    /// Those of `act`; the TPM is away, busy or late.
    pub fn ask<T, F>(&self, patience: Duration, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tpm, &Keys) -> Result<T> + Send + 'static,
    {
        let keys = Arc::clone(&self.keys);
        self.queue.ask(patience, move |tpm| {
            // Opening comes before the first request.
            let opened = keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match opened {
                Some(keys) => act(tpm, &keys),
                None => Err(not_opened()),
            }
        })
    }

    fn keys(&self) -> Result<Keys> {
        if let Some(keys) = self.known() {
            return Ok(keys);
        }
        // Opening comes before the first request.
        self.queue.ask(PATIENCE, |_| Ok(()))?;
        self.known().ok_or_else(not_opened)
    }

    fn known(&self) -> Option<Keys> {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn not_opened() -> Error {
    Error::Away {
        reason: "not opened yet".to_owned(),
    }
}
