//! Which releases stay, which go, and what is said of those that go.
#![expect(clippy::disallowed_methods, reason = "tests begin somewhere")]

use std::collections::BTreeSet;

use super::*;
use crate::update::sight::Polls;

const RULES: Rules = Rules {
    hold: Duration::from_secs(60),
    deadline: Duration::from_secs(600),
    polls: 80,
};
const PER_HOUR: u64 = 3_600;

/// A plant with a meter that was polled every second, a link, a TPM, and a cable in eth0.
struct Trial {
    gate: Gate,
    now: Instant,
    sight: Sight,
    meter: Polls,
}

impl Trial {
    fn new() -> Trial {
        Trial::against(Some(before()))
    }

    fn against(before: Option<Baseline>) -> Trial {
        let now = Instant::now();
        Trial {
            gate: Gate::new(RULES, before, now),
            now,
            sight: Sight {
                tpm: Some(true),
                upstream: Some(true),
                interfaces: BTreeMap::from([("eth0".to_owned(), true)]),
                ..Sight::default()
            },
            meter: Polls {
                online: true,
                good: 1,
            },
        }
    }

    /// A look every second, each after `each`, until something is decided or that many have passed.
    fn run(&mut self, seconds: u64, mut each: impl FnMut(&mut Trial, u64)) -> Verdict {
        for second in 0..seconds {
            self.now += Duration::from_secs(1);
            each(self, second);
            let meter = ("meter".to_owned(), self.meter);
            self.sight.devices.extend([meter]);
            let verdict = self.gate.look(self.now, &self.sight);
            if verdict != Verdict::Watch {
                return verdict;
            }
        }
        Verdict::Watch
    }

