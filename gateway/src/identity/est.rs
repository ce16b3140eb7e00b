//! Asks an EST server for certificates (RFC 7030): cacerts, simpleenroll, simplereenroll.
//!
//! Invariant: the server proves itself by the configured anchors before anything is said, and each
//! answer is bounded in bytes and time. Layer: driver; its rooms decide what answers mean.

mod answer;
mod der;
mod pkcs7;

use std::{sync::Arc, time::Duration};

use base64ct::{Base64, Encoding};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::{
    ClientConfig,
    client::WebPkiServerVerifier,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::time::{Instant, timeout_at};

use self::answer::Verdict;
use super::chain;
use crate::{
    clock,
    config::{
        self,
        url::{EstUrl, UpstreamUrl},
    },
    credentials::{self, CredentialError, FlooredClock},
    upstream::{
        Cause,
        reach::{self, Reach},
    },
};

/// Largest body of an answer, in bytes.
const BODY_MAX: usize = 256 << 10;
/// Largest head of an answer, in bytes.
const HEAD_MAX: usize = 64 << 10;

/// Why there is no certificate from the EST server.
#[derive(Debug, thiserror::Error)]
pub enum EstError {
    /// The address makes no sense.
    #[error("[identity.est] url: {0}")]
    Url(String),
    /// Our anchors, certificate, key or password cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The password cannot be read.
    #[error(transparent)]
    Secret(#[from] settings::SecretError),
    /// Our side of TLS cannot be set up.
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
    /// There is no connection to it.
    #[error("the EST server {server}: {cause}")]
    Unreachable {
        /// Which.
        server: String,
        /// Why.
        cause: Cause,
    },
    /// It does not speak HTTP as it should, or not in time.
    #[error("the EST server does not answer {path}: {why}")]
    Answer {
        /// What was asked for.
        path: String,
        /// Why.
        why: String,
    },
    /// It refuses.
    #[error("the EST server refuses {path}: {why}")]
    Refused {
        /// What was asked for.
        path: String,
        /// Why.
        why: String,
    },
    /// What it sent are no certificates.
    #[error("the EST server's answer to {path} cannot be used: {why}")]
    Content {
        /// What was asked for.
        path: String,
        /// Why.
        why: String,
    },
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Enrolment {
    /// A certificate for our key, followed by its intermediates, in PEM.
    Issued(String),
    /// To be asked for again after this time.
    Later(Duration),
}

/// A server, as the configuration names it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) config: config::Est,
    pub(crate) reach: Reach,
    /// A moment that has passed.
    pub(crate) floor: Timestamp,
}

impl Server {
    /// Has a request signed. `current` is the identity to be renewed; without it, or when the
    /// server does not take it any more, the configured login or certificate serves as for the
    /// first one.
    pub(crate) async fn enrol(
        &self,
        request: &[u8],
        public_key: &[u8],
        current: Option<CertifiedKey>,
    ) -> Result<Enrolment, EstError> {
        let Some(current) = current else {
            return self.ask(request, public_key, None).await;
        };
        match self.ask(request, public_key, Some(current)).await {
            Err(error) if self.has_first_login() && error.is_about_us() => {
                tracing::warn!(%error, "not renewed by the old certificate; enrolling as for the first time");
                self.ask(request, public_key, None).await
            }
            other => other,
        }
    }

    fn has_first_login(&self) -> bool {
        self.config.user.is_some() || self.config.certificate.is_some()
    }

    async fn ask(
        &self,
        request: &[u8],
        public_key: &[u8],
        current: Option<CertifiedKey>,
    ) -> Result<Enrolment, EstError> {
        let operation = match current {
            Some(_) => "simplereenroll",
            None => "simpleenroll",
        };
        let mut connection = self.connect(current).await?;
        let asked = connection.post(operation, request).await?;
        let (verdict, body) = asked;
        match verdict {
            Verdict::Later(pause) => return Ok(Enrolment::Later(pause)),
            Verdict::Refused(why) => {
                let path = operation.to_owned();
                return Err(EstError::Refused { path, why });
            }
            Verdict::Take => {}
        }
        let mut found = certificates(operation, &body)?;
        // Not every server sends the intermediates along; a leaf without them serves some upstreams.
        match connection.get("cacerts").await {
            Ok((Verdict::Take, body)) => found.extend(certificates("cacerts", &body)?),
            Ok((_, _)) | Err(_) => {
                tracing::debug!("the EST server tells nothing of its authorities");
            }
        }
        let path = operation.to_owned();
        let chain = chain::ordered(found, public_key);
        let chain = chain.map_err(|error| EstError::Content {
            path,
            why: error.to_string(),
        })?;
        Ok(Enrolment::Issued(chain::to_pem(&chain)))
    }

    async fn connect(&self, current: Option<CertifiedKey>) -> Result<Connection, EstError> {
        let url: EstUrl = self.config.url.parse().map_err(EstError::Url)?;
        let is_first = current.is_none();
        let deadline = now() + self.config.time_limit.as_duration();
        let failed = |cause| EstError::Unreachable {
            server: format!("{}:{}", url.host, url.port),
            cause,
        };
        let name = ServerName::try_from(url.host.clone())
            .map_err(|_| EstError::Url(format!("{:?} is no host", url.host)))?;
        let tls = Arc::new(self.tls(current)?);
        let place = UpstreamUrl {
            tls: true,
            host: url.host.clone(),
            port: url.port,
        };
        let tcp = self.reach.tcp(&place, deadline).await.map_err(failed)?;
        let stream = reach::handshake(tcp, tls, name, deadline).await;
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD_MAX)
            .handshake(TokioIo::new(stream.map_err(failed)?))
            .await;
        let (sender, driver) = handshake.map_err(|error| EstError::Answer {
            path: "the connection".to_owned(),
            why: error.to_string(),
        })?;
        let login = match (&self.config.user, &self.config.password) {
            (Some(user), Some(password)) if is_first => {
                let pair = format!("{user}:{}", password.read()?.expose());
                Some(format!("Basic {}", Base64::encode_string(pair.as_bytes())))
            }
            _ => None,
        };
        Ok(Connection {
            sender,
            driver: tokio::spawn(async move {
                if let Err(error) = driver.await {
                    tracing::debug!(%error, "the connection to the EST server ended");
                }
            }),
            url,
            login,
            deadline,
        })
    }

    fn tls(&self, current: Option<CertifiedKey>) -> Result<ClientConfig, EstError> {
        let provider = Arc::new(ring::default_provider());
        let anchors = Arc::new(credentials::anchors(&self.config.ca)?);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(anchors, Arc::clone(&provider)).build();
        let verifier =
            verifier.map_err(|error| CredentialError::anchors(&self.config.ca, error))?;
        let time = Arc::new(FlooredClock::not_before(self.floor));
        let builder = ClientConfig::builder_with_details(Arc::clone(&provider), time)
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier);
        let first = match (&self.config.certificate, &self.config.key) {
            (Some(certificate), Some(key)) if current.is_none() => {
                Some(credentials::certified(certificate, key, &provider)?)
            }
            _ => None,
        };
        Ok(match current.or(first) {
            Some(certified) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        })
    }
}

