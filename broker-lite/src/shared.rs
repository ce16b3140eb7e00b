//! What the broker's tasks share: one core behind a lock, and who is called when it has something
//! for them. Driver.
//!
//! ```text
//!  connection tasks ──┐            ┌──▶ call of the connection whose bytes wait
//!  local clients    ──┼──▶ Core ───┼──▶ keeper ──(receipt, from any thread)──┐
//!  broker task      ──┘            ├──▶ store ──(notice, from its thread)────┤
//!                                  └──▶ log                                  │
//!       ▲ timer, settlements ◀───────────────────────────────────────────────┘
//! ```
//!
//! Invariant: the lock is held only while the core decides; nobody waits, reads or writes under it.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, oneshot},
    time::{sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{ConnectionId, Core, Output, Peer, Rules, SessionId, Ticket},
    config::{Config, Persistence},
    entry::call::Call,
    entry::handshakes::Handshakes,
    heap::{self, Ebb},
    keeper::{Keeper, Kept, Published, Receipt},
    login::Check,
    login::credentials,
    login::password::Key,
    observe::audit::{Event, Limiter, Logging},
    observe::log::{self, Entry},
    observe::status::Status,
    start::StartError,
    store::{Found, Notice, Store, Tell},
};

/// At the stop, acknowledgements get this long to become true, and connections to take them.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Events that wait to be logged; what comes while so many do is counted, but not logged.
const EVENTS_MAX: usize = 1_024;

/// What the tasks share.
pub(crate) struct Shared {
    locked: Mutex<Locked>,
    keeper: Option<Arc<dyn Keeper>>,
    store: Option<Arc<Store>>,
    /// As it was at the start, and stays.
    pub(crate) persistence: Option<Persistence>,
    /// What strangers are told from, until the broker starts anew.
    pub(crate) chance: Key,
    mailbox: Arc<Mailbox>,
    /// The broker task has been round once more.
    pulse: Notify,
    /// The broker task has entered settlements.
    settled: Notify,
    /// Whose turn it is to shake hands.
    pub(crate) handshakes: Handshakes,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// Word from other threads, until the broker task takes it.
#[derive(Debug, Default)]
struct Mailbox {
    waiting: Mutex<Vec<Word>>,
    /// Wakes the broker task: words wait, or an earlier timer was set.
    work: Notify,
}

#[derive(Debug)]
enum Word {
    Kept(Ticket, Kept),
    Store(Notice),
    /// A password was checked.
    Verified(ConnectionId, bool),
}

impl Mailbox {
    fn put(&self, word: Word) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(word);
        if waiting.len() == 1 {
            self.work.notify_one();
        }
    }

    fn take(&self) -> Vec<Word> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What only the holder of the lock may touch.
pub(crate) struct Locked {
    pub(crate) core: Core,
    /// By the connection's slot.
    calls: Vec<Option<Arc<Call>>>,
    local_calls: HashMap<SessionId, Arc<Notify>>,
    publishings: HashMap<Ticket, oneshot::Sender<Published>>,
    /// When the broker task wakes by itself.
    armed: Option<Instant>,
    ebb: Ebb,
    limiter: Limiter,
    /// What the broker task is to log; writing takes time, and may wait.
    events: Vec<Entry>,
}

impl Locked {
    pub(crate) fn register_local(&mut self, session: SessionId, call: Arc<Notify>) {
        self.local_calls.insert(session, call);
    }

    pub(crate) fn forget_local(&mut self, session: SessionId) {
        self.local_calls.remove(&session);
    }

    /// The receiver for a message whose ticket is not settled yet.
    pub(crate) fn await_ticket(&mut self, ticket: Ticket) -> oneshot::Receiver<Published> {
        let (sender, receiver) = oneshot::channel();
        self.publishings.insert(ticket, sender);
        receiver
    }

    /// When the broker task is to come round by itself.
    fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [self.core.poll_timeout(), self.ebb.poll_timeout()];
        timeouts.into_iter().flatten().min()
    }

