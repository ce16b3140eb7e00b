//! Starts the parts, joins them with bounded channels, stops them in reverse. Shell.
//!
//! ```text
//!  start:  buffer ─▶ broker ─▶ link ─▶ field        stop: the other way round
//! ```
//!
//! Invariant: the plant side starts and runs whatever the upstream does.

mod audit;
pub mod buffer_stats;
mod bus_tools;
mod clients;
mod commands;
pub mod dead_letters;
mod downloads;
pub mod drain_status;
mod field;
mod metrics;
mod presence;
mod publisher;
mod raw;
pub mod release_status;
mod releases;
mod renewals;
mod status;
pub mod status_text;
pub(crate) mod trusted;
pub mod wear;

use std::{fmt, sync::Arc, time::Duration};

use anyhow::Context;
use broker_lite::{
    config::Metrics, keeper::Keeper, observe::http, observe::probe::Probe, server::Broker,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    buffer::Buffer,
    config::Config,
    control,
    fieldbus::lessons::LessonsFile,
    name,
    update::agent::Agent,
    upstream::{
        self, Incoming, LinkHandle,
        sparkplug::{Catalog, Latest, Plant},
    },
};
use clients::{Desk, Opened};
use field::Field;
use releases::{Plant as WatchedPlant, Releases};
pub use status::{Status, StatusSource};
pub use trusted::TpmStatus;
use trusted::Trusted;

/// Events from the field waiting for the broker; a full channel holds back the polls.
const EVENTS_MAX: usize = 1_024;
/// Messages from upstream waiting for the broker; a full channel holds back their acknowledgement.
const INCOMING_MAX: usize = 64;

/// The running gateway.
pub struct Appliance {
    config: Config,
    id: Arc<str>,
    buffer: Buffer,
    broker: Broker,
    probe: Probe,
    incoming: mpsc::Sender<Incoming>,
    link: Option<LinkHandle>,
    field: Arc<Field>,
    status: StatusSource,
    trusted: Trusted,
    releases: Option<Releases>,
    clients: Desk,
    agent: Option<Agent>,
    metrics: Option<http::Server>,
    tasks: Vec<JoinHandle<()>>,
    cancel: CancellationToken,
}

impl Appliance {
    /// Starts everything that `config` names.
    ///
    /// # Errors
    /// A listener cannot be opened, or the buffer's place cannot be used. Whatever hangs on wires
    /// or on the network starts anyway and is tried again.
    pub async fn start(config: Config) -> anyhow::Result<Appliance> {
        let id = name::gateway_id(&config.gateway);
        let trusted = Trusted::start(&config).await?;
        let buffer =
            Buffer::open(&config.buffer, &config.forwards).context("cannot open the buffer")?;
        let keeper: Arc<dyn Keeper> = Arc::new(buffer.clone());
        let opened = Opened::new(&config, &id, &trusted).await?;
        let broker = Broker::start(&opened.served(&config.broker), Some(keeper))
            .await
            .context("cannot start the broker")?;
        let clients = Desk::new(opened, broker.clone(), id.clone(), trusted.clone(), &config);
        let probe = Probe::new(&broker);

        let cancel = CancellationToken::new();
        let (events, events_from_field) = mpsc::channel(EVENTS_MAX);
        let (incoming, incoming_from_link) = mpsc::channel(INCOMING_MAX);
        let field = Arc::new(Field::new(
            events.clone(),
            LessonsFile::open(&config.lessons()),
        ));
        let status = StatusSource::new(
            id.clone(),
            broker.clone(),
            buffer.clone(),
            config.buffer.max_size.as_bytes(),
            field.clone(),
            trusted.clone(),
            clients.clone(),
        );
        let metrics = serve_metrics(config.metrics.as_ref(), &status).await?;
        let tasks = vec![
            tokio::spawn(publisher::publish_events(
                events_from_field,
                broker.local("gateway-field"),
                buffer.sequences(),
                field.clone(),
            )),
            tokio::spawn(publisher::publish_incoming(
                incoming_from_link,
                broker.local("gateway-upstream"),
            )),
            tokio::spawn(field.clone().keep_lessons()),
            tokio::spawn(commands::route(
                broker.local("gateway-commands"),
                field.clone(),
                events,
                cancel.clone(),
            )),
            tokio::spawn(raw::serve(
                broker.local("gateway-requests"),
                field.clone(),
                cancel.clone(),
            )),
            tokio::spawn(clients.clone().keep(cancel.clone())),
            tokio::spawn(renewals::serve(
                broker.local("gateway-clients"),
                clients.clone(),
                cancel.clone(),
            )),
            tokio::spawn(control::serve(
                config.gateway.control.clone(),
                status.answerer(),
                cancel.clone(),
            )),
        ];

        let mut appliance = Appliance {
            id,
            buffer,
            broker,
            probe,
            incoming,
            link: None,
            field,
            status,
            trusted,
            releases: None,
            clients,
            agent: None,
            metrics,
            tasks,
            cancel,
            config,
        };
        appliance.start_link();
        appliance.start_field().await;
        appliance.start_releases();
        appliance.start_agent();
        info!(
            id = %appliance.id,
            version = env!("CARGO_PKG_VERSION"),
            listeners = %appliance.listeners(),
            "gateway started"
        );
        Ok(appliance)
    }

