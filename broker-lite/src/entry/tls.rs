//! TLS for a listener: its certificate, whose clients it trusts, and who a client is. Driver.
//!
//! Invariant: a certificate names a client only after the trust in force has verified it; one that
//! was resumed, or verified by what a reload has replaced, is verified again.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{path::Path, sync::Arc, time::SystemTime};

use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
        pem::{Error as PemError, PemObject},
    },
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::{
    config::{CertificateName, ClientAuth, IdentitySource, Listener, ListenerTls},
    observe::audit::Refusal,
    start::TlsError,
};

/// TLS 1.3 tickets sent after a handshake; a client that resumes gets the next one then.
const TICKETS: usize = 1;

/// Why a client is not let in.
#[derive(Debug)]
pub(crate) struct Distrusted {
    pub(crate) refusal: Refusal,
    pub(crate) why: String,
}

/// A listener's certificate, and whose clients it trusts.
pub(crate) struct Trust {
    pub(crate) acceptor: TlsAcceptor,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Which name of a client's certificate counts, if any does.
    name: Option<CertificateName>,
    client_auth: ClientAuth,
}

impl Trust {
    /// Reads the files that a listener's configuration names. Tickets of an earlier trust resume
    /// nothing: each has a key of its own.
    pub(crate) fn read(listener: &Listener, tls: &ListenerTls) -> Result<Trust, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = verifier(tls, &provider)?;
        let config = server_config(tls, provider, verifier.clone())?;
        Ok(Trust {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            verifier,
            name: (listener.identity != IdentitySource::Password)
                .then_some(listener.certificate_name),
            client_auth: tls.client_auth(),
        })
    }

    /// Whether clients without a certificate are turned away.
    pub(crate) fn needs_certificates(&self) -> bool {
        self.client_auth == ClientAuth::Required
    }

    /// The name that a verified certificate gives its client; `None` where names do not count.
    pub(crate) fn identity(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<Option<String>, Distrusted> {
        let why = match (chain.first(), self.name) {
            (None, _) if self.needs_certificates() => "the client showed no certificate".to_owned(),
            (None, _) | (_, None) => return Ok(None),
            (Some(leaf), Some(name)) => match identity(leaf, name) {
                Ok(name) => return Ok(Some(name)),
                Err(why) => why,
            },
        };
        Err(Distrusted {
            refusal: Refusal::Handshake,
            why,
        })
    }

    /// Verifies the chain that a client has shown, or that none is needed, as a handshake would.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), Distrusted> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return self.identity(chain).map(drop);
        };
        let Some(verifier) = &self.verifier else {
            return Err(Distrusted {
                refusal: Refusal::ConfigurationChanged,
                why: "the listener no longer takes certificates".to_owned(),
            });
        };
        let now = UnixTime::since_unix_epoch(
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        );
        verifier
            .verify_client_cert(leaf, intermediates, now)
            .map(drop)
            .map_err(|error| distrusted(&error))
    }
}

/// Everything that keeps a listener from serving TLS, each with the key that names the file.
pub(crate) fn faults(listener: &Listener, tls: &ListenerTls) -> Vec<(String, TlsError)> {
    let mut read = vec![
        ("certificate".to_owned(), certificates(tls).map(drop)),
        ("key".to_owned(), private_key(tls).map(drop)),
    ];
    if let Some(path) = &tls.client_ca {
        let anchors = pem_items::<CertificateDer<'_>>(path, "a trust anchor");
        read.push(("client_ca".to_owned(), anchors.map(drop)));
    }
    for (index, path) in tls.crl.iter().enumerate() {
        read.push((format!("crl[{index}]"), revocation_list(path).map(drop)));
    }
    if read.iter().all(|(_, read)| read.is_ok()) {
        let together = Trust::read(listener, tls).map(drop);
        let key = match together {
            Err(TlsError::Anchors { .. } | TlsError::NoAnchors) => "client_ca",
            _ => "certificate",
        };
        read.push((key.to_owned(), together));
    }
    let fault = |(key, read): (String, Result<(), TlsError>)| Some((key, read.err()?));
    read.into_iter().filter_map(fault).collect()
}

/// What a failed handshake or verification means to the operator.
pub(crate) fn distrusted(error: &rustls::Error) -> Distrusted {
    use rustls::Error::InvalidCertificate;
    let refusal = match error {
        InvalidCertificate(CertificateError::Revoked) => Refusal::Revoked,
        _ => Refusal::Handshake,
    };
    let why = match error {
        InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
            "no CRL speaks for the issuer of the client's certificate (listener.tls.crl)".to_owned()
        }
        error => error.to_string(),
    };
    Distrusted { refusal, why }
}

