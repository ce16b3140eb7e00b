//! Takes commands from the broker to the bus of their device. Shell.
//!
//! Invariant: every command gets a result; a retained one is no command, and one that may have been
//! carried out before is not carried out again.

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

/// What is said of a command that comes a second time since the first was cut short.
const CUT_SHORT: &str = "the gateway ended while this command was on its way; whether it was \
                         carried out is not known, and it is not carried out again";

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
        if let Err(result) = accept(&delivery, &field) {
            // Nobody reads any more only while the appliance stops.
            let _stopping = events.send(Event::Result(*result)).await;
        }
    }
}

/// Hands a command on, or says at once what came of it.
fn accept(delivery: &Delivery, field: &Field) -> Result<(), Box<CommandResult>> {
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
    let settled = |command, outcome| {
        let stamp = clock::now();
        Box::new(CommandResult {
            command,
            outcome,
            stamp,
        })
    };
    match payload::command(message, clock::now()) {
        Ok(command) if payload::is_repeated(message) => {
            let outcome = Outcome::Failed(CUT_SHORT.to_owned());
            Err(settled(known(command), outcome))
        }
        Ok(command) => field.command(known(command)).map_err(|refusal| {
            let Refusal { command, reason } = *refusal;
            settled(command, Outcome::Refused(reason))
        }),
        Err(refusal) => {
            let outcome = Outcome::Refused(refusal.reason);
            Err(settled(known(refusal.command), outcome))
        }
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
