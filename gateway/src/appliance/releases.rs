//! Watches the running release: remembers how the plant runs while nothing is on trial, and has a release
//! on trial committed or rolled back. Shell.
//!
//! Invariant: what was before is remembered only while the updater says that nothing is on trial, so that an
//! unhealthy release never becomes its own measure.

#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

mod plant;
mod telling;

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use update::protocol::{Ask, REASON_MAX, Reply, Status, socket};

use crate::{
    config,
    update::{
        agent::AgentHandle,
        baseline::Recorder,
        health::{Gate, Rules, Verdict},
        record::Records,
    },
};

use super::{audit, release_status::ReleaseStatus};
pub(super) use plant::Plant;
use telling::Teller;

/// Looks at the plant in a hold, as long as [`LOOK_EVERY`] allows.
const LOOKS_IN_HOLD: u32 = 20;
/// How often the plant is looked at, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often the updater is asked while nothing happens, ...
const ASK_IDLE: Duration = Duration::from_secs(60);
/// ... and while something does, or it did not answer.
const ASK_BUSY: Duration = Duration::from_secs(2);

/// How releases stand, for whoever asks.
#[derive(Clone, Default)]
pub(super) struct ReleaseBoard {
    status: Arc<RwLock<Option<ReleaseStatus>>>,
    agent: Arc<RwLock<Option<AgentHandle>>>,
}

