//! TLS for a listener: its certificate, whose clients it trusts, and who a client is. Driver.
//!
//! Invariant: a certificate names a client only after rustls has verified it.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::{
    config::{ClientAuth, ListenerTls},
    start::TlsError,
};

/// Reads the files that a listener's configuration names.
pub(crate) fn acceptor(tls: &ListenerTls) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificates = certificates(&tls.certificate, "a certificate")?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| unreadable("a private key", &tls.key, &error))?;
    let pair = |source| TlsError::Pair {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(pair)?;
    let builder = match verifier(tls, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(certificates, key).map_err(pair)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whether clients of this listener must, may or need not show a certificate.
pub(crate) fn client_auth(tls: &ListenerTls) -> ClientAuth {
    let default = if tls.client_ca.is_some() {
        ClientAuth::Required
    } else {
        ClientAuth::None
    };
    tls.client_auth.unwrap_or(default)
}

fn verifier(
    tls: &ListenerTls,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let wish = client_auth(tls);
    if wish == ClientAuth::None {
        return Ok(None);
    }
    let path = tls.client_ca.as_ref().ok_or(TlsError::NoAnchors)?;
    let unusable = |reason: String| TlsError::Anchors {
        path: path.clone(),
        reason,
    };
    let mut anchors = RootCertStore::empty();
    for certificate in certificates(path, "a trust anchor")? {
        anchors
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider);
    let builder = match wish {
        ClientAuth::Optional => builder.allow_unauthenticated(),
        ClientAuth::Required | ClientAuth::None => builder,
    };
    builder
        .build()
        .map(Some)
        .map_err(|error| unusable(error.to_string()))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error: rustls::pki_types::pem::Error| unreadable(what, path, &error);
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect();
    let found = found.map_err(unreadable)?;
    if found.is_empty() {
        return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn unreadable(what: &'static str, path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    TlsError::File {
        what,
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// The name in a client's certificate: its common name, else its first URI as alternative name.
pub(crate) fn identity(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let common_name = certificate.subject().iter_common_name().next();
    if let Some(name) = common_name {
        // One that is not text names nobody, rather than whom its readable part resembles.
        return name
            .as_str()
            .ok()
            .filter(|name| is_plain(name))
            .map(str::to_owned);
    }
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::URI(uri) if is_plain(uri) => Some((*uri).to_owned()),
            _ => None,
        })
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(char::is_control)
}