    async fn start_field(&self) {
        let client = self.broker.local("gateway-states");
        for event in presence::left_behind(&client, &self.config) {
            self.field.tell(event).await;
        }
        self.field.apply(&self.config).await;
    }

    fn start_link(&mut self) {
        self.link = self.config.upstream.as_ref().map(|config| {
            let cancel = self.cancel.child_token();
            upstream::start(
                &upstream::Settings {
                    upstream: config,
                    identity: &self.config.identity,
                    tpm: self.trusted.key(),
                    gateway: &self.id,
                    forwards: &self.config.forwards,
                    receives: &self.config.receives,
                },
                upstream::Here {
                    buffer: self.buffer.clone(),
                    incoming: self.incoming.clone(),
                    plant: config.sparkplug.is_some().then(|| self.plant(&cancel)),
                },
                cancel,
            )
        });
        self.status.set_link(self.link.clone());
    }

    fn start_releases(&mut self) {
        let Some(config) = &self.config.update else {
            return;
        };
        let plant = WatchedPlant::new(
            &self.broker,
            &self.buffer,
            &self.field,
            &self.trusted,
            &self.status,
        );
        self.releases = Some(Releases::start(config, plant, self.status.releases()));
    }

    /// Looks for releases, where they are configured. A repository that cannot be used keeps nothing else from running.
    fn start_agent(&mut self) {
        let Some(config) = &self.config.update else {
            return;
        };
        match Agent::start(config, self.config.upstream.as_ref()) {
            Ok((agent, handle)) => {
                self.status.releases().set_agent(handle);
                self.agent = Some(agent);
            }
            Err(error) => warn!(%error, "no releases are looked for until the next start"),
        }
    }

    /// The devices as a Sparkplug host sees them.
    fn plant(&self, cancel: &CancellationToken) -> Plant {
        let client = self.broker.local("gateway-sparkplug");
        Plant {
            catalog: Catalog::new(&self.config),
            latest: Latest::watch(client, cancel.clone()),
        }
    }

