//! What comes from upstream: noted on disk, then handed to the appliance, in its order.
//!
//! Invariant: a message is handed on only after the disk knows of it, so that one whose
//! acknowledgement got lost is recognised when it is sent again; one that a crash may have kept from
//! the local broker is handed on again, and says so. Layer: driver.

use std::sync::Arc;

use broker_lite::{
    keeper::{self, Kept},
    message::Message,
    packet::QoS,
};
use ring::digest;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::{
    super::{Ack, Cause, Incoming, Owed, Receipt, session::Received},
    Connection, Pump, not_acknowledged,
};
use crate::{
    buffer::{Arrival, Handing},
    payload,
};

/// A message from upstream that is handed on once the disk knows: a crash between the two must not
/// have a command executed twice.
pub(super) struct Entering {
    received: Received,
    arrival: Arrival,
    room: mpsc::OwnedPermit<Incoming>,
    kept: oneshot::Receiver<Kept>,
}

impl Pump {
    /// Lets the oldest message from upstream in, unless it was let in before.
    pub(super) fn let_in(
        &self,
        connection: &mut Connection,
        room: mpsc::OwnedPermit<Incoming>,
    ) -> Result<(), Cause> {
        let Some(mut received) = connection.waiting.pop_front() else {
            return Ok(());
        };
        let Some(packet_id) = received.packet_id else {
            self.hand_over(received, None, room);
            return Ok(());
        };
        let arrival = arrival(packet_id, &received);
        let earlier = received
            .duplicate
            .then(|| self.buffer.earlier_arrival(&arrival));
        let earlier = earlier.flatten();
        if earlier == Some(Handing::Taken) {
            info!(
                topic = received.topic,
                "the upstream sent a message again that was taken before; acknowledged only"
            );
            return connection
                .session
                .acknowledge(packet_id)
                .map_err(|_| not_acknowledged());
        }
        if earlier == Some(Handing::CutShort) {
            warn!(
                topic = received.topic,
                "the gateway ended before it had handed this message on; handed on again, and marked so"
            );
            mark_repeated(&mut received);
        }
        let (answer, kept) = oneshot::channel();
        // A link that has ended meanwhile does not listen.
        let receipt = keeper::Receipt::new(move |kept| {
            let _gone = answer.send(kept);
        });
        self.buffer.remember_arrival(arrival, receipt);
        connection.entering = Some(Entering {
            received,
            arrival,
            room,
            kept,
        });
        Ok(())
    }

    pub(super) fn remembered(&self, entering: Entering, kept: Kept) {
        match kept {
            Kept::Committed => {
                self.buffer.arrived(entering.arrival);
                self.hand_over(entering.received, Some(entering.arrival), entering.room);
            }
            Kept::Refused => warn!(
                topic = entering.received.topic,
                "the buffer cannot take note of a message from upstream; left unacknowledged"
            ),
        }
    }

    /// Gives a message from upstream to the appliance.
    fn hand_over(
        &self,
        received: Received,
        arrival: Option<Arrival>,
        room: mpsc::OwnedPermit<Incoming>,
    ) {
        if let Some(incoming) = self.incoming_message(received, arrival) {
            room.send(incoming);
            self.board.update(|status| status.received += 1);
        }
    }

    /// The message on its local topic; `None` when no rule takes it.
    fn incoming_message(&self, received: Received, arrival: Option<Arrival>) -> Option<Incoming> {
        let owed = arrival.map(|arrival| Owed {
            receipts: self.receipts.clone(),
            receipt: Receipt {
                connection: self.connection,
                packet_id: arrival.packet_id,
            },
            arrival,
            buffer: self.buffer.clone(),
        });
        let ack = Ack(owed);
        let Some(topic) = self.rules.local(&received.topic) else {
            debug!(
                topic = received.topic,
                "no rule takes this message from upstream"
            );
            ack.acknowledge();
            return None;
        };
        let qos = match received.packet_id {
            Some(_) => QoS::AtLeastOnce,
            None => QoS::AtMostOnce,
        };
        let mut message = Message::new(topic, received.payload).with_qos(qos);
        message.retain = received.retain;
        message.properties = received.properties;
        Some(Incoming { message, ack })
    }
}

/// Tells whoever takes the message that it may have been handed on before.
fn mark_repeated(received: &mut Received) {
    let properties = received.properties.get_or_insert_default();
    let users = &mut Arc::make_mut(properties).user_properties;
    if users.push(payload::REPEATED, "true").is_err() {
        warn!(topic = received.topic, "too many properties to mark it");
    }
}

/// What tells a message from upstream from the next one with its packet identifier.
fn arrival(packet_id: u16, received: &Received) -> Arrival {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(received.topic.as_bytes());
    // No topic holds this byte.
    hash.update(&[0]);
    hash.update(&received.payload);
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Arrival { packet_id, digest }
}

/// Waits for the disk's answer; for ever when nothing was asked.
pub(super) async fn remembered(entering: &mut Option<Entering>) -> Kept {
    match entering {
        Some(entering) => (&mut entering.kept).await.unwrap_or(Kept::Refused),
        None => std::future::pending().await,
    }
}
