//! Fetches files over HTTP and HTTPS, one connection each.
//!
//! Invariant: an answer takes a bounded time, however slowly it drips; redirections are not followed. A driver.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tuf::fetch::{FetchFailure, Fetcher, Place};

/// From the name's look-up to the answer's head.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// For one file, so that no sender can keep us for ever.
const FILE_TIME: Duration = Duration::from_secs(3600);

/// Without a byte.
const SILENCE_TIME: Duration = Duration::from_secs(30);

/// Where a repository is.
pub(crate) struct Addresses {
    pub(crate) metadata: String,
    pub(crate) targets: Option<String>,
}

/// A repository on a web server.
pub(crate) struct Http {
    addresses: Addresses,
    ca_file: PathBuf,
    runtime: Runtime,
}

impl Http {
    pub(crate) fn new(addresses: Addresses, ca_file: &Path) -> Result<Self> {
        Ok(Self {
            addresses,
            ca_file: ca_file.into(),
            runtime: Builder::new_current_thread().enable_all().build()?,
        })
    }

    fn address(&self, place: Place, name: &str) -> Result<Uri> {
        let base = match place {
            Place::Metadata => &self.addresses.metadata,
            Place::Targets => {
                let targets = self.addresses.targets.as_ref();
                targets.context("targets need --target-base-url")?
            }
        };
        let address = format!("{}/{name}", base.trim_end_matches('/'));
        address
            .parse()
            .with_context(|| format!("{address} is not an address"))
    }
}

impl Fetcher for Http {
    fn open(&mut self, place: Place, name: &str) -> Result<Box<dyn Read + '_>, FetchFailure> {
        let answer = self.address(place, name).and_then(|address| {
            self.runtime.block_on(async {
                timeout(ANSWER_TIME, ask(&address, &self.ca_file))
                    .await
                    .unwrap_or_else(|_| Err(anyhow!("no answer within {ANSWER_TIME:?}")))
            })
        });
        let unreachable = |reason: String| FetchFailure::Unreachable {
            name: name.into(),
            reason,
        };
        let answer = answer.map_err(|error| unreachable(format!("{error:#}")))?;
        match answer.status() {
            StatusCode::OK => Ok(Box::new(Body {
                runtime: &self.runtime,
                incoming: answer.into_body(),
                chunk: Bytes::new(),
                ends: Instant::now() + FILE_TIME,
            })),
            // Object stores say 403 of what is not there to those who may not list it.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {
                Err(FetchFailure::NotFound(name.into()))
            }
            status => Err(unreachable(format!("the server answers {status}"))),
        }
    }
}

/// The bytes of an answer as they come.
struct Body<'a> {
    runtime: &'a Runtime,
    incoming: Incoming,
    chunk: Bytes,
    ends: Instant,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let incoming = &mut self.incoming;
            let ends = self.ends.min(Instant::now() + SILENCE_TIME);
            let frame = self
                .runtime
                .block_on(async { timeout_at(ends, incoming.frame()).await });
            match frame {
                Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
                Ok(None) => return Ok(0),
                Ok(Some(frame)) => {
                    let frame = frame.map_err(io::Error::other)?;
                    self.chunk = frame.into_data().unwrap_or_default();
                }
            }
        }
        let count = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

async fn ask(address: &Uri, ca_file: &Path) -> Result<Response<Incoming>> {
    let host = address.host().context("the address names no host")?;
    let is_https = match address.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => bail!("{address} is neither http:// nor https://"),
    };
    let port = address
        .port_u16()
        .unwrap_or(if is_https { 443 } else { 80 });
    let bare_host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare_host, port))
        .await
        .with_context(|| format!("cannot connect to {host}:{port}"))?;
    if is_https {
        let name = ServerName::try_from(bare_host.to_owned())?;
        let stream = tls(ca_file)?.connect(name, stream).await;
        let stream = stream.with_context(|| format!("no TLS with {host}:{port}"))?;
        exchange(stream, address).await
    } else {
        exchange(stream, address).await
    }
}

async fn exchange<Stream>(stream: Stream, address: &Uri) -> Result<Response<Incoming>>
where
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer's body; what it ends with shows there.
    tokio::spawn(connection);
    let authority = address.authority().context("the address names no host")?;
    let path = address
        .path_and_query()
        .context("the address has no path")?;
    let request = Request::get(path.as_str())
        .header(HOST, authority.as_str())
        .header(
            USER_AGENT,
            concat!("tuf-client/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())?;
    Ok(sender.send_request(request).await?)
}

fn tls(ca_file: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca_file)
        .with_context(|| format!("cannot read {}", ca_file.display()))?;
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
