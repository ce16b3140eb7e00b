//! What a broker reports about itself. Values.
//!
//! Invariant: a status is a copy; reading it never holds up a message.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use crate::address::Address;

/// A broker's state at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Time since the start.
    pub uptime: Duration,
    /// The clients connected over the network, by client identifier.
    pub clients: Vec<ClientStatus>,
    /// How many those are.
    pub connected: usize,
    /// Sessions, those of absent clients included.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Of those, shared ones.
    pub shared_subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// What waits for clients, present and absent, counted for each; retained messages included.
    pub stored: Flow,
    /// Bytes that the broker holds, as it counts them against `limits.memory`: an estimate.
    pub memory_bytes: u64,
    /// That limit.
    pub memory_limit_bytes: u64,
    /// Totals since the start.
    pub counters: Counters,
    /// How busy it was lately.
    pub load: Load,
    /// The store on disk; absent without persistence.
    pub store: Option<StoreStatus>,
}

/// One connected client.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientStatus {
    /// Client identifier.
    pub id: String,
    /// User name or certificate's name; absent for anonymous clients.
    pub identity: Option<String>,
    /// Where it connects from.
    pub address: Address,
    /// The listener by which it came.
    pub listener: Arc<str>,
    /// Protocol level: 4 for MQTT 3.1.1, 5 for 5.0.
    pub version: u8,
    /// Its keep alive in force; absent when it has none.
    pub keep_alive: Option<Duration>,
    /// How long it has been connected.
    pub connected_for: Duration,
    /// Its subscriptions.
    pub subscriptions: usize,
    /// Messages waiting for it, and their bytes.
    pub queued: usize,
    /// Bytes of those, about.
    pub queued_bytes: usize,
    /// Messages sent to it and not acknowledged yet.
    pub in_flight: usize,
    /// Messages it lost because its queue was full.
    pub dropped: u64,
    /// What it published since it connected: messages, and bytes of their payloads.
    pub received: Flow,
    /// What was sent to it since it connected.
    pub sent: Flow,
    /// The same per second, lately.
    pub rates: Rates,
}

/// Messages and bytes that went one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// How many.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Flow {
    /// One more of this many bytes.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }
}

/// What a client sends and gets per second: an average that weighs the last quarter of a minute most.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Messages from it.
    pub messages_received: f32,
    /// Bytes of their payloads.
    pub bytes_received: f32,
    /// Messages to it.
    pub messages_sent: f32,
    /// Bytes of their payloads.
    pub bytes_sent: f32,
}

/// Totals since the broker started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages published by clients and by the process itself.
    pub received: u64,
    /// Messages handed to subscribers, repetitions not counted.
    pub delivered: u64,
    /// Messages lost because a client's queue was full.
    pub dropped: u64,
    /// Bytes of the payloads that clients and the process itself published.
    pub payload_received: u64,
    /// Bytes of the payloads handed to subscribers.
    pub payload_sent: u64,
    /// MQTT packets of any kind from clients.
    pub packets_received: u64,
    /// MQTT packets of any kind to clients.
    pub packets_sent: u64,
    /// Bytes of those from clients, TLS and WebSocket framing not counted.
    pub bytes_received: u64,
    /// Bytes of those to clients.
    pub bytes_sent: u64,
    /// Connections that were opened.
    pub sockets: u64,
    /// CONNECT packets that came.
    pub connects: u64,
    /// Most clients that were connected at once.
    pub clients_maximum: u64,
    /// Sessions of absent clients whose time ended.
    pub sessions_expired: u64,
    /// What was refused, by stable reason name.
    pub refused: BTreeMap<&'static str, u64>,
}

/// Averages per minute over the last one, five and fifteen minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load(pub [LoadOver; 3]);

/// Averages per minute over one window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LoadOver {
    /// Packets from clients.
    pub packets_received: f32,
    /// Packets to clients.
    pub packets_sent: f32,
    /// Bytes from clients.
    pub bytes_received: f32,
    /// Bytes to clients.
    pub bytes_sent: f32,
    /// Messages published.
    pub received: f32,
    /// Messages handed to subscribers.
    pub delivered: f32,
    /// Messages lost because a queue was full.
    pub dropped: f32,
    /// Connections opened.
    pub sockets: f32,
    /// CONNECT packets.
    pub connects: f32,
}

/// The store on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Why nothing can be committed, and since when; absent: it can.
    pub fault: Option<StoreFault>,
    /// Commits since the start.
    pub commits: u64,
    /// Messages that they put on disk.
    pub messages: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Bytes that were written to the medium for it: the file and its log, in whole pages.
    pub bytes_written: u64,
    /// What was made of a damaged file, if one was found since the start.
    pub salvaged: Option<Salvaged>,
}

/// A damaged file, and what could be read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// Where it lies now.
    pub aside: PathBuf,
    /// What is wrong with it.
    pub damage: String,
    /// Sessions that were read.
    pub sessions: usize,
    /// Messages that were read.
    pub messages: usize,
    /// Retained messages that were read.
    pub retained: usize,
}

impl fmt::Display for Salvaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the file was damaged ({}) and is kept as {}; read of it: {} sessions, {} messages, {} retained",
            self.damage,
            self.aside.display(),
            self.sessions,
            self.messages,
            self.retained
        )
    }
}

/// Why the store takes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFault {
    /// The system's answer.
    pub cause: String,
    /// Since when.
    pub since: SystemTime,
}

#[cfg(test)]
impl ClientStatus {
    /// A client of which nothing is known but its identifier.
    pub(crate) fn example(id: &str) -> ClientStatus {
        ClientStatus {
            id: id.to_owned(),
            identity: None,
            address: Address::Unix { uid: 0 },
            listener: "127.0.0.1:1883".into(),
            version: 5,
            keep_alive: None,
            connected_for: Duration::ZERO,
            subscriptions: 0,
            queued: 0,
            queued_bytes: 0,
            in_flight: 0,
            dropped: 0,
            received: Flow::default(),
            sent: Flow::default(),
            rates: Rates::default(),
        }
    }
}
