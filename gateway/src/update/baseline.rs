//! How well the plant runs, remembered for the release that comes after this one. A core.
//!
//! Invariant: nothing is remembered before the plant was watched for as long as a new release would
//! be, and what is kept in memory does not grow.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::sight::Sight;

/// Looks that are kept: twice the hold of a new release.
const SIGHTS_MAX: usize = 20;
/// Looks in a hold.
const SIGHTS_IN_HOLD: u32 = 10;
/// How often a look is kept at most, and at least.
const SIGHT_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// How often what is remembered is written at most, so that a card is not worn by it.
const WRITE_EVERY: Duration = Duration::from_secs(600);
/// Another rate is worth a write when it differs by this part.
const WORTH_WRITING: u64 = 4;

const HOUR_S: f64 = 3_600.0;

/// How well the plant ran before an update.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    /// Good polls in an hour of each device that answered.
    pub(crate) devices: BTreeMap<String, u64>,
    /// Whether the link to the upstream was up.
    pub(crate) upstream: bool,
    /// Whether the TPM answered.
    pub(crate) tpm: bool,
    /// Network interfaces that had a carrier.
    pub(crate) interfaces: BTreeSet<String>,
}

impl Baseline {
    /// What is asked of a release when nobody knows how it was before: all that is configured.
    pub(crate) fn of_all(sight: &Sight) -> Baseline {
        Baseline {
            devices: sight.devices.keys().map(|name| (name.clone(), 0)).collect(),
            upstream: sight.upstream.is_some(),
            tpm: sight.tpm.is_some(),
            interfaces: BTreeSet::new(),
        }
    }

    fn is_near(&self, other: &Baseline) -> bool {
        let near = |(a, b): (&u64, &u64)| a.abs_diff(*b) <= a / WORTH_WRITING;
        (self.upstream, self.tpm, &self.interfaces)
            == (other.upstream, other.tpm, &other.interfaces)
            && self.devices.keys().eq(other.devices.keys())
            && self.devices.values().zip(other.devices.values()).all(near)
    }
}

/// Watches the plant while nothing is on trial.
#[derive(Debug)]
pub(crate) struct Recorder {
    hold: Duration,
    sights: VecDeque<(Instant, Sight)>,
    written: Option<(Option<Instant>, Baseline)>,
}

impl Recorder {
    /// A recorder for releases that must be healthy for `hold`, with what was written before.
    pub(crate) fn new(hold: Duration, before: Option<Baseline>) -> Recorder {
        Recorder {
            hold,
            sights: VecDeque::new(),
            written: before.map(|baseline| (None, baseline)),
        }
    }

    /// Takes a look at the plant; returns what is to be written now, if anything is.
    pub(crate) fn look(&mut self, now: Instant, sight: Sight) -> Option<Baseline> {
        let every = (self.hold / SIGHTS_IN_HOLD).clamp(SIGHT_EVERY.0, SIGHT_EVERY.1);
        let last = self.sights.back().map(|(at, _)| *at);
        if last.is_some_and(|last| now.saturating_duration_since(last) < every) {
            return None;
        }
        if self.sights.len() >= SIGHTS_MAX {
            self.sights.pop_front();
        }
        self.sights.push_back((now, sight));
        let fresh = self.baseline()?;
        let is_news = self.written.as_ref().is_none_or(|(at, written)| {
            let rests = at.is_some_and(|at| now.saturating_duration_since(at) < WRITE_EVERY);
            !rests && !written.is_near(&fresh)
        });
        if !is_news {
            return None;
        }
        self.written = Some((Some(now), fresh.clone()));
        Some(fresh)
    }

