//! Which addresses may not connect for a while, because their logins kept failing. A core.
//!
//! Invariant: at most [`TRACKED_MAX`] addresses are remembered, however many attack.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    address::{Address, source},
    config::Limits,
};

/// Addresses remembered at once: 64 bytes each, a quarter of a megabyte in all.
const TRACKED_MAX: usize = 4_096;

/// Failures are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Record {
    failures: u32,
    counted_from: Instant,
    /// Bans so far; each doubles the next.
    bans: u32,
    banned_until: Option<Instant>,
}

/// The same of a client's address; none for those on this machine's own sockets.
pub(crate) fn source_of(address: &Address) -> Option<IpAddr> {
    address.ip().map(source)
}

/// Failed logins and handshakes by source.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    records: HashMap<IpAddr, Record>,
}

impl Bans {
    /// Whether the address has to stay away now.
    pub(crate) fn is_banned(&self, address: IpAddr, now: Instant) -> bool {
        self.records
            .get(&source(address))
            .and_then(|record| record.banned_until)
            .is_some_and(|until| now < until)
    }

    /// Counts a failure; says how long the ban is, if this one brought it.
    pub(crate) fn failed(
        &mut self,
        address: IpAddr,
        limits: &Limits,
        now: Instant,
    ) -> Option<Duration> {
        let address = source(address);
        self.make_room(address, limits, now);
        let record = self.records.entry(address).or_insert(Record {
            failures: 0,
            counted_from: now,
            bans: 0,
            banned_until: None,
        });
        if now.saturating_duration_since(record.counted_from) > WINDOW {
            record.failures = 0;
            record.counted_from = now;
        }
        record.failures += 1;
        if record.failures < limits.authentication_failures {
            return None;
        }
        let ban = ban_length(record.bans, limits);
        record.bans = record.bans.saturating_add(1);
        record.failures = 0;
        record.counted_from = now;
        record.banned_until = Some(now + ban);
        Some(ban)
    }

    /// Forgets who has behaved long enough, and if that is not enough, the one seen longest ago.
    fn make_room(&mut self, address: IpAddr, limits: &Limits, now: Instant) {
        if self.records.len() < TRACKED_MAX || self.records.contains_key(&address) {
            return;
        }
        let memory = limits.ban_max.as_duration() + WINDOW;
        self.records
            .retain(|_, record| now.saturating_duration_since(record.counted_from) < memory);
        if self.records.len() >= TRACKED_MAX {
            let oldest = self
                .records
                .iter()
                .min_by_key(|(_, record)| record.counted_from);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.records.remove(&oldest);
            }
        }
    }
}

fn ban_length(bans: u32, limits: &Limits) -> Duration {
    let doubled = limits.ban.as_duration().saturating_mul(1 << bans.min(16));
    doubled.min(limits.ban_max.as_duration())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn fail_until_banned(bans: &mut Bans, limits: &Limits, now: Instant) -> Duration {
        for _ in 1..limits.authentication_failures {
            assert_eq!(bans.failed(ADDRESS, limits, now), None);
        }
        bans.failed(ADDRESS, limits, now)
            .expect("the last failure bans")
    }

    #[test]
    fn bans_double_up_to_their_maximum() {
        let (mut bans, limits) = (Bans::default(), Limits::default());
        let mut now = crate::broker::sim::start();
        let mut expected = limits.ban.as_duration();
        for _ in 0..10 {
            let ban = fail_until_banned(&mut bans, &limits, now);
            assert_eq!(ban, expected);
            assert!(bans.is_banned(ADDRESS, now));
            now += ban;
            assert!(!bans.is_banned(ADDRESS, now));
            expected = (expected * 2).min(limits.ban_max.as_duration());
        }
        assert_eq!(expected, limits.ban_max.as_duration());
    }

    #[test]
    fn failures_far_apart_do_not_add_up() {
        let (mut bans, limits) = (Bans::default(), Limits::default());
        let mut now = crate::broker::sim::start();
        for _ in 0..20 {
            assert_eq!(bans.failed(ADDRESS, &limits, now), None);
            now += WINDOW + Duration::from_secs(1);
        }
    }

    #[test]
    fn an_attack_from_many_addresses_fills_no_memory() {
        let (mut bans, limits) = (Bans::default(), Limits::default());
        let now = crate::broker::sim::start();
        for n in 0..TRACKED_MAX as u32 + 100 {
            bans.failed(IpAddr::V4(n.into()), &limits, now);
        }
        assert!(bans.records.len() <= TRACKED_MAX);
    }
}
