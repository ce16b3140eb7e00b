//! Finds out what the upstream has read of what it does not answer.
//!
//! Sparkplug wants births and data at QoS 0. A server reads a connection's packets in their order, so its SUBACK to a
//! subscription that was sent behind them says that they have arrived. The commands' own filter is subscribed to again for
//! that. Invariant: a packet counts as arrived only if it was written before the question that was answered. Layer: core.

use std::collections::VecDeque;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Fence<T> {
    /// The session's own subscriptions are answered.
    subscribed: bool,
    written: VecDeque<T>,
    /// How many of those the question under way stands behind.
    asked: Option<usize>,
}

impl<T> Fence<T> {
    /// Of a connection whose subscriptions have been sent.
    pub(crate) fn new() -> Fence<T> {
        Fence {
            subscribed: false,
            written: VecDeque::new(),
            asked: None,
        }
    }

    /// Whether commands would arrive by now.
    pub(crate) fn subscribed(&self) -> bool {
        self.subscribed
    }

    /// A packet is on its way.
    pub(crate) fn written(&mut self, packet: T) {
        self.written.push_back(packet);
    }

    /// Whether to ask now; then it is asked.
    pub(crate) fn asks(&mut self) -> bool {
        let asks = self.subscribed && self.asked.is_none() && !self.written.is_empty();
        if asks {
            self.asked = Some(self.written.len());
        }
        asks
    }

    /// A SUBACK; gives what has arrived.
    pub(crate) fn answered(&mut self) -> impl Iterator<Item = T> {
        self.subscribed = true;
        let arrived = self.asked.take().unwrap_or(0);
        self.written.drain(..arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_behind_the_question_waits_for_the_next() {
        let mut fence = Fence::new();
        fence.written(1);
        assert!(!fence.asks(), "the first answer is to the subscriptions");
        assert_eq!(fence.answered().count(), 0);
        assert!(fence.asks());
        fence.written(2);
        assert!(!fence.asks(), "one question at a time");
        assert_eq!(fence.answered().collect::<Vec<_>>(), [1]);
        assert!(fence.asks());
        assert_eq!(fence.answered().collect::<Vec<_>>(), [2]);
        assert!(!fence.asks(), "nothing to ask about");
    }
}
