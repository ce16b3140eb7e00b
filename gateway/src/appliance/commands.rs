//! Takes commands from the broker to the bus of their device. Shell.
//!
//! Invariant: every command gets a result; a retained one is no command.

use std::sync::Arc;

use broker_lite::{
    packet::QoS,
    server::{Delivery, LocalClient},
    topic::TopicFilter,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clock,
    fieldbus::{CommandResult, Event, Outcome, Refusal},
    payload,
};

use super::field::Field;

/// Topics on which commands arrive.
const COMMANDS: &str = "command/#";

/// Routes commands until cancelled; refusals are reported as events.
pub(super) async fn route(
    mut client: LocalClient,
    field: Arc<Field>,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) {
    match TopicFilter::parse(COMMANDS) {
        Ok(filter) => client.subscribe(filter, QoS::AtLeastOnce),
        Err(error) => return warn!(%error, "no commands are taken"),
    }
    loop {
        let delivery = tokio::select! {
            delivery = client.recv() => delivery,
            () = cancel.cancelled() => return,
        };
        let Some(delivery) = delivery else { return };
        if let Err(refusal) = accept(&delivery, &field) {
            refuse(*refusal, &events).await;
        }
    }
}

fn accept(delivery: &Delivery, field: &Field) -> Result<(), Box<Refusal>> {
    let message = &delivery.message;
    if delivery.retained {
        warn!(topic = %message.topic, "a retained command is not executed: it may be of any age");
        return Ok(());
    }
    let command = payload::command(message, clock::now())?;
    info!(device = %command.device, point = %command.point, value = %command.value, "command");
    field.command(command)
}

async fn refuse(refusal: Refusal, events: &mpsc::Sender<Event>) {
    let Refusal { command, reason } = refusal;
    warn!(device = %command.device, point = %command.point, reason, "command refused");
    let result = CommandResult {
        command,
        outcome: Outcome::Refused(reason),
        stamp: clock::now(),
    };
    // Nobody reads any more only while the appliance stops.
    let _stopping = events.send(Event::Result(result)).await;
}
