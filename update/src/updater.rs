//! The root process's side of updates: settles the slots at its start, answers the gateway, and rolls back by itself a release
//! that nobody commits. Driver.
//!
//! Invariant: what runs on trial is committed when the gateway asks for it in time, and in no other way.

pub mod serve;

mod deadline;

use std::{fs, io::Write, path::PathBuf, time::Duration};

use tracing::{info, warn};
use tuf::directory::replace_file;

use crate::{
    install::job::{Job, Kit},
    journal::Content,
    machine::{MachineError, Seen},
    protocol::{Ask, Reply, Status, TrialStatus},
    trial::{self, Plan, Refused, Then},
    trust::{TrustError, receipt::Installed},
};
use deadline::Deadline;

/// See the module's description.
pub struct Updater {
    kit: Kit,
    job: Job,
    /// Starts that a release gets.
    tries: u8,
    deadline: Deadline,
    /// Its name, for receipts.
    gateway: String,
    /// What only a person can resolve.
    trouble: Option<String>,
}

/// What follows an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Stay,
    /// The machine restarts; reboot(2) is told this.
    Restart(Option<&'static str>),
}

/// A step that was not taken.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("an installation is under way")]
    Busy,
    #[error("cannot begin an installation: {0}")]
    Thread(#[from] std::io::Error),
    #[error("no release was committed on this device yet")]
    NothingCommitted,
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the receipt does not become JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Updater {
    /// `runtime` is a directory that is empty after each start of the machine; a release on trial has `patience` from then on.
    pub fn new(
        kit: Kit,
        gateway: String,
        tries: u8,
        runtime: PathBuf,
        patience: Duration,
    ) -> Updater {
        Updater {
            kit,
            job: Job::default(),
            gateway,
            tries,
            deadline: Deadline::new(runtime, patience),
            trouble: None,
        }
    }

    /// Finishes what a stop or a power cut has left, and goes on with an installation that was under way.
    ///
    /// # Errors
    /// The journal or the boot loader's state cannot be read or written; then nothing may be changed.
    pub fn start(&mut self) -> Result<Next, MachineError> {
        let next = self.settle()?;
        let seen = self.kit.machine().look()?;
        let begun = matches!(
            seen.journal.of(seen.booted.other()),
            Content::Writing { .. }
        );
        if begun && next == Next::Stay && self.trouble.is_none() {
            info!("going on with the installation that was interrupted");
            if let Err(error) = self.job.begin(self.kit.clone()) {
                warn!(%error, "cannot go on with the installation");
            }
        }
        Ok(next)
    }

    fn settle(&mut self) -> Result<Next, MachineError> {
        let mut machine = self.kit.machine();
        let plan = trial::settle(machine.look()?.view());
        let then = machine.carry_out(plan)?;
        drop(machine);
        self.follow(then)
    }

    /// What comes after the writes of a plan.
    fn follow(&mut self, then: Then) -> Result<Next, MachineError> {
        self.trouble = None;
        match then {
            Then::Settled { epoch } => {
                self.deadline.end();
                self.raise_floor(epoch)?;
                Ok(Next::Stay)
            }
            Then::Watch => {
                self.deadline.begin();
                Ok(Next::Stay)
            }
            Then::Restart => Ok(Next::Restart(self.kit.machine().restart_argument()?)),
            Then::Trouble(trouble) => {
                warn!(%trouble, "the slots are left alone");
                self.trouble = Some(trouble.to_string());
                Ok(Next::Stay)
            }
        }
    }

    /// After a commit only; a floor that cannot be raised now is raised at a later start.
    fn raise_floor(&mut self, epoch: u64) -> Result<(), MachineError> {
        let booted = self.kit.machine().look()?.booted;
        let approval = std::fs::read(self.kit.places.floor_approval(booted)).ok();
        let raised = self
            .kit
            .trust
            .raise_security_floor(epoch, approval.as_deref());
        if let Err(error) = raised {
            warn!(%error, epoch, "the security floor stays where it is");
            self.trouble = Some(format!("the security floor did not rise: {error}"));
        }
        Ok(())
    }

    /// Answers a request.
    pub fn answer(&mut self, ask: Ask) -> (Reply, Next) {
        let done = match ask {
            Ask::Status {} => return (Reply::Status(Box::new(self.status())), Next::Stay),
            Ask::Install {} => self.install(),
            Ask::Activate {} => self.activate(),
            Ask::Commit {} => self.commit(),
            Ask::RollBack { reason } => self.step(|view| trial::roll_back(view, &reason)),
            Ask::BeforeRestart {} => self.before_restart().map(|()| Next::Stay),
            Ask::Receipt {} => match self.receipt() {
                Ok(receipt) => return (Reply::Receipt { receipt }, Next::Stay),
                Err(error) => Err(error),
            },
        };
        match done {
            Ok(next) => (Reply::Done {}, next),
            Err(error) => {
                let why = error.to_string();
                let security = false;
                (Reply::Refused { why, security }, Next::Stay)
            }
        }
    }

    /// To be called every few seconds: rolls back a release that was not committed in time.
    pub fn tick(&mut self) -> Next {
        let Some(late) = self.deadline.passed() else {
            return Next::Stay;
        };
        let reason = format!("it was not found healthy within {} s", late.as_secs());
        match self.step(|view| trial::roll_back(view, &reason)) {
            Ok(next) => {
                warn!(reason, "rolling back");
                next
            }
            Err(error) => {
                warn!(%error, "cannot roll back; trying again");
                Next::Stay
            }
        }
    }

    /// Whether an installation gets on, as a number that changes while it does; `None` when there is none.
    pub fn beats(&self) -> Option<u64> {
        self.job.is_under_way().then(|| self.job.beats())
    }

    /// Ends an installation where it is; it goes on at the next start.
    pub fn stop(&mut self) {
        self.job.stop();
    }

    fn install(&mut self) -> Result<Next, Untaken> {
        if let Some(trial) = self.kit.machine().look()?.boot.on_trial() {
            return Err(Refused::OnTrial(trial).into());
        }
        self.job.begin(self.kit.clone())?;
        Ok(Next::Stay)
    }

    fn activate(&mut self) -> Result<Next, Untaken> {
        let tries = self.tries;
        self.step(|view| trial::activate(view, tries))
    }

    fn commit(&mut self) -> Result<Next, Untaken> {
        let next = self.step(trial::commit)?;
        let release = self.kit.machine().look()?.running().clone();
        let installed = Installed {
            gateway: self.gateway.clone(),
            release: release.version,
            security_epoch: release.epoch,
            merkle_root: release.root,
            committed: jiff::Timestamp::now(),
        };
        info!(version = installed.release, "release committed");
        let text = serde_json::to_vec(&installed)?;
        if let Err(error) = replace_file(&self.committed(), |file| file.write_all(&text)) {
            warn!(%error, "there will be no receipt for this release");
        }
        Ok(next)
    }

    /// The TPM's word for what was committed last, as long as that runs.
    fn receipt(&self) -> Result<String, Untaken> {
        let text = fs::read(self.committed()).map_err(|_| Untaken::NothingCommitted)?;
        let installed: Installed = serde_json::from_slice(&text)?;
        let seen = self.kit.machine().look()?;
        let runs = matches!(seen.journal.of(seen.booted), Content::Good { release }
            if release.root == installed.merkle_root);
        match runs {
            true => Ok(serde_json::to_string(&self.kit.trust.receipt(&installed)?)?),
            false => Err(Untaken::NothingCommitted),
        }
    }

    fn committed(&self) -> PathBuf {
        self.kit.places.directory.join("committed.json")
    }

    fn step(
        &mut self,
        decide: impl FnOnce(trial::View<'_>) -> Result<Plan, Refused>,
    ) -> Result<Next, Untaken> {
        if self.job.is_under_way() {
            return Err(Untaken::Busy);
        }
        let mut machine = self.kit.machine();
        let plan = decide(machine.look()?.view())?;
        let then = machine.carry_out(plan)?;
        drop(machine);
        Ok(self.follow(then)?)
    }

    fn before_restart(&mut self) -> Result<(), Untaken> {
        let mut machine = self.kit.machine();
        if let Some(write) = trial::before_restart(machine.look()?.view()) {
            let writes = vec![write];
            let then = Then::Restart;
            machine.carry_out(Plan { writes, then })?;
        }
        Ok(())
    }

    fn status(&self) -> Status {
        let looked = self.kit.machine().look();
        let trouble = match &looked {
            Ok(_) => self.trouble.clone(),
            Err(error) => Some(error.to_string()),
        };
        let seen = looked.ok();
        Status {
            booted: seen.as_ref().map(|seen| seen.booted),
            default: seen.as_ref().map(|seen| seen.boot.default),
            trial: seen.as_ref().and_then(|seen| self.trial_status(seen)),
            slots: seen.map(|seen| seen.journal).unwrap_or_default(),
            floor: self.kit.trust.security_floor().ok(),
            work: self.job.work(),
            trouble,
        }
    }

    fn trial_status(&self, seen: &Seen) -> Option<TrialStatus> {
        let trial = seen.boot.trial?;
        Some(TrialStatus {
            slot: seen.boot.default.other(),
            left: trial.left,
            seconds_left: self.deadline.left().map(|left| left.as_secs()),
        })
    }
}
