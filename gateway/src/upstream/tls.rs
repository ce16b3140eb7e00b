//! Builds the link's TLS configuration from PEM files, anew for each connection.
//!
//! Invariant: files that were replaced are picked up at the next connection, and a key that others
//! may read is not used. Layer: driver.
//!
//! The client's key sits behind rustls' `ResolvesClientCert`: one whose key never leaves a TPM takes
//! the place of [`credentials::identity`] without a change elsewhere.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
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
    let time = Arc::new(FlooredClock::not_before(floor));
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider), time)
        .with_safe_default_protocol_versions()?
        // "Dangerous" is any verifier of one's own; ours is webpki's, asked about another name.
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match (&upstream.certificate, &upstream.key) {
        (Some(certificate), Some(key)) => {
            builder.with_client_cert_resolver(credentials::identity(certificate, key, &provider)?)
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
    let chain = credentials::certificates("certificate", path).ok()?;
    let (_, leaf) = X509Certificate::from_der(&chain[0]).ok()?;
    let end = Timestamp::from_second(leaf.validity().not_after.timestamp()).ok()?;
    (end < clock::now().wall).then_some(end)
}

fn verifier(
    upstream: &config::Upstream,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let path = upstream.ca.as_ref().ok_or(TlsError::NoAnchors)?;
    let anchors = credentials::anchors(path)?;
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(provider))
            .build()
            .map_err(|error| CredentialError::anchors(path, error))?;
    let Some(name) = &upstream.server_name else {
        return Ok(verifier);
    };
    let name =
        ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name.clone()))?;
    Ok(Arc::new(NamedVerifier { verifier, name }))
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
