//! Spreads moments that would otherwise coincide. A value.
//!
//! Invariant: the same seed gives the same sequence; randomness enters through the seed alone.

use std::time::Duration;

/// A small generator (xorshift64*), good enough to keep probes of many gateways apart.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// A generator that starts at `seed`.
    pub(crate) fn new(seed: u64) -> Jitter {
        // Zero is the one state that it never leaves.
        Jitter(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// Between 80 and 100 per cent of `pause`.
    pub(crate) fn spread(&mut self, pause: Duration) -> Duration {
        pause * (800 + self.below(201)) / 1_000
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        u32::try_from(mixed % u64::from(bound)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_spread_below_their_length_and_the_seed_repeats_them() {
        let spread = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..100).map(move |_| jitter.spread(Duration::from_secs(10)))
        };
        assert!(spread(7).all(|pause| (8..=10).contains(&pause.as_secs())));
        assert!(spread(7).eq(spread(7)));
        assert!(!spread(7).eq(spread(8)));
    }
}
