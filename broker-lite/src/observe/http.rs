//! Pages over HTTP: one small, bounded server for metrics and whatever else is only to be read. Driver.
//!
//! Invariant: a connection holds one of `CONNECTIONS_MAX` places, for one request and no longer than
//! `CONNECTION_TIME`; nothing asked changes anything.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use crate::observe::metrics;

/// Connections served at once; others wait in the system's queue.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request's head; hyper takes no less.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// Time for a request's head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time for a whole connection.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed accept, such as no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What is served under a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its media type.
    pub content_type: &'static str,
    /// Its content.
    pub body: String,
}

/// Finds the page of a path; `None`: there is none.
pub type Pages = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

/// A server's only page: metrics, written when they are asked for.
pub fn metrics_page(write: impl Fn() -> String + Send + Sync + 'static) -> Pages {
    Arc::new(move |path| {
        (path == "/metrics").then(|| Page {
            content_type: metrics::CONTENT_TYPE,
            body: write(),
        })
    })
}

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Server {
    /// Listens on `address` and serves pages from then on.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(address: SocketAddr, pages: Pages) -> io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        info!(target: "broker_lite::observe::http", %address, "serving metrics");
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = accept(listener, pages) => {}
            }
        });
        Ok(Server {
            address,
            _stop: stop.drop_guard(),
        })
    }

    /// Where it listens, with the port that was taken where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener, pages: Pages) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    serve(stream, pages).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(target: "broker_lite::observe::http", %error, "cannot accept; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, pages: Pages) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &pages);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(target: "broker_lite::observe::http", %error, "request failed"),
        Err(_elapsed) => debug!(target: "broker_lite::observe::http", "request took too long"),
    }
}

fn answer(method: &Method, path: &str, pages: &Pages) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, allowed);
        return refusal;
    }
    match pages(path) {
        Some(page) => {
            let mut found = Response::new(Full::new(Bytes::from(page.body)));
            let kind = hyper::header::HeaderValue::from_static(page.content_type);
            found.headers_mut().insert(CONTENT_TYPE, kind);
            found
        }
        None => text(StatusCode::NOT_FOUND, "no such page; try /metrics\n"),
    }
}

fn text(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(words.as_bytes())));
    *response.status_mut() = status;
    response
}
