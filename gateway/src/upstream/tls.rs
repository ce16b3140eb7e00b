//! The link's TLS configuration from what its files hold now.
//!
//! Invariant: files that were replaced count at the next connection, sessions are resumed only
//! under the identity that began them, and a key that others may read is not used. Layer: driver.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use jiff::Timestamp;
use ring::digest;
use rustls::{
    ClientConfig,
    client::{ResolvesClientCert, WebPkiServerVerifier},
    crypto::{CryptoProvider, ring as provider},
    pki_types::{ServerName, UnixTime},
    sign::SingleCertAndKey,
    time_provider::TimeProvider,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    clock, config,
    credentials::{self, CredentialError, FlooredClock},
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
    /// The name cannot be that of a server.
    #[error("[upstream] server_name = {0:?} is no host name and no address")]
    ServerName(String),
    /// rustls says no.
    #[error("cannot set TLS up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// SHA-256 of the files that an offer was made from.
pub(crate) type Fingerprint = [u8; 32];

/// What is offered to an upstream.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) config: Arc<ClientConfig>,
    /// The end of our certificate; `None` without one.
    pub(crate) ends: Option<Timestamp>,
}

/// Where offers come from.
#[derive(Debug)]
pub(crate) struct Tls {
    upstream: config::Upstream,
    floor: Arc<Floor>,
    /// The last offer: as long as its files do not change, its sessions can be resumed.
    last: Mutex<Option<Offer>>,
}

impl Tls {
    pub(crate) fn new(upstream: &config::Upstream) -> Tls {
        Tls {
            upstream: upstream.clone(),
            floor: Arc::default(),
            last: Mutex::new(None),
        }
    }

    /// TLS 1.2 and 1.3 with the configured anchors and identity, as their files are now. It reads
    /// them, so it blocks.
    ///
    /// `floor` is a moment that has passed: a board without a clock of its own starts in 1970, where
    /// every certificate would be one of the future.
    pub(crate) fn offer(&self, floor: Timestamp) -> Result<Offer, TlsError> {
        self.floor.0.store(floor.as_second(), Ordering::Relaxed);
        let fingerprint = self.fingerprint()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(offer) = &*last
            && offer.fingerprint == fingerprint
        {
            return Ok(offer.clone());
        }
        let (config, ends) = self.build()?;
        let offer = Offer {
            fingerprint,
            config: Arc::new(config),
            ends,
        };
        *last = Some(offer.clone());
        Ok(offer)
    }

    /// The next offer resumes nothing: an upstream that ended a handshake may have done so over the
    /// session that it was to resume.
    pub(crate) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What the server's certificate must bear, and its host is told (RFC 6066, 3).
    pub(crate) fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.upstream.server_name.as_deref().unwrap_or(host);
        let parsed = ServerName::try_from(name.to_owned());
        parsed.map_err(|_| TlsError::ServerName(name.to_owned()))
    }

    fn fingerprint(&self) -> Result<Fingerprint, TlsError> {
        let upstream = &self.upstream;
        let ca = upstream.ca.as_deref().ok_or(TlsError::NoAnchors)?;
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
        for (what, path) in [
            ("certificate", &upstream.certificate),
            ("key", &upstream.key),
        ] {
            if let Some(path) = path {
                add(what, path)?;
            }
        }
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(hash.finish().as_ref());
        Ok(fingerprint)
    }

    fn build(&self) -> Result<(ClientConfig, Option<Timestamp>), TlsError> {
        let provider = Arc::new(provider::default_provider());
        let time = Arc::clone(&self.floor) as Arc<dyn TimeProvider>;
        let builder = ClientConfig::builder_with_details(Arc::clone(&provider), time)
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(self.verifier(&provider)?);
        let Some((identity, ends)) = self.identity(&provider)? else {
            return Ok((builder.with_no_client_auth(), None));
        };
        Ok((builder.with_client_cert_resolver(identity), ends))
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        let path = self.upstream.ca.as_deref().ok_or(TlsError::NoAnchors)?;
        let anchors = Arc::new(credentials::anchors(path)?);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(anchors, Arc::clone(provider)).build();
        Ok(verifier.map_err(|error| CredentialError::anchors(path, error))?)
    }

    fn identity(&self, provider: &CryptoProvider) -> Result<Option<Identity>, TlsError> {
        match (&self.upstream.certificate, &self.upstream.key) {
            (Some(certificate), Some(key)) => {
                let certified = credentials::certified(certificate, key, provider)?;
                let ends = certified.cert.first().and_then(|leaf| end_of(leaf));
                Ok(Some((Arc::new(SingleCertAndKey::from(certified)), ends)))
            }
            (None, None) => Ok(None),
            _ => Err(TlsError::HalfIdentity),
        }
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
