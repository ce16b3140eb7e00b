//! Carries what the field and the upstream say to the broker. Shell.
//!
//! Invariant: an upstream message is acknowledged only after the local broker has it.

use std::{collections::HashMap, sync::Arc};

use broker_lite::{server::LocalClient, topic::TopicName};
use tokio::sync::mpsc;

use crate::{
    fieldbus::Event,
    payload::{self, Sequences},
    upstream::Incoming,
};

use super::{audit::Audit, field::Field};

/// Publishes events until every sender is gone, numbering on from `sequences`.
pub(super) async fn publish_events(
    mut events: mpsc::Receiver<Event>,
    client: LocalClient,
    sequences: HashMap<TopicName, u64>,
    field: Arc<Field>,
) {
    let mut sequences = Sequences::new(sequences);
    let mut audit = Audit::default();
    while let Some(event) = events.recv().await {
        if let Event::Result(result) = &event {
            audit.result(result);
        }
        for message in
            payload::messages(&event, |device| field.publish_mode(device), &mut sequences)
        {
            // The buffer counts and names what it refuses; nobody waits here.
            drop(client.publish(message));
        }
    }
}

/// Publishes what the upstream sent, and acknowledges it then.
pub(super) async fn publish_incoming(mut incoming: mpsc::Receiver<Incoming>, client: LocalClient) {
    while let Some(Incoming { message, ack }) = incoming.recv().await {
        client.publish(message).await;
        ack.acknowledge();
    }
}
