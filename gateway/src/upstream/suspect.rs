//! Finds the message over which an upstream closes the link: MQTT 3.1.1 has no other way to refuse
//! one, and some brokers do so with 5.0, also where a client may not publish to a topic.
//!
//! Invariant: a message is given up only if it was alone under way each time, and the upstream
//! answered another one after. An upstream that closes over everything gets everything again, and one
//! that takes nothing but our own notices costs a few messages, not the backlog. Core.

use broker_lite::topic::TopicName;

use super::outbound::{Key, Outbound};

/// Links that must have ended over a message before another is tried in its place.
pub(crate) const TRIES: u32 = 5;
/// The same for one of a topic of which the last was given up.
pub(crate) const TRIES_AGAIN: u32 = 3;
/// Topics of which a message is tried in its place, one after the other.
pub(crate) const NEIGHBOURS: usize = 8;
/// Messages given up in a row since nothing but our own words passed. More may say that these are all
/// that we may publish.
pub(crate) const ON_OUR_WORD: u32 = 3;

/// What is sent in the place of a message that has ended too many links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// One of another topic, or the one behind it, where there is one that has not failed as well.
    Neighbour,
    /// A few words of our own.
    StandIn,
}

/// The message that was under way alone when the last links ended.
#[derive(Debug, Default)]
pub(crate) struct Suspect {
    case: Option<Case>,
    /// Of the last one that was given up.
    convicted: Option<TopicName>,
    /// Given up since one of the buffer's messages was answered.
    on_our_word: u32,
}

#[derive(Debug)]
struct Case {
    key: Key,
    topic: TopicName,
    tries: u32,
    /// Topics of which a message in its place has ended the link, too.
    failed: Vec<TopicName>,
}

impl Suspect {
    /// The upstream ended the link with only this message under way.
    pub(crate) fn closed_over(&mut self, message: &Outbound) {
        let needed = self.needed();
        self.case = match self.case.take() {
            Some(case) if case.key == message.key => Some(Case {
                tries: case.tries.saturating_add(1),
                ..case
            }),
            // Not even our own words pass, so it is not the message.
            _ if message.key == Key::StandIn => None,
            // The neighbour may be another of its kind.
            Some(mut case) if case.tries >= needed && case.failed.len() < NEIGHBOURS => {
                case.failed.push(message.source.clone());
                Some(case)
            }
            _ => Some(Case {
                key: message.key,
                topic: message.source.clone(),
                tries: 1,
                failed: Vec::new(),
            }),
        };
    }

    /// What is to be tried in the place of this message, the first that there is; otherwise it is sent.
    pub(crate) fn controls(&self, key: Key) -> &'static [Control] {
        let is_due = |case: &Case| case.key == key && case.tries >= self.needed();
        match &self.case {
            Some(case) if is_due(case) => match (case.failed.len(), self.on_our_word) {
                (..NEIGHBOURS, ..ON_OUR_WORD) => &[Control::Neighbour, Control::StandIn],
                (..NEIGHBOURS, _) => &[Control::Neighbour],
                (_, ..ON_OUR_WORD) => &[Control::StandIn],
                _ => &[],
            },
            _ => &[],
        }
    }

    /// Whether one of this topic has ended the link in the place of the suspect.
    pub(crate) fn has_failed(&self, topic: &TopicName) -> bool {
        let case = self.case.as_ref();
        case.is_some_and(|case| case.failed.contains(topic))
    }

    /// The upstream answered a message; gives the one that it will never take, if that is now clear,
    /// and how many links ended over it.
    pub(crate) fn answered(&mut self, key: Key) -> Option<(Key, u32)> {
        match key {
            Key::Row(_) => self.on_our_word = 0,
            Key::StandIn => self.on_our_word += 1,
            // On topics of our own: they say nothing of others.
            Key::Gap { .. } | Key::Notice => return None,
        }
        let needed = self.needed();
        let is_settled = |case: &mut Case| case.key == key || case.tries >= needed;
        let case = self.case.take_if(is_settled)?;
        if case.key == key {
            return None;
        }
        self.convicted = Some(case.topic);
        Some((case.key, case.tries))
    }

    /// Tries after which it is the suspect's turn to stand aside.
    fn needed(&self) -> u32 {
        let case = self.case.as_ref();
        let again = case.is_some_and(|case| Some(&case.topic) == self.convicted.as_ref());
        if again { TRIES_AGAIN } else { TRIES }
    }
}
