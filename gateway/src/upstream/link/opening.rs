//! How a link is made: what is configured, over which way, with which identity; and when another one
//! is to be preferred.
//!
//! Invariant: each attempt reads its files anew, and a session begins with its subscriptions. Layer:
//! driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout_at},
};

use super::{
    super::{
        Here, Settings,
        budget::{Budget, Ledger, Limits},
        cause::Cause,
        endpoints::Endpoints,
        forwarder::{Allowance, Forwarder},
        gate::Gate,
        identities::Identities,
        pace::Pace,
        packer::{self, Packer},
        progress::Progress,
        reach::{self, Reach},
        rules::Rules,
        session::{Event, Options, Session, Stream},
        status::Board,
        tls::{Offer, Tls},
        window::Windows,
    },
    Hello, Leave, Link, Pump,
};
use crate::{
    buffer::Buffer,
    config::{self, url::UpstreamUrl},
};

/// Pause between two looks whether the first upstream is back while another one is in use. Its
/// return costs a handshake, so a first one that lets nobody in costs one each time.
#[cfg(not(test))]
const RETURN_AFTER: Duration = Duration::from_secs(300);
#[cfg(test)]
const RETURN_AFTER: Duration = Duration::from_secs(1);
/// Time for that look.
const RETURN_PATIENCE: Duration = Duration::from_secs(10);
/// MQTT counts it in seconds, and 0 is none.
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(1);

impl Link {
    pub(in super::super) fn new(
        settings: &Settings<'_>,
        board: &Arc<Board>,
    ) -> Result<Link, Cause> {
        let Settings {
            upstream: config,
            identity,
            tpm,
            gateway,
            forwards,
            receives,
        } = *settings;
        let urls = config.url.iter().map(|text| {
            let wrong = |why| Cause::Configuration(format!("[upstream] url = {text:?}: {why}"));
            text.parse().map_err(wrong)
        });
        let urls: Vec<UpstreamUrl> = urls.collect::<Result<_, _>>()?;
        let endpoints = Endpoints::new(urls)
            .ok_or_else(|| Cause::Configuration("[upstream] url names no broker".to_owned()))?;
        let rules = match &config.sparkplug {
            None => Rules::new(gateway, forwards, receives),
            Some(_) => Rules::for_sparkplug(gateway, forwards, receives),
        };
        let rules = rules.map_err(|error| Cause::Configuration(error.to_string()))?;
        let notices = rules.notices().map_err(|error| {
            Cause::Configuration(format!(
                "[gateway] id = {gateway:?} is no topic level: {error}"
            ))
        })?;
        let reach = Reach::of(config).map_err(Cause::Configuration)?;
        Ok(Link {
            config: config.clone(),
            identities: Identities::new(
                Tls::new(config, identity, tpm),
                reach.clone(),
                Arc::clone(board),
                config.connect_timeout.as_duration(),
            ),
            reach,
            endpoints,
            client_id: config
                .client_id
                .clone()
                .unwrap_or_else(|| gateway.to_owned()),
            rules: Arc::new(rules),
            rows: packer::rows_under_way(config.in_flight, forwards),
            notices,
            gateway: gateway.to_owned(),
        })
    }

    /// What forwards over one link after another.
    pub(super) async fn pump(
        &self,
        here: Here,
        board: Arc<Board>,
    ) -> Result<Pump, (Cause, Arc<Board>)> {
        let Here {
            buffer,
            incoming,
            plant,
        } = here;
        let node = match self.node(plant) {
            Ok(node) => node,
            Err(cause) => return Err((cause, board)),
        };
        // Bounded by what was handed over and not yet acknowledged: the channel `incoming`.
        let (receipts, acknowledged) = mpsc::unbounded_channel();
        Ok(Pump {
            forwarder: Forwarder::new(self.rows, self.gate(&buffer).await, self.notices.clone()),
            packer: Packer::new(self.config.in_flight, self.rows),
            limited: self.config.budget != config::Budget::default(),
            ledger: Ledger::default(),
            ledger_due: Instant::now(),
            progress: Progress::default(),
            appended: buffer.appended(),
            paused: buffer.paused(),
            rules: Arc::clone(&self.rules),
            buffer,
            incoming,
            receipts,
            acknowledged,
            connection: 0,
            answered_on_link: false,
            gave_up: false,
            leaves: None,
            node,
            board,
            reading: None,
            sent: 0,
            latency: None,
        })
    }