impl ReleaseBoard {
    /// How they stand; `None` without `[update]`.
    pub(super) fn read(&self) -> Option<ReleaseStatus> {
        self.status
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes the agent that looks for releases.
    pub(super) fn set_agent(&self, agent: AgentHandle) {
        *self.agent.write().unwrap_or_else(PoisonError::into_inner) = Some(agent);
    }

    /// The agent that looks for releases, where one runs.
    pub(super) fn agent(&self) -> Option<AgentHandle> {
        self.agent
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn write(&self, status: ReleaseStatus) {
        *self.status.write().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }
}

/// The watch over the running release.
pub(super) struct Releases {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Releases {
    /// Begins to watch.
    pub(super) fn start(config: &config::Update, plant: Plant, board: ReleaseBoard) -> Releases {
        let cancel = CancellationToken::new();
        let watch = Watch::new(config, plant, board);
        let task = tokio::spawn(watch.run(cancel.clone()));
        Releases { cancel, task }
    }

    /// Ends the watch, once it is written down how the plant runs.
    pub(super) async fn stop(self) {
        self.cancel.cancel();
        if self.task.await.is_err() {
            warn!("the watch over releases ended by a bug");
        }
    }
}

struct Watch {
    socket: PathBuf,
    rules: Rules,
    records: Records,
    recorder: Recorder,
    gate: Option<Gate>,
    plant: Plant,
    teller: Teller,
    board: ReleaseBoard,
    status: ReleaseStatus,
    asked: Option<Instant>,
}

impl Watch {
    fn new(config: &config::Update, plant: Plant, board: ReleaseBoard) -> Watch {
        let records = Records::new(&config.directory);
        let hold = config.health.hold.as_duration();
        Watch {
            socket: config.socket.clone(),
            rules: Rules {
                hold,
                deadline: config.health.deadline.as_duration(),
                polls: config.health.polls,
            },
            recorder: Recorder::new(hold, records.baseline()),
            teller: Teller::new(plant.client(), records.clone()),
            records,
            gate: None,
            plant,
            board,
            status: ReleaseStatus::default(),
            asked: None,
        }
    }

    async fn run(mut self, cancel: CancellationToken) {
        let every = (self.rules.hold / LOOKS_IN_HOLD).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
        let mut looks = interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = looks.tick() => self.turn().await,
            }
        }
        if self.gate.is_none()
            && let Some(baseline) = self.recorder.baseline()
        {
            self.remember(baseline).await;
        }
    }

    async fn turn(&mut self) {
        let now = Instant::now();
        if self
            .asked
            .is_none_or(|asked| now.saturating_duration_since(asked) >= self.pause())
        {
            self.refresh().await;
        }
        match &self.status.updater {
            Some(updater) if updater.is_on_trial() => self.judge().await,
            Some(_) => self.record().await,
            None => {}
        }
        self.status.download = self.board.agent().map(|agent| agent.status());
        self.board.write(self.status.clone());
        self.teller.state(&self.status, now).await;
    }

    fn pause(&self) -> Duration {
        match &self.status.updater {
            Some(updater) if !updater.is_on_trial() && !updater.work.is_under_way() => ASK_IDLE,
            _ => ASK_BUSY,
        }
    }

    /// Asks the updater how things stand.
    async fn refresh(&mut self) {
        self.asked = Some(Instant::now());
        match self.ask(Ask::Status {}).await {
            Ok(Reply::Status(status)) => self.learn(*status).await,
            Ok(other) => self.lose(format!(
                "the updater answers {other:?} to a question for its status"
            )),
            Err(why) => self.lose(why),
        }
    }

    fn lose(&mut self, why: String) {
        if self.status.unreachable.as_ref() != Some(&why) {
            warn!(%why, "the updater cannot be asked: nothing is installed, committed or rolled back by us until it can");
        }
        // What was known of a trial stays known: the plant is watched on.
        self.status.unreachable = Some(why);
    }

    async fn learn(&mut self, updater: Status) {
        if let Some(trouble) = &updater.trouble
            && self
                .status
                .updater
                .as_ref()
                .and_then(|known| known.trouble.as_ref())
                != Some(trouble)
        {
            warn!(%trouble, "the slots need a person");
        }
        if updater.is_on_trial() && self.gate.is_none() {
            let before = self.records.baseline();
            info!(
                known = before.is_some(),
                "the running release is on trial: it stays once all works as before"
            );
            self.gate = Some(Gate::new(self.rules, before, Instant::now()));
        }
        if !updater.is_on_trial() {
            self.gate = None;
            self.status.health = None;
        }
        self.status.unreachable = None;
        self.status.updater = Some(updater);
        self.teller.rolled_back(&self.status).await;
        self.status.receipt = self.teller.published(&self.status).cloned();
        if self.teller.wants_receipt(&self.status) {
            let answer = self.ask(Ask::Receipt {}).await;
            self.teller.receipt(&mut self.status, answer).await;
        }
    }

    async fn record(&mut self) {
        let sight = self.plant.glance();
        if let Some(baseline) = self.recorder.look(Instant::now(), sight) {
            self.remember(baseline).await;
        }
    }

    async fn remember(&self, baseline: crate::update::baseline::Baseline) {
        let records = self.records.clone();
        match spawn_blocking(move || records.remember(&baseline)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%error, "how the plant runs was not written down: the next release must let all work that is configured")
            }
            Err(error) => warn!(%error, "how the plant runs was not written down"),
        }
    }

    async fn judge(&mut self) {
        let sight = self.plant.look().await;
        let Some(gate) = &mut self.gate else { return };
        let verdict = gate.look(Instant::now(), &sight);
        self.status.health = Some(gate.progress());
        let version = self.version();
        let (ask, reason) = match verdict {
            Verdict::Watch => return,
            Verdict::Commit => (Ask::Commit {}, "all worked as before".to_owned()),
            Verdict::RollBack(reason) => {
                let reason = cut(reason);
                (
                    Ask::RollBack {
                        reason: reason.clone(),
                    },
                    reason,
                )
            }
        };
        let is_commit = matches!(ask, Ask::Commit {});
        match self.ask(ask).await {
            Ok(Reply::Done {}) if is_commit => audit::committed(&version, &reason),
            Ok(Reply::Done {}) => {
                warn!(
                    version,
                    reason, "the release before this one is started again"
                );
            }
            Ok(Reply::Refused { why, .. }) | Err(why) => {
                warn!(version, commit = is_commit, %why, "the updater did not do what was asked; it is asked again");
            }
            Ok(other) => warn!(?other, "the updater's answer is not understood"),
        }
        self.refresh().await;
    }

    fn version(&self) -> String {
        let updater = self.status.updater.as_ref();
        let running = updater.and_then(Status::running);
        running.map_or_else(String::new, |release| release.version.clone())
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, String> {
        let socket = self.socket.clone();
        match spawn_blocking(move || socket::ask(&socket, ask)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// As much of a reason as the updater takes.
fn cut(mut reason: String) -> String {
    let end = (0..=REASON_MAX.min(reason.len()))
        .rev()
        .find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or(0));
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(cut("short".to_owned()), "short");
        let long = cut("ü".repeat(REASON_MAX));
        assert!(long.len() <= REASON_MAX && long.len() >= REASON_MAX - 1);
        let odd = cut(format!("x{}", "ü".repeat(REASON_MAX)));
        assert_eq!(odd.len(), REASON_MAX - 1);
    }
}
