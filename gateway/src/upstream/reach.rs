//! Reaches the upstream: its address or its proxy, then TLS. MQTT begins behind it.
//!
//! Invariant: what blocks in a handshake, a key above all that takes its time to sign, blocks no
//! thread that serves anybody else. Layer: driver.

use std::{net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, lookup_host},
    runtime::Handle,
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    cause::Cause,
    proxy::{self, Proxy},
};
use crate::{
    config::{self, url::UpstreamUrl},
    wording::plain,
};

/// How upstreams are reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    proxy: Option<Proxy>,
}

impl Reach {
    /// As `[upstream]` says; an error when the proxy's address makes no sense.
    pub(crate) fn of(config: &config::Upstream) -> Result<Reach, String> {
        let proxy = Proxy::of(config)?;
        Ok(Reach { proxy })
    }

    /// A connection to the upstream's port, over the proxy where there is one.
    pub(crate) async fn tcp(
        &self,
        url: &UpstreamUrl,
        deadline: Instant,
    ) -> Result<TcpStream, Cause> {
        let Some(proxy) = &self.proxy else {
            return connect(&url.host, url.port, deadline)
                .await
                .map_err(Cause::Unreachable);
        };
        let stream = connect(&proxy.host, proxy.port, deadline).await;
        let mut stream =
            stream.map_err(|why| Cause::Unreachable(format!("proxy {proxy}: {why}")))?;
        timeout_at(deadline, proxy::ask(proxy, &mut stream, url))
            .await
            .map_err(|_| Cause::Unreachable(format!("proxy {proxy}: no answer in time")))??;
        Ok(stream)
    }
}

/// Tries each address of a name, with an equal share of the time left.
async fn connect(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, String> {
    let found = timeout_at(deadline, lookup_host((host, port))).await;
    let found = found.map_err(|_| "the name was not resolved in time".to_owned())?;
    let addresses: Vec<SocketAddr> = found
        .map_err(|error| format!("cannot resolve {host}: {error}"))?
        .collect();
    let mut last = format!("{host} has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match timeout_at(now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // What belongs together is written together; the rest must not wait for it.
                stream.set_nodelay(true).map_err(|error| plain(&error))?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = plain(&error),
            Err(_) => last = "no answer in time".to_owned(),
        }
    }
    Err(last)
}

/// TLS over a connection, `name` being what the server's certificate must bear.
///
/// rustls signs while it is polled, and a TPM takes up to 150 ms for it: the handshake is polled on
/// a thread that may block, and given up there as soon as nobody waits for it.
pub(crate) async fn handshake(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    deadline: Instant,
) -> Result<TlsStream<TcpStream>, Cause> {
    let (mut done, outcome) = oneshot::channel();
    let runtime = Handle::current();
    spawn_blocking(move || {
        runtime.block_on(async move {
            let attempt = TlsConnector::from(config).connect(name, stream);
            let ended = tokio::select! {
                ended = timeout_at(deadline, attempt) => ended,
                () = done.closed() => return,
            };
            let _gone = done.send(ended);
        });
    });
    match outcome.await {
        Ok(Ok(Ok(stream))) => Ok(stream),
        Ok(Ok(Err(error))) => Err(Cause::of(&error)),
        Ok(Err(_)) => Err(Cause::Unreachable(
            "TLS was not agreed on in time".to_owned(),
        )),
        Err(_) => Err(Cause::Closed("the handshake ended by a bug".to_owned())),
    }
}

#[expect(clippy::disallowed_methods, reason = "driver: owns the clock")]
fn now() -> Instant {
    Instant::now()
}
