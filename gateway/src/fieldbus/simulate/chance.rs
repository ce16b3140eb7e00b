//! Whether a fault strikes this time. A value.
//!
//! Invariant: the same seed gives the same sequence; randomness enters through the seed alone.

/// A small generator (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    /// A generator that starts at `seed`.
    pub(super) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// True in `share` of the cases, 0 to 1; draws only where it is not certain.
    pub(super) fn strikes(&mut self, share: f64) -> bool {
        share >= 1.0 || share > 0.0 && self.fraction() < share
    }

    /// A number below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: u8) -> u8 {
        u8::try_from(self.next() % u64::from(bound.max(1))).unwrap_or(0)
    }

    /// From 0 up to 1.
    fn fraction(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are a double's own")]
        let number = (self.next() >> 11) as f64;
        number / 2f64.powi(53)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_met_and_the_seed_repeats_it() {
        let strikes = |seed, share| {
            let mut chance = Chance::new(seed);
            let drawn: Vec<bool> = (0..10_000).map(|_| chance.strikes(share)).collect();
            drawn
        };
        let count = |drawn: Vec<bool>| drawn.into_iter().filter(|strike| *strike).count();
        assert!((900..1_100).contains(&count(strikes(7, 0.1))));
        assert_eq!(count(strikes(7, 0.0)), 0);
        assert_eq!(count(strikes(7, 1.0)), 10_000);
        assert_eq!(strikes(7, 0.5), strikes(7, 0.5));
        assert_ne!(strikes(7, 0.5), strikes(8, 0.5));
    }
}
