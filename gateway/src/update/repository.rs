//! Fetches files of the vendor's repository over HTTPS. Driver.
//!
//! Invariant: no more of a file is read than was asked for, redirects are not followed, and nothing waits longer than
//! [`PATIENCE`] for the next byte.

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, client::WebPkiServerVerifier, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tuf::fetch::{FetchFailure, Fetcher, Place};

use super::meter::{Meter, Metered};
use crate::{
    config::{
        self,
        url::{RepositoryUrl, UpstreamUrl},
    },
    credentials::{self, CredentialError, FlooredClock, built_at},
    upstream::reach::Reach,
};

/// Longest wait for a connection, for an answer, and for each next part of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is less than any request and its answer take, in bytes.
const REQUEST: u64 = 512;
/// Largest head of an answer, in bytes.
const HEAD_MAX: usize = 64 << 10;

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The address makes no sense.
    #[error("[update] repository: {0}")]
    Url(String),
    /// The trust anchors cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// There is no connection to it.
    #[error("cannot reach the repository at {server}: {why}")]
    Unreachable {
        /// Which.
        server: String,
        /// Why.
        why: String,
    },
    /// It has no such file.
    #[error("the repository has no {0}")]
    NotFound(String),
    /// It answers with something else.
    #[error("the repository does not give {path}: {why}")]
    Answer {
        /// What was asked for.
        path: String,
        /// Why.
        why: String,
    },
    /// Nothing may be spent any more.
    #[error(
        "the budget of {limit} bytes a {period} ([update.budget]) is used up; nothing more is fetched until it is a new one"
    )]
    Budget {
        /// Bytes.
        limit: u64,
        /// `day` or `month`.
        period: &'static str,
    },
    /// It sends more than it may, or less than it must.
    #[error(
        "the repository sends {path} with another length than the {expected} bytes that were signed"
    )]
    Length {
        /// What was asked for.
        path: String,
        /// Bytes.
        expected: u64,
    },
}

/// The repository, and the connection to it.
pub(crate) struct Repository {
    url: RepositoryUrl,
    reach: Reach,
    tls: Option<Arc<ClientConfig>>,
    meter: Meter,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A file that comes.
pub(crate) struct Body {
    incoming: Incoming,
    connection: Option<Connection>,
    /// What came and was not read yet.
    part: Bytes,
}

impl Repository {
    /// Reached over the upstream's proxy where one is configured.
    ///
    /// # Errors
    /// The address or the anchors cannot be used.
    pub(crate) fn new(
        config: &config::Update,
        upstream: Option<&config::Upstream>,
        meter: Meter,
    ) -> Result<Repository, FetchError> {
        let url: RepositoryUrl = config.repository.parse().map_err(FetchError::Url)?;
        let reach = upstream.map_or_else(|| Ok(Reach::default()), Reach::of);
        Ok(Repository {
            tls: match url.tls {
                true => Some(Arc::new(tls(config)?)),
                false => None,
            },
            reach: reach.map_err(FetchError::Url)?,
            url,
            meter,
            connection: None,
        })
    }

    /// Opens the file at `path`, below the repository's address.
    ///
    /// # Errors
    /// It does not begin to come.
    pub(crate) async fn open(&mut self, path: &str) -> Result<Body, FetchError> {
        let opened = self.try_open(path).await;
        // The connection that met the budget's end says only that it broke.
        match self.meter.lacks(REQUEST) {
            Some(account) if opened.is_err() => Err(FetchError::Budget {
                limit: account.limit,
                period: account.period.as_str(),
            }),
            _ => opened,
        }
    }

    async fn try_open(&mut self, path: &str) -> Result<Body, FetchError> {
        let kept = self.connection.take();
        let was_kept = kept.is_some();
        let connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        match self.ask(connection, path).await {
            // A server may end a connection that rests.
            Err(FetchError::Answer { .. }) if was_kept => {
                let connection = self.connect().await?;
                self.ask(connection, path).await
            }
            asked => asked,
        }
    }

