//! Certificates, keys and trust anchors from PEM files, for links and buses that speak TLS. Driver.
//!
//! Invariant: a key that others may read is not used, and certificates are judged by a clock that
//! is never before what is known to have passed.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rustls::{
    RootCertStore,
    client::ResolvesClientCert,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};

use crate::clock;

/// Why a file of credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file system says no.
    #[error("cannot read {what} {path}: {source}")]
    Read {
        /// What the file is.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path} holds no {what} in PEM: {source}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file holds none of what it should.
    #[error("{path} holds no {what} in PEM")]
    Empty {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Everyone on the machine may read the key.
    #[error("the key {path} can be read by every user of this machine; run: chmod o-rwx {path}")]
    WorldReadable {
        /// The key.
        path: PathBuf,
    },
    /// The key is not the certificate's.
    #[error("the key {key} does not belong to the certificate {certificate}: {source}")]
    Mismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The key is of another kind.
    #[error("{path} holds no P-256 key in PKCS#8: {why}")]
    Kind {
        /// The key.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The trust anchors cannot be used.
    #[error("the trust anchors in {path} cannot be used: {source}")]
    Anchors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CredentialError {
    /// Anchors that rustls does not take.
    pub(crate) fn anchors(
        path: &Path,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CredentialError {
        CredentialError::Anchors {
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// The gateway's certificate chain and key, checked for each other.
pub(crate) fn identity(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<dyn ResolvesClientCert>, CredentialError> {
    let certified = certified(certificate, key, provider)?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

/// The same, before it is offered to anybody.
pub(crate) fn certified(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CredentialError> {
    let chain = certificates("certificate", certificate)?;
    let secret = private_key(key)?;
    let mismatch = |source| CredentialError::Mismatch {
        key: key.to_owned(),
        certificate: certificate.to_owned(),
        source,
    };
    CertifiedKey::from_der(chain, secret, provider).map_err(mismatch)
}

pub(crate) fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let text = read(what, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|source| CredentialError::Pem {
            what: "certificate",
            path: path.to_owned(),
            source,
        })?;
    if found.is_empty() {
        let path = path.to_owned();
        return Err(CredentialError::Empty {
            what: "certificate",
            path,
        });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialError> {
    let text = private_file(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| CredentialError::Pem {
        what: "private key",
        path: path.to_owned(),
        source,
    })
}

/// The text of a key that only its owner and group may read.
pub(crate) fn private_file(path: &Path) -> Result<Vec<u8>, CredentialError> {
    let text = read("key", path)?;
    let found = fs::metadata(path).map_err(|source| CredentialError::Read {
        what: "key",
        path: path.to_owned(),
        source,
    })?;
    // The group may: that is how a service user shares a key with those who renew it.
    if found.permissions().mode() & 0o007 != 0 {
        let path = path.to_owned();
        return Err(CredentialError::WorldReadable { path });
    }
    Ok(text)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, CredentialError> {
    fs::read(path).map_err(|source| CredentialError::Read {
        what,
        path: path.to_owned(),
        source,
    })
}

/// The trust anchors in a file.
pub(crate) fn anchors(path: &Path) -> Result<RootCertStore, CredentialError> {
    let mut anchors = RootCertStore::empty();
    for anchor in certificates("ca", path)? {
        anchors
            .add(anchor)
            .map_err(|error| CredentialError::anchors(path, error))?;
    }
    Ok(anchors)
}

/// The wall clock, but never before what is known to have passed.
#[derive(Debug)]
pub(crate) struct FlooredClock(Timestamp);

impl FlooredClock {
    /// Never before `floor`, nor before this program was built.
    pub(crate) fn not_before(floor: Timestamp) -> FlooredClock {
        FlooredClock(floor)
    }
}

impl TimeProvider for FlooredClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = time_not_before(self.0);
        let since = Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// The wall clock, but never before `floor`, nor before this program was built.
pub(crate) fn time_not_before(floor: Timestamp) -> Timestamp {
    clock::now().wall.max(floor).max(built_at())
}

/// When this program was built; 1970 where the build did not know.
pub(crate) fn built_at() -> Timestamp {
    let built = env!("BUILT_AT_S").parse().unwrap_or(0);
    Timestamp::from_second(built).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_tls_is_never_before_what_has_passed() {
        let seconds = |floor: Timestamp| {
            let time = FlooredClock(floor).current_time().unwrap();
            time.as_secs() as i64
        };
        let now = clock::now().wall;
        assert!(seconds(Timestamp::UNIX_EPOCH) >= now.as_second());
        let later = Timestamp::from_second(now.as_second() + 86_400).unwrap();
        assert_eq!(seconds(later), later.as_second());
        assert!(built_at() > "2025-01-01T00:00:00Z".parse().unwrap());
    }
}
