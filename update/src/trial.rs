//! What is done about the slots at a start, at a commit and at a roll-back. A core.
//!
//! Every decision is a list of writes, each of which happens wholly or not at all, in an order in
//! which a power cut after any of them leaves something that [`settle`] takes to the same end:
//!
//! | step | first | then |
//! |---|---|---|
//! | activate | boot loader: on trial | journal: trying |
//! | commit | boot loader: default | journal: good |
//! | roll back | journal: bad, and why | boot loader: nothing on trial |
//!
//! Invariant: only a slot that the journal calls written, trying or good is put on trial or left
//! there, and only one that was on trial and is committed becomes the default.

use super::{
    journal::{Content, Journal, Release},
    slots::{BootState, Counting, MAX_REFUNDS, MAX_TRIES, Slot, Trial},
};

/// What a decision is made from.
#[derive(Debug, Clone, Copy)]
pub struct View<'v> {
    /// What this system remembers.
    pub journal: &'v Journal,
    /// What starts next.
    pub boot: BootState,
    /// What was started.
    pub booted: Slot,
    /// Who counts starts.
    pub counting: Counting,
    /// The release that runs, by its own account.
    pub running: &'v Release,
}

/// One write that happens wholly or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Replace the journal.
    Journal(Journal),
    /// Replace the boot loader's state.
    Boot(BootState),
}

/// What is to be written, in this order, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One after the other; after a failed one nothing more is done.
    pub writes: Vec<Write>,
    /// When all are done.
    pub then: Then,
}

/// What follows the writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// The running release stays.
    Settled {
        /// Its security epoch: the device's floor may rise to it, and no higher.
        epoch: u64,
    },
    /// The running release is on trial: it is watched, then committed or rolled back.
    Watch,
    /// The machine restarts, into what the boot loader's state says.
    Restart,
    /// What is going on is not understood; nothing is written until somebody looks.
    Trouble(Trouble),
}

/// What only a person can resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The boot loader started something else than its state says.
    #[error(
        "slot {booted} runs, but the boot loader was to start slot {expected}: it could not, or its state was changed by other hands"
    )]
    WrongSlot {
        /// What runs.
        booted: Slot,
        /// What was to run.
        expected: Slot,
    },
    /// The default slot holds something that was never found healthy.
    #[error(
        "slot {0} runs by default, but what is in it was never found healthy: the boot loader's state was changed by other hands"
    )]
    NeverHealthy(Slot),
}

/// Why a step is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another release is being tried.
    #[error("slot {0} is on trial: commit it or roll it back first")]
    OnTrial(Slot),
    /// The running release is not on trial.
    #[error("slot {0} runs by default: there is nothing to commit or to roll back")]
    NotOnTrial(Slot),
    /// There is nothing in the other slot that could be started.
    #[error("slot {0} holds no whole, verified release")]
    NothingThere(Slot),
    /// See [`Trouble`].
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

/// What a start finds, and what is to be done about it. Asked again after its writes, it wants none.
pub fn settle(view: View<'_>) -> Plan {
    match view.boot.trial {
        Some(trial) => settle_trial(view, trial),
        None if view.booted == view.boot.default => settle_default(view),
        None => trouble(Trouble::WrongSlot {
            booted: view.booted,
            expected: view.boot.default,
        }),
    }
}

fn settle_trial(view: View<'_>, trial: Trial) -> Plan {
    let tried = view.boot.default.other();
    let end = Write::Boot(BootState::settled(view.boot.default));
    let release = match view.journal.of(tried) {
        Content::Empty | Content::Bad { .. } => return ended(view, vec![end]),
        Content::Writing { release } => {
            let reason = "it was put on trial without having been verified";
            let mark = bad(view, tried, release, reason);
            return ended(view, vec![mark, end]);
        }
        Content::Written { release } | Content::Trying { release } | Content::Good { release } => {
            release
        }
    };
    if view.booted != tried && trial.left == 0 {
        let mark = bad(view, tried, release, "none of its starts became healthy");
        return ended(view, vec![mark, end]);
    }
    let mut writes = Vec::new();
    if !matches!(view.journal.of(tried), Content::Trying { .. }) {
        let content = Content::Trying {
            release: release.clone(),
        };
        writes.push(Write::Journal(view.journal.with(tried, content)));
    }
    if view.booted == tried {
        return Plan {
            writes,
            then: Then::Watch,
        };
    }
    if view.counting == Counting::ByUs {
        let left = trial.left - 1;
        let counted = BootState {
            trial: Some(Trial { left, ..trial }),
            ..view.boot
        };
        writes.push(Write::Boot(counted));
    }
    Plan {
        writes,
        then: Then::Restart,
    }
}

/// The trial is over; who still runs the tried slot goes back.
fn ended(view: View<'_>, writes: Vec<Write>) -> Plan {
    let then = if view.booted == view.boot.default {
        settled(view.journal.of(view.booted), view.running)
    } else {
        Then::Restart
    };
    Plan { writes, then }
}

