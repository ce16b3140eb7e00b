//! What the broker says about itself: totals, averages, and each client's share.
//!
//! Core. Invariant: counting costs an addition, and what takes longer is done for those who look.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::speaking_for,
    address::Endpoint,
    broker::{Core, ListenerId, link::Link, welcome::level},
    observe::audit::{Refusal, Who},
    observe::status::{ClientStatus, Counters, Flow, Load, LoadOver, Rates, Status},
    observe::traffic::Averages,
    session::Session,
    topic::SubscriptionFilter,
};

/// The windows of the load averages that dashboards know: one, five and fifteen minutes.
const WINDOWS_S: [f32; 3] = [60.0, 300.0, 900.0];

pub(super) type LoadAverages = Averages<9, 3>;

impl Core {
    /// The broker starts now.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.started = Some(now);
        self.load = Some(Averages::new(now));
    }

    /// A listener serves from now on.
    pub(crate) fn name_listener(&mut self, id: ListenerId, endpoint: &Endpoint) {
        self.listeners.insert(id, endpoint.to_string().into());
    }

    /// A listener is gone, and its clients with it.
    pub(crate) fn forget_listener(&mut self, id: ListenerId) {
        self.listeners.remove(&id);
    }

    /// Bytes came over a connection.
    pub(super) fn note_read(&mut self, len: usize) {
        self.counters.bytes_received += len as u64;
    }

    /// Something is about to be counted.
    pub(super) fn note_event(&mut self, now: Instant) {
        self.note_pressure();
        if let Some(load) = &mut self.load {
            load.event(|| totals(&self.counters), &WINDOWS_S, now);
        }
    }

    pub(super) fn client_came(&mut self) {
        self.connected += 1;
        self.counters.clients_maximum = self.counters.clients_maximum.max(self.connected);
    }

    /// The state at this moment.
    pub(crate) fn status(&self, now: Instant) -> Status {
        let mut clients: Vec<ClientStatus> = self
            .links
            .iter()
            .filter_map(|(_, link)| {
                let session = self.sessions.get(link.session()?.0)?;
                let listener = self.listener_name(link.peer.listener);
                Some(client(link, session, listener, now))
            })
            .collect();
        clients.sort_by(|a, b| a.id.cmp(&b.id));
        Status {
            clients,
            ..self.summary(now)
        }
    }

    /// The same without its clients.
    pub(super) fn summary(&self, now: Instant) -> Status {
        let is_shared = |filter: &&SubscriptionFilter| filter.share.is_some();
        let shared = |session: &Session| session.subscriptions.iter().filter(is_shared).count();
        Status {
            uptime: self.uptime(now),
            clients: Vec::new(),
            connected: self.connected as usize,
            sessions: self.by_client.len(),
            subscriptions: self.router.len(),
            shared_subscriptions: self
                .sessions
                .iter()
                .map(|(_, session)| shared(session))
                .sum(),
            retained: self.retained.len(),
            stored: self.stored(),
            memory_bytes: self.meter.used() as u64,
            memory_limit_bytes: self.rules.limits.memory.as_bytes(),
            counters: self.counters(),
            load: self.load_averages(now),
            store: None,
        }
    }

    pub(super) fn uptime(&self, now: Instant) -> Duration {
        self.started.map_or(Duration::ZERO, |started| {
            now.saturating_duration_since(started)
        })
    }

    /// The access rules that speak for a client, as an operator reads it.
    pub(super) fn rules_for(&self, who: &Who) -> String {
        let client = who.client.as_deref().unwrap_or("");
        speaking_for(who.user.as_deref(), client, &self.rules.access)
    }

    pub(super) fn listener_name(&self, id: ListenerId) -> Arc<str> {
        let known = self.listeners.get(&id);
        known.map_or_else(|| Arc::from("a listener that is gone"), Arc::clone)
    }

    fn stored(&self) -> Flow {
        let mut stored = Flow {
            messages: self.retained.len() as u64,
            bytes: self.retained.bytes() as u64,
        };
        for (_, session) in self.sessions.iter() {
            let waiting = session.waiting();
            stored.messages += (waiting.queued + waiting.in_flight) as u64;
            stored.bytes += waiting.queued_bytes as u64;
        }
        stored
    }

    fn counters(&self) -> Counters {
        let named = Refusal::ALL
            .iter()
            .map(|kind| (kind.name(), self.refused[*kind as usize]));
        Counters {
            refused: named.filter(|(_, count)| *count > 0).collect(),
            ..self.counters.clone()
        }
    }

    fn load_averages(&self, now: Instant) -> Load {
        let Some(load) = &self.load else {
            return Load::default();
        };
        let per_second = load.at(totals(&self.counters), &WINDOWS_S, now);
        Load(per_second.map(|rates| load_over(rates.map(|rate| rate * 60.0))))
    }
}

fn totals(counters: &Counters) -> [u64; 9] {
    [
        counters.packets_received,
        counters.packets_sent,
        counters.bytes_received,
        counters.bytes_sent,
        counters.received,
        counters.delivered,
        counters.dropped,
        counters.sockets,
        counters.connects,
    ]
}

/// The averages in the order of [`totals`].
fn load_over(rates: [f32; 9]) -> LoadOver {
    let [
        packets_received,
        packets_sent,
        bytes_received,
        bytes_sent,
        received,
        delivered,
        dropped,
        sockets,
        connects,
    ] = rates;
    LoadOver {
        packets_received,
        packets_sent,
        bytes_received,
        bytes_sent,
        received,
        delivered,
        dropped,
        sockets,
        connects,
    }
}

fn client(link: &Link, session: &Session, listener: Arc<str>, now: Instant) -> ClientStatus {
    let waiting = session.waiting();
    let traffic = link.traffic.as_deref();
    ClientStatus {
        id: session.identity.client.clone(),
        identity: session.identity.user.clone(),
        address: link.peer.address,
        listener,
        version: level(link.terms.version),
        // Patience is one and a half times the keep alive.
        keep_alive: link.terms.patience.map(|patience| patience * 2 / 3),
        connected_for: now.saturating_duration_since(link.opened_at),
        subscriptions: session.subscriptions.len(),
        queued: waiting.queued,
        queued_bytes: waiting.queued_bytes,
        in_flight: waiting.in_flight,
        dropped: session.dropped,
        received: traffic.map_or(Flow::default(), |traffic| traffic.received),
        sent: traffic.map_or(Flow::default(), |traffic| traffic.sent),
        rates: traffic.map_or(Rates::default(), |traffic| traffic.rates(now)),
    }
}
