//! Finds the message over which an upstream closes the link: MQTT 3.1.1 has no other way to refuse
//! one, and some brokers do so with 5.0.
//!
//! Invariant: a message is given up only if it was alone under way each time, and the upstream
//! answered another one after. An upstream that closes over everything gets everything again. Core.

use super::outbound::Key;

/// Links that must have ended over a message before another is tried in its place.
pub(crate) const TRIES: u32 = 5;

/// What is sent in the place of a message that has ended too many links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// The message behind it, where there is one.
    Neighbour,
    /// A few words of our own: there is no other message, or it fared no better.
    StandIn,
}

/// The message that was under way alone when the last links ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Suspect(Option<Case>);

#[derive(Debug, Clone, Copy)]
struct Case {
    key: Key,
    tries: u32,
    neighbour_failed: bool,
}

impl Suspect {
    /// The upstream ended the link with only this message under way.
    pub(crate) fn closed_over(&mut self, key: Key) {
        self.0 = match self.0 {
            Some(case) if case.key == key => Some(Case {
                tries: case.tries.saturating_add(1),
                ..case
            }),
            // Not even our own words pass, so it is not the message.
            _ if key == Key::StandIn => None,
            // The neighbour may be another of its kind.
            Some(case) if case.tries >= TRIES && !case.neighbour_failed => Some(Case {
                neighbour_failed: true,
                ..case
            }),
            _ => Some(Case {
                key,
                tries: 1,
                neighbour_failed: false,
            }),
        };
    }

    /// What is to be tried in the place of this message; `None`: nothing, it is sent.
    pub(crate) fn control(&self, key: Key) -> Option<Control> {
        let case = self.0?;
        (case.key == key && case.tries >= TRIES).then_some(match case.neighbour_failed {
            false => Control::Neighbour,
            true => Control::StandIn,
        })
    }

    /// The upstream answered a message; gives the one that it will never take, if that is now clear.
    pub(crate) fn answered(&mut self, key: Key) -> Option<Key> {
        let case = self.0?;
        if case.key == key {
            self.0 = None;
            return None;
        }
        let convicted = case.tries >= TRIES;
        convicted.then(|| {
            self.0 = None;
            case.key
        })
    }
}