fn settle_default(view: View<'_>) -> Plan {
    let (booted, other) = (view.booted, view.booted.other());
    let mut journal = view.journal.clone();
    match view.journal.of(booted) {
        Content::Writing { .. } | Content::Bad { .. } => {
            return trouble(Trouble::NeverHealthy(booted));
        }
        // A commit that got no further than the boot loader.
        Content::Trying { release } | Content::Written { release } => {
            let release = release.clone();
            journal = journal.with(booted, Content::Good { release });
        }
        // Flashed by hand.
        Content::Empty => {
            let release = view.running.clone();
            journal = journal.with(booted, Content::Good { release });
        }
        Content::Good { release } if release != view.running => {
            let release = view.running.clone();
            journal = journal.with(booted, Content::Good { release });
        }
        Content::Good { .. } => {}
    }
    if let Content::Trying { release } = view.journal.of(other) {
        let release = release.clone();
        let reason = "its trial was ended by other hands".to_owned();
        journal = journal.with(other, Content::Bad { release, reason });
    }
    let then = settled(journal.of(booted), view.running);
    let writes = if journal == *view.journal {
        Vec::new()
    } else {
        vec![Write::Journal(journal)]
    };
    Plan { writes, then }
}

/// Makes room: the slot that does not run holds a part of this release from here on.
///
/// # Errors
/// While a trial is under way, or it is not clear what runs.
pub fn begin(view: View<'_>, release: Release) -> Result<Plan, Refused> {
    let other = idle(view)?.other();
    Ok(stay(
        view,
        view.journal.with(other, Content::Writing { release }),
    ))
}

/// All of it was written, read back and verified.
///
/// # Errors
/// When nothing was being written.
pub fn written(view: View<'_>) -> Result<Plan, Refused> {
    let other = idle(view)?.other();
    let Content::Writing { release } = view.journal.of(other) else {
        return Err(Refused::NothingThere(other));
    };
    let release = release.clone();
    Ok(stay(
        view,
        view.journal.with(other, Content::Written { release }),
    ))
}

/// Puts the other slot on trial, with so many starts (1 to [`MAX_TRIES`]).
///
/// # Errors
/// When what is there is not whole and verified.
pub fn activate(view: View<'_>, tries: u8) -> Result<Plan, Refused> {
    let default = idle(view)?;
    let other = default.other();
    if !matches!(
        view.journal.of(other),
        Content::Written { .. } | Content::Good { .. }
    ) {
        return Err(Refused::NothingThere(other));
    }
    let boot = BootState::trying(default, tries.clamp(1, MAX_TRIES));
    let mut plan = settle(View { boot, ..view });
    plan.writes.insert(0, Write::Boot(boot));
    Ok(plan)
}

/// The running release was healthy for long enough: it stays.
///
/// # Errors
/// When it is not on trial.
pub fn commit(view: View<'_>) -> Result<Plan, Refused> {
    let (tried, release) = watched(view)?;
    let release = release.clone();
    let epoch = release.epoch;
    let journal = view.journal.with(tried, Content::Good { release });
    Ok(Plan {
        writes: vec![
            Write::Boot(BootState::settled(tried)),
            Write::Journal(journal),
        ],
        then: Then::Settled { epoch },
    })
}

/// The running release is not healthy: back to the one before.
///
/// # Errors
/// When it is not on trial.
pub fn roll_back(view: View<'_>, reason: &str) -> Result<Plan, Refused> {
    let (tried, release) = watched(view)?;
    Ok(Plan {
        writes: vec![
            bad(view, tried, release, reason),
            Write::Boot(BootState::settled(view.boot.default)),
        ],
        then: Then::Restart,
    })
}

/// Somebody asked for a restart: it does not cost the release on trial one of its starts. `None`
/// when nothing is on trial, or when that was asked too often.
pub fn before_restart(view: View<'_>) -> Option<Write> {
    let trial = view.boot.trial?;
    if view.booted == view.boot.default || trial.refunds >= MAX_REFUNDS {
        return None;
    }
    let refunded = Trial {
        left: (trial.left + 1).min(MAX_TRIES),
        refunds: trial.refunds + 1,
    };
    Some(Write::Boot(BootState {
        trial: Some(refunded),
        ..view.boot
    }))
}

/// The slot that runs, when nothing is under way.
fn idle(view: View<'_>) -> Result<Slot, Refused> {
    if view.boot.trial.is_some() {
        return Err(Refused::OnTrial(view.boot.default.other()));
    }
    if let Then::Trouble(trouble) = settle(view).then {
        return Err(Refused::Trouble(trouble));
    }
    Ok(view.booted)
}

/// The slot on trial that runs, and what is in it.
fn watched(view: View<'_>) -> Result<(Slot, &Release), Refused> {
    match (view.boot.on_trial(), view.journal.of(view.booted)) {
        (Some(tried), Content::Trying { release }) if tried == view.booted => Ok((tried, release)),
        _ => Err(Refused::NotOnTrial(view.booted)),
    }
}

fn bad(view: View<'_>, slot: Slot, release: &Release, reason: &str) -> Write {
    let content = Content::Bad {
        release: release.clone(),
        reason: reason.to_owned(),
    };
    Write::Journal(view.journal.with(slot, content))
}

fn settled(content: &Content, running: &Release) -> Then {
    let release = content.release().unwrap_or(running);
    Then::Settled {
        epoch: release.epoch,
    }
}

fn stay(view: View<'_>, journal: Journal) -> Plan {
    Plan {
        then: settled(journal.of(view.booted), view.running),
        writes: vec![Write::Journal(journal)],
    }
}

fn trouble(trouble: Trouble) -> Plan {
    Plan {
        writes: Vec::new(),
        then: Then::Trouble(trouble),
    }
}
