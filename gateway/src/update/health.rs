//! Whether a release on trial serves the plant as the one before it did. A core.
//!
//! What did not work before the update is asked of no release: a device that was dead, a cable that
//! was unplugged. Without a memory of before, all that is configured is asked for.
//!
//! Invariant: a release is committed only after all of that has worked for the whole hold without a break,
//! and after its deadline it is rolled back. Time is watched time: a gap between two looks counts for
//! `STEP_MAX` and no more, so neither a stopped process nor a jump decides anything.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{baseline::Baseline, sight::Sight};

/// Most that passes between two looks, as far as hold and deadline go.
const STEP_MAX: Duration = Duration::from_secs(10);
/// Complaints that are told one by one; the rest is counted.
const TOLD_MAX: usize = 4;

const HOUR_S: u128 = 3_600;

/// What is asked of a release on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long everything must work without a break.
    pub hold: Duration,
    /// Time from the first look in which that must have happened.
    pub deadline: Duration,
    /// Part of the good polls before the update that each device must reach, percent.
    pub polls: u8,
}

/// What is to be done about the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on looking.
    Watch,
    /// It was healthy for long enough.
    Commit,
    /// It was not in time; why.
    RollBack(String),
}

/// How far a trial is, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Seconds for which everything has worked without a break.
    pub held_s: u64,
    /// Seconds for which it must.
    pub hold_s: u64,
    /// Seconds until the release is rolled back.
    pub left_s: u64,
    /// What does not work, and did before.
    pub waiting_for: Vec<String>,
}

/// Watches one trial.
#[derive(Debug)]
pub(crate) struct Gate {
    rules: Rules,
    before: Option<Baseline>,
    last: Instant,
    watched: Duration,
    held: Option<Held>,
    complaints: Vec<String>,
    /// The last that there were.
    broken_by: Vec<String>,
}

/// Everything works.
#[derive(Debug)]
struct Held {
    lasted: Duration,
    /// Good polls of each device when that began.
    good: BTreeMap<String, u64>,
}

impl Gate {
    /// A trial that begins now, against what was before.
    pub(crate) fn new(rules: Rules, before: Option<Baseline>, now: Instant) -> Gate {
        Gate {
            rules,
            before,
            last: now,
            watched: Duration::ZERO,
            held: None,
            complaints: vec!["the first look at the plant".to_owned()],
            broken_by: Vec::new(),
        }
    }

    /// Takes a look at the plant.
    pub(crate) fn look(&mut self, now: Instant, sight: &Sight) -> Verdict {
        let step = now.saturating_duration_since(self.last).min(STEP_MAX);
        self.last = now;
        self.watched += step;
        let all = Baseline::of_all(sight);
        let before = self.before.as_ref().unwrap_or(&all);
        let mut complaints = complaints(before, sight);
        let held = match &mut self.held {
            Some(held) => {
                held.lasted += step;
                complaints.extend(too_few(before, sight, held, self.rules.polls));
                held.lasted
            }
            None => {
                let good = sight.devices.iter();
                self.held = Some(Held {
                    lasted: Duration::ZERO,
                    good: good
                        .map(|(name, polls)| (name.clone(), polls.good))
                        .collect(),
                });
                Duration::ZERO
            }
        };
        self.complaints = complaints;
        if !self.complaints.is_empty() {
            self.held = None;
            self.broken_by.clone_from(&self.complaints);
        } else if held >= self.rules.hold {
            return Verdict::Commit;
        }
        match self.watched >= self.rules.deadline {
            true => Verdict::RollBack(self.reason()),
            false => Verdict::Watch,
        }
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Progress {
        let held = self
            .held
            .as_ref()
            .map_or(Duration::ZERO, |held| held.lasted);
        Progress {
            held_s: held.as_secs(),
            hold_s: self.rules.hold.as_secs(),
            left_s: self.rules.deadline.saturating_sub(self.watched).as_secs(),
            waiting_for: self.complaints.clone(),
        }
    }

    fn reason(&self) -> String {
        let watched = self.watched.as_secs();
        let last = Listed(&self.broken_by);
        match &self.held {
            Some(held) => format!(
                "after {watched} s everything has worked for {} s without a break where {} s are asked for; before that: {last}",
                held.lasted.as_secs(),
                self.rules.hold.as_secs()
            ),
            None => format!("after {watched} s: {last}"),
        }
    }
}

/// The first few of several, and how many more there are.
struct Listed<'l>(&'l [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(TOLD_MAX)];
        f.write_str(&shown.join("; "))?;
        match self.0.len() - shown.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// What does not work at this moment.
fn complaints(before: &Baseline, sight: &Sight) -> Vec<String> {
    let mut found = Vec::new();
    for name in before.devices.keys() {
        match sight.devices.get(name) {
            None => found.push(format!(
                "device {name} is not configured, and was read before"
            )),
            Some(polls) if !polls.online => {
                found.push(format!("device {name} does not answer, and did before"))
            }
            Some(polls) if polls.good == 0 => {
                found.push(format!("device {name} has given no value yet"))
            }
            Some(_) => {}
        }
    }
    let stuck = |what: &str, why: &Option<String>| why.as_ref().map(|why| format!("{what}: {why}"));
    found.extend(stuck("the broker", &sight.broker));
    found.extend(stuck("the buffer", &sight.buffer));
    if before.tpm && sight.tpm != Some(true) {
        found.push("the TPM does not answer, and did before".to_owned());
    }
    if before.upstream && sight.upstream != Some(true) {
        found.push("the link to the upstream is down, and was up before".to_owned());
    }
    for name in &before.interfaces {
        if sight.interfaces.get(name) != Some(&true) {
            found.push(format!(
                "network interface {name} has no carrier, and had one before"
            ));
        }
    }
    found
}

/// Devices that answer, and give fewer values than before. One poll may always be under way.
fn too_few(before: &Baseline, sight: &Sight, held: &Held, percent: u8) -> Vec<String> {
    let mut found = Vec::new();
    for (name, per_hour) in &before.devices {
        let good = sight.devices.get(name).map_or(0, |polls| polls.good);
        let had = held.good.get(name).copied().unwrap_or_default();
        let given = good.saturating_sub(had);
        let parts = u128::from(*per_hour) * u128::from(percent) * held.lasted.as_millis();
        let wanted = parts / (100 * HOUR_S * 1_000);
        if u128::from(given) + 1 < wanted {
            let seconds = held.lasted.as_secs();
            found.push(format!(
                "device {name} gave {given} good polls in {seconds} s, and before the update at least {wanted}"
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests;
