//! The directory that holds the identity's generations, and the calls that change it.
//!
//! A key's file holds the key, or what the TPM made of it, which is of use to that TPM alone. The key
//! that the TPM was provisioned with is generation 0; it has no file.
//!
//! Invariant: every change is made by the calls that `rotation` lists, in their order, and keys are
//! readable by their owner alone. Layer: driver.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::unistd::geteuid;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    pki_types::{CertificateDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{
    DeviceKey, FileKey, TlsKey,
    rotation::{self, CURRENT, Call, Inventory},
    tpm::TpmKey,
};
use crate::{
    config::KeyPlace,
    credentials::{self, CredentialError},
};

/// Longest file that is read here: a certificate with its intermediates.
const FILE_MAX: u64 = 256 << 10;

/// The key that the TPM was provisioned with.
const PROVISIONED: u32 = 0;

/// Where generations with the TPM's keys are, below the directory of those in files: each kind has its
/// own numbers.
const IN_TPM: &str = "tpm";

/// Why the identity cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system says no.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is there and cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// No key could be made.
    #[error("cannot make a key: {0}")]
    Make(#[from] rcgen::Error),
    /// What was to become the certificate is none.
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    /// It is one that TLS does not take.
    #[error("the certificate cannot be used ({0}); is it of X.509 version 3?")]
    Certificate(rustls::Error),
    /// The certificate is another key's.
    #[error("the certificate does not belong to key {0} of this identity")]
    Foreign(u32),
    /// A file that should hold one of the TPM's keys does not.
    #[error("{0} holds no key that a TPM made")]
    NotOfTpm(PathBuf),
    /// The key is in the TPM, and that does not give access to it.
    #[error("the device's key in the TPM cannot be used: {0}")]
    Tpm(#[from] tpm::Error),
}

/// See the module's description; it need not exist yet.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    path: PathBuf,
    /// The TPM whose keys these are; otherwise they are in the files themselves.
    tpm: Option<tpm::DeviceKey>,
}

impl Directory {
    /// With keys in files.
    pub(crate) fn new(path: &Path) -> Directory {
        let path = path.to_owned();
        Directory { path, tpm: None }
    }

