//! Store and forward: messages that a forward rule matches wait here for the upstream, on disk, or
//! in memory where the rule says so.
//!
//! ```text
//!  broker ──keep──▶ inbox ──batch──▶ writer ──commit──▶ buffer.db ──▶ reader ──rows──▶ forwarder
//!    ◀──receipt──────────────────────┘  ▲                                                │
//!                                       └───────────────── rows acknowledged ────────────┘
//! ```
//!
//! Invariant: the receipt of a message that is promised to its publisher says `Committed` only when
//! it is on disk or its loss by policy is; a row leaves only when the upstream has it, by policy
//! with a gap marker, or as a dead letter. Driver: what the rest of the gateway sees of it.

mod arrivals;
mod clock;
mod dead;
mod device;
mod draft;
mod errand;
mod export;
mod inbox;
mod leaving;
mod medium;
mod memory;
mod pages;
mod properties;
mod quota;
mod reader;
pub(crate) mod retention;
pub(crate) mod row;
mod salvage;
mod schema;
pub(crate) mod stage;
mod status;
mod store;
mod upward;
mod wear;
mod writer;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use broker_lite::{
    keeper::{Keeper, Kept, Receipt},
    message::Message,
    packet::QoS,
    topic::TopicName,
};
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

pub use dead::{DeadLetter, DeadLetters};
pub use errand::{Fate, Left, Settled, Which};
pub use export::{DeadMessage, Export, ExportError};
pub use medium::{DeviceWear, Wear};
pub use reader::ReadError;
pub use retention::Reason;
pub use row::{Gap, Row};
pub use salvage::Salvaged;
pub use status::{Fault, Status};
pub use wear::{OwnEstimate, Spare};

pub(crate) use arrivals::{Arrival, Handing};
pub(crate) use retention::{Cursor, Stretch};
pub(crate) use row::{Page, Survey};

use self::{
    arrivals::Arrivals,
    clock::Clock,
    errand::Errand,
    inbox::{Entry, Inbox, Removal},
    leaving::Leaving,
    medium::Medium,
    quota::Rule,
    reader::Reader,
    retention::Rank,
    stage::{Stage, StageLimits},
    store::Limits,
    writer::Writer,
};
use crate::{config, whole_file::beside};

/// Below this the log, the tables and one batch do not fit beside each other.
pub const MIN_MAX_SIZE: u64 = 1 << 20;

/// The buffer; clones share it.
#[derive(Debug, Clone)]
pub struct Buffer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer, the readers and the publishers share.
#[derive(Debug)]
pub(crate) struct Shared {
    inbox: Inbox,
    /// What waits in memory.
    stage: Mutex<memory::Rows>,
    /// Until then nothing waits in memory: the power fails.
    on_disk_until: Mutex<Option<Instant>>,
    link_up: AtomicBool,
    reader: Reader,
    clock: Clock,
    medium: Medium,
    rules: RwLock<Arc<[Rule]>>,
    arrivals: Mutex<Arrivals>,
    leaving: Mutex<Leaving>,
    /// See [`Buffer::clock_floor`]; microseconds since 1970.
    floor_us: AtomicI64,
    status: Mutex<Status>,
    rows: watch::Sender<u64>,
    paused: watch::Sender<bool>,
}

/// Why there is no buffer at all. A disk that fails is no such reason: see [`Status::fault`].
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No room for even one batch.
    #[error("[buffer] max_size = {0} bytes is too small; write \"1MiB\" or more")]
    TooSmall(u64),
    /// The system gives no thread.
    #[error("cannot start the buffer's thread: {0}")]
    Thread(#[source] io::Error),
}

