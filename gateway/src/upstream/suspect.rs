//! Finds the message over which an upstream closes the link: MQTT 3.1.1 has no other way to refuse
//! one, and some brokers do so with 5.0.
//!
//! Invariant: a message is given up only if it was alone under way each time, and the upstream took
//! another one after. An upstream that closes over everything gets everything again. Core.

use super::outbound::Key;

/// Links that must have ended over a message before another is tried in its place.
pub(crate) const TRIES: u32 = 5;

/// The message that was under way alone when the last links ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Suspect(Option<(Key, u32)>);

impl Suspect {
    /// The upstream ended the link with only this message under way.
    pub(crate) fn closed_over(&mut self, key: Key) {
        self.0 = match self.0 {
            Some((known, tries)) if known == key => Some((key, tries + 1)),
            // The one tried in its place fares no better, so it is not the message.
            Some((_, TRIES..)) => None,
            _ => Some((key, 1)),
        };
    }

    /// Whether another is to be tried in its place.
    pub(crate) fn is_set_aside(&self, key: Key) -> bool {
        matches!(self.0, Some((known, TRIES..)) if known == key)
    }

    /// The upstream took a message; gives the one that it will never take, if that is now clear.
    pub(crate) fn taken(&mut self, key: Key) -> Option<Key> {
        let (suspect, tries) = self.0?;
        if suspect == key {
            self.0 = None;
            return None;
        }
        let convicted = tries >= TRIES;
        convicted.then(|| {
            self.0 = None;
            suspect
        })
    }
}
