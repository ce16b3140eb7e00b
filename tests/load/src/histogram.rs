//! Counts of durations, exact to one part in 64 from nanoseconds to hours. A value.

/// Buckets per power of two; a value is known to one part in that many.
const PARTS: u64 = 64;

/// A histogram of nanoseconds.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram {
            counts: vec![0; bucket(u64::MAX) + 1],
            total: 0,
        }
    }

    pub(crate) fn add(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.total += 1;
    }

    /// The duration that this part of all does not exceed, in microseconds; zero if there are none.
    pub(crate) fn quantile_us(&self, part: f64) -> f64 {
        let wanted = (self.total as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return lower_end(index) as f64 / 1_000.0;
            }
        }
        0.0
    }
}

fn bucket(ns: u64) -> usize {
    if ns < PARTS {
        return ns as usize;
    }
    let power = ns.ilog2() - PARTS.ilog2();
    (u64::from(power) * PARTS + (ns >> power)) as usize
}

fn lower_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * PARTS {
        return bucket;
    }
    let power = bucket / PARTS - 1;
    (bucket - power * PARTS) << power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_known_to_one_part_in_64() {
        for ns in [0, 1, 63, 64, 127, 128, 129, 1_000, 123_456_789, u64::MAX] {
            let low = lower_end(bucket(ns));
            assert!(low <= ns && ns - low <= ns / PARTS, "{ns} became {low}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::new();
        for us in 1..=1_000_u64 {
            histogram.add(us * 1_000);
        }
        for (part, us) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1_000.0)] {
            let found = histogram.quantile_us(part);
            assert!(
                (us * (1.0 - 1.0 / 64.0)..=us).contains(&found),
                "{part}: {found}"
            );
        }
        assert_eq!(Histogram::new().quantile_us(0.5), 0.0);
    }
}
