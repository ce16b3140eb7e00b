//! The handle of a running broker: start, reload, stop. Driver.
//!
//! Invariant: a configuration takes effect as a whole or not at all.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::{task::spawn_blocking, time::timeout};
use tracing::{info, warn};

use crate::{
    config::Config,
    entry::descriptors,
    entry::listener::{self, Listeners},
    keeper::Keeper,
    observe::report::Report,
    observe::status::Status,
    shared::{STOP_PATIENCE, Shared, rules},
};

pub use crate::{
    entry::listener::Bound,
    keeper::Published,
    local::{Delivery, LocalClient, Publisher, Publishing},
    start::{Reloaded, StartError, TlsError},
};

/// A running broker; clones are handles to the same one.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
    listeners: Arc<tokio::sync::Mutex<Listeners>>,
    bound: Arc<Mutex<Vec<Bound>>>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("bound", &self.addresses())
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts a broker and its listeners; with a keeper, what that wants is acknowledged only
    /// once it is kept.
    pub async fn start(
        config: &Config,
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Result<Broker, StartError> {
        descriptors::provide_for(config.limits.connections);
        let prepared = listener::prepare(config, &Listeners::default()).await?;
        let shared = Arc::new(Shared::start(config, keeper)?);
        shared.tasks.spawn(Arc::clone(&shared).run());
        let mut listeners = Listeners::default();
        listeners.apply(prepared, &shared);
        let broker = Broker {
            shared,
            bound: Arc::new(Mutex::new(listeners.bound())),
            listeners: Arc::new(tokio::sync::Mutex::new(listeners)),
        };
        Ok(broker)
    }

    /// The addresses that are listened on, in the order of the configuration.
    pub fn addresses(&self) -> Vec<Bound> {
        self.bound
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts another configuration in force. Listeners whose part is the same go on with their
    /// clients; certificates are read again in any case. An error changes nothing.
    pub async fn reload(&self, config: &Config) -> Result<Reloaded, StartError> {
        let mut listeners = self.listeners.lock().await;
        let (chance, read) = (self.shared.chance, config.clone());
        let rules = spawn_blocking(move || rules(&read, chance)).await;
        let rules = rules.map_err(|_| StartError::Stopped)??;
        if config.persistence != self.shared.persistence {
            warn!(target: "broker_lite::server", "[broker.persistence] changed; that takes effect at the next start");
        }
        let prepared = listener::prepare(config, &listeners).await?;
        descriptors::provide_for(config.limits.connections);
        self.shared.handshakes.limit(config.limits.handshakes);
        let mut reloaded = listeners.apply(prepared, &self.shared);
        *self.bound.lock().unwrap_or_else(PoisonError::into_inner) = listeners.bound();
        reloaded.disconnected += self
            .shared
            .visit(|core, now| core.replace_rules(rules, now));
        reloaded.disconnected += self.shared.send_distrusted_away(listeners.doors()).await;
        Ok(reloaded)
    }

    /// A publisher and consumer in this process, which may do everything. Its session ends with
    /// the handle.
    pub fn local(&self, client_id: &str) -> LocalClient {
        LocalClient::open(Arc::clone(&self.shared), client_id)
    }

    /// The state at this moment.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The same as programs and people read it.
    #[expect(clippy::disallowed_methods, reason = "driver: owns the clock")]
    pub fn report(&self) -> Report {
        let listeners = self.addresses().iter().map(ToString::to_string).collect();
        Report::new(self.status(), listeners, SystemTime::now())
    }

    /// Waits until the task that keeps the broker's time has been round once more.
    pub(crate) async fn pulse(&self) {
        self.shared.pulse().await;
    }

    /// Whether it was told to stop.
    pub(crate) fn has_stopped(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    /// Stops: no new clients, acknowledgements that wait for the keeper get two seconds, clients
    /// are told, sockets are closed.
    pub async fn shutdown(&self) {
        self.listeners.lock().await.close();
        self.shared.lock().core.stop_taking();
        // What is not kept by now is not acknowledged either; its publisher sends it again.
        let _late = timeout(STOP_PATIENCE, self.shared.acknowledgements_left()).await;
        self.shared.close_connections();
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let _late = timeout(STOP_PATIENCE, self.shared.tasks.wait()).await;
        self.shared.close_store().await;
        self.shared.write_events();
        info!(target: "broker_lite::server", "broker stopped");
    }
}
