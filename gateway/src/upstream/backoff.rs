//! How long to wait before the next attempt to connect.
//!
//! Invariant: each pause lies between half of the current step and all of it, so that gateways that
//! lost the same upstream do not return together. Layer: core.

use std::time::Duration;

/// Doubling pauses with jitter from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    step: Duration,
    random: u64,
}

impl Backoff {
    /// Pauses from `first` to `max`; the seed should differ between gateways and starts.
    pub(crate) fn new(first: Duration, max: Duration, seed: u64) -> Backoff {
        Backoff {
            first,
            max,
            step: first,
            // The generator below stands still at zero.
            random: seed | 1,
        }
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let step = self.step.min(self.max);
        self.step = (step * 2).min(self.max);
        step / 2 + step.mul_f64(self.fraction() / 2.0)
    }

    /// Starts over, after a link that worked.
    pub(crate) fn reset(&mut self) {
        self.step = self.first;
    }

    /// From 0 to 1; xorshift64 by George Marsaglia.
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as f64 / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over() {
        for seed in 0..100 {
            let (first, max) = (Duration::from_secs(1), Duration::from_secs(120));
            let mut backoff = Backoff::new(first, max, seed);
            for step in [1, 2, 4, 8, 16, 32, 64, 120, 120, 120] {
                let (pause, step) = (backoff.pause(), Duration::from_secs(step));
                assert!(
                    pause >= step / 2 && pause <= step,
                    "seed {seed}: {pause:?} of {step:?}"
                );
            }
            backoff.reset();
            assert!(backoff.pause() <= first);
        }
    }

    #[test]
    fn gateways_do_not_return_together() {
        let pause = |seed| {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8), seed);
            backoff.pause();
            backoff.pause()
        };
        let mut pauses: Vec<_> = (0..20).map(|seed| pause(seed * 7919 + 3)).collect();
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 15, "only {} different pauses", pauses.len());
    }
}