fn server_config(
    tls: &ListenerTls,
    provider: Arc<CryptoProvider>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, TlsError> {
    let (certificates, key) = (certificates(tls)?, private_key(tls)?);
    let pair = |source| TlsError::Pair {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(pair)?;
    // Tickets instead of a table of sessions: what a thousand clients could resume costs nothing here.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Tickets)?;
    config.send_tls13_tickets = TICKETS;
    Ok(config)
}

fn verifier(
    tls: &ListenerTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let wish = tls.client_auth();
    if wish == ClientAuth::None {
        return Ok(None);
    }
    let path = tls.client_ca.as_ref().ok_or(TlsError::NoAnchors)?;
    let unusable = |reason: String| TlsError::Anchors {
        path: path.clone(),
        reason,
    };
    let mut anchors = RootCertStore::empty();
    for certificate in pem_items(path, "a trust anchor")? {
        anchors
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    // Once there are lists, each certificate below an anchor needs one that speaks for it. An old
    // list is better than a plant that stops: its own expiry is not enforced.
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(provider))
            .with_crls(revocation_lists(tls)?);
    let builder = match wish {
        ClientAuth::Optional => builder.allow_unauthenticated(),
        ClientAuth::Required | ClientAuth::None => builder,
    };
    builder
        .build()
        .map(Some)
        .map_err(|error| unusable(error.to_string()))
}

fn revocation_lists(
    tls: &ListenerTls,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let mut lists = Vec::new();
    for path in &tls.crl {
        lists.extend(revocation_list(path)?);
    }
    Ok(lists)
}

fn certificates(tls: &ListenerTls) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    pem_items(&tls.certificate, "a certificate")
}

fn private_key(tls: &ListenerTls) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| unreadable("a private key", &tls.key, &error))
}

fn revocation_list(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    pem_items(path, "a certificate revocation list")
}

fn pem_items<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let unreadable = |error: PemError| unreadable(what, path, &error);
    let found: Result<Vec<_>, _> = T::pem_file_iter(path).map_err(unreadable)?.collect();
    let found = found.map_err(unreadable)?;
    if found.is_empty() {
        return Err(unreadable(PemError::NoItemsFound));
    }
    Ok(found)
}

fn unreadable(what: &'static str, path: &Path, error: &PemError) -> TlsError {
    TlsError::File {
        what,
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// The name that a client's certificate gives it; `Err` says why it gives none.
fn identity(certificate: &CertificateDer<'_>, wanted: CertificateName) -> Result<String, String> {
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("the client's certificate cannot be read: {error}"))?;
    match wanted {
        CertificateName::CommonName => {
            let names = certificate.subject().iter_common_name();
            // One that is not text names nobody, rather than whom its readable part resembles.
            let names = names.map(|name| name.as_str().map_err(|_| "is not UTF-8 text"));
            only_name(names, "common name")
        }
        CertificateName::Uri => {
            let names = certificate.subject_alternative_name();
            let names = names.map_err(|error| {
                format!("the client's certificate has unreadable alternative names: {error}")
            })?;
            let listed = names.iter().flat_map(|names| &names.value.general_names);
            let uris = listed.filter_map(|name| match name {
                GeneralName::URI(uri) => Some(Ok(*uri)),
                _ => None,
            });
            only_name(uris, "URI")
        }
    }
}

/// The one name there is, if it can stand for a user.
fn only_name<'a>(
    mut names: impl Iterator<Item = Result<&'a str, &'static str>>,
    what: &str,
) -> Result<String, String> {
    let name = names
        .next()
        .ok_or_else(|| format!("the client's certificate has no {what}"))?;
    if names.next().is_some() {
        return Err(format!("the client's certificate has more than one {what}"));
    }
    let refused = |why| format!("the {what} of the client's certificate {why}");
    let name = name.map_err(refused)?;
    if name.is_empty() {
        Err(refused("is empty"))
    } else if name.chars().any(char::is_control) {
        Err(refused("holds control characters"))
    } else if name.contains(['+', '#']) {
        Err(refused("holds + or #, the wildcards of topic filters"))
    } else {
        Ok(name.to_owned())
    }
}
