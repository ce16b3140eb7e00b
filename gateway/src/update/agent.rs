//! Looks for new releases by itself or when somebody asks, and takes one as far as it may go. Driver.
//!
//! ```text
//!  timer, `gateway update check`, `install` ─▶ look ─▶ step ─▶ fetch ─▶ updater: install ─▶ activate
//!                                                      ▲                   │ missing chunks
//!                                                      └───────────────────┘
//! ```
//!
//! Invariant: one thing at a time; the updater is never asked to install what was not checked here, and never believed to have
//! installed what it does not say.

#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use update::protocol::{Ask, Reply, Status, Work, socket};

use super::{
    download::{DownloadError, Downloader, Fetched, Offer},
    repository::blocking,
    step::{Step, next_step},
};
use crate::{
    clock,
    config::{self, Hold, When},
    upstream::window::Windows,
};

/// Wishes that may wait.
const WISHES: usize = 4;
/// Lines that a slow terminal may be behind.
const LINES: usize = 64;
/// Times that chunks are fetched which the updater misses: it reads both slots, and knows after the first.
const ROUNDS: usize = 4;
/// How often the updater is asked how far it is.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How often an open window is looked for.
const WINDOW_EVERY: Duration = Duration::from_secs(60);
/// The first look after a start, when the plant's start is over.
const FIRST_LOOK: Duration = Duration::from_secs(120);

/// What the gateway itself does about releases, for status, metrics and topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadStatus {
    /// `idle`, `checking`, `downloading`, `installing` or `waiting`.
    pub state: String,
    /// The newest release that was offered.
    pub offered: Option<String>,
    /// Bytes that are staged of those that are needed.
    pub done: u64,
    /// Bytes that are needed.
    pub needed: u64,
    /// Bytes of the whole release: what the slots had already is the difference.
    pub whole: u64,
    /// Bytes over the wire since the process started.
    pub wire: u64,
    /// When the repository was last asked.
    pub checked: Option<String>,
    /// Why the last attempt came to nothing.
    pub failed: Option<String>,
}

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// To know what is offered.
    Check,
    /// To have it installed, and perhaps started.
    Install {
        /// Restart into it.
        restart: bool,
    },
}

/// A word to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// How far it is.
    Progress(String),
    /// It is done.
    Done(String),
    /// It is not.
    Failed {
        /// Why.
        why: String,
        /// Something was not to be trusted.
        security: bool,
    },
}

impl DownloadStatus {
    /// A line for people; nothing while there is nothing to tell.
    pub(crate) fn text(&self) -> Option<String> {
        if let Some(why) = &self.failed {
            return Some(format!(
                "the last look for a release came to nothing: {why}"
            ));
        }
        let offered = self.offered.as_deref()?;
        match self.state.as_str() {
            "downloading" => Some(format!(
                "downloading {offered}: {} of {} bytes",
                self.done, self.needed
            )),
            _ => Some(format!(
                "the repository offers {offered}; asked at {}",
                self.checked.as_deref().unwrap_or("a time unknown")
            )),
        }
    }
}

struct Wish {
    what: What,
    tell: mpsc::Sender<serde_json::Value>,
}

/// The way to the agent; clones lead to the same one.
#[derive(Clone)]
pub(crate) struct AgentHandle {
    wishes: mpsc::Sender<Wish>,
    status: Arc<RwLock<DownloadStatus>>,
}

impl AgentHandle {
    /// What it does now.
    pub(crate) fn status(&self) -> DownloadStatus {
        self.status
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Has something done; what comes of it is told word by word. `None` when too many wait.
    pub(crate) fn wish(&self, what: What) -> Option<mpsc::Receiver<serde_json::Value>> {
        let (tell, told) = mpsc::channel(LINES);
        self.wishes.try_send(Wish { what, tell }).ok()?;
        Some(told)
    }
}

/// See the module's description.
pub(crate) struct Agent {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Agent {
    /// Begins to look for releases.
    ///
    /// # Errors
    /// The repository's address, the anchors or the directories cannot be used.
    pub(crate) fn start(
        config: &config::Update,
        upstream: Option<&config::Upstream>,
    ) -> Result<(Agent, AgentHandle), DownloadError> {
        let (wishes, wished) = mpsc::channel(WISHES);
        let status = Arc::new(RwLock::new(DownloadStatus::default()));
        let mut windows = Windows::new(config.windows.clone(), Hold::AllButHigh);
        windows.link_up(clock::now().monotonic);
        let worker = Worker {
            downloader: Downloader::new(config, upstream)?,
            socket: config.socket.clone(),
            config: config.clone(),
            windows,
            status: Arc::clone(&status),
            tell: None,
        };
        worker.note(|status| status.state = "idle".to_owned());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(worker.run(wished, cancel.clone()));
        Ok((Agent { cancel, task }, AgentHandle { wishes, status }))
    }

