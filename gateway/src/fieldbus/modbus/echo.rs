//! Whether a bus' adapter returns what is sent through it. A core.
//!
//! Invariant: once an echo was heard, its absence is believed only after several reads in a row
//! were answered without one.

use crate::config::Echo;

/// Reads answered without an echo, in a row, before one that was heard is believed gone.
const BELIEVED_GONE: u8 = 5;

/// What a request has to reckon with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// The adapter does not echo: what equals the request is an answer.
    NoEcho,
    /// It echoes: only what comes after the request's copy is an answer.
    Echo,
    /// Not known yet: what equals the request may be either.
    Unknown,
}

/// What is known of an adapter.
#[derive(Debug)]
pub(super) struct Hearing {
    setting: Echo,
    heard: Option<bool>,
    answered_without: u8,
}

impl Hearing {
    /// An adapter that nothing has gone through yet.
    pub(super) fn new(setting: Echo) -> Hearing {
        Hearing {
            setting,
            heard: None,
            answered_without: 0,
        }
    }

    /// What the next request has to reckon with.
    pub(super) fn expected(&self) -> Expected {
        match (self.setting, self.heard) {
            (Echo::On, _) | (Echo::Auto, Some(true)) => Expected::Echo,
            (Echo::Off, _) | (Echo::Auto, Some(false)) => Expected::NoEcho,
            (Echo::Auto, None) => Expected::Unknown,
        }
    }

    /// Takes what an exchange told; `Some` when what is known of the adapter has changed by it.
    pub(super) fn learn(&mut self, echoed: Option<bool>) -> Option<bool> {
        let echoed = echoed?;
        if echoed {
            self.answered_without = 0;
        } else if self.heard == Some(true) {
            self.answered_without += 1;
            if self.answered_without < BELIEVED_GONE {
                return None;
            }
        }
        let changed = self.heard != Some(echoed);
        self.heard = Some(echoed);
        changed.then_some(echoed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_echo_is_believed_and_its_end_only_after_several_answers() {
        let mut hearing = Hearing::new(Echo::Auto);
        assert_eq!(hearing.expected(), Expected::Unknown);
        assert_eq!(hearing.learn(None), None);
        assert_eq!(hearing.learn(Some(false)), Some(false));
        assert_eq!(hearing.expected(), Expected::NoEcho);
        assert_eq!(hearing.learn(Some(true)), Some(true));
        for _ in 1..BELIEVED_GONE {
            assert_eq!(hearing.learn(Some(false)), None);
            assert_eq!(hearing.expected(), Expected::Echo);
        }
        assert_eq!(hearing.learn(Some(false)), Some(false));
        assert_eq!(hearing.expected(), Expected::NoEcho);
    }

    #[test]
    fn what_is_configured_is_not_unlearned() {
        let mut on = Hearing::new(Echo::On);
        for _ in 0..=BELIEVED_GONE {
            on.learn(Some(false));
        }
        assert_eq!(on.expected(), Expected::Echo);
        let mut off = Hearing::new(Echo::Off);
        off.learn(Some(true));
        assert_eq!(off.expected(), Expected::NoEcho);
    }
}