impl Buffer {
    /// Opens or makes the file, salvages a damaged one, and starts the writer.
    ///
    /// A disk that cannot be used now does not fail this: messages are queued up to a bound, then
    /// refused, and the writer tries until it can.
    pub fn open(
        config: &config::Buffer,
        forwards: &[config::Forward],
    ) -> Result<Buffer, OpenError> {
        let limits = Limits {
            max_bytes: config.max_size.as_bytes(),
            when_full: config.when_full,
            max_age: config.max_age.map(|age| age.as_duration()),
            max_topics: store::MAX_TOPICS,
        };
        if limits.max_bytes < MIN_MAX_SIZE {
            return Err(OpenError::TooSmall(limits.max_bytes));
        }
        let shared = Arc::new(Shared {
            inbox: Inbox::default(),
            stage: Mutex::new(Stage::new(stage_limits(config))),
            on_disk_until: Mutex::default(),
            link_up: AtomicBool::new(false),
            reader: Reader::new(config.path.clone()),
            clock: Clock::new(),
            medium: Medium::holding(&config.path, config.endurance.map(|bytes| bytes.as_bytes())),
            rules: RwLock::new(compile(forwards)),
            arrivals: Mutex::default(),
            leaving: Mutex::default(),
            floor_us: AtomicI64::new(0),
            status: Mutex::new(Status::default()),
            rows: watch::Sender::new(0),
            paused: watch::Sender::new(false),
        });
        let mut writer = Writer {
            path: config.path.clone(),
            limits,
            commit_delay: config.commit_delay.as_duration(),
            shared: Arc::clone(&shared),
            store: None,
            last_order: 0,
            retry: writer::FIRST_RETRY,
            account_due: clock::now(),
            spill_again: None,
        };
        // Here rather than in the thread, so that `sequences` knows the numbers at once.
        if writer.open() {
            shared.recall_arrivals();
        }
        let thread = thread::Builder::new()
            .name("buffer-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        Ok(Buffer(Arc::new(Inner {
            path: config.path.clone(),
            shared,
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Replaces the forward rules; what waits already is not touched.
    pub fn set_rules(&self, forwards: &[config::Forward]) {
        let rules = &self.0.shared.rules;
        *rules.write().unwrap_or_else(PoisonError::into_inner) = compile(forwards);
    }

    /// The last number of each topic, for publishers that number their own messages.
    pub fn sequences(&self) -> HashMap<TopicName, u64> {
        self.0.shared.reader.sequences().unwrap_or_else(|error| {
            // The store numbers on from what it finds when it can: see `Draft::append`.
            warn!(%error, "numbering starts anew");
            HashMap::new()
        })
    }

    /// Whether the upstream takes messages now; while it does not, what waits in memory goes to disk
    /// sooner.
    pub(crate) fn link_is_up(&self, up: bool) {
        let shared = &self.0.shared;
        if shared.link_up.swap(up, Ordering::Relaxed) != up {
            shared.inbox.nudge();
        }
    }

    /// The power is about to fail: what waits in memory goes to disk now, and for a minute what comes
    /// goes there at once.
    pub fn power_fails(&self) {
        warn!("power is about to fail; what waits in memory goes to disk");
        self.0.shared.power_fails();
    }

    /// Keeps numbers under names; they come with one of the next commits.
    pub(crate) fn note(&self, marks: Vec<(&'static str, i64)>) {
        self.0.shared.inbox.note(marks);
    }

    /// The numbers that were kept; none while the file cannot be read. Blocks on the disk.
    pub(crate) fn marks(&self) -> HashMap<String, i64> {
        self.0.shared.reader.marks().unwrap_or_else(|error| {
            warn!(%error, "what the link has cost today is counted anew");
            HashMap::new()
        })
    }

    /// Messages that wait.
    pub(crate) fn waiting(&self) -> u64 {
        let on_disk = self.0.shared.lock().rows;
        on_disk + self.0.shared.stage().len() as u64
    }

    /// What became of this message from upstream when it came before; `None` if it did not.
    pub(crate) fn earlier_arrival(&self, arrival: &Arrival) -> Option<Handing> {
        self.0.shared.arrivals().find(arrival)
    }

    /// Puts on disk that this message is about to be handed on.
    pub(crate) fn remember_arrival(&self, arrival: Arrival, receipt: Receipt) {
        self.0.shared.inbox.remember(arrival, receipt);
    }

    /// It is handed on.
    pub(crate) fn arrived(&self, arrival: Arrival) {
        self.0.shared.arrivals().enter(arrival, Handing::Taken);
    }

    /// The local broker has it, which comes on disk with one of the next commits.
    pub(crate) fn handed_over(&self, arrival: Arrival) {
        self.0.shared.inbox.remove([Removal::Doubt(arrival)]);
    }

    /// It was not taken, and is welcome again.
    pub(crate) fn forget_arrival(&self, packet_id: u16) {
        self.0.shared.arrivals().forget(packet_id);
        self.0.shared.inbox.remove([Removal::Arrival(packet_id)]);
    }

    /// A moment that has passed by a right clock, at most an hour before the last such message.
    pub(crate) fn clock_floor(&self) -> Timestamp {
        let floor_us = self.0.shared.floor_us.load(Ordering::Relaxed);
        Timestamp::from_microsecond(floor_us).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Changes with each commit, so whenever there are new rows or gaps.
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.0.shared.rows.subscribe()
    }

    /// Holds back what waits, or lets it go on; what is under way still arrives. A restart lets it go
    /// on.
    pub fn pause(&self, paused: bool) {
        let was = self.0.shared.paused.send_replace(paused);
        match (was, paused) {
            (false, true) => warn!("forwarding is paused; messages wait in the buffer"),
            (true, false) => info!("forwarding goes on"),
            _ => {}
        }
    }

    /// Whether forwarding is paused, and when that changes.
    pub(crate) fn paused(&self) -> watch::Receiver<bool> {
        self.0.shared.paused.subscribe()
    }

    /// The dead letters that are kept, the newest of them in full. Blocks on the disk.
    pub fn dead_letters(&self, at_most: usize) -> Result<DeadLetters, ReadError> {
        self.checked(self.0.shared.reader.dead_letters(at_most))
    }

    /// Has dead letters wait again, or drops them; the answer comes when that is on disk, and never
    /// if the buffer is closed before. `None` where it is closed already, or others wait for such
    /// an answer.
    pub fn settle(&self, fate: Fate, which: Which) -> Option<oneshot::Receiver<Settled>> {
        let (errand, settled) = Errand::new(fate, which);
        self.0.shared.inbox.settle(errand).then_some(settled)
    }

    /// Has something written that nobody reads; the answer comes when it is on disk. `None` as with
    /// [`Self::settle`].
    pub(crate) fn prove(&self) -> Option<oneshot::Receiver<Settled>> {
        self.settle(Fate::Drop, Which::These(Vec::new()))
    }

    /// See [`Status`]. Blocks on the disk for a moment.
    pub fn status(&self) -> Status {
        let mut status = self.0.shared.lock().clone();
        let files = ["", "-wal", "-shm"];
        status.bytes_on_disk = files
            .map(|suffix| file_size(&beside(&self.0.path, suffix)))
            .iter()
            .sum();
        status.paused = *self.0.shared.paused.borrow();
        status.queued = self.0.shared.inbox.len() as u64;
        status.wear = self.0.shared.medium.wear(&self.0.shared.clock);
        // While the disk fails this is only not known.
        status.bytes = self.0.shared.reader.weight().unwrap_or_default();
        status.oldest = self.0.shared.reader.oldest().unwrap_or_default();
        self.0.shared.count_staged(&mut status);
        status.bytes += status.memory_bytes;
        status
    }

    /// Checks every page of the file in the background; damage is salvaged and shows in the status.
    pub fn check(&self) {
        self.0.shared.inbox.inspect();
    }

    /// Commits what is queued and closes the file; what comes later is refused.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.0);
        if tokio::task::spawn_blocking(move || inner.close())
            .await
            .is_err()
        {
            error!("closing the buffer ended by a bug");
        }
    }

    fn checked<T>(&self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        if result.as_ref().is_err_and(ReadError::is_damage) {
            self.0.shared.inbox.inspect();
        }
        result
    }
}

impl Keeper for Buffer {
    fn wants(&self, topic: &TopicName) -> bool {
        quota::find(&self.0.shared.rules(), topic).is_some()
    }

    fn keep(&self, message: &Message, receipt: Receipt) {
        let rules = self.0.shared.rules();
        let Some((_, rule)) = quota::find(&rules, &message.topic) else {
            // The rules changed since the broker asked: nothing is to be kept, so nothing failed.
            receipt.answer(Kept::Committed);
            return;
        };
        let shared = &self.0.shared;
        let entry = Entry {
            properties: message.properties.as_deref().and_then(properties::encode),
            rank: rule.rank,
            stamp: shared.clock.stamp(),
            memory: rule.memory_first && !is_promised(message),
            message: message.clone(),
            receipt,
        };
        if shared.inbox.keep(entry) == Kept::Refused {
            shared.update(|status| status.refused += 1);
        }
    }
}

impl Inner {
    fn close(&self) {
        self.shared.inbox.close();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the buffer's thread ended by a bug");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> MutexGuard<'_, Leaving> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recall_arrivals(&self) {
        match self.reader.arrivals() {
            Ok(found) => found
                .into_iter()
                .for_each(|(arrival, handing)| self.arrivals().enter(arrival, handing)),
            Err(error) => {
                warn!(%error, "a command that the upstream sends again may be executed again");
            }
        }
    }

    fn link_is_up(&self) -> bool {
        self.link_up.load(Ordering::Relaxed)
    }

    fn rules(&self) -> Arc<[Rule]> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&rules)
    }

    fn announce_rows(&self) {
        self.rows
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn compile(forwards: &[config::Forward]) -> Arc<[Rule]> {
    forwards
        .iter()
        .map(|rule| Rule {
            filter: rule.filter.clone(),
            rank: Rank::of(rule.priority),
            quota: rule.quota.map(|quota| quota.as_bytes()),
            memory_first: rule.store == config::Store::MemoryFirst,
        })
        .collect()
}

/// Whether an acknowledgement says that the message is on disk. The gateway's own readings, which
/// alone bear a number, are acknowledged to nobody.
fn is_promised(message: &Message) -> bool {
    message.qos != QoS::AtMostOnce && message.sequence.is_none()
}

fn stage_limits(config: &config::Buffer) -> StageLimits {
    // What is too old is looked for on disk alone.
    let oldest = config
        .max_age
        .map_or(Duration::MAX, |age| age.as_duration());
    StageLimits {
        bytes: usize::try_from(config.memory_size.as_bytes()).unwrap_or(usize::MAX),
        age: config.spill_after.as_duration().min(oldest),
        age_offline: config.spill_offline_after.as_duration().min(oldest),
    }
}

/// Zero for a file that is not there.
fn file_size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;