    fn call(&self, connection: ConnectionId) {
        if let Some(Some(call)) = self.calls.get(connection.0.index()) {
            call.ring();
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// Makes the core, with what an earlier run has stored.
    pub(crate) fn start(
        config: &Config,
        keeper: Option<Arc<dyn Keeper>>,
    ) -> Result<Shared, StartError> {
        let chance = credentials::chance()?;
        let (rules, prefix) = (rules(config, chance)?, assigned_prefix());
        let mailbox = Arc::new(Mailbox::default());
        let Some(persistence) = &config.persistence else {
            let mut core = Core::new(rules, keeper.clone(), prefix);
            core.begin(Instant::now());
            return Ok(Shared::new(core, keeper, None, mailbox, chance));
        };
        let mut core = Core::storing(rules, keeper.clone(), prefix);
        let told = Arc::clone(&mailbox);
        let tell: Tell = Box::new(move |notice| told.put(Word::Store(notice)));
        let (store, found) = Store::start(persistence, tell).map_err(StartError::Thread)?;
        let now = Instant::now();
        core.begin(now);
        match found {
            Found::Stored(stored) => core.restore(*stored, now),
            Found::Nothing => {}
        }
        Ok(Shared {
            persistence: Some(persistence.clone()),
            ..Shared::new(core, keeper, Some(Arc::new(store)), mailbox, chance)
        })
    }

    /// A core by itself: no keeper, no store, no broker task.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn around(core: Core) -> Shared {
        Shared::new(core, None, None, Arc::new(Mailbox::default()), [7; 32])
    }

    fn new(
        core: Core,
        keeper: Option<Arc<dyn Keeper>>,
        store: Option<Arc<Store>>,
        mailbox: Arc<Mailbox>,
        chance: Key,
    ) -> Shared {
        let handshakes = core.handshakes();
        Shared {
            locked: Mutex::new(Locked {
                core,
                calls: Vec::new(),
                local_calls: HashMap::new(),
                publishings: HashMap::new(),
                armed: None,
                ebb: Ebb::default(),
                limiter: Limiter::default(),
                events: Vec::new(),
            }),
            keeper,
            store,
            persistence: None,
            chance,
            mailbox,
            pulse: Notify::new(),
            settled: Notify::new(),
            handshakes: Handshakes::new(handshakes),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One visit to the core, with everything it then asks for.
    pub(crate) fn visit<T>(self: &Arc<Self>, visit: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let mut locked = self.lock();
        let now = Instant::now();
        let result = visit(&mut locked.core, now);
        self.drain(&mut locked, None, now);
        result
    }

    /// Admits a new peer, and gives the means by which the core calls its task.
    pub(crate) fn open(self: &Arc<Self>, peer: Peer) -> Option<(ConnectionId, Arc<Call>)> {
        let mut locked = self.lock();
        let now = Instant::now();
        let opened = locked.core.open(peer, now).ok().map(|connection| {
            let call = Arc::<Call>::default();
            let index = connection.0.index();
            if locked.calls.len() <= index {
                locked.calls.resize(index + 1, None);
            }
            locked.calls[index] = Some(Arc::clone(&call));
            (connection, call)
        });
        self.drain(&mut locked, None, now);
        opened
    }

    /// Reports a connection's end.
    pub(crate) fn closed(self: &Arc<Self>, connection: ConnectionId) {
        let mut locked = self.lock();
        let now = Instant::now();
        locked.core.handle_closed(connection, now);
        if let Some(call) = locked.calls.get_mut(connection.0.index()) {
            *call = None;
        }
        self.drain(&mut locked, None, now);
    }

    /// Does what the core asks for. `own` is the connection whose task this is: it sees for
    /// itself what waits for it.
    pub(crate) fn drain(
        self: &Arc<Self>,
        locked: &mut Locked,
        own: Option<ConnectionId>,
        now: Instant,
    ) {
        while let Some(output) = locked.core.poll_output() {
            match output {
                Output::Flush(connection) | Output::Close(connection) => {
                    if Some(connection) != own {
                        locked.call(connection);
                    }
                }
                Output::Keep {
                    ticket,
                    publication,
                } => {
                    if let Some(keeper) = &self.keeper {
                        keeper.keep(&publication.message, self.receipt(ticket));
                    }
                }
                Output::Settled { ticket, kept } => {
                    if let Some(publishing) = locked.publishings.remove(&ticket) {
                        // Whoever dropped the receiver does not care.
                        let _unheard = publishing.send(kept.into());
                    }
                }
                Output::Ready(session) => {
                    if let Some(call) = locked.local_calls.get(&session) {
                        call.notify_one();
                    }
                }
                Output::Verify { connection, check } => self.verify(connection, check),
                Output::Tell(event) => self.note(locked, event, now),
            }
        }
        if let Some(store) = &self.store
            && let Some(changes) = locked.core.take_changes()
        {
            store.submit(changes);
        }
        locked.ebb.note(locked.core.memory_used(), now);
        let due = locked.poll_timeout();
        if due.is_some_and(|due| locked.armed.is_none_or(|armed| due < armed)) {
            locked.armed = due;
            self.mailbox.work.notify_one();
        }
    }

    /// Checks a password on a thread that may take its time. The core bounds how many run.
    fn verify(&self, connection: ConnectionId, check: Check) {
        let mailbox = Arc::clone(&self.mailbox);
        self.tasks
            .spawn_blocking(move || mailbox.put(Word::Verified(connection, check.run())));
    }

    fn note(&self, locked: &mut Locked, event: Event, now: Instant) {
        if locked.events.len() >= EVENTS_MAX {
            return;
        }
        if let Logging::Log { left_out } = locked.limiter.admit_event(&event, now) {
            locked.events.push(Entry { event, left_out });
            if locked.events.len() == 1 {
                self.mailbox.work.notify_one();
            }
        }
    }

    pub(crate) fn write_events(&self) {
        let events = std::mem::take(&mut self.lock().events);
        for entry in &events {
            log::write(entry);
        }
    }

    /// The state at this moment, the store's included.
    pub(crate) fn status(&self) -> Status {
        let mut status = self.lock().core.status(Instant::now());
        status.store = self.store.as_ref().map(|store| store.status());
        status
    }

    fn receipt(&self, ticket: Ticket) -> Receipt {
        let mailbox = Arc::clone(&self.mailbox);
        Receipt::new(move |kept| mailbox.put(Word::Kept(ticket, kept)))
    }

    /// The broker task: enters what keepers answer, and does what is due.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let armed = self.catch_up();
            self.write_events();
            self.give_back().await;
            self.pulse.notify_waiters();
            let due = async {
                match armed {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.mailbox.work.notified() => {}
                () = due => {}
            }
        }
    }

    /// Waits until the broker task has been round once more; for ever once it has ended.
    pub(crate) async fn pulse(&self) {
        let round = self.pulse.notified();
        self.mailbox.work.notify_one();
        round.await;
    }

    fn catch_up(self: &Arc<Self>) -> Option<Instant> {
        let words = self.mailbox.take();
        let entered = !words.is_empty();
        let mut locked = self.lock();
        let now = Instant::now();
        for word in words {
            enter(&mut locked.core, word, now);
        }
        locked.core.handle_timeout(now);
        self.drain(&mut locked, None, now);
        locked.armed = locked.poll_timeout();
        if entered {
            self.settled.notify_one();
        }
        locked.armed
    }

    /// After a burst: gives the system what it left free, on a thread that may take its time.
    async fn give_back(&self) {
        if self.lock().ebb.is_due(Instant::now()) {
            // A bug in there would have ended the process.
            let _done = tokio::task::spawn_blocking(heap::trim).await;
        }
    }

    /// Puts the last changes on disk.
    pub(crate) async fn close_store(&self) {
        let Some(store) = self.store.clone() else {
            return;
        };
        if let Some(changes) = self.lock().core.take_changes() {
            store.submit(changes);
        }
        let closed = tokio::task::spawn_blocking(move || store.close());
        let _late = timeout(STOP_PATIENCE, closed).await;
    }

    pub(crate) async fn acknowledgements_left(&self) {
        while self.lock().core.awaits_receipts() {
            self.settled.notified().await;
        }
    }

    pub(crate) fn close_connections(self: &Arc<Self>) {
        let mut locked = self.lock();
        let now = Instant::now();
        locked
            .core
            .close_all(crate::packet::ReasonCode::ServerShuttingDown, now);
        for call in locked.local_calls.values() {
            call.notify_one();
        }
        locked.local_calls.clear();
        self.drain(&mut locked, None, now);
    }
}

fn enter(core: &mut Core, word: Word, now: Instant) {
    match word {
        Word::Verified(connection, fits) => core.handle_verified(connection, fits, now),
        Word::Kept(ticket, kept) => core.handle_kept(ticket, kept, now),
        Word::Store(Notice::Committed(through)) => core.handle_committed(through, now),
        Word::Store(Notice::Failing(failing)) => core.handle_store_failing(failing),
        Word::Store(Notice::Read(stored)) => core.adopt(*stored, now),
        Word::Store(Notice::Lost) => core.handle_store_lost(),
    }
}

/// Reads what the core needs of the configuration, passwords from their files; `chance` is the
/// same each time.
pub(crate) fn rules(config: &Config, chance: Key) -> Result<Rules, StartError> {
    check_patterns(config)?;
    Ok(Rules {
        limits: config.limits.clone(),
        protocol: config.protocol.clone(),
        access: config.access.clone(),
        sys_interval: config.sys_interval().as_duration(),
        logins: credentials::read(config, chance)?,
    })
}

fn check_patterns(config: &Config) -> Result<(), StartError> {
    for (number, rule) in (1..).zip(&config.access) {
        for pattern in rule.publish.iter().chain(&rule.subscribe) {
            pattern.check().map_err(|error| StartError::Pattern {
                rule: number,
                pattern: pattern.0.clone(),
                reason: error.to_string(),
            })?;
        }
    }
    Ok(())
}

/// Differs at each start, so that identifiers we assign do not meet sessions of an earlier run.
fn assigned_prefix() -> String {
    format!(
        "auto-{:012x}",
        RandomState::new().hash_one(Instant::now()) >> 16
    )
}
