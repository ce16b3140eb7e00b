//! The `$SYS` topics, by the names that dashboards for Mosquitto look for. A core: a status in,
//! topics and texts out.
//!
//! Invariant: the topics and their order are the same at each call, so that two lists can be
//! compared by position.

use crate::{
    observe::status::{Load, LoadOver, Status},
    topic::{TopicFilter, TopicName},
};

/// What comes before every topic.
const BROKER: &str = "$SYS/broker/";

/// The level below which they stand; no wildcard stands for it [MQTT-4.7.2-1].
const LEVEL: &str = "$SYS";

/// The windows' names, in the order of [`Load`].
const WINDOWS: [&str; 3] = ["1min", "5min", "15min"];

/// One topic's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) topic: TopicName,
    pub(crate) text: String,
}

/// Whether a filter can match any of the topics.
pub(crate) fn may_match(filter: &TopicFilter) -> bool {
    filter.as_str().split('/').next() == Some(LEVEL)
}

/// Every topic with its present value.
pub(crate) fn values(status: &Status) -> Vec<Value> {
    let texts = about_broker(status)
        .into_iter()
        .chain(about_clients(status))
        .chain(about_traffic(status))
        .chain(about_messages(status))
        .map(|(name, text)| (name.to_owned(), text))
        .chain(about_load(&status.load));
    texts
        .filter_map(|(name, text)| {
            let topic = TopicName::parse(&format!("{BROKER}{name}")).ok()?;
            Some(Value { topic, text })
        })
        .collect()
}

fn about_broker(status: &Status) -> Vec<(&'static str, String)> {
    let version = format!("broker-lite version {}", env!("CARGO_PKG_VERSION"));
    let uptime = format!("{} seconds", status.uptime.as_secs());
    vec![("version", version), ("uptime", uptime)]
}

fn about_clients(status: &Status) -> Vec<(&'static str, String)> {
    let connected = status.connected;
    let absent = status.sessions.saturating_sub(connected);
    let counters = &status.counters;
    vec![
        ("clients/total", status.sessions.to_string()),
        ("clients/connected", connected.to_string()),
        ("clients/active", connected.to_string()),
        ("clients/disconnected", absent.to_string()),
        ("clients/inactive", absent.to_string()),
        ("clients/maximum", counters.clients_maximum.to_string()),
        ("clients/expired", counters.sessions_expired.to_string()),
    ]
}

fn about_traffic(status: &Status) -> Vec<(&'static str, String)> {
    let counters = &status.counters;
    let count = |name, value: u64| (name, value.to_string());
    vec![
        count("messages/received", counters.packets_received),
        count("messages/sent", counters.packets_sent),
        count("bytes/received", counters.bytes_received),
        count("bytes/sent", counters.bytes_sent),
        count("publish/messages/received", counters.received),
        count("publish/messages/sent", counters.delivered),
        count("publish/messages/dropped", counters.dropped),
        count("publish/bytes/received", counters.payload_received),
        count("publish/bytes/sent", counters.payload_sent),
    ]
}

fn about_messages(status: &Status) -> Vec<(&'static str, String)> {
    let stored = status.stored;
    vec![
        ("messages/stored", stored.messages.to_string()),
        ("store/messages/count", stored.messages.to_string()),
        ("store/messages/bytes", stored.bytes.to_string()),
        ("retained messages/count", status.retained.to_string()),
        ("subscriptions/count", status.subscriptions.to_string()),
        (
            "shared_subscriptions/count",
            status.shared_subscriptions.to_string(),
        ),
    ]
}

fn about_load(load: &Load) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for (window, over) in WINDOWS.iter().zip(&load.0) {
        for (name, per_minute) in rates(over) {
            texts.push((format!("load/{name}/{window}"), format!("{per_minute:.2}")));
        }
    }
    texts
}

fn rates(over: &LoadOver) -> [(&'static str, f32); 9] {
    [
        ("messages/received", over.packets_received),
        ("messages/sent", over.packets_sent),
        ("bytes/received", over.bytes_received),
        ("bytes/sent", over.bytes_sent),
        ("publish/received", over.received),
        ("publish/sent", over.delivered),
        ("publish/dropped", over.dropped),
        ("sockets", over.sockets),
        ("connections", over.connects),
    ]
}
