//! A status as OpenMetrics 1.0 text, for Prometheus and its kin. Values: a status in, text out.
//!
//! Invariant: the number of series is bounded, whatever clients call themselves: at most
//! [`CLIENTS_MAX`] are listed one by one, those that move most messages.

mod exposition;

use std::cmp::Reverse;

use crate::observe::status::{ClientStatus, Counters, Status, StoreStatus};

use exposition::family;
pub use exposition::{CONTENT_TYPE, Exposition, Family, counter, gauge};

/// Clients with series of their own; all are counted in the totals.
pub const CLIENTS_MAX: usize = 100;

/// The whole page of a broker alone.
pub fn render(status: &Status) -> String {
    let mut text = Exposition::default();
    about(&mut text, status);
    text.end()
}

/// What a broker says, to stand beside other families.
pub fn about(text: &mut Exposition, status: &Status) {
    about_broker(text, status);
    about_traffic(text, &status.counters);
    if let Some(store) = &status.store {
        about_store(text, store);
    }
    about_clients(text, &status.clients);
}

fn about_broker(text: &mut Exposition, status: &Status) {
    let build = family("broker_build", "info", "The running version.");
    text.open(build);
    text.sample(build, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    for (name, value, help) in [
        (
            "broker_uptime_seconds",
            status.uptime.as_secs_f64(),
            "Time since the start.",
        ),
        (
            "broker_clients",
            status.connected as f64,
            "Clients connected over the network.",
        ),
        (
            "broker_sessions",
            status.sessions as f64,
            "Sessions, those of absent clients included.",
        ),
        (
            "broker_subscriptions",
            status.subscriptions as f64,
            "Subscriptions of all sessions.",
        ),
        (
            "broker_shared_subscriptions",
            status.shared_subscriptions as f64,
            "Of those, shared ones.",
        ),
        (
            "broker_retained_messages",
            status.retained as f64,
            "Retained messages.",
        ),
        (
            "broker_stored_messages",
            status.stored.messages as f64,
            "Retained messages, and those that wait for clients, counted for each.",
        ),
        (
            "broker_stored_bytes",
            status.stored.bytes as f64,
            "Bytes of the stored messages, about.",
        ),
        (
            "broker_memory_bytes",
            status.memory_bytes as f64,
            "What the broker holds, as it counts that against its limit.",
        ),
        (
            "broker_memory_limit_bytes",
            status.memory_limit_bytes as f64,
            "That limit (limits.memory).",
        ),
    ] {
        text.single(gauge(name, help), value);
    }
}

fn about_traffic(text: &mut Exposition, counters: &Counters) {
    for (name, value, help) in [
        (
            "broker_messages_received",
            counters.received,
            "Messages published.",
        ),
        (
            "broker_messages_delivered",
            counters.delivered,
            "Messages handed to subscribers.",
        ),
        (
            "broker_messages_dropped",
            counters.dropped,
            "Messages lost because a client's queue was full.",
        ),
        (
            "broker_payload_received_bytes",
            counters.payload_received,
            "Payloads published.",
        ),
        (
            "broker_payload_sent_bytes",
            counters.payload_sent,
            "Payloads handed to subscribers.",
        ),
        (
            "broker_packets_received",
            counters.packets_received,
            "MQTT packets from clients.",
        ),
        (
            "broker_packets_sent",
            counters.packets_sent,
            "MQTT packets to clients.",
        ),
        (
            "broker_received_bytes",
            counters.bytes_received,
            "MQTT bytes from clients.",
        ),
        (
            "broker_sent_bytes",
            counters.bytes_sent,
            "MQTT bytes to clients.",
        ),
        (
            "broker_connections",
            counters.sockets,
            "Connections that were opened.",
        ),
        (
            "broker_connects",
            counters.connects,
            "CONNECT packets that came.",
        ),
        (
            "broker_sessions_expired",
            counters.sessions_expired,
            "Sessions of absent clients whose time ended.",
        ),
    ] {
        text.single(counter(name, help), value as f64);
    }
    let refused = counter(
        "broker_refused",
        "What was refused, by kind; docs/audit.md explains them.",
    );
    text.open(refused);
    for (kind, count) in &counters.refused {
        text.sample(refused, &[("kind", kind)], *count as f64);
    }
}

fn about_store(text: &mut Exposition, store: &StoreStatus) {
    let faulty = gauge(
        "broker_store_faulty",
        "Whether the disk takes no commits (1).",
    );
    text.single(faulty, f64::from(u8::from(store.fault.is_some())));
    for (name, value, help) in [
        ("broker_store_commits", store.commits, "Commits on disk."),
        (
            "broker_store_messages",
            store.messages,
            "Messages put on disk.",
        ),
        (
            "broker_store_written_bytes",
            store.bytes_written,
            "Bytes written to the medium for the store's file and its log, in whole pages.",
        ),
        (
            "broker_store_payload_bytes",
            store.payload_bytes,
            "Bytes of the payloads of the messages put on disk.",
        ),
    ] {
        text.single(counter(name, help), value as f64);
    }
}

fn about_clients(text: &mut Exposition, clients: &[ClientStatus]) {
    let mut listed: Vec<&ClientStatus> = clients.iter().collect();
    listed.sort_by_key(|client| Reverse(client.received.messages + client.sent.messages));
    listed.truncate(CLIENTS_MAX);
    let left_out = gauge(
        "broker_clients_not_listed",
        "Connected clients without series of their own.",
    );
    text.single(left_out, (clients.len() - listed.len()) as f64);
    type Reading = fn(&ClientStatus) -> f64;
    let readings: [(Family<'_>, Reading); 9] = [
        (
            counter(
                "broker_client_messages_received",
                "Messages that the client published.",
            ),
            |client| client.received.messages as f64,
        ),
        (
            counter("broker_client_received_bytes", "Their payloads."),
            |client| client.received.bytes as f64,
        ),
        (
            counter(
                "broker_client_messages_sent",
                "Messages sent to the client.",
            ),
            |client| client.sent.messages as f64,
        ),
        (
            counter("broker_client_sent_bytes", "Their payloads."),
            |client| client.sent.bytes as f64,
        ),
        (
            counter(
                "broker_client_messages_dropped",
                "Messages lost because its queue was full.",
            ),
            |client| client.dropped as f64,
        ),
        (
            gauge(
                "broker_client_queued_messages",
                "Messages waiting for the client.",
            ),
            |client| client.queued as f64,
        ),
        (
            gauge("broker_client_queued_bytes", "Their bytes, about."),
            |client| client.queued_bytes as f64,
        ),
        (
            gauge(
                "broker_client_in_flight",
                "Messages sent and not acknowledged yet.",
            ),
            |client| client.in_flight as f64,
        ),
        (
            gauge(
                "broker_client_connected_seconds",
                "Time since it connected.",
            ),
            |client| client.connected_for.as_secs_f64(),
        ),
    ];
    for (family, reading) in readings {
        text.open(family);
        for client in &listed {
            let identity = client.identity.as_deref().unwrap_or("");
            let labels = [("client", client.id.as_str()), ("identity", identity)];
            text.sample(family, &labels, reading(client));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: &str, messages: u64) -> ClientStatus {
        let mut client = ClientStatus::example(id);
        client.received.messages = messages;
        client
    }

    #[test]
    fn label_values_cannot_break_out_of_their_quotes() {
        let status = Status {
            clients: vec![client("a\"} 1\n# EOF\\", 7)],
            ..Status::default()
        };
        let text = render(&status);
        let line =
            r##"broker_client_messages_received_total{client="a\"} 1\n# EOF\\",identity=""} 7"##;
        assert!(text.lines().any(|found| found == line), "{text}");
        assert_eq!(text.matches("\n# EOF\n").count(), 1);
    }

    #[test]
    fn series_are_bounded_and_the_busiest_clients_have_theirs() {
        let clients: Vec<_> = (0..1_000).map(|n| client(&format!("c{n}"), n)).collect();
        let text = render(&Status {
            clients,
            ..Status::default()
        });
        let series = text
            .lines()
            .filter(|line| line.starts_with("broker_client_messages_received_total"));
        assert_eq!(series.count(), CLIENTS_MAX);
        assert!(text.contains("client=\"c999\"") && !text.contains("client=\"c1\""));
        assert!(text.contains("\nbroker_clients_not_listed 900\n"));
    }
}
