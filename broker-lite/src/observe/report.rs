//! A broker's status as programs and people read it over the control socket. Values.
//!
//! Invariant: the JSON has everything that the text has.

use std::{collections::BTreeMap, fmt::Write, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::observe::status::{ClientStatus, Salvaged, Status, StoreStatus};

/// A broker at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Addresses served.
    pub listeners: Vec<String>,
    /// Clients connected over the network.
    pub clients: Vec<ClientReport>,
    /// Sessions, those of absent clients included.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages published since the start.
    pub received: u64,
    /// Messages handed to subscribers since the start.
    pub delivered: u64,
    /// Messages lost since the start because a client's queue was full.
    pub dropped: u64,
    /// What was refused since the start, by kind.
    pub refused: BTreeMap<String, u64>,
    /// The store on disk; absent without persistence.
    pub store: Option<StoreReport>,
}

/// One client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientReport {
    /// Client identifier.
    pub id: String,
    /// User name or certificate's name.
    pub identity: Option<String>,
    /// Where it connects from.
    pub address: String,
    /// The listener by which it came.
    pub listener: String,
    /// `3.1.1` or `5.0`.
    pub protocol: String,
    /// Its keep alive in seconds.
    pub keep_alive_s: Option<u64>,
    /// Seconds since it connected.
    pub connected_s: u64,
    /// Its subscriptions.
    pub subscriptions: usize,
    /// Messages waiting for it.
    pub queued: usize,
    /// Their bytes, about.
    pub queued_bytes: usize,
    /// Messages sent to it and not acknowledged yet.
    pub in_flight: usize,
    /// Messages lost because its queue was full.
    pub dropped: u64,
    /// Messages it published since it connected.
    pub messages_received: u64,
    /// Messages sent to it since it connected.
    pub messages_sent: u64,
    /// The same per second, lately.
    pub messages_received_per_s: f32,
    /// Likewise.
    pub messages_sent_per_s: f32,
    /// Bytes of its payloads per second, lately.
    pub bytes_received_per_s: f32,
    /// Likewise, to it.
    pub bytes_sent_per_s: f32,
}

/// The store on disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Why nothing can be committed; absent: it can.
    pub fault: Option<String>,
    /// For how many seconds that is so.
    pub faulty_s: Option<u64>,
    /// Commits since the start.
    pub commits: u64,
    /// Messages put on disk since the start.
    pub messages: u64,
    /// Bytes of their payloads.
    #[serde(default)]
    pub payload_bytes: u64,
    /// Bytes written to the medium for all of that.
    pub bytes_written: u64,
    /// What was made of a damaged file, if one was found since the start.
    pub salvaged: Option<String>,
}

impl Report {
    /// What `status` says at the time `now`, of a broker that serves these addresses.
    pub fn new(status: Status, listeners: Vec<String>, now: SystemTime) -> Report {
        let refused = status.counters.refused.into_iter();
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: status.uptime.as_secs(),
            listeners,
            clients: status.clients.iter().map(ClientReport::new).collect(),
            sessions: status.sessions,
            subscriptions: status.subscriptions,
            retained: status.retained,
            received: status.counters.received,
            delivered: status.counters.delivered,
            dropped: status.counters.dropped,
            refused: refused
                .map(|(kind, count)| (kind.to_owned(), count))
                .collect(),
            store: status.store.map(|store| StoreReport::new(store, now)),
        }
    }

    /// For people: totals first, then what needs attention, then the clients.
    pub fn text(&self) -> String {
        let mut text = format!(
            "broker-lite {} on {} · up {}\n",
            self.version,
            listed(&self.listeners),
            span(self.uptime_s)
        );
        let _infallible = writeln!(
            text,
            "{} clients, {} sessions, {} subscriptions, {} retained · {} received, {} delivered, {} dropped",
            self.clients.len(),
            self.sessions,
            self.subscriptions,
            self.retained,
            self.received,
            self.delivered,
            self.dropped
        );
        if !self.refused.is_empty() {
            let kinds: Vec<String> = self
                .refused
                .iter()
                .map(|(kind, count)| format!("{kind} {count}"))
                .collect();
            let _infallible = writeln!(text, "refused: {}", kinds.join(", "));
        }
        if let Some(store) = &self.store {
            text += &store.text();
        }
        text + &clients_table(&self.clients)
    }
}

