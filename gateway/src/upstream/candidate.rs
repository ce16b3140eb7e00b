//! Which of two identities an upstream is offered: the one that it let in, or a newer one.
//!
//! Invariant: one that was let in is not given up for one that was not, unless that one was tried
//! beside it. Layer: core.

use std::time::{Duration, Instant};

/// SHA-256 of the files that an offer was made from.
pub(crate) type Fingerprint = [u8; 32];

/// First pause before one that was refused is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(6 * 3600);

/// What to do with the newest identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Offer it.
    Use,
    /// Try it first, beside the one that was let in.
    Try,
    /// Stay with the one that was let in.
    Stay,
}

/// What became of the identities that there were.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    let_in: Option<Fingerprint>,
    passed: Option<Fingerprint>,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    fingerprint: Fingerprint,
    pause: Duration,
    until: Instant,
}

impl Candidates {
    /// Whether and how `newest` is used.
    pub(crate) fn choose(&self, newest: Fingerprint, now: Instant) -> Choice {
        if self.let_in.is_none_or(|let_in| let_in == newest) || self.passed == Some(newest) {
            return Choice::Use;
        }
        match &self.refused {
            Some(refused) if refused.fingerprint == newest && now < refused.until => Choice::Stay,
            _ => Choice::Try,
        }
    }

    /// An upstream has let it in, or had before this process began.
    pub(crate) fn let_in(&mut self, fingerprint: Fingerprint) {
        if self.let_in != Some(fingerprint) {
            self.refused = None;
        }
        self.let_in = Some(fingerprint);
        self.passed = None;
    }

    /// Whether a newer one than the one that was let in last was refused.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// It was taken when it was tried.
    pub(crate) fn passed(&mut self, fingerprint: Fingerprint) {
        self.passed = Some(fingerprint);
    }

    /// It was not, when it was tried or used.
    pub(crate) fn refused(&mut self, fingerprint: Fingerprint, now: Instant) {
        self.passed = None;
        let before = self.refused.take();
        let before = before.filter(|refused| refused.fingerprint == fingerprint);
        let pause = before.map_or(RETRY, |refused| (refused.pause * 2).min(RETRY_MAX));
        self.refused = Some(Refused {
            fingerprint,
            pause,
            until: now + pause,
        });
    }

    /// Whether there is another one to fall back to.
    pub(crate) fn is_new(&self, fingerprint: Fingerprint) -> bool {
        self.let_in.is_some_and(|let_in| let_in != fingerprint)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests measure time")]
mod tests {
    use super::*;

    const OLD: Fingerprint = [1; 32];
    const NEW: Fingerprint = [2; 32];
    const NEWER: Fingerprint = [3; 32];

    #[test]
    fn the_only_one_is_used_as_it_is() {
        let candidates = Candidates::default();
        assert_eq!(candidates.choose(OLD, Instant::now()), Choice::Use);
        assert!(!candidates.is_new(OLD));
    }

    #[test]
    fn a_new_one_is_tried_before_it_is_used() {
        let now = Instant::now();
        let mut candidates = Candidates::default();
        candidates.let_in(OLD);
        assert_eq!(candidates.choose(OLD, now), Choice::Use);
        assert_eq!(candidates.choose(NEW, now), Choice::Try);
        candidates.passed(NEW);
        assert_eq!(candidates.choose(NEW, now), Choice::Use);
        assert!(candidates.is_new(NEW));
        candidates.let_in(NEW);
        assert_eq!(candidates.choose(NEW, now), Choice::Use);
        assert_eq!(candidates.choose(OLD, now), Choice::Try);
    }

    #[test]
    fn a_refused_one_is_tried_again_ever_more_rarely_and_another_one_at_once() {
        let now = Instant::now();
        let mut candidates = Candidates::default();
        candidates.let_in(OLD);
        let mut pause = RETRY;
        for _ in 0..12 {
            candidates.refused(NEW, now);
            assert_eq!(candidates.choose(NEW, now), Choice::Stay);
            assert_eq!(candidates.choose(NEW, now + pause), Choice::Try);
            pause = (pause * 2).min(RETRY_MAX);
        }
        assert_eq!(candidates.choose(NEWER, now), Choice::Try);
        assert_eq!(candidates.choose(OLD, now), Choice::Use);
    }

    #[test]
    fn a_refusal_outlasts_a_new_link_with_the_old_one_and_ends_with_a_new_one() {
        let now = Instant::now();
        let mut candidates = Candidates::default();
        candidates.let_in(OLD);
        candidates.refused(NEW, now);
        candidates.let_in(OLD);
        assert_eq!(candidates.choose(NEW, now), Choice::Stay);
        assert!(candidates.has_refused());
        candidates.let_in(NEWER);
        assert!(!candidates.has_refused());
    }

    #[test]
    fn one_that_passed_and_was_refused_when_used_gives_way_to_the_old_one() {
        let now = Instant::now();
        let mut candidates = Candidates::default();
        candidates.let_in(OLD);
        candidates.passed(NEW);
        candidates.refused(NEW, now);
        assert_eq!(candidates.choose(NEW, now), Choice::Stay);
    }
}