    /// Runs until the release is rolled back; why.
    fn reason(&mut self, each: impl FnMut(&mut Trial, u64)) -> String {
        match self.run(700, each) {
            Verdict::RollBack(reason) => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn before() -> Baseline {
    Baseline {
        devices: BTreeMap::from([("meter".to_owned(), PER_HOUR)]),
        upstream: true,
        tpm: true,
        interfaces: BTreeSet::from(["eth0".to_owned()]),
    }
}

fn polls(trial: &mut Trial, _: u64) {
    trial.meter.good += 1;
}

#[test]
fn a_release_under_which_all_works_as_before_stays_after_the_hold() {
    let mut trial = Trial::new();
    assert_eq!(trial.run(60, polls), Verdict::Watch);
    assert_eq!(trial.gate.progress().held_s, 59);
    assert_eq!(trial.run(1, polls), Verdict::Commit);
}

#[test]
fn an_unhealthy_release_that_pings_but_does_not_poll_is_rolled_back() {
    let reason = Trial::new().reason(|_, _| {});
    assert!(
        reason.contains("device meter gave 0 good polls"),
        "{reason}"
    );
}

#[test]
fn a_release_that_polls_half_as_often_is_rolled_back() {
    let reason = Trial::new().reason(|trial, second| trial.meter.good += second % 2);
    assert!(reason.contains("device meter gave"), "{reason}");
}

#[test]
fn a_poll_that_failed_now_and_then_before_may_fail_now_and_then() {
    let mut trial = Trial::new();
    let verdict = trial.run(120, |trial, second| {
        trial.meter.good += u64::from(second % 6 != 0)
    });
    assert_eq!(verdict, Verdict::Commit);
}

#[test]
fn a_device_that_was_dead_before_is_not_waited_for() {
    let mut trial = Trial::new();
    trial
        .sight
        .devices
        .insert("dead".to_owned(), Polls::default());
    assert_eq!(trial.run(61, polls), Verdict::Commit);
}

#[test]
fn a_device_that_answered_before_must_again() {
    let reason = Trial::new().reason(|trial, _| trial.meter.online = false);
    assert!(
        reason.ends_with("device meter does not answer, and did before"),
        "{reason}"
    );
}

#[test]
fn a_release_that_has_lost_its_configuration_is_rolled_back() {
    let mut trial = Trial::against(Some(Baseline {
        devices: BTreeMap::from([("pump".to_owned(), 10)]),
        ..before()
    }));
    let reason = trial.reason(polls);
    assert!(reason.contains("device pump is not configured"), "{reason}");
}

#[test]
fn an_unplugged_ethernet_that_was_unplugged_before_too_blocks_nothing() {
    let mut trial = Trial::against(Some(Baseline {
        upstream: false,
        interfaces: BTreeSet::new(),
        ..before()
    }));
    trial.sight.upstream = Some(false);
    trial.sight.interfaces.insert("eth0".to_owned(), false);
    assert_eq!(trial.run(61, polls), Verdict::Commit);
}

#[test]
fn an_ethernet_that_was_connected_before_must_be_again() {
    let reason = Trial::new().reason(|trial, second| {
        polls(trial, second);
        trial.sight.interfaces.insert("eth0".to_owned(), false);
        trial.sight.upstream = Some(false);
    });
    assert!(
        reason.contains("the link to the upstream is down, and was up before"),
        "{reason}"
    );
    assert!(reason.contains("eth0 has no carrier"), "{reason}");
}

#[test]
fn a_tpm_that_was_there_must_be_there() {
    let reason = Trial::new().reason(|trial, second| {
        polls(trial, second);
        trial.sight.tpm = None;
    });
    assert!(reason.contains("the TPM does not answer"), "{reason}");
}

#[test]
fn a_broker_or_a_buffer_that_does_not_work_is_never_as_before() {
    for (what, fault) in [
        ("the broker: it does not deliver", (true, false)),
        ("the buffer: it does not deliver", (false, true)),
    ] {
        let why = || Some("it does not deliver".to_owned());
        let reason = Trial::new().reason(|trial, second| {
            polls(trial, second);
            trial.sight.broker = fault.0.then(why).flatten();
            trial.sight.buffer = fault.1.then(why).flatten();
        });
        assert!(reason.contains(what), "{reason}");
    }
}

#[test]
fn flapping_health_never_adds_up_to_a_hold() {
    let reason = Trial::new().reason(|trial, second| {
        polls(trial, second);
        trial.sight.upstream = Some(second % 50 != 20);
    });
    assert!(reason.contains("without a break where 60 s"), "{reason}");
}

#[test]
fn a_plant_that_needs_a_while_is_waited_for_until_the_deadline() {
    let mut trial = Trial::new();
    let late = |trial: &mut Trial, second: u64| {
        polls(trial, second);
        trial.sight.upstream = Some(second >= 500);
    };
    assert_eq!(trial.run(700, late), Verdict::Commit);
    let reason = Trial::new().reason(|trial, second| {
        polls(trial, second);
        trial.sight.upstream = Some(second >= 560);
    });
    assert!(reason.contains("everything has worked for"), "{reason}");
}

#[test]
fn time_in_which_nobody_looked_neither_holds_nor_ends_a_trial() {
    let mut trial = Trial::new();
    assert_eq!(trial.run(10, polls), Verdict::Watch);
    for _ in 0..3 {
        trial.now += Duration::from_secs(100_000);
        trial.meter.good += 100_000;
        assert_eq!(trial.run(1, polls), Verdict::Watch);
    }
    assert!(trial.gate.progress().left_s > 500);
    assert!(trial.gate.progress().held_s < 60);
}

#[test]
fn without_a_memory_of_before_all_that_is_configured_is_asked_for() {
    let mut trial = Trial::against(None);
    let reason = trial.reason(|trial, second| {
        polls(trial, second);
        trial.sight.upstream = Some(false);
    });
    assert!(
        reason.contains("the link to the upstream is down"),
        "{reason}"
    );
    let mut trial = Trial::against(None);
    trial
        .sight
        .devices
        .insert("dead".to_owned(), Polls::default());
    assert!(trial.reason(polls).contains("device dead does not answer"));
    assert_eq!(Trial::against(None).run(61, polls), Verdict::Commit);
}

#[test]
fn many_complaints_are_counted_after_the_first_few() {
    let names = (0..9).map(|index| (format!("meter-{index}"), 1));
    let mut trial = Trial::against(Some(Baseline {
        devices: names.collect(),
        ..before()
    }));
    let reason = trial.reason(polls);
    assert!(reason.ends_with("; and 5 more"), "{reason}");
    assert!(reason.len() < update::protocol::REASON_MAX, "{reason}");
}
