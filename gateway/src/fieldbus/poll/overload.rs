//! Who gives way when a bus is asked for more than there is time. A core.
//!
//! ```text
//!  intervals, short to long:   1s     5s     10s    60s   …
//!                              kept   kept   stretched to what is left, but for a reserve
//!                                            in which the longer ones share alike
//! ```
//!
//! Invariant: together the stretched requests book no more than there is; nobody's interval is
//! stretched by more than ten times the load.

use std::time::Duration;

/// The part of a bus that requests may book while it is overloaded: the rest is for commands and
/// for what a request takes longer than usual.
pub(crate) const BOOKABLE: f64 = 0.97;
/// The load above which slow points give way.
pub(crate) const BEGINS: f64 = 1.0;
/// The part of that which is kept for those with longer intervals than the first that no longer
/// fits: however much the fast ones ask, the slow ones are read.
const RESERVE: f64 = 0.1;

/// What one request books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Booking {
    /// How often it is to be sent.
    pub(crate) interval: Duration,
    /// How long it keeps the bus busy.
    pub(crate) time: Duration,
}

impl Booking {
    /// The share of time that it books.
    pub(crate) fn load(&self) -> f64 {
        self.time.as_secs_f64() / self.interval.as_secs_f64().max(1e-6)
    }
}

/// The factors by which intervals are stretched so that all requests fit into `capacity`, the
/// share of time that can be booked; 1 for who keeps its interval. The shortest intervals keep
/// theirs first, equal intervals fare alike.
pub(crate) fn stretches(bookings: &[Booking], capacity: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..bookings.len()).collect();
    order.sort_by_key(|index| bookings[*index].interval);
    let total: f64 = bookings.iter().map(Booking::load).sum();
    let mut factors = vec![1.0; bookings.len()];
    if total <= capacity {
        return factors;
    }
    let (mut left, mut slower) = (capacity, total);
    let mut classes =
        order.chunk_by(|one, next| bookings[*one].interval == bookings[*next].interval);
    let mut longer: Vec<usize> = Vec::new();
    for class in classes.by_ref() {
        let load: f64 = class.iter().map(|index| bookings[*index].load()).sum();
        slower = (slower - load).max(0.0);
        if load <= left - reserve(slower, capacity) {
            left -= load;
            continue;
        }
        // Where hardly more than the reserve is left, it is not taken from this class alone.
        let alike = left * load / (load + slower);
        let least = alike.min(RESERVE * capacity);
        let share = (left - reserve(slower, capacity)).max(least);
        for index in class {
            factors[*index] = load / share;
        }
        left -= share;
        break;
    }
    longer.extend(classes.flatten());
    let factor = if slower > left { slower / left } else { 1.0 };
    for index in longer {
        factors[index] = factor;
    }
    factors
}

fn reserve(slower: f64, capacity: f64) -> f64 {
    slower.min(RESERVE * capacity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bookings of a load in per cent each at an interval in seconds.
    fn bookings(loads: &[(u64, u64)]) -> Vec<Booking> {
        let booking = |(interval, percent): &(u64, u64)| Booking {
            interval: Duration::from_secs(*interval),
            time: Duration::from_millis(interval * percent * 10),
        };
        loads.iter().map(booking).collect()
    }

    fn check(loads: &[(u64, u64)], expected: &[f64]) {
        let factors = stretches(&bookings(loads), 1.0);
        let rounded: Vec<f64> = factors
            .iter()
            .map(|one| (one * 100.0).round() / 100.0)
            .collect();
        assert_eq!(rounded, expected, "{loads:?}");
    }

    #[test]
    fn what_fits_is_not_stretched() {
        check(&[], &[]);
        check(&[(10, 30), (1, 60), (60, 10)], &[1.0, 1.0, 1.0]);
    }

    #[test]
    fn the_slowest_give_way_first() {
        check(&[(60, 40), (1, 30), (10, 50)], &[2.0, 1.0, 1.0]);
    }

    #[test]
    fn those_slower_than_the_first_that_gives_way_share_a_reserve() {
        // 10 % are kept for the slow ones, which want 20 %.
        check(
            &[(1, 50), (5, 80), (60, 10), (300, 10)],
            &[1.0, 2.0, 2.0, 2.0],
        );
        // They want less than that.
        check(&[(1, 50), (5, 90), (60, 5)], &[1.0, 2.0, 1.0]);
    }

    #[test]
    fn even_the_fastest_give_way_when_they_alone_are_too_much() {
        check(&[(1, 100), (1, 100), (60, 4)], &[2.08, 2.08, 1.0]);
    }

    proptest! {
        #[test]
        fn stretched_requests_fit_and_nobody_starves(
            wanted in prop::collection::vec((1u64..120, 1u64..90), 1..60),
        ) {
            let bookings = bookings(&wanted);
            let total: f64 = bookings.iter().map(Booking::load).sum();
            let factors = stretches(&bookings, BOOKABLE);
            let mut booked = 0.0;
            for (booking, factor) in bookings.iter().zip(&factors) {
                prop_assert!(*factor >= 1.0);
                prop_assert!(*factor <= (10.1 * total / BOOKABLE).max(1.0), "{factor} at {total}");
                booked += booking.load() / factor;
            }
            prop_assert!(booked <= BOOKABLE + 1e-9, "{booked}");
            if total > BOOKABLE {
                prop_assert!(booked > BOOKABLE - 1e-9, "time left: {booked}");
            }
            for (one, slow) in bookings.iter().zip(&factors) {
                for (other, fast) in bookings.iter().zip(&factors) {
                    if *slow > 1.0 && one.interval < other.interval && total > BOOKABLE {
                        // Whoever is slower than one that gives way may keep its interval only
                        // within the reserve.
                        let slower = bookings.iter().filter(|all| all.interval > one.interval);
                        let load: f64 = slower.map(Booking::load).sum();
                        prop_assert!(*fast > 1.0 || load <= 0.1 * BOOKABLE + 1e-9);
                    }
                }
            }
        }
    }
}