    /// Ends it where it is; what was downloaded stays.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        if self.task.await.is_err() {
            warn!("the agent for releases ended by a bug");
        }
    }
}

/// Why a wish came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Download(#[from] DownloadError),
    #[error("{0}")]
    Updater(String),
    #[error("{why}")]
    Refused { why: String, security: bool },
}

impl Failure {
    fn is_security(&self) -> bool {
        match self {
            Failure::Download(error) => error.is_security(),
            Failure::Updater(_) => false,
            Failure::Refused { security, .. } => *security,
        }
    }
}

struct Worker {
    downloader: Downloader,
    socket: PathBuf,
    config: config::Update,
    windows: Windows,
    status: Arc<RwLock<DownloadStatus>>,
    /// Who asked for what is being done.
    tell: Option<mpsc::Sender<serde_json::Value>>,
}

impl Worker {
    async fn run(mut self, mut wished: mpsc::Receiver<Wish>, cancel: CancellationToken) {
        let mut next = Instant::now() + FIRST_LOOK + self.jitter().min(FIRST_LOOK);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                wish = wished.recv() => match wish {
                    Some(wish) => tokio::select! {
                        () = cancel.cancelled() => return,
                        () = self.grant(wish) => {}
                    },
                    None => return,
                },
                () = sleep_until(next) => {
                    let pause = tokio::select! {
                        () = cancel.cancelled() => return,
                        pause = self.by_itself() => pause,
                    };
                    next = Instant::now() + pause;
                }
            }
        }
    }

    async fn grant(&mut self, wish: Wish) {
        self.tell = Some(wish.tell);
        let done = match wish.what {
            What::Check => self.check().await.map(|(word, _)| word),
            What::Install { restart } => self.install(true, restart).await,
        };
        let word = self.ended(done);
        self.say(&word);
        self.tell = None;
    }

    /// What the timer does, and when to come back.
    async fn by_itself(&mut self) -> Duration {
        let usual = self.config.check_every.as_duration() + self.jitter();
        let open = self.windows.holds(clock::now()).is_none();
        let may = |when| match when {
            When::Automatic => true,
            When::Window => open,
            When::ByHand => false,
        };
        let (install, restart) = (may(self.config.install), may(self.config.restart));
        let done = match install {
            true => self.install(false, restart).await,
            false => self.check().await.map(|(word, _)| word),
        };
        self.ended(done);
        let waits = [self.config.install, self.config.restart].contains(&When::Window);
        match waits && !open {
            true => usual.min(WINDOW_EVERY.max(self.until_window())),
            false => usual,
        }
    }

    fn ended(&self, done: Result<String, Failure>) -> Word {
        self.note(|status| {
            status.state = "idle".to_owned();
            status.failed = done.as_ref().err().map(Failure::to_string);
            status.wire = self.downloader.total();
        });
        match done {
            Ok(text) => Word::Done(text),
            Err(error) => {
                warn!(%error, security = error.is_security(), "no release was installed");
                Word::Failed {
                    security: error.is_security(),
                    why: error.to_string(),
                }
            }
        }
    }

    /// What is offered, and what that means here.
    async fn check(&mut self) -> Result<(String, (Offer, Step)), Failure> {
        let found = self.find(false).await?;
        let version = &found.0.index.about().version;
        let text = match &found.1 {
            Step::Nothing => format!("release {version} runs; there is nothing newer"),
            Step::Wait(why) => format!("release {version} is offered; not now: {why}"),
            Step::Leave(why) => format!("release {version} was rolled back here: {why}"),
            Step::Install => format!("release {version} is offered"),
            Step::Activate => format!("release {version} is installed, and can be started"),
        };
        Ok((text, found))
    }

    async fn find(&mut self, by_hand: bool) -> Result<(Offer, Step), Failure> {
        self.note(|status| status.state = "checking".to_owned());
        let offer = self.downloader.look().await?;
        let release = offer.index.release();
        self.note(|status| {
            status.offered = Some(release.version.clone());
            status.checked = Some(clock::now().wall.to_string());
        });
        let step = next_step(&self.updater().await?, &release, by_hand);
        Ok((offer, step))
    }

    async fn install(&mut self, by_hand: bool, restart: bool) -> Result<String, Failure> {
        let (offer, step) = self.find(by_hand).await?;
        let version = offer.index.about().version.clone();
        match step {
            Step::Nothing => return Ok(format!("release {version} runs already")),
            Step::Wait(why) => return Err(Failure::Updater(why)),
            Step::Leave(why) => {
                return Ok(format!("release {version} was rolled back here: {why}"));
            }
            Step::Install => self.bring(&offer).await?,
            Step::Activate => {}
        }
        if !restart {
            return Ok(format!(
                "release {version} is installed; a restart into it starts its trial"
            ));
        }
        self.order(Ask::Activate {}).await?;
        Ok(format!(
            "release {version} is installed; the machine restarts into it"
        ))
    }

    /// Downloads and has the updater install, until nothing is missing.
    async fn bring(&mut self, offer: &Offer) -> Result<(), Failure> {
        let mut missing = Vec::new();
        for _ in 0..ROUNDS {
            let running = self
                .updater()
                .await?
                .running()
                .map(|release| release.root.clone());
            let (status, tell) = (Arc::clone(&self.status), self.tell.clone());
            let mut told = Fetched::default();
            let mut progress =
                |fetched: Fetched| tell_fetched(&status, tell.as_ref(), &mut told, fetched);
            self.downloader
                .fetch(offer, running.as_deref(), &missing, &mut progress)
                .await?;
            self.note(|status| status.state = "installing".to_owned());
            self.order(Ask::Install {}).await?;
            match self.watch().await? {
                Work::Installed(_) => {
                    info!(version = offer.index.about().version, "release installed");
                    return Ok(self.downloader.clear()?);
                }
                Work::Failed { missing: more, .. } if !more.is_empty() => missing.extend(more),
                Work::Failed { why, security, .. } => {
                    return Err(Failure::Refused { why, security });
                }
                other => {
                    return Err(Failure::Updater(format!(
                        "the updater stopped at {other:?}"
                    )));
                }
            }
        }
        Err(Failure::Updater(format!(
            "the updater still misses chunks after {ROUNDS} downloads: the running slot changes meanwhile"
        )))
    }

    /// Until the updater is done.
    async fn watch(&mut self) -> Result<Work, Failure> {
        let mut last = 0;
        loop {
            let work = self.updater().await?.work;
            if !work.is_under_way() {
                return Ok(work);
            }
            if let Work::Writing(progress) | Work::ReadingBack(progress) = &work {
                let percent = u64::from(progress.done) * 100 / u64::from(progress.chunks.max(1));
                if percent / 5 != last / 5 {
                    last = percent;
                    let what = match work {
                        Work::Writing(_) => "writing",
                        _ => "reading back",
                    };
                    self.say(&Word::Progress(format!("{what}: {percent} %")));
                }
            }
            sleep(WATCH_EVERY).await;
        }
    }

    async fn updater(&self) -> Result<Status, Failure> {
        match self.ask(Ask::Status {}).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(Failure::Updater(format!("the updater answers {other:?}"))),
        }
    }

    async fn order(&self, order: Ask) -> Result<(), Failure> {
        match self.ask(order).await? {
            Reply::Done {} => Ok(()),
            Reply::Refused { why, security } => Err(Failure::Refused { why, security }),
            other => Err(Failure::Updater(format!("the updater answers {other:?}"))),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, Failure> {
        let socket = self.socket.clone();
        let asked = blocking(move || socket::ask(&socket, ask)).await;
        asked
            .map_err(Failure::Updater)?
            .map_err(|error| Failure::Updater(error.to_string()))
    }

    fn say(&self, word: &Word) {
        say(self.tell.as_ref(), word);
    }

    fn note(&self, change: impl FnOnce(&mut DownloadStatus)) {
        change(&mut self.status.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn until_window(&self) -> Duration {
        let now = clock::now();
        self.windows
            .due(now)
            .saturating_duration_since(now.monotonic)
    }

    /// Some part of what is configured; all of it where the system gives no chance.
    fn jitter(&self) -> Duration {
        let most = self.config.check_jitter.as_duration();
        let mut random = [0; 4];
        match SystemRandom::new().fill(&mut random) {
            Ok(()) => most.mul_f64(f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX)),
            Err(_) => most,
        }
    }
}

fn tell_fetched(
    status: &RwLock<DownloadStatus>,
    tell: Option<&mpsc::Sender<serde_json::Value>>,
    told: &mut Fetched,
    fetched: Fetched,
) {
    {
        let mut status = status.write().unwrap_or_else(PoisonError::into_inner);
        status.state = "downloading".to_owned();
        (status.done, status.needed, status.whole) = (fetched.done, fetched.needed, fetched.whole);
    }
    let twentieth = |fetched: &Fetched| fetched.done * 20 / fetched.needed.max(1);
    if told.needed != fetched.needed || twentieth(told) != twentieth(&fetched) {
        *told = fetched;
        let text = format!(
            "downloading: {} of {} bytes; the whole release has {}",
            fetched.done, fetched.needed, fetched.whole
        );
        say(tell, &Word::Progress(text));
    }
}

/// Who is too slow misses a line of progress; the last word has a place of its own.
fn say(tell: Option<&mpsc::Sender<serde_json::Value>>, word: &Word) {
    let Some(tell) = tell else {
        return;
    };
    let is_last = !matches!(word, Word::Progress(_));
    if is_last || tell.capacity() > 1 {
        let _ = tell.try_send(serde_json::json!(word));
    }
}