    /// How the plant runs; `None` while it was not watched for long enough.
    pub(crate) fn baseline(&self) -> Option<Baseline> {
        let (first_at, first) = self.sights.front()?;
        let (last_at, last) = self.sights.back()?;
        let watched = last_at.saturating_duration_since(*first_at);
        // A look comes once in a while, so the last may be just short of the hold.
        let enough = self.hold - self.hold / SIGHTS_IN_HOLD;
        if watched < enough || watched.is_zero() {
            return None;
        }
        let per_hour = |name: &String, good: u64| {
            let before = first.devices.get(name).map_or(0, |polls| polls.good);
            let polls = good.saturating_sub(before) as f64;
            (polls * HOUR_S / watched.as_secs_f64()) as u64
        };
        // One look decides nothing: what fails right before the restart is still asked of the release after it.
        let mostly = |works: &dyn Fn(&Sight) -> bool| {
            2 * self.sights.iter().filter(|(_, sight)| works(sight)).count() >= self.sights.len()
        };
        let answers = |name: &String| {
            mostly(&|sight| sight.devices.get(name).is_some_and(|polls| polls.is_good()))
        };
        let answering = last.devices.iter().filter(|(name, _)| answers(name));
        let carrying = last.interfaces.iter().filter(|(_, carries)| **carries);
        Some(Baseline {
            devices: answering
                .map(|(name, polls)| (name.clone(), per_hour(name, polls.good)))
                .collect(),
            upstream: mostly(&|sight| sight.upstream == Some(true)),
            tpm: mostly(&|sight| sight.tpm == Some(true)),
            interfaces: carrying.map(|(name, _)| name.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests begin somewhere")]

    use super::*;
    use crate::update::sight::Polls;

    const HOLD: Duration = Duration::from_secs(100);

    /// A plant that is looked at every second.
    struct Plant {
        recorder: Recorder,
        now: Instant,
        sight: Sight,
        writes: usize,
    }

    impl Plant {
        fn new() -> Plant {
            Plant {
                recorder: Recorder::new(HOLD, None),
                now: Instant::now(),
                sight: Sight::default(),
                writes: 0,
            }
        }

        fn run(&mut self, seconds: u64, mut each: impl FnMut(&mut Sight, u64)) {
            for second in 0..seconds {
                self.now += Duration::from_secs(1);
                each(&mut self.sight, second);
                let wrote = self.recorder.look(self.now, self.sight.clone());
                self.writes += usize::from(wrote.is_some());
            }
        }

        fn device(&mut self, name: &str, polls: Polls) {
            self.sight.devices.insert(name.to_owned(), polls);
        }
    }

    fn polled(sight: &mut Sight, name: &str, good: u64) {
        let polls = sight.devices.entry(name.to_owned()).or_default();
        polls.online = true;
        polls.good += good;
    }

    #[test]
    fn a_device_is_remembered_with_its_rate_and_a_dead_one_is_not() {
        let mut plant = Plant::new();
        plant.device(
            "dead",
            Polls {
                online: false,
                good: 7,
            },
        );
        plant.run(210, |sight, _| polled(sight, "meter", 2));
        let baseline = plant.recorder.baseline().unwrap();
        assert_eq!(
            baseline.devices,
            BTreeMap::from([("meter".to_owned(), 7_200)])
        );
    }

    #[test]
    fn a_device_that_fails_right_before_the_restart_is_still_asked_of_the_release_after_it() {
        let mut plant = Plant::new();
        plant.run(210, |sight, _| polled(sight, "meter", 1));
        plant.run(30, |sight, _| {
            sight.devices.entry("meter".to_owned()).or_default().online = false;
        });
        let known = |plant: &Plant| plant.recorder.baseline().unwrap().devices.len();
        assert_eq!(known(&plant), 1);
        plant.run(210, |_, _| {});
        assert_eq!(known(&plant), 0);
    }

    #[test]
    fn a_plant_that_was_watched_too_briefly_says_nothing() {
        let mut plant = Plant::new();
        plant.run(90, |sight, _| polled(sight, "meter", 1));
        assert_eq!(plant.recorder.baseline(), None);
        plant.run(11, |sight, _| polled(sight, "meter", 1));
        assert!(plant.recorder.baseline().is_some());
    }

    #[test]
    fn a_link_that_is_up_half_of_the_time_counts_as_up_and_one_that_was_never_up_does_not() {
        let mut plant = Plant::new();
        plant.run(200, |sight, second| {
            sight.upstream = Some(second % 20 >= 10)
        });
        assert!(plant.recorder.baseline().unwrap().upstream);
        plant.run(200, |sight, _| sight.upstream = Some(false));
        assert!(!plant.recorder.baseline().unwrap().upstream);
    }

    #[test]
    fn an_unplugged_interface_is_not_remembered() {
        let mut plant = Plant::new();
        let interfaces = [("eth0", true), ("eth1", false)];
        plant.sight.interfaces = interfaces.map(|(name, up)| (name.to_owned(), up)).into();
        plant.run(101, |_, _| {});
        let kept = plant.recorder.baseline().unwrap().interfaces;
        assert_eq!(kept, BTreeSet::from(["eth0".to_owned()]));
    }

    #[test]
    fn what_stays_as_it_is_wears_no_card() {
        let mut plant = Plant::new();
        plant.run(20_000, |sight, _| polled(sight, "meter", 1));
        assert_eq!(plant.writes, 1);
        let flaps = |sight: &mut Sight, second: u64| sight.tpm = Some(second % 20 >= 10);
        plant.run(6_000, flaps);
        assert!(plant.writes <= 12, "{}", plant.writes);
    }

    #[test]
    fn memory_stays_what_it_is() {
        let mut plant = Plant::new();
        plant.run(5_000, |sight, _| polled(sight, "meter", 1));
        assert_eq!(plant.recorder.sights.len(), SIGHTS_MAX);
    }
}
