//! Modbus/TCP Security: TLS with a certificate of ours on a connection to a device. Driver.
//!
//! Invariant: no byte of Modbus leaves before the device has proved its name.

use std::{io, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::{ClientConfig, client::WebPkiServerVerifier, crypto::ring, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    alert::is_about_our_certificate,
    config::BusTls,
    credentials::{self, CredentialError, FlooredClock},
};

/// How long a device may take for the handshake: small ones count in seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no TLS with a device.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// Our files cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The configured name cannot be that of a server.
    #[error("{0:?} is no host name and no address: write tls.server_name")]
    ServerName(String),
    /// The device's certificate does not hold.
    #[error("the device's certificate is not trusted: {0}")]
    NotTrusted(String),
    /// The device does not take ours.
    #[error("the device refuses our certificate: {0}")]
    OurCertificate(String),
    /// The same as far as one can tell: some close without saying why.
    #[error(
        "the device closed the connection right after the handshake; it probably refuses our certificate"
    )]
    Dismissed,
    /// It is slow, or speaks no TLS and waits for Modbus.
    #[error("no handshake in {HANDSHAKE_TIMEOUT:?}: does the device speak TLS on this port?")]
    Late,
    /// Neither of these.
    #[error("the handshake failed: {0}")]
    Handshake(String),
}

/// Sets TLS up on a connection to `address`.
pub(super) async fn connect(
    stream: TcpStream,
    address: &str,
    settings: &BusTls,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let name = server_name(address, settings)?;
    let connector = TlsConnector::from(Arc::new(client_config(settings)?));
    timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream))
        .await
        .map_err(|_| TlsError::Late)?
        .map_err(|error| failure(&error).unwrap_or_else(|| TlsError::Handshake(error.to_string())))
}

/// What an error of an established connection says of TLS, if it does: with TLS 1.3 a device
/// refuses our certificate only after the handshake seems done.
pub(crate) fn failure(error: &io::Error) -> Option<TlsError> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(why) => TlsError::NotTrusted(why.to_string()),
        rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
            TlsError::OurCertificate(format!("{alert:?}"))
        }
        other => TlsError::Handshake(other.to_string()),
    })
}

/// Whom a connection is with.
pub(super) fn peer(stream: &TlsStream<TcpStream>) -> String {
    let (stream, _) = stream.get_ref();
    let address = stream.peer_addr();
    address.map_or_else(|_| "the device".to_owned(), |address| address.to_string())
}

/// The files, read anew for each connection, so that renewed ones are picked up.
fn client_config(settings: &BusTls) -> Result<ClientConfig, TlsError> {
    let unusable = |error: &dyn std::fmt::Display| TlsError::Handshake(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let anchors = Arc::new(credentials::anchors(&settings.ca)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(anchors, Arc::clone(&provider))
        .build()
        .map_err(|error| CredentialError::anchors(&settings.ca, error))?;
    let identity = credentials::identity(&settings.certificate, &settings.key, &provider)?;
    let clock = Arc::new(FlooredClock::not_before(Timestamp::UNIX_EPOCH));
    Ok(ClientConfig::builder_with_details(provider, clock)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_webpki_verifier(verifier)
        .with_client_cert_resolver(identity))
}

fn server_name(address: &str, settings: &BusTls) -> Result<ServerName<'static>, TlsError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = settings.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
}
