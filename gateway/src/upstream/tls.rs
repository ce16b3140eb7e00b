//! The link's TLS configuration from what its files hold now.
//!
//! Invariant: files that were replaced count at the next connection, sessions are resumed only
//! under the identity that began them, and a key that others may read is not used. Layer: driver.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use jiff::Timestamp;
use ring::digest;
use rustls::{
    ClientConfig,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, ring as provider},
    pki_types::{ServerName, UnixTime},
    sign::SingleCertAndKey,
    time_provider::TimeProvider,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{candidate::Fingerprint, cause::Cause};
use crate::{
    clock,
    config::{self, KeyPlace},
    credentials::{self, CredentialError, FlooredClock},
    identity::{Directory, IdentityError},
};

/// Why our side of TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No trust anchors are named.
    #[error(
        "[upstream] ca is missing; mqtts needs the file of the certificate authority that signed the server's certificate"
    )]
    NoAnchors,
    /// One without the other.
    #[error("[upstream] certificate and key belong together; only one of them is set")]
    HalfIdentity,
    /// The files cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The identity of `[identity]` cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is none yet.
    #[error(
        "there is no certificate in {0} yet; `gateway identity csr` and `enrol` get one, as does [identity] renew"
    )]
    NotEnrolled(PathBuf),
    /// The TPM was not there when the process began.
    #[error(
        "identity = \"tpm\" needs the [tpm] table, which takes effect at the next start of the gateway"
    )]
    NoTpm,
    /// The name cannot be that of a server.
    #[error("[upstream] server_name = {0:?} is no host name and no address")]
    ServerName(String),
    /// rustls says no.
    #[error("cannot set TLS up: {0}")]
    Rustls(#[from] rustls::Error),
}

impl TlsError {
    /// Why there is no link, then.
    pub(super) fn cause(&self) -> Cause {
        match self {
            TlsError::Identity(IdentityError::Tpm(_)) => Cause::DeviceKey(self.to_string()),
            _ => Cause::Credentials(self.to_string()),
        }
    }
}

/// The one in use and a new one.
const OFFERS: usize = 2;
/// Servers of which a session is remembered: the endpoints of a list.
const SESSIONS: usize = 8;

/// What is offered to an upstream.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) fingerprint: Fingerprint,
    /// The generation of `[identity]`, where that is what is offered.
    pub(crate) generation: Option<u32>,
    pub(crate) config: Arc<ClientConfig>,
    /// The end of our certificate; `None` without one.
    pub(crate) ends: Option<Timestamp>,
}

/// Where our certificate and key come from.
#[derive(Debug)]
enum Source {
    Nobody,
    Files { certificate: PathBuf, key: PathBuf },
    Half,
    Directory(Directory),
    NoTpm,
}

/// Where offers come from.
#[derive(Debug)]
pub(crate) struct Tls {
    ca: Option<PathBuf>,
    server_name: Option<String>,
    source: Source,
    floor: Arc<Floor>,
    /// The last offers: as long as their files do not change, their sessions can be resumed.
    last: Mutex<VecDeque<Offer>>,
}

impl Tls {
    /// `tpm` is the TPM's signing key, where there is one.
    pub(crate) fn new(
        upstream: &config::Upstream,
        identity: &config::Identity,
        tpm: Option<&tpm::DeviceKey>,
    ) -> Tls {
        let source = match (&upstream.identity, &upstream.certificate, &upstream.key) {
            (Some(KeyPlace::File), None, None) => {
                Source::Directory(Directory::new(&identity.directory))
            }
            (Some(KeyPlace::Tpm), None, None) => match tpm {
                Some(tpm) => Source::Directory(Directory::in_tpm(&identity.directory, tpm.clone())),
                None => Source::NoTpm,
            },
            (None, Some(certificate), Some(key)) => Source::Files {
                certificate: certificate.clone(),
                key: key.clone(),
            },
            (None, None, None) => Source::Nobody,
            _ => Source::Half,
        };
        Tls {
            ca: upstream.ca.clone(),
            server_name: upstream.server_name.clone(),
            source,
            floor: Arc::default(),
            last: Mutex::default(),
        }
    }