    /// The whole file, which has to be exactly so long.
    ///
    /// # Errors
    /// It does not come, or is longer or shorter.
    pub(crate) async fn exactly(&mut self, path: &str, length: u64) -> Result<Vec<u8>, FetchError> {
        let bytes = self.at_most(path, length).await?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(FetchError::Length {
                path: path.to_owned(),
                expected: length,
            }),
        }
    }

    /// The whole file, of at most so many bytes.
    ///
    /// # Errors
    /// It does not come, or is longer.
    pub(crate) async fn at_most(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let mut body = self.open(path).await?;
        let mut bytes = Vec::new();
        while let Some(part) = body.next().await.map_err(|why| answer(path, why))? {
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > limit {
                return Err(FetchError::Length {
                    path: path.to_owned(),
                    expected: limit,
                });
            }
        }
        self.connection = body.connection.take();
        Ok(bytes)
    }

    async fn connect(&self) -> Result<Connection, FetchError> {
        let url = &self.url;
        let failed = |why: String| FetchError::Unreachable {
            server: format!("{}:{}", url.host, url.port),
            why,
        };
        let deadline = now() + PATIENCE;
        let place = UpstreamUrl {
            tls: url.tls,
            host: url.host.clone(),
            port: url.port,
        };
        let tcp = self.reach.tcp(&place, deadline).await;
        let tcp = tcp.map_err(|cause| failed(cause.to_string()))?;
        let metered = Metered::new(tcp, self.meter.clone());
        let Some(tls) = &self.tls else {
            return handshake(metered).await.map_err(failed);
        };
        let name = ServerName::try_from(url.host.clone())
            .map_err(|_| FetchError::Url(format!("{:?} is no host", url.host)))?;
        let secured = TlsConnector::from(Arc::clone(tls)).connect(name, metered);
        let secured = timeout_at(deadline, secured).await;
        let secured = secured.map_err(|_| failed("TLS was not agreed on in time".to_owned()))?;
        let secured = secured.map_err(|error| failed(error.to_string()))?;
        handshake(secured).await.map_err(failed)
    }

    async fn ask(&self, mut connection: Connection, path: &str) -> Result<Body, FetchError> {
        let url = &self.url;
        let host = match url.host.contains(':') {
            true => format!("[{}]:{}", url.host, url.port),
            false => format!("{}:{}", url.host, url.port),
        };
        let request = Request::get(format!("{}/{path}", url.path))
            .header(header::HOST, host)
            .body(Empty::new())
            .map_err(|error| answer(path, error.to_string()))?;
        let exchange = async {
            connection.sender.ready().await?;
            connection.sender.send_request(request).await
        };
        let asked = timeout(PATIENCE, exchange).await;
        let asked = asked.map_err(|_| answer(path, "no answer in time".to_owned()))?;
        let asked = asked.map_err(|error| answer(path, words(&error)))?;
        match asked.status() {
            StatusCode::OK => Ok(Body {
                incoming: asked.into_body(),
                connection: Some(connection),
                part: Bytes::new(),
            }),
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => {
                Err(FetchError::NotFound(path.to_owned()))
            }
            status if status.is_redirection() => Err(FetchError::Answer {
                path: path.to_owned(),
                why: format!("it answers {status}, and redirects are not followed"),
            }),
            status => Err(answer(path, format!("it answers {status}"))),
        }
    }
}

fn answer(path: &str, why: String) -> FetchError {
    let path = path.to_owned();
    FetchError::Answer { path, why }
}

/// hyper's words and those of what lies below, such as a budget that is used up.
fn words(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(source) = below {
        text = format!("{text}: {source}");
        below = source.source();
    }
    text
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Connection, String> {
    let shaken = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream));
    let shaken = timeout(PATIENCE, shaken).await;
    let shaken = shaken.map_err(|_| "no connection in time".to_owned())?;
    let (sender, driver) = shaken.map_err(|error| words(&error))?;
    Ok(Connection {
        sender,
        driver: tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "the connection to the repository ended");
            }
        }),
    })
}