    /// Makes `config` the one in effect. Buses, listeners, clients and links whose part of it is
    /// the same do not pause.
    ///
    /// # Errors
    /// A new listener cannot be opened; then nothing has changed.
    pub async fn reload(&mut self, config: Config) -> anyhow::Result<Changes> {
        let mut changes = Changes::default();
        let metrics = match config.metrics == self.config.metrics {
            true => None,
            false => Some(serve_metrics(config.metrics.as_ref(), &self.status).await?),
        };
        // Where its part is the same, too: certificates, revocations and passwords may have changed.
        let broker = self.clients.reload(&config).await?;
        if config.clients != self.config.clients {
            changes.note("clients");
        }
        if config.broker != self.config.broker {
            changes.note("broker");
        }
        if let Some(replaced) = metrics {
            self.metrics = replaced;
            changes.note("metrics");
        }
        if broker.disconnected > 0 {
            changes.note(&format!("{} clients sent away", broker.disconnected));
        }
        if config.buffer != self.config.buffer {
            changes.note("buffer (takes effect at the next start)");
        }
        if config.gateway != self.config.gateway {
            changes.note("gateway (takes effect at the next start)");
        }
        if config.tpm != self.config.tpm {
            changes.note("tpm (takes effect at the next start)");
        }
        if config.update != self.config.update {
            changes.note("update (takes effect at the next start)");
        }
        let link_changed = (
            &config.upstream,
            &config.identity,
            &config.forwards,
            &config.receives,
        ) != (
            &self.config.upstream,
            &self.config.identity,
            &self.config.forwards,
            &self.config.receives,
        ) || (config.has_sparkplug() && !config.same_plant(&self.config));
        self.config = Config {
            buffer: self.config.buffer.clone(),
            gateway: self.config.gateway.clone(),
            tpm: self.config.tpm.clone(),
            update: self.config.update.clone(),
            ..config
        };
        if link_changed {
            self.buffer.set_rules(&self.config.forwards);
            self.stop_link().await;
            self.start_link();
            changes.note("upstream");
        }
        for name in self.field.apply(&self.config).await {
            changes.note(&name);
        }
        Ok(changes)
    }

    async fn stop_link(&mut self) {
        if let Some(link) = self.link.take() {
            link.stop().await;
        }
    }

    /// The power is about to fail: nothing waits in memory any more.
    pub fn power_fails(&self) {
        self.buffer.power_fails();
    }

    /// Whether a message still finds its way through the broker.
    ///
    /// # Errors
    /// It did not within `limit`, or a part's task has ended by itself.
    pub async fn probe(&mut self, limit: Duration) -> Result<(), Stuck> {
        if self.tasks.iter().any(JoinHandle::is_finished) {
            return Err(Stuck("a task of the appliance has ended".to_owned()));
        }
        if !self.field.is_alive() {
            return Err(Stuck("a bus' task has ended".to_owned()));
        }
        let lost = self.probe.round_trip(limit).await.err();
        lost.map_or(Ok(()), |lost| Err(Stuck(lost.to_string())))
    }

    /// What works, what does not, and since when; answers at any time.
    pub fn status(&self) -> StatusSource {
        self.status.clone()
    }

    fn listeners(&self) -> String {
        let bound = self.broker.addresses();
        bound
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The local broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Stops the sources, so that what is on its way can arrive.
    pub async fn stop_field(&self) {
        self.field.stop().await;
    }

    /// Stops in reverse: sources first, then the link, the broker, and the buffer last.
    pub async fn stop(mut self) {
        if let Some(releases) = self.releases.take() {
            releases.stop().await;
        }
        if let Some(agent) = self.agent.take() {
            agent.stop().await;
        }
        self.field.stop().await;
        self.stop_link().await;
        self.cancel.cancel();
        drop(self.metrics);
        self.broker.shutdown().await;
        self.buffer.close().await;
        for task in self.tasks {
            task.abort();
        }
        info!("gateway stopped");
    }
}

async fn serve_metrics(
    config: Option<&Metrics>,
    status: &StatusSource,
) -> anyhow::Result<Option<http::Server>> {
    let Some(Metrics { address }) = config else {
        return Ok(None);
    };
    let status = status.clone();
    let server =
        http::Server::start(*address, http::metrics_page(move || metrics::page(&status))).await;
    Ok(Some(server.with_context(|| {
        format!("cannot serve metrics on {address}")
    })?))
}

/// What a reload changed, for the log.
#[derive(Debug, Default)]
pub struct Changes(Vec<String>);

impl Changes {
    fn note(&mut self, what: &str) {
        self.0.push(what.to_owned());
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("nothing changed")
        } else {
            f.write_str(&self.0.join(", "))
        }
    }
}

/// Why the watchdog is not fed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stuck(String);
