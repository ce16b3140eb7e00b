//! Remembers the last messages from upstream that were, or were to be, handed to the local broker.
//!
//! Invariant: one that the upstream sends again because our acknowledgement was lost is recognised,
//! across restarts too, and one that a crash may have kept from the local broker is told from one
//! that it has: a command must neither be executed twice nor vanish. Core.

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

/// What became of a message from upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handing {
    /// The local broker has it, or is about to get it from this process.
    Taken,
    /// The process that was to hand it over ended; whether it did so before is not known.
    CutShort,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Arrivals(VecDeque<(Arrival, Handing)>);

impl Arrivals {
    /// Takes the place of an earlier one with the same identifier.
    pub(super) fn enter(&mut self, arrival: Arrival, handing: Handing) {
        self.forget(arrival.packet_id);
        self.0.push_back((arrival, handing));
        if self.0.len() > MAX_ARRIVALS {
            self.0.pop_front();
        }
    }

    /// It was not taken after all.
    pub(super) fn forget(&mut self, packet_id: u16) {
        self.0.retain(|(known, _)| known.packet_id != packet_id);
    }

    /// `None` for one that is new.
    pub(super) fn find(&self, arrival: &Arrival) -> Option<Handing> {
        let mut known = self.0.iter();
        known.find_map(|(known, handing)| (known == arrival).then_some(*handing))
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
        arrivals.enter(arrival(1, 7), Handing::CutShort);
        assert_eq!(arrivals.find(&arrival(1, 7)), Some(Handing::CutShort));
        assert_eq!(arrivals.find(&arrival(1, 8)), None);
        assert_eq!(arrivals.find(&arrival(2, 7)), None);
        arrivals.enter(arrival(1, 8), Handing::Taken);
        assert_eq!(arrivals.find(&arrival(1, 7)), None);
        assert_eq!(arrivals.find(&arrival(1, 8)), Some(Handing::Taken));
        arrivals.forget(1);
        assert_eq!(arrivals.find(&arrival(1, 8)), None);
        for packet_id in 0..1000 {
            arrivals.enter(arrival(packet_id, 1), Handing::Taken);
        }
        assert_eq!(arrivals.0.len(), MAX_ARRIVALS);
        assert_eq!(arrivals.find(&arrival(999, 1)), Some(Handing::Taken));
    }
}
