//! Who comes from where, and how often; an IPv6 network (/64) counts as one address. A core.
//!
//! Invariant: an address without connections is forgotten once it may connect as freely as a new one,
//! at the latest when [`REMEMBERED_MAX`] are remembered.

use std::{collections::HashMap, net::IpAddr, time::Instant};

use crate::{
    address::source,
    config::Limits,
    rate::{Paced, Rate},
};

/// Addresses remembered beside those that have connections, before they are looked through.
const REMEMBERED_MAX: usize = 4_096;

/// Why an address gets no connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMany {
    AtOnce(u32),
    InShortTime,
}

#[derive(Debug)]
struct Origin {
    connections: u32,
    rate: Rate,
}

/// Connections by address.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    origins: HashMap<IpAddr, Origin>,
}

impl Arrivals {
    /// Counts a connection, unless the address has too many or makes them too fast.
    pub(crate) fn admit(
        &mut self,
        address: IpAddr,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), TooMany> {
        if self.origins.len() >= REMEMBERED_MAX + limits.connections as usize {
            self.origins
                .retain(|_, origin| origin.connections > 0 || !origin.rate.is_fresh(now));
        }
        let origin = self.origins.entry(source(address)).or_insert(Origin {
            connections: 0,
            rate: Rate::new(now),
        });
        if origin.connections >= limits.connections_per_address {
            return Err(TooMany::AtOnce(origin.connections));
        }
        let per_second = limits.connections_per_second;
        if per_second > 0 && !address.is_loopback() {
            // All its clients may come back at once, and go on at the rate.
            let at_once = limits.connections_per_address.saturating_add(per_second);
            let burst = Rate::time_for(at_once.into(), per_second.into());
            let cost = Rate::time_for(1, per_second.into());
            if let Paced::TooFast { .. } = origin.rate.peek(cost, burst, now) {
                return Err(TooMany::InShortTime);
            }
            origin.rate.take(cost, burst, now);
        }
        origin.connections += 1;
        Ok(())
    }

    /// Connections by address.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn counts(&self) -> HashMap<IpAddr, u32> {
        let counts = self
            .origins
            .iter()
            .map(|(address, origin)| (*address, origin.connections));
        counts.filter(|(_, connections)| *connections > 0).collect()
    }

    /// A connection from there is closed.
    pub(crate) fn leave(&mut self, address: IpAddr, now: Instant) {
        let source = source(address);
        if let Some(origin) = self.origins.get_mut(&source) {
            origin.connections -= 1;
            if origin.connections == 0 && origin.rate.is_fresh(now) {
                self.origins.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_may_come_back_with_all_its_clients_at_once_and_then_at_its_rate() {
        let limits = Limits {
            connections_per_address: 10,
            connections_per_second: 5,
            ..Limits::default()
        };
        let (mut arrivals, mut now) = (Arrivals::default(), crate::broker::sim::start());
        let address: IpAddr = "192.0.2.1".parse().expect("an address");
        for _ in 0..10 {
            assert_eq!(arrivals.admit(address, &limits, now), Ok(()));
        }
        assert_eq!(
            arrivals.admit(address, &limits, now),
            Err(TooMany::AtOnce(10))
        );
        for _ in 0..10 {
            arrivals.leave(address, now);
        }
        for _ in 0..5 {
            assert_eq!(arrivals.admit(address, &limits, now), Ok(()));
            arrivals.leave(address, now);
        }
        let storm = (0..100).filter(|_| {
            now += Duration::from_millis(100);
            let came = arrivals.admit(address, &limits, now).is_ok();
            if came {
                arrivals.leave(address, now);
            }
            came
        });
        assert_eq!(storm.count(), 50);
        assert_eq!(
            arrivals.admit("127.0.0.1".parse().expect("an address"), &limits, now),
            Ok(())
        );
    }

    #[test]
    fn the_hosts_of_an_ipv6_network_share_its_connections() {
        let limits = Limits {
            connections_per_address: 2,
            ..Limits::default()
        };
        let (mut arrivals, now) = (Arrivals::default(), crate::broker::sim::start());
        let [first, second, other] = ["2001:db8::1", "2001:db8::2:0:0:1", "2001:db8:0:1::1"]
            .map(|text| text.parse().expect("an address"));
        assert_eq!(arrivals.admit(first, &limits, now), Ok(()));
        assert_eq!(arrivals.admit(second, &limits, now), Ok(()));
        assert_eq!(arrivals.admit(first, &limits, now), Err(TooMany::AtOnce(2)));
        assert_eq!(arrivals.admit(other, &limits, now), Ok(()));
        arrivals.leave(second, now);
        assert_eq!(arrivals.admit(first, &limits, now), Ok(()));
    }

    #[test]
    fn addresses_that_are_gone_are_forgotten() {
        let limits = Limits::default();
        let (mut arrivals, now) = (Arrivals::default(), crate::broker::sim::start());
        let later = now + Duration::from_secs(60);
        for n in 0..2 * REMEMBERED_MAX as u32 {
            let address = IpAddr::V4(n.into());
            assert_eq!(arrivals.admit(address, &limits, now), Ok(()));
            arrivals.leave(address, later);
        }
        assert!(arrivals.origins.is_empty());
    }
}