fn tls(config: &config::Update) -> Result<ClientConfig, FetchError> {
    let provider = Arc::new(ring::default_provider());
    let anchors = Arc::new(credentials::anchors(&config.ca)?);
    let verifier =
        WebPkiServerVerifier::builder_with_provider(anchors, Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|error| CredentialError::anchors(&config.ca, error))?;
    let time = Arc::new(FlooredClock::not_before(built_at()));
    let builder = ClientConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()
        .map_err(|error| FetchError::Url(error.to_string()))?;
    Ok(builder.with_webpki_verifier(verifier).with_no_client_auth())
}

impl Body {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = timeout(PATIENCE, self.incoming.frame()).await;
            let frame = match frame.map_err(|_| "nothing more comes".to_owned())? {
                Some(frame) => frame.map_err(|error| words(&error))?,
                None => return Ok(None),
            };
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

/// The repository, as the metadata's client on a blocking thread asks it. Roots are handed on as they come, with the
/// approvals that may lie beside them.
pub(crate) struct Blocking<'r> {
    pub(crate) repository: &'r mut Repository,
    pub(crate) runtime: Handle,
    /// Keeps what the updater will ask for.
    pub(crate) roots: &'r mut dyn FnMut(&str, &[u8]) -> io::Result<()>,
}

impl Fetcher for Blocking<'_> {
    fn open(&mut self, place: Place, name: &str) -> Result<Box<dyn Read + '_>, FetchFailure> {
        let failed = |error: FetchError| match error {
            FetchError::NotFound(name) => FetchFailure::NotFound(name),
            other => FetchFailure::Unreachable {
                name: name.to_owned(),
                reason: other.to_string(),
            },
        };
        let path = format!("{place}/{name}");
        if place == Place::Metadata && update::install::staging::is_of_root(name) {
            let limit = tuf::limits::MAX_ROOT_BYTES;
            let fetched = self.repository.at_most(&path, limit);
            let bytes = self.runtime.block_on(fetched).map_err(failed)?;
            self.keep_root(name, &bytes)
                .map_err(|error| FetchFailure::Unreachable {
                    name: name.to_owned(),
                    reason: format!("it cannot be staged: {error}"),
                })?;
            return Ok(Box::new(io::Cursor::new(bytes)));
        }
        let opened = self.runtime.block_on(self.repository.open(&path));
        Ok(Box::new(BlockingBody {
            body: opened.map_err(failed)?,
            runtime: self.runtime.clone(),
        }))
    }
}

impl Blocking<'_> {
    /// Only a device with a TPM asks for the approval, and only in the updater.
    fn keep_root(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        (self.roots)(name, bytes)?;
        let Some(version) = name.strip_suffix(".root.json") else {
            return Ok(());
        };
        let approval = format!("{version}.root.approval.json");
        let path = format!("{}/{approval}", Place::Metadata);
        let fetched = self.repository.at_most(&path, tpm::APPROVAL_MAX);
        match self.runtime.block_on(fetched) {
            Ok(bytes) => (self.roots)(&approval, &bytes),
            Err(FetchError::NotFound(_)) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// A file as it is read on a blocking thread: no more of it comes than is read.
struct BlockingBody {
    body: Body,
    runtime: Handle,
}

impl Read for BlockingBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.body.part.is_empty() {
            match self.runtime.block_on(self.body.next()) {
                Ok(Some(part)) => self.body.part = part,
                Ok(None) => return Ok(0),
                Err(why) => return Err(io::Error::other(why)),
            }
        }
        let read = buffer.len().min(self.body.part.len());
        buffer[..read].copy_from_slice(&self.body.part[..read]);
        self.body.part.advance(read);
        Ok(read)
    }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(act).await.map_err(|error| error.to_string())
}

#[expect(clippy::disallowed_methods, reason = "driver: owns the clock")]
fn now() -> Instant {
    Instant::now()
}
