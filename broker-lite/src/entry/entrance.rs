//! From an accepted socket to a served client: admission, handshake, and who it is. Driver.
//!
//! Invariant: whoever is served by certificate stands in the door's list, so that a reload finds
//! him; he is entered before the trust in force is looked at for the last time.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{HandshakeKind, pki_types::CertificateDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use crate::{
    address::Address,
    broker::{Admission, ConnectionId, ListenerId, Peer},
    config::Listener,
    entry::call::Call,
    entry::connection::Wire,
    entry::socket::Stream,
    entry::tls::{self, Distrusted, Trust},
    entry::websocket::{self, WebSocket},
    observe::audit::Refusal,
    shared::Shared,
};

/// How new connections are served; exchanged as a whole by a reload.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) config: Arc<Listener>,
    pub(crate) trust: Option<Arc<Trust>>,
}

/// A client's certificate and its intermediates; empty when it has shown none.
type Chain = Box<[CertificateDer<'static>]>;

/// What a listener's connections have in common.
pub(crate) struct Door {
    pub(crate) id: ListenerId,
    service: Mutex<Service>,
    chains: Mutex<HashMap<ConnectionId, Chain>>,
}

impl Door {
    pub(crate) fn new(id: ListenerId, service: Service) -> Door {
        Door {
            id,
            service: Mutex::new(service),
            chains: Mutex::default(),
        }
    }

    pub(crate) fn service(&self) -> Service {
        self.lock_service().clone()
    }

    /// Puts another service in force; gives the one before.
    pub(crate) fn exchange(&self, service: Service) -> Service {
        std::mem::replace(&mut *self.lock_service(), service)
    }

    /// Verifies every client's certificate by the trust in force; gives those who fail. Takes a
    /// signature check per client.
    pub(crate) fn distrusted(&self) -> Vec<(ConnectionId, Distrusted)> {
        let Some(trust) = self.service().trust else {
            return Vec::new();
        };
        let chains: Vec<(ConnectionId, Chain)> = self
            .lock_chains()
            .iter()
            .map(|(connection, chain)| (*connection, chain.clone()))
            .collect();
        let verified = chains
            .into_iter()
            .map(|(connection, chain)| (connection, trust.verify(&chain)));
        verified
            .filter_map(|(connection, verified)| Some((connection, verified.err()?)))
            .collect()
    }

    fn lock_service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_chains(&self) -> MutexGuard<'_, HashMap<ConnectionId, Chain>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a client's chain, and gives its name, unless the trust in force has changed its
    /// mind since the handshake.
    fn enter(
        &self,
        connection: ConnectionId,
        by: &Arc<Trust>,
        stream: &TlsStream<Stream>,
    ) -> Result<Option<String>, Distrusted> {
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        self.lock_chains().insert(connection, chain.into());
        let trust = self.service().trust.unwrap_or_else(|| Arc::clone(by));
        let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        if is_resumed || !Arc::ptr_eq(&trust, by) {
            trust.verify(chain)?;
        }
        trust.identity(chain)
    }

    fn forget(&self, connection: ConnectionId) {
        self.lock_chains().remove(&connection);
    }
}

impl Shared {
    /// Ends the connections of those whose certificates are no longer trusted.
    pub(crate) async fn send_distrusted_away(self: &Arc<Self>, doors: Vec<Arc<Door>>) -> usize {
        let verified = tokio::task::spawn_blocking(move || {
            let all = doors.iter().flat_map(|door| door.distrusted());
            all.collect::<Vec<_>>()
        });
        // It neither panics nor is it cancelled.
        let distrusted = verified.await.unwrap_or_default();
        let send_away = |(connection, Distrusted { refusal, why })| {
            // Its rules or its login may be gone too, so that it is on its way out already.
            self.visit(|core, now| match core.is_closing(connection) {
                true => 0,
                false => core.send_away(&[connection], refusal, &why, now),
            })
        };
        distrusted.into_iter().map(send_away).sum()
    }
}

/// Has the core admit the peer, and starts its task.
pub(crate) fn admit(shared: &Arc<Shared>, stream: Stream, address: Address, door: &Arc<Door>) {
    let Service { config, trust } = door.service();
    let peer = Peer {
        address,
        listener: door.id,
        admission: Admission::of(&config),
        certificate: None,
    };
    let Some((connection, call)) = shared.open(peer) else {
        return;
    };
    let guest = Guest {
        shared: Arc::clone(shared),
        door: Arc::clone(door),
        connection,
        call,
    };
    // One task for each kind of stream, so that none has room for what another needs.
    match (trust, config.websocket.is_some()) {
        (None, false) => {
            shared.visit(|core, now| core.handle_secured(connection, None, now));
            shared.tasks.spawn(guest.attend(stream))
        }
        (None, true) => shared.tasks.spawn(async move {
            let upgraded = async { Ok((None, upgrade(stream, &config).await?)) };
            guest
                .shake_hands_and_attend(Box::pin(upgraded), address)
                .await;
        }),
        (Some(trust), false) => shared.tasks.spawn(async move {
            let door = Arc::clone(&guest.door);
            let secured = Box::pin(secure(stream, &door, &trust, connection));
            guest.shake_hands_and_attend(secured, address).await;
        }),
        (Some(trust), true) => shared.tasks.spawn(async move {
            let door = Arc::clone(&guest.door);
            let upgraded = async {
                let (name, stream) = secure(stream, &door, &trust, connection).await?;
                Ok((name, upgrade(stream, &config).await?))
            };
            guest
                .shake_hands_and_attend(Box::pin(upgraded), address)
                .await;
        }),
    };
}

/// A connection with what its task needs.
struct Guest {
    shared: Arc<Shared>,
    door: Arc<Door>,
    connection: ConnectionId,
    call: Arc<Call>,
}

impl Guest {
    /// No `async fn`, whose future would have room for the stream beside the wire.
    fn attend<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) -> impl Future<Output = ()> {
        let door = self.door;
        let mut wire = Wire::new(self.shared, self.call, stream, self.connection);
        async move {
            wire.serve().await;
            let (shared, connection) = wire.end();
            leave(&shared, &door, connection);
        }
    }

    /// The handshake comes boxed: what it needs is given back before the client is served.
    async fn shake_hands_and_attend<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        handshake: Pin<Box<impl Future<Output = Result<(Option<String>, S), Distrusted>>>>,
        address: Address,
    ) {
        match self.shake_hands(handshake, address).await {
            Some(stream) => self.attend(stream).await,
            None => leave(&self.shared, &self.door, self.connection),
        }
    }

    /// Waits for its turn, shakes hands, and tells the core how it went.
    async fn shake_hands<S>(
        &self,
        handshake: Pin<Box<impl Future<Output = Result<(Option<String>, S), Distrusted>>>>,
        address: Address,
    ) -> Option<Box<S>> {
        let (shared, connection) = (&self.shared, self.connection);
        let patience = shared.lock().core.handshake_timeout();
        let shaken = match timeout(patience, shared.handshakes.turn(address)).await {
            // The time of its own, however long it waited: others must not make it fail.
            Ok(_turn) => timeout(patience, handshake)
                .await
                .unwrap_or_else(|_elapsed| {
                    let why = "the handshake took too long (limits.handshake_timeout)";
                    Err(unshaken(why.to_owned()))
                }),
            Err(_elapsed) => Err(Distrusted {
                refusal: Refusal::TooManyHandshakes,
                why: "its turn did not come in time (limits.handshakes, handshake_timeout)"
                    .to_owned(),
            }),
        };
        match shaken {
            Ok((name, stream)) => {
                shared.visit(|core, now| core.handle_secured(connection, name, now));
                Some(Box::new(stream))
            }
            Err(Distrusted { refusal, why }) => {
                shared.visit(|core, now| {
                    core.handle_handshake_failed(connection, refusal, why, now);
                });
                None
            }
        }
    }
}

fn leave(shared: &Arc<Shared>, door: &Door, connection: ConnectionId) {
    shared.closed(connection);
    door.forget(connection);
}

/// Opens a WebSocket on a stream.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    config: &Listener,
) -> Result<WebSocket<S>, Distrusted> {
    websocket::upgrade(stream, config).await.map_err(unshaken)
}

/// Shakes TLS hands and finds out who the client is.
async fn secure(
    stream: Stream,
    door: &Door,
    trust: &Arc<Trust>,
    connection: ConnectionId,
) -> Result<(Option<String>, TlsStream<Stream>), Distrusted> {
    let accepted = trust.acceptor.accept(stream).await;
    let stream = accepted.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        inner.map_or_else(|| unshaken(error.to_string()), tls::distrusted)
    })?;
    let name = door.enter(connection, trust, &stream)?;
    Ok((name, stream))
}

fn unshaken(why: String) -> Distrusted {
    Distrusted {
        refusal: Refusal::Handshake,
        why,
    }
}
