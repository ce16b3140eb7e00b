//! What the broker's state occupies, as whoever holds a part of it estimates. A value.
//!
//! Invariant: what is dropped is no longer counted, on whatever thread that happens.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes that one broker holds; clones are handles to the same count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<AtomicUsize>);

impl Meter {
    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts these bytes until the charge is dropped.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Charge {
            meter: Some(self.clone()),
            bytes,
        }
    }
}

/// A holder's share of the count.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    /// Absent before it is known which broker counts.
    meter: Option<Meter>,
    bytes: usize,
}

impl Charge {
    /// An amount that nobody counts yet.
    pub(crate) fn unmetered(bytes: usize) -> Charge {
        Charge { meter: None, bytes }
    }

    /// The bytes it stands for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Another charge on the same count.
    pub(crate) fn sibling(&self, bytes: usize) -> Charge {
        match &self.meter {
            Some(meter) => meter.charge(bytes),
            None => Charge::unmetered(bytes),
        }
    }

    /// Changes what it stands for; costs nothing when that is the same.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        if let Some(Meter(used)) = &self.meter {
            // Wraps around for less, which adds up all the same.
            used.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_no_longer_counted() {
        let meter = Meter::default();
        let mut first = meter.charge(100);
        let second = first.sibling(50);
        assert_eq!(meter.used(), 150);
        first.set(10);
        assert_eq!(meter.used(), 60);
        drop(first);
        assert_eq!(meter.used(), 50);
        drop(second);
        assert_eq!(meter.used(), 0);
    }

    #[test]
    fn an_unmetered_charge_counts_nowhere() {
        let charge = Charge::unmetered(7);
        assert_eq!(charge.sibling(5).bytes() + charge.bytes(), 12);
    }
}
