//! Local clients while the service runs: what is asked of them on the control socket, what is due by
//! itself, and the broker that is told at once. Shell.
//!
//! ```text
//!  client WISH   ─▶ {"listed":…}, {"certified":…}, {"password-set":…}, {"revoked":…} or {"error":…,"exit":…}
//! ```
//!
//! Invariant: one change at a time; what was answered is on disk and in force.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context;
use broker_lite::{
    config::Config as BrokerConfig,
    server::{Broker, Reloaded, StartError},
};
use jiff::Timestamp;
use serde_json::json;
use tokio::{
    sync::{Mutex, Notify},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    audit::{self, ClientEvent},
    bus_tools,
    trusted::Trusted,
};
use crate::{
    clients::{self, Certified, ClientName, Done, Listing, Office, OfficeError, Registry, Wish},
    clock,
    config::Config,
    control::Answer,
};

/// What a question about clients begins with.
pub(super) const WORDS: &str = "client ";
/// Between two looks at what is due.
const KEPT_EVERY: Duration = Duration::from_secs(3_600);
/// The same while something could not be signed or stored.
const TRIED_EVERY: Duration = Duration::from_secs(60);

/// What the clients are at the start, before there is a broker.
pub(super) struct Opened {
    office: Office,
    known: Known,
}

/// What is known of clients.
#[derive(Clone, Default)]
struct Known {
    registry: Registry,
    /// What could not be signed or stored.
    trouble: Option<String>,
}

impl Opened {
    /// Reads who the clients are; makes the authority if a listener asks for it.
    ///
    /// # Errors
    /// A listener asks for the authority, and it can neither be read nor made.
    pub(super) async fn new(
        config: &Config,
        id: &Arc<str>,
        trusted: &Trusted,
    ) -> anyhow::Result<Opened> {
        let office = Office::new(&config.clients, id, trusted.key());
        let known = match keep(&office, config).await {
            Err(error) if !clients::wanted(config).authority => {
                warn!(%error, "the clients that were added are not known; what the configuration says counts alone");
                Known {
                    trouble: Some(error.to_string()),
                    ..Known::default()
                }
            }
            known => known.context("listeners ask for the gateway's own authority ([clients])")?,
        };
        Ok(Opened { office, known })
    }

    /// What the broker is to serve.
    pub(super) fn served(&self, broker: &BrokerConfig) -> BrokerConfig {
        clients::served(broker, &self.office, &self.known.registry)
    }
}

/// See the module's description; clones are the same one.
#[derive(Clone)]
pub(super) struct Desk(Arc<Inner>);

struct Inner {
    broker: Broker,
    id: Arc<str>,
    trusted: Trusted,
    state: Mutex<State>,
    known: RwLock<Known>,
    /// Something changed, so that something may be due earlier.
    changed: Notify,
}

/// What is in force.
struct State {
    office: Office,
    config: Config,
}

impl Desk {
    pub(super) fn new(
        opened: Opened,
        broker: Broker,
        id: Arc<str>,
        trusted: Trusted,
        config: &Config,
    ) -> Desk {
        Desk(Arc::new(Inner {
            broker,
            id,
            trusted,
            state: Mutex::new(State {
                office: opened.office,
                config: config.clone(),
            }),
            known: RwLock::new(opened.known),
            changed: Notify::new(),
        }))
    }

    /// Clients and authority at this moment, and what could not be signed or stored.
    pub(super) fn listing(&self) -> (Listing, Option<String>) {
        let known = self.known();
        (clients::shown(&known.registry), known.trouble)
    }

    /// Puts another configuration in force in the broker, with all that clients add to it.
    ///
    /// # Errors
    /// It cannot be used; then nothing has changed.
    pub(super) async fn reload(&self, config: &Config) -> anyhow::Result<Reloaded> {
        let mut state = self.0.state.lock().await;
        let opened = Opened::new(config, &self.0.id, &self.0.trusted).await?;
        let served = opened.served(&config.broker);
        let reloaded = self.0.broker.reload(&served).await;
        let reloaded = reloaded.context("cannot change the broker")?;
        *state = State {
            office: opened.office,
            config: config.clone(),
        };
        self.know(opened.known);
        Ok(reloaded)
    }