impl EstError {
    /// Whether another way to prove who we are might fare better.
    fn is_about_us(&self) -> bool {
        match self {
            EstError::Refused { .. } => true,
            EstError::Unreachable { cause, .. } => cause.is_about_us(),
            // With TLS 1.3 the refusal of our certificate comes after the handshake.
            EstError::Answer { .. } => true,
            _ => false,
        }
    }
}

/// One connection, for one enrolment.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
    url: EstUrl,
    login: Option<String>,
    deadline: Instant,
}

impl Connection {
    async fn get(&mut self, operation: &str) -> Result<(Verdict, Bytes), EstError> {
        self.send(Method::GET, operation, Bytes::new()).await
    }

    /// The body is base64, without line breaks (RFC 8951, 3.1).
    async fn post(&mut self, operation: &str, der: &[u8]) -> Result<(Verdict, Bytes), EstError> {
        let body = Base64::encode_string(der);
        self.send(Method::POST, operation, body.into()).await
    }

    async fn send(
        &mut self,
        method: Method,
        operation: &str,
        body: Bytes,
    ) -> Result<(Verdict, Bytes), EstError> {
        let failed = |why: String| EstError::Answer {
            path: operation.to_owned(),
            why,
        };
        let path = format!("{}/{operation}", self.url.path);
        let host = match self.url.host.contains(':') {
            true => format!("[{}]:{}", self.url.host, self.url.port),
            false => format!("{}:{}", self.url.host, self.url.port),
        };
        let mut request = Request::builder()
            .method(&method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/pkcs7-mime");
        if method == Method::POST {
            request = request
                .header(header::CONTENT_TYPE, "application/pkcs10")
                .header("content-transfer-encoding", "base64");
        }
        if let Some(login) = &self.login {
            request = request.header(header::AUTHORIZATION, login);
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| failed(error.to_string()))?;
        let exchange = async {
            self.sender.ready().await.map_err(plain)?;
            let answer = self.sender.send_request(request).await.map_err(plain)?;
            read(answer).await
        };
        let answer = timeout_at(self.deadline, exchange).await;
        answer
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(failed)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn read(answer: hyper::Response<Incoming>) -> Result<(Verdict, Bytes), String> {
    let (head, body) = answer.into_parts();
    let retry_after = head.headers.get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|text| text.to_str().ok());
    let verdict = answer::judge(head.status.as_u16(), retry_after, clock::now().wall);
    let body = Limited::new(body, BODY_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?;
    Ok((verdict, body.to_bytes()))
}

/// hyper's words and those of what lies below.
fn plain(error: hyper::Error) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn certificates(operation: &str, body: &[u8]) -> Result<Vec<CertificateDer<'static>>, EstError> {
    pkcs7::certificates(body).map_err(|error| EstError::Content {
        path: operation.to_owned(),
        why: error.to_string(),
    })
}

#[expect(clippy::disallowed_methods, reason = "driver: owns the clock")]
fn now() -> Instant {
    Instant::now()
}