    /// With keys that this TPM makes and uses.
    pub(crate) fn in_tpm(path: &Path, tpm: tpm::DeviceKey) -> Directory {
        Directory {
            path: path.join(IN_TPM),
            tpm: Some(tpm),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the private keys are.
    pub(crate) fn place(&self) -> KeyPlace {
        match self.tpm {
            Some(_) => KeyPlace::Tpm,
            None => KeyPlace::File,
        }
    }

    /// What stands in it; nothing where there is none.
    pub(crate) fn inventory(&self) -> Result<Inventory, IdentityError> {
        let mut inventory = Inventory::default();
        if self.tpm.is_some() {
            inventory.keys.insert(PROVISIONED);
            let certificate = self.certificate_path(PROVISIONED);
            if certificate.exists() {
                inventory.certificates.insert(PROVISIONED);
            }
        }
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(inventory),
            entries => entries.map_err(|error| self.failed("read", "", error))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| self.failed("read", "", error))?;
            if let Some(name) = entry.file_name().to_str() {
                rotation::note(&mut inventory, name);
            }
        }
        match self.read(CURRENT) {
            Ok(text) => inventory.current = text.trim().parse().ok(),
            Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            }
            Err(error) => return Err(error),
        }
        Ok(inventory)
    }

    /// Makes a generation's key; refused when there is one.
    pub(crate) fn make_key(&self, generation: u32) -> Result<(), IdentityError> {
        let key = match &self.tpm {
            Some(tpm) => tpm.make_key()?.to_json(),
            None => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem(),
        };
        self.prepare()?;
        let name = rotation::key_name(generation);
        self.make(&rotation::add(&name), key.as_bytes())
    }

    /// Takes a certificate with its intermediates for a generation, if it belongs to its key.
    pub(crate) fn put_certificate(&self, generation: u32, pem: &str) -> Result<(), IdentityError> {
        let key = Arc::new(TlsKey::new(self.key(generation)?));
        let certified = CertifiedKey::new(chain(pem)?, key);
        belongs(&certified, generation)?;
        self.prepare()?;
        let name = rotation::certificate_name(generation);
        self.make(&rotation::replace(&name), pem.as_bytes())
    }

    /// Makes a generation the one in use, and takes away those no longer needed.
    pub(crate) fn commit(&self, generation: u32) -> Result<(), IdentityError> {
        let text = format!("{generation}\n");
        self.make(&rotation::replace(CURRENT), text.as_bytes())?;
        for old in self.inventory()?.superfluous() {
            self.make(&rotation::evict(old), &[])?;
        }
        Ok(())
    }

    /// Takes a generation away that no upstream let in.
    pub(crate) fn abandon(&self, generation: u32) -> Result<(), IdentityError> {
        self.make(&rotation::evict(generation), &[])
    }

    /// A generation's key.
    pub(crate) fn key(&self, generation: u32) -> Result<Arc<dyn DeviceKey>, IdentityError> {
        let path = self.key_path(generation);
        Ok(match &self.tpm {
            None => Arc::new(FileKey::read(&path)?),
            Some(tpm) if generation == PROVISIONED => Arc::new(TpmKey::provisioned(tpm)?),
            Some(tpm) => {
                let text = credentials::private_file(&path)?;
                Arc::new(TpmKey::made(tpm, &text).ok_or(IdentityError::NotOfTpm(path))?)
            }
        })
    }

    /// What the TPM says about a generation's key, bound to a request (PKCS#10, DER) for its certificate;
    /// nothing where keys are in files.
    pub(crate) fn evidence(
        &self,
        generation: u32,
        request: &[u8],
    ) -> Result<Option<tpm::Evidence>, IdentityError> {
        let Some(tpm) = &self.tpm else {
            return Ok(None);
        };
        let blob = match self.key_file(generation) {
            None => None,
            Some(path) => {
                let text = fs::read_to_string(&path)
                    .map_err(|error| self.failed("read", &rotation::key_name(generation), error))?;
                Some(tpm::Blob::from_json(&text).ok_or(IdentityError::NotOfTpm(path))?)
            }
        };
        Ok(Some(tpm.evidence(blob, request)?))
    }

    /// A generation's certificate and key for TLS, checked for each other.
    pub(crate) fn certified(&self, generation: u32) -> Result<CertifiedKey, IdentityError> {
        let path = self.certificate_path(generation);
        let chain = credentials::certificates("certificate", &path)?;
        let certified = CertifiedKey::new(chain, Arc::new(TlsKey::new(self.key(generation)?)));
        belongs(&certified, generation)?;
        Ok(certified)
    }

    /// A key's file, where it has one.
    pub(crate) fn key_file(&self, generation: u32) -> Option<PathBuf> {
        let has_file = self.tpm.is_none() || generation != PROVISIONED;
        has_file.then(|| self.key_path(generation))
    }

    pub(crate) fn key_path(&self, generation: u32) -> PathBuf {
        self.path.join(rotation::key_name(generation))
    }

    pub(crate) fn certificate_path(&self, generation: u32) -> PathBuf {
        self.path.join(rotation::certificate_name(generation))
    }

    fn prepare(&self) -> Result<(), IdentityError> {
        let mut builder = DirBuilder::new();
        if self.path.exists() {
            return Ok(());
        }
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .and_then(|()| own_as_neighbours(&self.path))
            .map_err(|error| self.failed("create", "", error))
    }

    fn read(&self, name: &str) -> Result<String, IdentityError> {
        let mut text = String::new();
        File::open(self.path.join(name))
            .and_then(|file| file.take(FILE_MAX).read_to_string(&mut text))
            .map_err(|error| self.failed("read", name, error))?;
        Ok(text)
    }

    fn make(&self, calls: &[Call], content: &[u8]) -> Result<(), IdentityError> {
        calls.iter().try_for_each(|call| self.call(call, content))
    }

    fn call(&self, call: &Call, content: &[u8]) -> Result<(), IdentityError> {
        let at = |name: &str| self.path.join(name);
        let (what, name, done) = match call {
            Call::Write(name) => ("write", name.as_str(), write(&at(name), content)),
            Call::Sync(name) => {
                let synced = File::open(at(name)).and_then(|file| file.sync_all());
                ("sync", name.as_str(), synced)
            }
            Call::Rename(from, to) => ("put", to.as_str(), fs::rename(at(from), at(to))),
            Call::Link(from, to) => ("add", to.as_str(), fs::hard_link(at(from), at(to))),
            Call::Remove(name) => ("remove", name.as_str(), remove(&at(name))),
            Call::SyncDirectory => {
                let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
                ("sync", "", synced)
            }
        };
        done.map_err(|error| self.failed(what, name, error))
    }

    fn failed(&self, what: &'static str, name: &str, source: io::Error) -> IdentityError {
        let path = match name {
            "" => self.path.clone(),
            name => self.path.join(name),
        };
        IdentityError::File { what, path, source }
    }
}

