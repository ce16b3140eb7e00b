//! Listening sockets: bound, compared with a new configuration, accepted from. Driver.
//!
//! Invariant: a configuration is applied as a whole; what cannot be bound or read leaves
//! everything as it was.

use std::{fmt, io, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    address::Endpoint,
    broker::{Admission, ListenerId},
    config::{Config, Listener},
    entry::descriptors::{self, Spare},
    entry::entrance::{Door, Service, admit},
    entry::socket::{self, Socket},
    entry::tls::Trust,
    packet::ReasonCode,
    shared::Shared,
    start::{Reloaded, StartError},
};

/// When no connection can be accepted (no file descriptor is free), the next try comes after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A place that is listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// With the port that was taken where 0 was configured.
    pub address: Endpoint,
    /// Whether it serves TLS.
    pub tls: bool,
    /// Whether it speaks MQTT over WebSocket.
    pub websocket: bool,
}

/// `127.0.0.1:1883`, or `0.0.0.0:8883 (TLS)`.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spoken = match (self.tls, self.websocket) {
            (false, false) => "",
            (true, false) => " (TLS)",
            (false, true) => " (WebSocket)",
            (true, true) => " (WebSocket over TLS)",
        };
        write!(f, "{}{spoken}", self.address)
    }
}

/// One listening socket.
struct Open {
    bound: Endpoint,
    door: Arc<Door>,
    stop: CancellationToken,
}

/// Every listening socket, in the order of the configuration.
#[derive(Default)]
pub(crate) struct Listeners {
    open: Vec<Open>,
    last_id: u32,
}

/// A listener of the new configuration, with all that can fail behind it.
pub(crate) struct Prepared {
    endpoint: Endpoint,
    service: Service,
    /// Absent where the place is listened on already.
    socket: Option<(Socket, Endpoint)>,
}

/// Binds what is not bound yet and reads all certificates; changes nothing.
pub(crate) async fn prepare(
    config: &Config,
    present: &Listeners,
) -> Result<Vec<Prepared>, StartError> {
    let mut prepared = Vec::with_capacity(config.listeners.len());
    let mut taken = vec![false; present.open.len()];
    for (number, listener) in (1..).zip(&config.listeners) {
        let endpoint = listener.endpoint().ok_or(StartError::Nowhere { number })?;
        let trust = listener.tls.as_ref().map(|tls| Trust::read(listener, tls));
        let trust = trust.transpose().map_err(|source| StartError::Tls {
            endpoint: endpoint.clone(),
            source: Box::new(source),
        })?;
        let kept = present.position(&endpoint, &taken);
        let socket = match kept {
            Some(index) => {
                taken[index] = true;
                None
            }
            None => Some(bind(&endpoint, listener).await?),
        };
        prepared.push(Prepared {
            endpoint,
            service: Service {
                config: Arc::new(listener.clone()),
                trust: trust.map(Arc::new),
            },
            socket,
        });
    }
    Ok(prepared)
}

async fn bind(endpoint: &Endpoint, listener: &Listener) -> Result<(Socket, Endpoint), StartError> {
    let bound = Socket::bind(endpoint, listener.mode).await;
    bound.map_err(|source| StartError::Bind {
        endpoint: endpoint.clone(),
        source,
    })
}