    /// Answers what follows [`WORDS`].
    pub(super) fn answer(&self, wish: &str, user: Option<u32>) -> Answer {
        let wish: Wish = match serde_json::from_str(wish) {
            Ok(wish) => wish,
            Err(error) => {
                let error = format!("this is no wish about clients: {error}");
                return json!({ "error": error, "exit": 2 }).into();
            }
        };
        let desk = self.clone();
        // Of its own, so that it is carried through and written down even when nobody waits any more.
        let done = tokio::spawn(async move {
            let user = user.map(bus_tools::name);
            desk.carry_out(&wish, user.as_deref()).await
        });
        Answer::Later(Box::pin(async move {
            match done.await {
                Ok(Ok(done)) => json!(done),
                Ok(Err(failure)) => json!({ "error": failure.text, "exit": failure.exit }),
                Err(_) => json!({ "error": "the service stops", "exit": 1 }),
            }
        }))
    }

    async fn carry_out(&self, wish: &Wish, user: Option<&str>) -> Result<Done, Unfulfilled> {
        let state = self.0.state.lock().await;
        let (office, broker) = (state.office.clone(), state.config.broker.clone());
        let wanted = wish.clone();
        let fulfilled = spawn_blocking(move || wanted.fulfil(&office, &broker)).await;
        let fulfilled = fulfilled.map_err(|_| Unfulfilled::stopping())?;
        let (registry, mut done) = fulfilled.map_err(|error| Unfulfilled::new(&error))?;
        if *wish == Wish::List {
            return Ok(done);
        }
        let reloaded = self.put_in_force(&state, registry).await;
        if let (Done::Revoked { sent_away, .. }, Ok(reloaded)) = (&mut done, &reloaded) {
            *sent_away = Some(reloaded.disconnected);
        }
        write_down(wish, user, &done, reloaded.as_ref().err());
        match reloaded {
            Ok(_) => Ok(done),
            Err(error) => Err(Unfulfilled {
                text: format!(
                    "it is on disk, but the broker does not take it: {:#}; correct that and reload the service",
                    anyhow::Error::new(error)
                ),
                exit: 1,
            }),
        }
    }

    /// How often in an hour a client may have its certificate renewed, if it may at all.
    pub(super) async fn may_renew(&self, name: &ClientName) -> Result<u32, String> {
        let state = self.0.state.lock().await;
        let clients = &state.config.clients;
        if !clients.renewal {
            return Err("renewal over the broker is switched off ([clients] renewal)".to_owned());
        }
        self.known()
            .registry
            .may_renew(name, clock::now().wall)
            .map_err(|error| error.to_string())?;
        Ok(clients.renewals_per_hour)
    }

    /// A new certificate for a client that has one.
    pub(super) async fn renew(
        &self,
        name: &ClientName,
        request: String,
    ) -> Result<Certified, String> {
        let state = self.0.state.lock().await;
        let (office, of) = (state.office.clone(), name.clone());
        let renewed = spawn_blocking(move || office.renew(&of, request)).await;
        let renewed = renewed
            .unwrap_or(Err(OfficeError::Stopped))
            .map_err(|error| clients::told(&error))?;
        let before = self.known();
        if before.registry.generations == renewed.registry.generations {
            // Nothing that the broker reads is new.
            self.know(Known {
                registry: renewed.registry,
                ..before
            });
        } else if let Err(error) = self.put_in_force(&state, renewed.registry).await {
            warn!(%error, "the broker does not take what is new of local clients");
        }
        Ok(renewed.answer)
    }

