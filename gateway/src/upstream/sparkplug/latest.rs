//! The newest reading of each point and each device's state, as the local broker has them: what births tell.
//!
//! Invariant: one entry a topic, however long the upstream is away. Driver: shared between tasks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use broker_lite::{
    packet::QoS,
    server::LocalClient,
    topic::{TopicFilter, TopicName},
};
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::sample::Taken;
use crate::clock;

const READINGS: &str = "telemetry/#";
const STATES: &str = "state/+";
/// Topics that are watched; what exceeds them is told by its data alone.
const MAX_TOPICS: usize = 20_000;

/// See the module's description.
#[derive(Debug, Clone)]
pub struct Latest(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    news: Mutex<HashMap<TopicName, (Bytes, Taken)>>,
    /// Counts states.
    states: watch::Sender<u64>,
}

impl Latest {
    /// Watches the local broker until cancelled.
    pub fn watch(client: LocalClient, cancel: CancellationToken) -> Latest {
        let latest = Latest(Arc::new(Shared {
            news: Mutex::default(),
            states: watch::Sender::new(0),
        }));
        tokio::spawn(latest.clone().follow(client, cancel));
        latest
    }

    async fn follow(self, mut client: LocalClient, cancel: CancellationToken) {
        for (filter, qos) in [(READINGS, QoS::AtMostOnce), (STATES, QoS::AtLeastOnce)] {
            match TopicFilter::parse(filter) {
                Ok(filter) => client.subscribe(filter, qos),
                Err(error) => return error!(%error, "births will not know the newest values"),
            }
        }
        loop {
            let delivery = tokio::select! {
                delivery = client.recv() => delivery,
                () = cancel.cancelled() => return,
            };
            let Some(delivery) = delivery else { return };
            self.note(delivery.message.topic, delivery.message.payload);
        }
    }

    fn note(&self, topic: TopicName, payload: Bytes) {
        let now = clock::now();
        let taken = Taken {
            at: now.wall,
            clock: now.clock,
        };
        let is_state = topic.as_str().starts_with("state/");
        {
            let mut news = self.0.news.lock().unwrap_or_else(PoisonError::into_inner);
            if news.len() < MAX_TOPICS || news.contains_key(&topic) {
                news.insert(topic, (payload, taken));
            }
        }
        if is_state {
            self.0.states.send_modify(|count| *count += 1);
        }
    }

    /// What is new since the last call.
    pub(crate) fn take(&self) -> HashMap<TopicName, (Bytes, Taken)> {
        let mut news = self.0.news.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut news)
    }

    /// Changes with each state.
    pub(crate) fn states(&self) -> watch::Receiver<u64> {
        self.0.states.subscribe()
    }
}