impl ClientReport {
    /// What the broker knows of a client.
    pub fn new(client: &ClientStatus) -> ClientReport {
        let rates = client.rates;
        ClientReport {
            id: client.id.clone(),
            identity: client.identity.clone(),
            address: client.address.to_string(),
            listener: client.listener.to_string(),
            protocol: match client.version {
                5 => "5.0",
                _ => "3.1.1",
            }
            .to_owned(),
            keep_alive_s: client.keep_alive.map(|time| time.as_secs()),
            connected_s: client.connected_for.as_secs(),
            subscriptions: client.subscriptions,
            queued: client.queued,
            queued_bytes: client.queued_bytes,
            in_flight: client.in_flight,
            dropped: client.dropped,
            messages_received: client.received.messages,
            messages_sent: client.sent.messages,
            messages_received_per_s: rates.messages_received,
            messages_sent_per_s: rates.messages_sent,
            bytes_received_per_s: rates.bytes_received,
            bytes_sent_per_s: rates.bytes_sent,
        }
    }

    fn cells(&self) -> [String; 10] {
        [
            shown(&self.id),
            shown(self.identity.as_deref().unwrap_or("anonymous")),
            self.address.clone(),
            self.listener.clone(),
            self.protocol.clone(),
            span(self.connected_s),
            self.subscriptions.to_string(),
            format!(
                "{:.1} / {:.1}",
                self.messages_received_per_s, self.messages_sent_per_s
            ),
            format!("{} + {}", self.queued, self.in_flight),
            self.dropped.to_string(),
        ]
    }
}

impl StoreReport {
    fn new(store: StoreStatus, now: SystemTime) -> StoreReport {
        let age = |since| now.duration_since(since).unwrap_or_default().as_secs();
        StoreReport {
            faulty_s: store.fault.as_ref().map(|fault| age(fault.since)),
            fault: store.fault.map(|fault| fault.cause),
            commits: store.commits,
            messages: store.messages,
            payload_bytes: store.payload_bytes,
            bytes_written: store.bytes_written,
            salvaged: store.salvaged.as_ref().map(Salvaged::to_string),
        }
    }

    /// A line: what was written, or why nothing is; another if a damaged file was found.
    pub fn text(&self) -> String {
        let salvaged = self.salvaged.iter();
        let salvaged = salvaged.map(|salvaged| format!("store: {salvaged}\n"));
        self.state() + &salvaged.collect::<String>()
    }

    fn state(&self) -> String {
        match &self.fault {
            Some(fault) => format!(
                "store: cannot write for {}: {fault}\n",
                span(self.faulty_s.unwrap_or(0))
            ),
            None => format!(
                "store: {} messages in {} commits, {} bytes written\n",
                self.messages, self.commits, self.bytes_written
            ),
        }
    }
}

/// The clients, a line each, under headings; nothing when there are none.
pub fn clients_table(clients: &[ClientReport]) -> String {
    if clients.is_empty() {
        return String::new();
    }
    let headings = [
        "CLIENT",
        "IDENTITY",
        "ADDRESS",
        "LISTENER",
        "MQTT",
        "SINCE",
        "SUBSCRIPTIONS",
        "IN / OUT PER S",
        "QUEUED + UNACKNOWLEDGED",
        "LOST",
    ];
    let mut rows = vec![headings.map(str::to_owned)];
    rows.extend(clients.iter().map(ClientReport::cells));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// What a client calls itself must not move a terminal's cursor, nor fill its line.
fn shown(name: &str) -> String {
    const WIDTH_MAX: usize = 40;
    let mut text: String = name
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(WIDTH_MAX)
        .collect();
    if name.chars().count() > WIDTH_MAX {
        text.push('…');
    }
    text
}

fn listed(listeners: &[String]) -> String {
    match listeners.is_empty() {
        true => "no address".to_owned(),
        false => listeners.join(", "),
    }
}

fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_write_to_the_operators_terminal() {
        let clients = [ClientReport {
            id: "\u{1b}[2J\u{7}".to_owned() + &"x".repeat(200),
            ..ClientReport::default()
        }];
        let text = clients_table(&clients);
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() < 200),
            "{text}"
        );
    }

    #[test]
    fn a_store_that_fails_says_so_and_for_how_long() {
        let report = StoreReport {
            fault: Some("disk full".to_owned()),
            faulty_s: Some(125),
            ..StoreReport::default()
        };
        assert_eq!(report.text(), "store: cannot write for 2 min: disk full\n");
    }

    #[test]
    fn a_salvage_is_told_with_where_the_damaged_file_lies() {
        let status = StoreStatus {
            salvaged: Some(Salvaged {
                aside: "b.db.corrupt-1".into(),
                damage: "malformed".to_owned(),
                sessions: 3,
                messages: 2,
                retained: 1,
            }),
            ..StoreStatus::default()
        };
        let text = StoreReport::new(status, SystemTime::UNIX_EPOCH).text();
        assert_eq!(
            text.lines().last(),
            Some(
                "store: the file was damaged (malformed) and is kept as b.db.corrupt-1; \
                 read of it: 3 sessions, 2 messages, 1 retained"
            )
        );
    }
}
