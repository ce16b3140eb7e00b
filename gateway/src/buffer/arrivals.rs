//! Remembers the last messages from upstream that were handed to the local broker.
//!
//! Invariant: one that the upstream sends again because our acknowledgement was lost is recognised,
//! across restarts too: a command must not be executed twice. Core.

use std::collections::VecDeque;

/// More than the upstream may have sent without our acknowledgement.
pub(crate) const MAX_ARRIVALS: usize = 256;

/// A message from upstream, as far as it must be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Stays the same when it is sent again [MQTT-4.4.0-1].
    pub(crate) packet_id: u16,
    /// SHA-256 over topic and payload.
    pub(crate) digest: [u8; 32],
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Arrivals(VecDeque<Arrival>);

impl Arrivals {
    /// Takes the place of an earlier one with the same identifier.
    pub(super) fn enter(&mut self, arrival: Arrival) {
        self.forget(arrival.packet_id);
        self.0.push_back(arrival);
        if self.0.len() > MAX_ARRIVALS {
            self.0.pop_front();
        }
    }

    /// It was not taken after all.
    pub(super) fn forget(&mut self, packet_id: u16) {
        self.0.retain(|known| known.packet_id != packet_id);
    }

    pub(super) fn contains(&self, arrival: &Arrival) -> bool {
        self.0.contains(arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_arrivals_are_recognised_until_their_identifier_is_used_anew() {
        let arrival = |packet_id, byte| Arrival {
            packet_id,
            digest: [byte; 32],
        };
        let mut arrivals = Arrivals::default();
        arrivals.enter(arrival(1, 7));
        assert!(arrivals.contains(&arrival(1, 7)));
        assert!(!arrivals.contains(&arrival(1, 8)) && !arrivals.contains(&arrival(2, 7)));
        arrivals.enter(arrival(1, 8));
        assert!(!arrivals.contains(&arrival(1, 7)));
        arrivals.forget(1);
        assert!(!arrivals.contains(&arrival(1, 8)));
        for packet_id in 0..1000 {
            arrivals.enter(arrival(packet_id, 1));
        }
        assert_eq!(arrivals.0.len(), MAX_ARRIVALS);
        assert!(arrivals.contains(&arrival(999, 1)));
    }
}
