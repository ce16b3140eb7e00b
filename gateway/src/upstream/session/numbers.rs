//! Packet identifiers of what waits for its acknowledgement.
//!
//! rumqttc's own state would keep a copy of each publish, to send it again on its next connection.
//! Here the buffer keeps them, and the forwarder decides what is sent again.
//!
//! Invariant: no publish gets one for which the upstream may still answer [MQTT-2.2.1-3]. Layer: core.

/// Identifiers left for packets that are no publishes, of which few are under way at once.
const OTHERS: u16 = 100;

/// See the module's description.
pub(super) struct Numbers {
    /// Of publishes, by identifier; 0 is none.
    awaited: Vec<bool>,
    under_way: u16,
    next: u16,
    other: u16,
}

impl Numbers {
    /// For a window of so many publishes.
    pub(super) fn new(window: u16) -> Numbers {
        let window = window.clamp(1, u16::MAX - OTHERS);
        Numbers {
            awaited: vec![false; usize::from(window) + 1],
            under_way: 0,
            next: 1,
            other: 0,
        }
    }

    /// Publishes without an answer.
    pub(super) fn under_way(&self) -> u16 {
        self.under_way
    }

    /// Whether there is one for another publish.
    pub(super) fn is_free(&self) -> bool {
        !self.awaited[usize::from(self.next)]
    }

    /// For the next publish, where [`Self::is_free`] says so.
    pub(super) fn take(&mut self) -> u16 {
        let number = self.next;
        self.awaited[usize::from(number)] = true;
        self.under_way += 1;
        self.next = match usize::from(number) + 1 < self.awaited.len() {
            true => number + 1,
            false => 1,
        };
        number
    }

    /// The upstream answered for it; whether that was waited for.
    pub(super) fn give_back(&mut self, number: u16) -> bool {
        match self.awaited.get_mut(usize::from(number)) {
            Some(awaited) if *awaited => {
                *awaited = false;
                self.under_way -= 1;
                true
            }
            _ => false,
        }
    }

    /// For a packet that is no publish.
    pub(super) fn other(&mut self) -> u16 {
        self.other = (self.other + 1) % OTHERS;
        self.awaited.len() as u16 + self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_go_round_and_wait_for_the_oldest_answer() {
        let mut numbers = Numbers::new(3);
        assert_eq!([(); 3].map(|()| numbers.take()), [1, 2, 3]);
        assert!(!numbers.is_free());
        assert!(numbers.give_back(2) && !numbers.give_back(2));
        assert!(!numbers.is_free(), "the first is still awaited");
        assert!(numbers.give_back(1));
        assert!(numbers.is_free());
        assert_eq!(
            (numbers.take(), numbers.take(), numbers.under_way()),
            (1, 2, 3)
        );
        assert!(!numbers.give_back(0) && !numbers.give_back(4));
    }

    #[test]
    fn other_packets_never_get_a_publish_s_identifier() {
        for window in [1, 20, u16::MAX] {
            let mut numbers = Numbers::new(window);
            for _ in 0..3 * OTHERS {
                assert!(usize::from(numbers.other()) >= numbers.awaited.len());
            }
        }
    }
}