    /// TLS 1.2 and 1.3 with the configured anchors and the newest identity, as their files are now.
    /// It reads them, so it blocks.
    ///
    /// `floor` is a moment that has passed: a board without a clock of its own starts in 1970, where
    /// every certificate would be one of the future.
    pub(crate) fn newest(&self, floor: Timestamp) -> Result<Offer, TlsError> {
        let generation = match &self.source {
            Source::Directory(directory) => {
                let inventory = directory.inventory()?;
                let newest = inventory.candidate().or(inventory.in_use());
                let none = || TlsError::NotEnrolled(directory.path().to_owned());
                Some(newest.ok_or_else(none)?)
            }
            _ => None,
        };
        self.offer(generation, floor)
    }

    /// Where the key is that signs.
    pub(crate) fn key_place(&self) -> KeyPlace {
        match &self.source {
            Source::Directory(directory) => directory.place(),
            Source::NoTpm => KeyPlace::Tpm,
            Source::Nobody | Source::Files { .. } | Source::Half => KeyPlace::File,
        }
    }

    /// What was in use when the process began, if that is another one than `newest`.
    pub(crate) fn in_use_before(&self, newest: &Offer, floor: Timestamp) -> Option<Offer> {
        let Source::Directory(directory) = &self.source else {
            return None;
        };
        let in_use = directory.inventory().ok()?.in_use()?;
        (newest.generation != Some(in_use))
            .then(|| self.offer(Some(in_use), floor).ok())
            .flatten()
    }

    /// Notes that an upstream has let `offer` in.
    pub(crate) fn commit(&self, offer: &Offer) -> Result<(), IdentityError> {
        let (Source::Directory(directory), Some(generation)) = (&self.source, offer.generation)
        else {
            return Ok(());
        };
        if directory.inventory()?.current == Some(generation) {
            return Ok(());
        }
        directory.commit(generation)
    }

    /// The next offers resume nothing: an upstream that ended a handshake may have done so over the
    /// session that it was to resume.
    pub(crate) fn forget(&self) {
        self.last().clear();
    }

    fn offer(&self, generation: Option<u32>, floor: Timestamp) -> Result<Offer, TlsError> {
        self.floor.0.store(floor.as_second(), Ordering::Relaxed);
        let fingerprint = self.fingerprint(generation)?;
        let mut last = self.last();
        if let Some(known) = last.iter().find(|known| known.fingerprint == fingerprint) {
            return Ok(known.clone());
        }
        let (config, ends) = self.build(generation)?;
        let offer = Offer {
            fingerprint,
            generation,
            config: Arc::new(config),
            ends,
        };
        last.truncate(OFFERS - 1);
        last.push_front(offer.clone());
        Ok(offer)
    }

