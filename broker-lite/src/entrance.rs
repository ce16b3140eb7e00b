//! From an accepted socket to a served client: admission, handshake, and who it is. Driver.
//!
//! Invariant: whoever is served by certificate stands in the door's list, so that a reload finds
//! him; he is entered before the trust in force is looked at for the last time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{HandshakeKind, pki_types::CertificateDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use crate::{
    address::Address,
    audit::Refusal,
    broker::{Admission, ConnectionId, ListenerId, Peer},
    config::Listener,
    connection,
    shared::Shared,
    socket::Stream,
    tls::{self, Distrusted, Trust},
};

/// How new connections are served; exchanged as a whole by a reload.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) config: Listener,
    pub(crate) trust: Option<Arc<Trust>>,
}

/// A client's certificate and its intermediates.
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
        if !chain.is_empty() {
            self.lock_chains().insert(connection, chain.into());
        }
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
        let count = distrusted.len();
        for (connection, Distrusted { refusal, why }) in distrusted {
            self.visit(|core, now| core.send_away(&[connection], refusal, &why, now));
        }
        count
    }
}

/// Has the core admit the peer, and starts its task.
pub(crate) fn admit(shared: &Arc<Shared>, stream: Stream, address: Address, door: &Arc<Door>) {
    let service = door.service();
    let peer = Peer {
        address,
        listener: door.id,
        admission: Admission::of(&service.config),
        certificate: None,
    };
    let Some((connection, call)) = shared.open(peer) else {
        return;
    };
    let task_shared = Arc::clone(shared);
    match service.trust {
        None => shared.tasks.spawn(async move {
            task_shared.visit(|core, now| core.handle_secured(connection, None, now));
            attend(task_shared, stream, connection, call).await;
        }),
        Some(trust) => {
            let door = Arc::clone(door);
            shared.tasks.spawn(async move {
                if let Some(stream) = secure(&task_shared, stream, &door, trust, connection).await {
                    attend(task_shared, *stream, connection, call).await;
                } else {
                    task_shared.closed(connection);
                }
                door.forget(connection);
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
    stream: Stream,
    door: &Door,
    trust: Arc<Trust>,
    connection: ConnectionId,
) -> Option<Box<TlsStream<Stream>>> {
    let patience = shared.lock().core.handshake_timeout();
    let shaken = timeout(patience, Box::pin(trust.acceptor.accept(stream))).await;
    let entered = match shaken {
        Ok(Ok(stream)) => door
            .enter(connection, &trust, &stream)
            .map(|name| (name, Box::new(stream))),
        Ok(Err(error)) => Err(failure(&error)),
        Err(_elapsed) => Err(Distrusted {
            refusal: Refusal::Handshake,
            why: "the TLS handshake took too long (limits.handshake_timeout)".to_owned(),
        }),
    };
    match entered {
        Ok((name, stream)) => {
            shared.visit(|core, now| core.handle_secured(connection, name, now));
            Some(stream)
        }
        Err(Distrusted { refusal, why }) => {
            shared.visit(|core, now| core.handle_handshake_failed(connection, refusal, why, now));
            None
        }
    }
}

fn failure(error: &std::io::Error) -> Distrusted {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(error) => tls::distrusted(error),
        None => Distrusted {
            refusal: Refusal::Handshake,
            why: error.to_string(),
        },
    }
}
