//! Builds the link's TLS configuration from PEM files, anew for each connection.
//!
//! Invariant: files that were replaced are picked up at the next connection, and a key that others
//! may read is not used. Layer: driver.
//!
//! The client's key sits behind rustls' `ResolvesClientCert`: one whose key never leaves a TPM takes
//! the place of [`identity_from_files`] without a change elsewhere.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{clock, config};

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
    /// The name cannot be that of a server.
    #[error("[upstream] server_name = {0:?} is no host name and no address")]
    ServerName(String),
    /// The trust anchors cannot be used.
    #[error("the trust anchors in {path} cannot be used: {source}")]
    Anchors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// rustls says no.
    #[error("cannot set TLS up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// TLS 1.2 and 1.3 with the configured anchors, identity and server name.
///
/// `floor` is a moment that has passed: a board without a clock of its own starts in 1970, where
/// every certificate would be one of the future.
pub(crate) fn client_config(
    upstream: &config::Upstream,
    floor: Timestamp,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(upstream, &provider)?;
    let time = Arc::new(FlooredClock(floor.max(built_at())));
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider), time)
        .with_safe_default_protocol_versions()?
        // "Dangerous" is any verifier of one's own; ours is webpki's, asked about another name.
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match (&upstream.certificate, &upstream.key) {
        (Some(certificate), Some(key)) => {
            builder.with_client_cert_resolver(identity_from_files(certificate, key, &provider)?)
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(TlsError::HalfIdentity),
    })
}

/// The moment at which our own certificate ended, if that has passed by this machine's clock.
///
/// It is offered all the same: a clock that runs ahead must not hold the link down, so the server
/// decides. What cannot be read here is reported by [`client_config`].
pub(crate) fn expired(upstream: &config::Upstream) -> Option<Timestamp> {
    let path = upstream.certificate.as_ref()?;
    let chain = certificates("certificate", path).ok()?;
    let (_, leaf) = X509Certificate::from_der(&chain[0]).ok()?;
    let end = Timestamp::from_second(leaf.validity().not_after.timestamp()).ok()?;
    (end < clock::now().wall).then_some(end)
}

/// The gateway's certificate chain and key, checked for each other.
fn identity_from_files(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<dyn ResolvesClientCert>, TlsError> {
    let chain = certificates("certificate", certificate)?;
    let secret = private_key(key)?;
    let mismatch = |source| TlsError::Mismatch {
        key: key.to_owned(),
        certificate: certificate.to_owned(),
        source,
    };
    let certified = CertifiedKey::from_der(chain, secret, provider).map_err(mismatch)?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(what, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem {
            what: "certificate",
            path: path.to_owned(),
            source,
        })?;
    if found.is_empty() {
        let path = path.to_owned();
        return Err(TlsError::Empty {
            what: "certificate",
            path,
        });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read("key", path)?;
    let found = fs::metadata(path).map_err(|source| TlsError::Read {
        what: "key",
        path: path.to_owned(),
        source,
    })?;
    // The group may: that is how a service user shares a key with those who renew it.
    if found.permissions().mode() & 0o007 != 0 {
        let path = path.to_owned();
        return Err(TlsError::WorldReadable { path });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| TlsError::Pem {
        what: "private key",
        path: path.to_owned(),
        source,
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        what,
        path: path.to_owned(),
        source,
    })
}

fn verifier(
    upstream: &config::Upstream,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let path = upstream.ca.as_ref().ok_or(TlsError::NoAnchors)?;
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Anchors {
        path: path.clone(),
        source,
    };
    let mut anchors = RootCertStore::empty();
    for anchor in certificates("ca", path)? {
        anchors
            .add(anchor)
            .map_err(|error| unusable(error.into()))?;
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(provider))
            .build()
            .map_err(|error| unusable(error.into()))?;
    let Some(name) = &upstream.server_name else {
        return Ok(verifier);
    };
    let name =
        ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name.clone()))?;
    Ok(Arc::new(NamedVerifier { verifier, name }))
}

/// The wall clock, but never before what is known to have passed.
#[derive(Debug)]
struct FlooredClock(Timestamp);

impl TimeProvider for FlooredClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = clock::now().wall.max(self.0);
        let since = Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// When this program was built; 1970 where the build did not know.
fn built_at() -> Timestamp {
    let built = env!("BUILT_AT_S").parse().unwrap_or(0);
    Timestamp::from_second(built).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Expects the configured name in the server's certificate, whatever host was connected to.
///
/// rumqttc takes one text for both the address and the TLS server name, and resolves the address
/// itself. So the name is put right here; only the SNI extension still carries the address' host.
#[derive(Debug)]
struct NamedVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _connected_to: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier
            .verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
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
