//! What always holds of an outbox. A core's; for tests.

use std::collections::BTreeSet;

use super::{InFlight, Outbox, Outgoing, Stage};
use crate::{config::Limits, packet::QoS};

impl Outbox {
    /// # Panics
    /// Something does not hold.
    pub(crate) fn check(&self, window: u16, connected: bool, limits: &Limits) {
        let sizes = self.queue.iter().map(|one| one.publication.size());
        assert_eq!(
            self.queued_bytes,
            sizes.sum::<usize>(),
            "bytes of the queue"
        );
        assert!(self.queue.len() <= limits.queued_messages as usize);
        assert!(self.queued_bytes <= limits.queued_bytes.as_len());
        let ids: BTreeSet<_> = self.in_flight.iter().map(|one| one.packet_id).collect();
        assert_eq!(
            ids.len(),
            self.in_flight.len(),
            "an identifier stands twice"
        );
        let unsent = self.in_flight.iter().filter(|one| !one.sent).count();
        assert_eq!(self.unsent, unsent, "what is still to be sent");
        if connected {
            let awaits = |one: &&InFlight| one.sent && matches!(one.stage, Stage::Published(_));
            let open = self.in_flight.iter().filter(awaits).count();
            assert!(
                open <= usize::from(window),
                "{open} above a window of {window}"
            );
        } else {
            let once = |one: &Outgoing| one.qos == QoS::AtMostOnce;
            assert!(
                limits.queue_qos0 || !self.queue.iter().any(once),
                "QoS 0 for an absent client"
            );
            assert_eq!(
                unsent,
                self.in_flight.len(),
                "nobody is there to be sent to"
            );
        }
    }

    /// The messages whose content has to stay in the store.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &Outgoing> {
        let in_flight = self.in_flight.iter().filter_map(|one| match &one.stage {
            Stage::Published(outgoing) => Some(outgoing),
            Stage::Received(_) => None,
        });
        in_flight
            .chain(&self.queue)
            .filter(|outgoing| outgoing.record.is_some())
    }
}