    async fn put_in_force(
        &self,
        state: &State,
        registry: Registry,
    ) -> Result<Reloaded, StartError> {
        let served = clients::served(&state.config.broker, &state.office, &registry);
        let trouble = (!registry.is_listed()).then(|| OWED.to_owned());
        self.know(Known { registry, trouble });
        self.0.broker.reload(&served).await
    }

    /// Does what is due, until cancelled: lists, succession, the listeners' certificate, and sends
    /// away whose certificate has ended.
    pub(super) async fn keep(self, cancel: CancellationToken) {
        loop {
            let pause = self.pause(clock::now().wall);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.0.changed.notified() => {}
                () = sleep(pause) => self.keep_once().await,
            }
        }
    }

    async fn keep_once(&self) {
        let state = self.0.state.lock().await;
        let known = match keep(&state.office, &state.config).await {
            Ok(known) => known,
            Err(error) => return warn!(%error, "cannot look after local clients' certificates"),
        };
        if let Some(trouble) = &known.trouble {
            warn!(
                trouble,
                "certificates of local clients are not all in order; tried again in a minute"
            );
        }
        let before = self.known();
        let is_new = known.registry != before.registry;
        let served = clients::served(&state.config.broker, &state.office, &known.registry);
        self.know(known);
        // Also where nothing is new: a session whose certificate has ended ends with it.
        match self.0.broker.reload(&served).await {
            Ok(reloaded) if is_new || reloaded.disconnected > 0 => {
                info!(
                    sent_away = reloaded.disconnected,
                    "local clients' certificates are in order"
                );
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "the broker does not take what is new of local clients"),
        }
    }

    /// Until something is due.
    fn pause(&self, now: Timestamp) -> Duration {
        let known = self.known();
        if known.trouble.is_some() {
            return TRIED_EVERY;
        }
        let until_end = known.registry.next_end(now).and_then(|end| {
            // A second more, because certificates end with their second.
            let left = end.as_second() - now.as_second() + 1;
            u64::try_from(left).ok().map(Duration::from_secs)
        });
        until_end.unwrap_or(KEPT_EVERY).min(KEPT_EVERY)
    }

    fn known(&self) -> Known {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    fn know(&self, known: Known) {
        *self.0.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        self.0.changed.notify_one();
    }
}

/// Said while a list could not be signed.
const OWED: &str = "the list of revoked certificates is not signed yet";

/// Why a wish was not fulfilled, with the code that the command is to end with.
struct Unfulfilled {
    text: String,
    exit: u8,
}

impl Unfulfilled {
    fn new(error: &OfficeError) -> Unfulfilled {
        Unfulfilled {
            text: clients::told(error),
            exit: error.exit(),
        }
    }

    fn stopping() -> Unfulfilled {
        Unfulfilled {
            text: "the service stops; nothing was changed".to_owned(),
            exit: 1,
        }
    }
}

async fn keep(office: &Office, config: &Config) -> Result<Known, OfficeError> {
    let (office, wanted) = (office.clone(), clients::wanted(config));
    let kept = spawn_blocking(move || office.keep(&wanted)).await;
    // It neither panics nor is it cancelled before the end.
    let (registry, trouble) = kept.map_err(|_| OfficeError::Stopped)??;
    Ok(Known {
        registry,
        trouble: trouble.map(|error| clients::told(&error)),
    })
}

fn write_down(wish: &Wish, user: Option<&str>, done: &Done, broken: Option<&StartError>) {
    let (event, name): (ClientEvent, &ClientName) = match wish {
        Wish::List => return,
        Wish::Add { name, .. } => (ClientEvent::Added, name),
        Wish::Rotate { name, .. } => (ClientEvent::Rotated, name),
        Wish::Revoke { name } => (ClientEvent::Revoked, name),
    };
    let came_of_it = match (broken, done) {
        (Some(error), _) => format!("on disk, but the broker does not take it: {error}"),
        (None, done) => done.to_string(),
    };
    audit::client(event, name.as_str(), user, &came_of_it);
}