    /// With what was spent before this start.
    async fn gate(&self, buffer: &Buffer) -> Gate {
        let (drain, budget) = (&self.config.drain, &self.config.budget);
        let buffer = buffer.clone();
        let marks = tokio::task::spawn_blocking(move || buffer.marks()).await;
        let ledger = Ledger::from_marks(&marks.unwrap_or_default());
        let limits = Limits {
            per_day: budget.per_day.map(|size| size.as_bytes()),
            per_month: budget.per_month.map(|size| size.as_bytes()),
        };
        let keep_alive = self.config.keep_alive.as_duration();
        #[expect(clippy::cast_precision_loss, reason = "no link is that fast")]
        let bytes = drain.bytes_per_second.map(|size| size.as_bytes() as f64);
        Gate::new(
            drain.share,
            Pace::new(
                drain.messages_per_second.map(|rate| f64::from(rate.get())),
                bytes,
            ),
            Windows::new(drain.windows.clone(), drain.windows_hold),
            Budget::new(limits, keep_alive, ledger),
        )
    }

    pub(super) async fn connect(
        &self,
        url: &UpstreamUrl,
        floor: Timestamp,
        hello: Hello,
    ) -> Result<(Session, Allowance), Cause> {
        if !url.tls {
            return self.open(url, None, hello).await;
        }
        let offer = self.identities.offer(url, floor).await?;
        let opened = self.open(url, Some(&offer), hello).await;
        match &opened {
            Ok(_) => self.identities.let_in(&offer).await,
            Err(cause) => self.identities.failed(&offer, cause),
        }
        opened
    }

    async fn open(
        &self,
        url: &UpstreamUrl,
        offer: Option<&Offer>,
        hello: Hello,
    ) -> Result<(Session, Allowance), Cause> {
        let limit = self.config.connect_timeout.as_duration();
        let deadline = tokio::time::Instant::now() + limit;
        let tcp = self.reach.tcp(url, deadline).await?;
        let stream: Box<dyn Stream> = match offer {
            None => Box::new(tcp),
            Some(offer) => {
                let name = self.identities.tls().server_name(&url.host);
                let name = name.map_err(|error| Cause::Credentials(error.to_string()))?;
                let config = Arc::clone(&offer.config);
                Box::new(reach::handshake(tcp, config, name, deadline).await?)
            }
        };
        let options = Options {
            will: hello.will,
            ..self.options()
        };
        let mut session = Session::open(options, stream);
        let first = timeout_at(deadline, session.next()).await.map_err(|_| {
            Cause::Unreachable(format!("no answer within {} s", limit.as_secs_f32()))
        })?;
        let Event::Connected(allowance) = first? else {
            return Err(Cause::Protocol("it did not begin with CONNACK".to_owned()));
        };
        session
            .subscribe(&hello.filters)
            .map_err(|_| Cause::Closed("the subscriptions could not be sent".to_owned()))?;
        Ok((session, allowance))
    }

    /// Waits until another link is to be preferred to the one in use.
    pub(super) async fn reason_to_leave(&self, url: &UpstreamUrl, floor: Timestamp) -> Leave {
        let renewed = async {
            match url.tls {
                true => self.identities.renewed(url, floor).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = is_back(&self.reach, self.endpoints.preferred()) => Leave::ForTheFirst,
            () = renewed => Leave::ForTheNewIdentity,
        }
    }

    fn options(&self) -> Options {
        Options {
            client_id: self.client_id.clone(),
            keep_alive: self.config.keep_alive.as_duration().max(MIN_KEEP_ALIVE),
            window: self.config.in_flight.max(1),
            version: self.config.protocol,
            will: None,
        }
    }
}

/// Waits until the first upstream takes connections; for ever while it is the one in use.
async fn is_back(reach: &Reach, first: Option<&UpstreamUrl>) {
    let Some(url) = first else {
        return std::future::pending().await;
    };
    loop {
        sleep(RETURN_AFTER).await;
        let patience = tokio::time::Instant::now() + RETURN_PATIENCE;
        if reach.tcp(url, patience).await.is_ok() {
            return;
        }
    }
}
