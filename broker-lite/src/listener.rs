//! Listening sockets: bound, compared with a new configuration, accepted from. Driver.
//!
//! Invariant: a configuration is applied as a whole; what cannot be bound or read leaves
//! everything as it was.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    broker::{ConnectionId, Peer},
    config::{ClientAuth, Config, Listener},
    connection,
    packet::ReasonCode,
    shared::Shared,
    start::{Reloaded, StartError},
    tls,
};

/// When no connection can be accepted (no file descriptor is free), the next try comes after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// An address that is listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// With the port that was taken where 0 was configured.
    pub address: SocketAddr,
    /// Whether it serves TLS.
    pub tls: bool,
}

/// `127.0.0.1:1883`, or `0.0.0.0:8883 (TLS)`.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { " (TLS)" } else { "" };
        write!(f, "{}{tls}", self.address)
    }
}

/// How new connections are served; exchanged as a whole by a reload.
#[derive(Clone)]
struct Service {
    config: Listener,
    acceptor: Option<TlsAcceptor>,
}

/// One listening socket.
struct Open {
    bound: SocketAddr,
    service: Arc<Mutex<Service>>,
    stop: CancellationToken,
}

/// Every listening socket, in the order of the configuration.
#[derive(Default)]
pub(crate) struct Listeners {
    open: Vec<Open>,
}

/// A listener of the new configuration, with all that can fail behind it.
pub(crate) struct Prepared {
    service: Service,
    /// Absent where the address is listened on already.
    socket: Option<(TcpListener, SocketAddr)>,
}

