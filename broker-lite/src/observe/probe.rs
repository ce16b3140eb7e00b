//! Whether a message still finds its way through the broker, and its own task still runs. Driver.
//!
//! Invariant: a probe is answered by its own message, never by one that came late.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    message::Message,
    packet::QoS,
    server::{Broker, LocalClient},
    topic::{TopicFilter, TopicName},
};

/// Under `$`, where no wildcard subscription sees it and no client publishes.
const TOPIC: &str = "$broker/probe";

/// Probes sent by this process: several may be under way, each with its own number.
static SENT: AtomicU64 = AtomicU64::new(0);

/// A publisher and subscriber in this process that hears itself.
#[derive(Debug)]
pub struct Probe {
    broker: Broker,
    client: LocalClient,
    topic: TopicName,
}

/// Why a probe did not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The broker has stopped.
    #[error("the broker has stopped")]
    Stopped,
    /// It did not come in time.
    #[error("the broker does not deliver")]
    Late,
}

impl Probe {
    /// Joins a broker.
    pub fn new(broker: &Broker) -> Probe {
        let topic = TopicName::parse(TOPIC).expect("a constant that the tests read");
        let client = broker.local("broker-probe");
        client.subscribe(TopicFilter::from(&topic), QoS::AtMostOnce);
        Probe {
            broker: broker.clone(),
            client,
            topic,
        }
    }

    /// Sends a message through the broker's core and waits for it.
    ///
    /// # Errors
    /// It did not come back within `limit`.
    pub async fn round_trip(&mut self, limit: Duration) -> Result<(), Lost> {
        if self.broker.has_stopped() {
            return Err(Lost::Stopped);
        }
        let payload = SENT.fetch_add(1, Ordering::Relaxed).to_string();
        let message = Message::new(self.topic.clone(), payload.clone());
        drop(self.client.publish(message.with_qos(QoS::AtMostOnce)));
        let back = async {
            self.broker.pulse().await;
            loop {
                match self.client.recv().await {
                    Some(delivery) if delivery.message.payload == payload => return Ok(()),
                    Some(_late) => {}
                    None => return Err(Lost::Stopped),
                }
            }
        };
        timeout(limit, back).await.unwrap_or(Err(Lost::Late))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn a_probe_comes_back_while_the_broker_runs_and_not_after() {
        let broker = Broker::start(&Config::default(), None).await.unwrap();
        let mut probe = Probe::new(&broker);
        for _ in 0..3 {
            assert_eq!(probe.round_trip(Duration::from_secs(5)).await, Ok(()));
        }
        broker.shutdown().await;
        assert_eq!(
            probe.round_trip(Duration::from_secs(5)).await,
            Err(Lost::Stopped)
        );
    }
}