/// A certificate with its intermediates.
fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    chain.ok_or(IdentityError::NoCertificate)
}

/// Whether a certificate is its key's.
fn belongs(certified: &CertifiedKey, generation: u32) -> Result<(), IdentityError> {
    certified.keys_match().map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => IdentityError::Foreign(generation),
        error => IdentityError::Certificate(error),
    })
}

/// For its owner alone; what an interrupted attempt left is replaced.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    remove(path)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    own_as_neighbours(path)
}

/// What root writes here belongs to whom the directory belongs: the service's user.
fn own_as_neighbours(path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let above = path.parent().map(fs::metadata).transpose()?;
    above.map_or(Ok(()), |above| {
        chown(path, Some(above.uid()), Some(above.gid()))
    })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::CertificateParams;

    use super::*;
    use crate::identity::rotation::Next;

    fn certificate(directory: &Directory, generation: u32) -> String {
        let text = fs::read_to_string(directory.key_path(generation)).unwrap();
        let key = KeyPair::from_pem(&text).unwrap();
        let params = CertificateParams::new(["gw".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn an_identity_is_made_step_by_step_and_its_key_never_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(&place.path().join("identity"));
        assert_eq!(directory.inventory().unwrap().next(), Next::MakeKey(1));
        directory.make_key(1).unwrap();
        let key = fs::read(directory.key_path(1)).unwrap();
        assert!(directory.make_key(1).is_err());
        assert_eq!(fs::read(directory.key_path(1)).unwrap(), key);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory.key_path(1)), 0o600);
        assert_eq!(mode(&place.path().join("identity")), 0o700);

        let pem = certificate(&directory, 1);
        directory.put_certificate(1, &pem).unwrap();
        directory.certified(1).unwrap();
        directory.commit(1).unwrap();
        assert_eq!(directory.inventory().unwrap().current, Some(1));

        directory.make_key(2).unwrap();
        let foreign = directory.put_certificate(2, &pem).unwrap_err();
        assert!(matches!(foreign, IdentityError::Foreign(2)), "{foreign}");
        let none = directory.put_certificate(2, "nothing").unwrap_err();
        assert!(matches!(none, IdentityError::NoCertificate), "{none}");
        assert_eq!(directory.inventory().unwrap().next(), Next::Enrol(2));
    }

    #[test]
    fn the_generation_before_the_one_in_use_is_kept_and_older_ones_go() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(place.path());
        for generation in 1..=3 {
            directory.make_key(generation).unwrap();
            let pem = certificate(&directory, generation);
            directory.put_certificate(generation, &pem).unwrap();
            directory.commit(generation).unwrap();
        }
        let inventory = directory.inventory().unwrap();
        assert_eq!(inventory.keys, [2, 3].into());
        assert_eq!(inventory.certificates, [2, 3].into());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 5);
    }
}
