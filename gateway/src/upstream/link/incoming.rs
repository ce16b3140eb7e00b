//! What comes from upstream: noted on disk, then handed to the appliance, in its order.
//!
//! Invariant: a message is handed on only after the disk knows of it, so that one whose
//! acknowledgement got lost is recognised when it is sent again. Layer: driver.

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
use crate::buffer::Arrival;

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
        let Some(received) = connection.waiting.pop_front() else {
            return Ok(());
        };
        let Some(packet_id) = received.packet_id else {
            self.hand_over(received, room);
            return Ok(());
        };
        let arrival = arrival(packet_id, &received);
        if received.duplicate && self.buffer.has_arrived(&arrival) {
            info!(
                topic = received.topic,
                "the upstream sent a message again that was taken before; acknowledged only"
            );
            return connection
                .session
                .acknowledge(packet_id)
                .map_err(|_| not_acknowledged());
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
                self.hand_over(entering.received, entering.room);
            }
            Kept::Refused => warn!(
                topic = entering.received.topic,
                "the buffer cannot take note of a message from upstream; left unacknowledged"
            ),
        }
    }

    /// Gives a message from upstream to the appliance.
    fn hand_over(&self, received: Received, room: mpsc::OwnedPermit<Incoming>) {
        if let Some(incoming) = self.incoming_message(received) {
            room.send(incoming);
            self.board.update(|status| status.received += 1);
        }
    }

    /// The message on its local topic; `None` when no rule takes it.
    fn incoming_message(&self, received: Received) -> Option<Incoming> {
        let owed = received.packet_id.map(|packet_id| Owed {
            receipts: self.receipts.clone(),
            receipt: Receipt {
                connection: self.connection,
                packet_id,
            },
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
