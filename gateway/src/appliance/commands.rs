//! Takes commands from the broker to the bus of their device. Shell.
//!
//! Invariant: every command gets a result; a retained one is no command.

use std::sync::Arc;

use broker_lite::{
    packet::QoS,
    server::{Delivery, LocalClient, Publisher},
    topic::TopicFilter,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    clock,
    fieldbus::{Command, CommandResult, Event, Outcome, Refusal, Sender},
    payload,
};

use super::{audit, field::Field};

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
        audit::ignored(&message.topic, &message.payload);
        return Ok(());
    }
    let sender = delivery.publisher.as_ref().map(sender).map(Arc::new);
    let known = |command: Command| Command {
        sender: sender.clone(),
        ..command
    };
    match payload::command(message, clock::now()) {
        Ok(command) => field.command(known(command)),
        Err(refusal) => Err(Box::new(Refusal {
            command: known(refusal.command),
            reason: refusal.reason,
        })),
    }
}

/// Whom the log names.
pub(super) fn sender(publisher: &Publisher) -> Sender {
    Sender {
        user: publisher.user.as_deref().map(Arc::from),
        client: publisher.client.as_str().into(),
        address: publisher.address,
    }
}

async fn refuse(refusal: Refusal, events: &mpsc::Sender<Event>) {
    let Refusal { command, reason } = refusal;
    let result = CommandResult {
        command,
        outcome: Outcome::Refused(reason),
        stamp: clock::now(),
    };
    // Nobody reads any more only while the appliance stops.
    let _stopping = events.send(Event::Result(result)).await;
}