/// Binds what is not bound yet and reads all certificates; changes nothing.
pub(crate) async fn prepare(
    config: &Config,
    present: &Listeners,
) -> Result<Vec<Prepared>, StartError> {
    let mut prepared = Vec::with_capacity(config.listeners.len());
    let mut taken = vec![false; present.open.len()];
    for listener in &config.listeners {
        let acceptor = listener.tls.as_ref().map(tls::acceptor).transpose();
        let acceptor = acceptor.map_err(|source| StartError::Tls {
            address: listener.address,
            source: Box::new(source),
        })?;
        let kept = present.position(listener.address, &taken);
        if let Some(index) = kept {
            taken[index] = true;
        }
        let socket = match kept {
            Some(_) => None,
            None => Some(bind(listener.address).await?),
        };
        prepared.push(Prepared {
            service: Service {
                config: listener.clone(),
                acceptor,
            },
            socket,
        });
    }
    Ok(prepared)
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind { address, source };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

impl Listeners {
    pub(crate) fn bound(&self) -> Vec<Bound> {
        self.open
            .iter()
            .map(|open| Bound {
                address: open.bound,
                tls: open.service().config.tls.is_some(),
            })
            .collect()
    }

    /// Stops listening; connections go on.
    pub(crate) fn close(&mut self) {
        for open in self.open.drain(..) {
            open.stop.cancel();
        }
    }

    /// Puts prepared listeners in force. Clients of those that are gone, or serve otherwise now,
    /// are sent away.
    pub(crate) fn apply(&mut self, prepared: Vec<Prepared>, shared: &Arc<Shared>) -> Reloaded {
        let mut reloaded = Reloaded::default();
        let mut before: HashMap<SocketAddr, Vec<Open>> = HashMap::new();
        for open in self.open.drain(..) {
            let address = open.service().config.address;
            before.entry(address).or_default().push(open);
        }
        for Prepared { service, socket } in prepared {
            let known = before.get_mut(&service.config.address).and_then(Vec::pop);
            let open = match (known, socket) {
                (Some(open), _) => {
                    reloaded.disconnected += open.exchange(service, shared);
                    open
                }
                (None, Some((socket, bound))) => {
                    let open = Open::start(service, socket, bound, shared);
                    reloaded.opened.push(open.bound);
                    open
                }
                (None, None) => continue,
            };
            self.open.push(open);
        }
        for open in before.into_values().flatten() {
            open.stop.cancel();
            reloaded.closed.push(open.bound);
            reloaded.disconnected += shared.leave_listener(open.bound);
        }
        reloaded
    }

    fn position(&self, address: SocketAddr, taken: &[bool]) -> Option<usize> {
        let is_free =
            |index: &usize| !taken[*index] && self.open[*index].service().config.address == address;
        (0..self.open.len()).find(is_free)
    }
}

impl Open {
    fn start(
        service: Service,
        socket: TcpListener,
        bound: SocketAddr,
        shared: &Arc<Shared>,
    ) -> Open {
        info!(target: "broker_lite::listener", address = %bound, tls = service.acceptor.is_some(), "listening");
        let open = Open {
            bound,
            service: Arc::new(Mutex::new(service)),
            stop: shared.stop.child_token(),
        };
        let accepting = accept(
            Arc::clone(shared),
            socket,
            bound,
            Arc::clone(&open.service),
            open.stop.clone(),
        );
        shared.tasks.spawn(accepting);
        open
    }

    fn service(&self) -> Service {
        self.service
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Serves new clients otherwise; present ones go if the listener's own configuration changed.
    fn exchange(&self, service: Service, shared: &Arc<Shared>) -> usize {
        let mut current = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        let same = current.config == service.config;
        *current = service;
        drop(current);
        if same {
            0
        } else {
            shared.leave_listener(self.bound)
        }
    }
}

impl Shared {
    fn leave_listener(self: &Arc<Self>, bound: SocketAddr) -> usize {
        self.visit(|core, now| core.close_listener(bound, ReasonCode::AdministrativeAction, now))
    }
}

/// Accepts until stopped. An error of one connection does not end the others', and running out of
/// file descriptors costs a pause, not a processor.
async fn accept(
    shared: Arc<Shared>,
    socket: TcpListener,
    bound: SocketAddr,
    service: Arc<Mutex<Service>>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // An IPv4 peer of an IPv6 socket counts as what it is.
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                let service = service
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                admit(&shared, stream, address, bound, service);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                warn!(target: "broker_lite::listener", address = %bound, %error, "cannot accept; trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Has the core admit the peer, and starts its task.
fn admit(
    shared: &Arc<Shared>,
    stream: TcpStream,
    address: SocketAddr,
    listener: SocketAddr,
    service: Service,
) {
    let anonymous = service.config.allows_anonymous();
    let peer = Peer {
        address,
        listener,
        anonymous,
        certificate: None,
    };
    let Some((connection, call)) = shared.open(peer) else {
        return;
    };
    // Without it only latency suffers.
    let _slower = stream.set_nodelay(true);
    let task_shared = Arc::clone(shared);
    match service.acceptor {
        None => shared.tasks.spawn(async move {
            task_shared.visit(|core, now| core.handle_secured(connection, None, now));
            attend(task_shared, stream, connection, call).await;
        }),
        Some(acceptor) => {
            let wish = service
                .config
                .tls
                .as_ref()
                .map_or(ClientAuth::None, tls::client_auth);
            shared.tasks.spawn(async move {
                if let Some(stream) = secure(&task_shared, stream, acceptor, connection, wish).await
                {
                    attend(task_shared, *stream, connection, call).await;
                } else {
                    task_shared.closed(connection);
                }
            })
        }
    };
}

async fn attend<S>(shared: Arc<Shared>, stream: S, connection: ConnectionId, call: Arc<Notify>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    connection::serve(&shared, stream, connection, &call).await;
    shared.closed(connection);
}

/// Shakes hands and finds out who the client is.
async fn secure(
    shared: &Arc<Shared>,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    connection: ConnectionId,
    wish: ClientAuth,
) -> Option<Box<TlsStream<TcpStream>>> {
    let patience = shared.lock().core.handshake_timeout();
    let failure = match timeout(patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first());
            let name = shown.map(tls::identity);
            match name {
                Some(None) => "the client's certificate holds no usable name".to_owned(),
                None if wish == ClientAuth::Required => {
                    "the client showed no certificate".to_owned()
                }
                name => {
                    let name = name.flatten();
                    shared.visit(|core, now| core.handle_secured(connection, name, now));
                    return Some(Box::new(stream));
                }
            }
        }
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => "the TLS handshake took too long (limits.handshake_timeout)".to_owned(),
    };
    shared.visit(|core, now| core.handle_handshake_failed(connection, failure, now));
    None
}