    fn last(&self) -> MutexGuard<'_, VecDeque<Offer>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server's certificate must bear, and its host is told (RFC 6066, 3).
    pub(crate) fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let parsed = ServerName::try_from(name.to_owned());
        parsed.map_err(|_| TlsError::ServerName(name.to_owned()))
    }

    /// The certificate's file, and the key's where it is one.
    fn files(
        &self,
        generation: Option<u32>,
    ) -> Result<Option<(PathBuf, Option<PathBuf>)>, TlsError> {
        match (&self.source, generation) {
            (Source::Files { certificate, key }, _) => {
                Ok(Some((certificate.clone(), Some(key.clone()))))
            }
            (Source::Directory(directory), Some(generation)) => Ok(Some((
                directory.certificate_path(generation),
                directory.key_file(generation),
            ))),
            (Source::Half, _) => Err(TlsError::HalfIdentity),
            (Source::NoTpm, _) => Err(TlsError::NoTpm),
            _ => Ok(None),
        }
    }

    fn fingerprint(&self, generation: Option<u32>) -> Result<Fingerprint, TlsError> {
        let ca = self.ca.as_deref().ok_or(TlsError::NoAnchors)?;
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut add = |what, path: &Path| {
            let found = fs::read(path).and_then(|text| Ok((text, fs::metadata(path)?)));
            let (text, about) = found.map_err(|source: io::Error| CredentialError::Read {
                what,
                path: path.to_owned(),
                source,
            })?;
            // Access that was taken back counts as a change, for it is checked with the key.
            let mode = std::os::unix::fs::PermissionsExt::mode(&about.permissions());
            hash.update(digest::digest(&digest::SHA256, &text).as_ref());
            hash.update(&mode.to_le_bytes());
            Ok::<_, TlsError>(())
        };
        add("ca", ca)?;
        if let Some((certificate, key)) = self.files(generation)? {
            add("certificate", &certificate)?;
            if let Some(key) = key {
                add("key", &key)?;
            }
        }
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(hash.finish().as_ref());
        Ok(fingerprint)
    }

    fn build(
        &self,
        generation: Option<u32>,
    ) -> Result<(ClientConfig, Option<Timestamp>), TlsError> {
        let provider = Arc::new(provider::default_provider());
        let time = Arc::clone(&self.floor) as Arc<dyn TimeProvider>;
        let builder = ClientConfig::builder_with_details(Arc::clone(&provider), time)
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(self.verifier(&provider)?);
        let Some((identity, ends)) = self.identity(generation, &provider)? else {
            return Ok((builder.with_no_client_auth(), None));
        };
        Ok((builder.with_client_cert_resolver(identity), ends))
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        let path = self.ca.as_deref().ok_or(TlsError::NoAnchors)?;
        let anchors = Arc::new(credentials::anchors(path)?);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(anchors, Arc::clone(provider)).build();
        Ok(verifier.map_err(|error| CredentialError::anchors(path, error))?)
    }

    fn identity(
        &self,
        generation: Option<u32>,
        provider: &CryptoProvider,
    ) -> Result<Option<Identity>, TlsError> {
        let certified = match (&self.source, generation) {
            (Source::Files { certificate, key }, _) => {
                credentials::certified(certificate, key, provider)?
            }
            (Source::Directory(directory), Some(generation)) => directory.certified(generation)?,
            (Source::Half, _) => return Err(TlsError::HalfIdentity),
            (Source::NoTpm, _) => return Err(TlsError::NoTpm),
            _ => return Ok(None),
        };
        let ends = certified.cert.first().and_then(|leaf| end_of(leaf));
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        Ok(Some((resolver, ends)))
    }
}

/// Our certificate with its key, and its end.
type Identity = (Arc<dyn ResolvesClientCert>, Option<Timestamp>);

/// When a certificate ends.
pub(crate) fn end_of(certificate: &[u8]) -> Option<Timestamp> {
    let (_, leaf) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(leaf.validity().not_after.timestamp()).ok()
}

impl Offer {
    /// The moment at which our own certificate ended, if that has passed by this machine's clock.
    ///
    /// It is offered all the same: a clock that runs ahead must not hold the link down, so the
    /// server decides.
    pub(crate) fn expired(&self) -> Option<Timestamp> {
        self.ends.filter(|end| *end < clock::now().wall)
    }

    /// Begins anew with the upstream's sessions.
    pub(crate) fn forget_sessions(&mut self) {
        let mut config = (*self.config).clone();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        self.config = Arc::new(config);
    }
}

/// The clock by which certificates are judged, with a floor that rises.
#[derive(Debug, Default)]
struct Floor(AtomicI64);

impl TimeProvider for Floor {
    fn current_time(&self) -> Option<UnixTime> {
        let floor = Timestamp::from_second(self.0.load(Ordering::Relaxed)).ok()?;
        FlooredClock::not_before(floor).current_time()
    }
}