impl Listeners {
    pub(crate) fn bound(&self) -> Vec<Bound> {
        self.open
            .iter()
            .map(|open| {
                let service = open.door.service();
                Bound {
                    address: open.bound.clone(),
                    tls: service.trust.is_some(),
                    websocket: service.config.websocket.is_some(),
                }
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
        let mut before = std::mem::take(&mut self.open);
        for Prepared {
            endpoint,
            service,
            socket,
        } in prepared
        {
            let open = match socket {
                None => {
                    let is_it = |open: &Open| {
                        open.door.service().config.endpoint().as_ref() == Some(&endpoint)
                    };
                    let Some(index) = before.iter().position(is_it) else {
                        continue;
                    };
                    let open = before.remove(index);
                    reloaded.disconnected += open.exchange(service, shared);
                    open
                }
                Some((socket, bound)) => {
                    self.last_id += 1;
                    let open =
                        Open::start(ListenerId(self.last_id), service, socket, bound, shared);
                    reloaded.opened.push(open.bound.clone());
                    open
                }
            };
            self.open.push(open);
        }
        for open in before {
            open.stop.cancel();
            reloaded.disconnected += shared.leave_listener(open.door.id);
            shared.lock().core.forget_listener(open.door.id);
            reloaded.closed.push(open.bound);
        }
        reloaded
    }

    /// The doors whose clients' certificates are to be verified again after a reload.
    pub(crate) fn doors(&self) -> Vec<Arc<Door>> {
        self.open
            .iter()
            .map(|open| Arc::clone(&open.door))
            .collect()
    }

    fn position(&self, endpoint: &Endpoint, taken: &[bool]) -> Option<usize> {
        let is_free = |index: &usize| {
            !taken[*index]
                && self.open[*index].door.service().config.endpoint().as_ref() == Some(endpoint)
        };
        (0..self.open.len()).find(is_free)
    }
}

impl Open {
    fn start(
        id: ListenerId,
        service: Service,
        socket: Socket,
        bound: Endpoint,
        shared: &Arc<Shared>,
    ) -> Open {
        info!(target: "broker_lite::entry::listener", address = %bound, tls = service.trust.is_some(), "listening");
        let open = Open {
            bound,
            door: Arc::new(Door::new(id, service)),
            stop: shared.stop.child_token(),
        };
        shared.lock().core.name_listener(id, &open.bound);
        let accepting = accept(
            Arc::clone(shared),
            socket,
            open.bound.clone(),
            Arc::clone(&open.door),
            open.stop.clone(),
        );
        shared.tasks.spawn(accepting);
        open
    }

    /// Serves new clients otherwise; present ones go if what they speak, or are known by, changed.
    fn exchange(&self, service: Service, shared: &Arc<Shared>) -> usize {
        let (id, admission) = (self.door.id, Admission::of(&service.config));
        if let Endpoint::Unix(path) = &self.bound
            && let Err(error) = socket::set_mode(path, service.config.mode)
        {
            warn!(target: "broker_lite::entry::listener", path = %path.display(), %error, "cannot set the socket's permissions; they stay as they were");
        }
        let before = self.door.exchange(service);
        if serves_alike(&before.config, &self.door.service().config) {
            shared.visit(|core, now| core.replace_admission(id, admission, now))
        } else {
            shared.leave_listener(id)
        }
    }
}

fn serves_alike(before: &Listener, after: &Listener) -> bool {
    before.tls.is_some() == after.tls.is_some()
        && before.websocket == after.websocket
        && before.websocket_origins == after.websocket_origins
        && before.identity == after.identity
        && before.certificate_name == after.certificate_name
}

impl Shared {
    fn leave_listener(self: &Arc<Self>, id: ListenerId) -> usize {
        self.visit(|core, now| core.close_listener(id, ReasonCode::AdministrativeAction, now))
    }
}

/// Accepts until stopped. An error of one connection does not end the others'; when no file
/// descriptor is free, whoever connects is closed by means of a spare one, or has to wait.
async fn accept(
    shared: Arc<Shared>,
    socket: Socket,
    bound: Endpoint,
    door: Arc<Door>,
    stop: CancellationToken,
) {
    let mut spare = Spare::new();
    let mut failing = false;
    let mut silence = shared.lock().core.half_open_timeout();
    socket.notice_silence(silence);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                failing = false;
                let silence_now = shared.lock().core.half_open_timeout();
                if silence_now != silence {
                    silence = silence_now;
                    socket.notice_silence(silence);
                    stream.notice_silence(silence);
                }
                admit(&shared, stream, address, &door);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) if descriptors::are_exhausted(&error) && spare.give_up() => {
                turn_away(&shared, &socket).await;
                spare.take_back();
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(target: "broker_lite::entry::listener", address = %bound, %error, "cannot accept; trying again");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
                spare.take_back();
            }
        }
    }
}

/// Accepts the connection that waits, and closes it.
async fn turn_away(shared: &Arc<Shared>, socket: &Socket) {
    // It may have gone meanwhile; then there is nothing to wait for.
    let waiting = timeout(Duration::ZERO, socket.accept()).await;
    if let Ok(Ok((stream, address))) = waiting {
        drop(stream);
        let why = "no file descriptor is free (LimitNOFILE= of the service)";
        shared.visit(|core, _now| core.turned_away(address, why));
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
