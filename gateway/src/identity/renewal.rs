//! Renews the identity when its time has come, for as long as it takes.
//!
//! Invariant: it adds a generation beside the one in use and changes nothing else; that the
//! upstream takes it is the link's business. Layer: driver.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tracing::{error, info, warn};

use super::{
    CommandError, Directory, EstError, IdentityError, Next, command,
    est::{Enrolment, Server},
    listing, request,
    schedule::{Life, Schedule},
};
use crate::{
    clock,
    config::{self, Renew},
    upstream::{backoff::Backoff, reach::Reach},
};

/// Pause between two looks at the clocks, which may have been set.
#[cfg(not(test))]
const LOOK: Duration = Duration::from_secs(60);
#[cfg(test)]
const LOOK: Duration = Duration::from_millis(100);
/// An identity that no upstream has let in for so long makes room for another one.
const CANDIDATE_MAX: Duration = Duration::from_secs(86_400);

/// How renewal stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Renewal {
    /// When the certificate in use is to be renewed, by the wall clock.
    pub due: Option<Timestamp>,
    /// Attempts that failed since the last one that did not.
    pub failures: u32,
    /// Since when.
    pub failing_since: Option<Timestamp>,
    /// Why the last one failed.
    pub why: Option<String>,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The directory cannot be read or changed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The request could not be made.
    #[error("cannot make a certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// The EST server brought none.
    #[error(transparent)]
    Est(#[from] EstError),
    /// The program brought none.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A thread ended by a bug.
    #[error("renewal ended by a bug: {0}")]
    Bug(#[from] tokio::task::JoinError),
    /// The configuration says not how.
    #[error("[identity] renew says not how")]
    NoWay,
    /// There is a new identity already.
    #[error("identity {0} is whole and waits to be let in by the upstream")]
    Waits(u32),
}

/// Renews one identity.
#[derive(Debug)]
pub(crate) struct Renewer {
    config: config::Identity,
    directory: Directory,
    name: String,
    reach: Reach,
    floor: Timestamp,
}

/// What one look came to.
enum Looked {
    /// Nothing to be done by now.
    Early,
    /// There is a new certificate.
    Renewed,
    /// The authority wants to be asked again later.
    Later(Duration),
}

impl Renewer {
    /// `name` is asked for where the configuration has none; `floor` has passed.
    pub(crate) fn new(
        config: &config::Identity,
        directory: Directory,
        name: &str,
        reach: Reach,
        floor: Timestamp,
    ) -> Renewer {
        Renewer {
            directory,
            name: config.name.clone().unwrap_or_else(|| name.to_owned()),
            config: config.clone(),
            reach,
            floor,
        }
    }

    /// Looks at the clocks until it is dropped.
    pub(crate) async fn run(self, told: watch::Sender<Renewal>) {
        // The hasher's keys are this process' random numbers.
        let seed = RandomState::new().hash_one(&self.name);
        let retry = self.config.retry.as_duration();
        let mut backoff = Backoff::new(retry, self.config.retry_max.as_duration(), seed);
        let chance = (seed >> 32) as f64 / f64::from(u32::MAX);
        let mut schedule = Schedule::new(self.config.renew_at, chance);
        let mut waiting = Waiting::default();
        loop {
            let pause = match self.look(&mut schedule, &mut waiting, &told).await {
                Ok(Looked::Early) => LOOK,
                Ok(Looked::Renewed) => {
                    info!("there is a new certificate; the link tries it beside the one in use");
                    backoff.reset();
                    told.send_modify(|renewal| {
                        *renewal = Renewal {
                            due: renewal.due,
                            ..Renewal::default()
                        };
                    });
                    LOOK
                }
                Ok(Looked::Later(pause)) => {
                    info!(
                        pause_s = pause.as_secs(),
                        "the authority wants to be asked again later"
                    );
                    pause
                }
                Err(error) => {
                    let pause = backoff.pause();
                    report(&error, pause, &told);
                    pause
                }
            };
            sleep(pause).await;
        }
    }

    async fn look(
        &self,
        schedule: &mut Schedule,
        waiting: &mut Waiting,
        told: &watch::Sender<Renewal>,
    ) -> Result<Looked, RenewalError> {
        let directory = self.directory.clone();
        let inventory = spawn_blocking(move || directory.inventory()).await??;
        if let Some(candidate) = inventory.candidate() {
            if waiting.is_over(candidate, Instant::now()) {
                warn!(
                    candidate,
                    "no upstream has let this identity in; another one takes its place"
                );
                let directory = self.directory.clone();
                spawn_blocking(move || directory.abandon(candidate)).await??;
            }
            return Ok(Looked::Early);
        }
        if let Some(in_use) = inventory.in_use() {
            let path = self.directory.certificate_path(in_use);
            let shown = spawn_blocking(move || listing::read(&path)).await?;
            // One that cannot be read is to be replaced.
            if let Some(shown) = shown {
                let life = Life {
                    starts: shown.starts,
                    ends: shown.ends,
                };
                let due = schedule.moment(life);
                told.send_if_modified(|renewal| renewal.due.replace(due) != Some(due));
                if !schedule.is_due(life, clock::now().wall, Instant::now()) {
                    return Ok(Looked::Early);
                }
            }
        }
        self.renew().await.map(|later| match later {
            Some(pause) => Looked::Later(pause),
            None => Looked::Renewed,
        })
    }

    /// Makes a key and has its certificate issued, or goes on where that was interrupted; a pause
    /// when the authority wants to be asked again later.
    pub(crate) async fn renew(&self) -> Result<Option<Duration>, RenewalError> {
        let directory = self.directory.clone();
        let inventory = spawn_blocking(move || directory.inventory()).await??;
        let (generation, is_new) = match inventory.next() {
            Next::MakeKey(generation) => (generation, true),
            Next::Enrol(generation) => (generation, false),
            Next::Use(candidate) => return Err(RenewalError::Waits(candidate)),
        };
        let (directory, name) = (self.directory.clone(), self.name.clone());
        let in_use = inventory.in_use();
        // Keys may take their time to be made and to sign.
        let (key, asked, current) = spawn_blocking(move || {
            if is_new {
                directory.make_key(generation)?;
            }
            let key = directory.key(generation)?;
            let asked = request(&*key, &name)?;
            let current = in_use.and_then(|in_use| directory.certified(in_use).ok());
            Ok::<_, RenewalError>((key.public_key(), asked, current))
        })
        .await??;
        let pem = match (self.config.renew, &self.config.est, &self.config.command) {
            (Renew::Est, Some(est), _) => {
                let server = Server {
                    config: est.clone(),
                    reach: self.reach.clone(),
                    floor: self.floor,
                };
                match server.enrol(asked.der(), &key, current).await? {
                    Enrolment::Issued(pem) => pem,
                    Enrolment::Later(pause) => return Ok(Some(pause)),
                }
            }
            (Renew::Command, _, Some(command)) => {
                command::enrol(command, self.directory.path(), &asked.pem()?).await?
            }
            _ => return Err(RenewalError::NoWay),
        };
        let directory = self.directory.clone();
        spawn_blocking(move || directory.put_certificate(generation, &pem)).await??;
        Ok(None)
    }
}

/// How long an identity has been waiting to be let in.
#[derive(Debug, Default)]
struct Waiting(Option<(u32, Instant)>);

impl Waiting {
    fn is_over(&mut self, candidate: u32, now: Instant) -> bool {
        match self.0 {
            Some((known, since)) if known == candidate => {
                now.saturating_duration_since(since) >= CANDIDATE_MAX
            }
            _ => {
                self.0 = Some((candidate, now));
                false
            }
        }
    }
}

/// The same reason over and over is one line in the log.
fn report(why: &RenewalError, pause: Duration, told: &watch::Sender<Renewal>) {
    let why = why.to_string();
    let retry_s = pause.as_secs();
    if told.borrow().why.as_ref() != Some(&why) {
        error!(
            why,
            retry_s, "the certificate for the upstream was not renewed; trying again"
        );
    }
    told.send_modify(|renewal| {
        renewal.failures = renewal.failures.saturating_add(1);
        renewal.failing_since.get_or_insert(clock::now().wall);
        renewal.why = Some(why);
    });
}
