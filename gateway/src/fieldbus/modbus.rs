//! Drives one Modbus bus: one task, one wire, and between them the schedule. Driver.
//!
//! Invariant: a write that was sent is followed to its end, even when the bus is to stop.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

mod adhoc;
mod call;
mod codec;
mod echo;
mod link;
mod mbap;
pub(crate) mod rtu;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{broadcast, mpsc},
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    clock,
    config::{Bus, Device},
};

use crate::fieldbus::{
    Command, Event,
    poll::memory::Memories,
    poll::schedule::{AdhocOutcome, COMMANDS_MAX, Input, Notice, Output, Schedule, TransactionId},
    transaction::{Request, Transaction},
    wire::{WireError, tap::Tap},
};

use adhoc::{Asked, Asker};
use link::{Findings, Link, NOISE};

pub use crate::fieldbus::{
    poll::schedule::{BusStatus, DeviceStatus, Late},
    wire::tap::{Traced, What},
};

/// First pause before a port or a connection is tried again.
const REOPEN_FIRST: Duration = Duration::from_millis(500);
/// Longest pause before that.
const REOPEN_MAX: Duration = Duration::from_secs(30);
/// A wire that lived this long is tried again soon when it breaks.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// How long events that are under way at the end may take to be handed over.
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// A running bus; clones are the same bus.
#[derive(Debug, Clone)]
pub struct BusHandle {
    name: Arc<str>,
    port: Arc<str>,
    commands: mpsc::Sender<Command>,
    asker: Asker,
    response_timeout: Duration,
    schedule: Arc<Mutex<Schedule>>,
    tap: Tap,
    findings: Arc<Findings>,
    done: CancellationToken,
}

/// Starts the task that owns a bus; needs a tokio runtime. `devices` are those of this bus,
/// `learned` what they are remembered to have taught.
pub(crate) fn start(
    bus: Bus,
    devices: Vec<Device>,
    learned: &Memories,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) -> BusHandle {
    let now = clock::now();
    let seed = u64::from_ne_bytes(now.wall.as_microsecond().to_ne_bytes());
    let mut schedule = Schedule::new(&bus, &devices, seed, now);
    schedule.recall(learned, now.monotonic);
    let (commands, incoming) = mpsc::channel(COMMANDS_MAX);
    let (asker, asked) = adhoc::channel();
    let handle = BusHandle {
        name: bus.name.as_str().into(),
        port: port(&bus).into(),
        commands,
        asker,
        response_timeout: bus.response_timeout.as_duration(),
        schedule: Arc::new(Mutex::new(schedule)),
        tap: Tap::new(),
        findings: Arc::default(),
        done: CancellationToken::new(),
    };
    let driver = Driver {
        bus,
        schedule: Arc::clone(&handle.schedule),
        tap: handle.tap.clone(),
        findings: Arc::clone(&handle.findings),
        commands: incoming,
        asked,
        events,
        cancel,
        down_because: None,
        strays: 0,
    };
    let done = handle.done.clone().drop_guard();
    tokio::spawn(async move {
        driver.run().await;
        drop(done);
    });
    handle
}

impl BusHandle {
    /// Hands a command to the bus; its result comes as an event.
    ///
    /// # Errors
    /// Gives the command back when too many wait already, or the bus has stopped.
    #[expect(clippy::result_large_err, reason = "the command itself is given back")]
    pub fn command(&self, command: Command) -> Result<(), Command> {
        self.commands
            .try_send(command)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(command)
                | mpsc::error::TrySendError::Closed(command) => command,
            })
    }

    /// Sends a tool's request once, when that harms no poll or its share of the bus is free, and
    /// waits for what comes of it; `None`: the bus has stopped. It is refused when it could not be
    /// sent within `patience`.
    pub(crate) async fn ask(
        &self,
        unit: u8,
        request: Request,
        response_timeout: Duration,
        patience: Duration,
    ) -> Option<AdhocOutcome> {
        let send_by = Instant::now() + patience;
        self.asker
            .ask(unit, request, response_timeout, send_by)
            .await
    }

    /// How long its devices may take to answer.
    pub(crate) fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The state of the bus and its devices.
    pub fn status(&self) -> BusStatus {
        BusStatus {
            echo: self.findings.echo(),
            stray_bytes: self.findings.stray_bytes(),
            ..lock(&self.schedule).status(&self.name, &self.port, Instant::now())
        }
    }

    /// What goes over the bus from now on, for whoever looks on. One who is too slow loses the
    /// oldest frames; the bus does not wait.
    pub fn subscribe_trace(&self) -> broadcast::Receiver<Traced> {
        self.tap.subscribe()
    }

    /// What its devices have taught so far.
    pub(crate) fn memories(&self) -> Memories {
        lock(&self.schedule).memories().collect()
    }

    /// Plans as if a device had taught nothing yet; `false` where it is not on this bus.
    pub(crate) fn forget(&self, device: &str) -> bool {
        lock(&self.schedule).forget(device, Instant::now())
    }

    /// Whether the bus' task still runs.
    pub fn is_running(&self) -> bool {
        !self.done.is_cancelled()
    }

    /// Waits until the bus' task has ended and its port is closed.
    pub async fn stopped(&self) {
        self.done.cancelled().await;
    }
}

struct Driver {
    bus: Bus,
    schedule: Arc<Mutex<Schedule>>,
    tap: Tap,
    findings: Arc<Findings>,
    commands: mpsc::Receiver<Command>,
    asked: Asked,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
    /// What was last said of a wire that is down.
    down_because: Option<String>,
    /// Bytes that were part of no answer, when it was last looked at.
    strays: u64,
}

/// Why a wire is no longer served.
enum End {
    Stopped,
    Broken(WireError),
}

impl Driver {
    async fn run(mut self) {
        let mut pause = REOPEN_FIRST;
        while let Some(opened) = self.open().await {
            let opened_at = Instant::now();
            let error = match opened {
                Err(error) => error,
                Ok(link) => match self.serve(link).await {
                    End::Stopped => break,
                    End::Broken(error) => error,
                },
            };
            if opened_at.elapsed() >= SETTLED_AFTER {
                pause = REOPEN_FIRST;
            }
            self.down(&error);
            self.wait(pause).await;
            pause = (pause * 2).min(REOPEN_MAX);
        }
        self.input(Input::Stop);
        self.commands.close();
        self.asked.close();
        self.take_commands();
        let last = async { while self.forward_event().await {} };
        if timeout(LAST_EVENTS, last).await.is_err() {
            debug!(bus = %self.bus.name, "events left over at the end");
        }
    }

    /// Tells that the wire is down: once, not at each attempt that fails alike.
    fn down(&mut self, error: &WireError) {
        let reason = error.to_string();
        if self.down_because.as_ref() != Some(&reason) {
            warn!(bus = %self.bus.name, reason, "bus is down; trying again for as long as it takes");
        }
        self.down_because = Some(reason.clone());
        self.input(Input::WireDown(reason));
    }

    /// `None` once the bus is to stop.
    async fn open(&self) -> Option<Result<Link, WireError>> {
        self.cancel
            .run_until_cancelled(Link::open(
                self.bus.clone(),
                self.tap.clone(),
                Arc::clone(&self.findings),
            ))
            .await
    }

    async fn serve(&mut self, mut link: Link) -> End {
        info!(bus = %self.bus.name, port = %port(&self.bus), "bus is up");
        self.down_because = None;
        self.input(Input::WireUp);
        loop {
            while let Some(output) = self.output() {
                match output {
                    Output::Event(event) => self.emit(event).await,
                    Output::Notice(notice) => self.log(&notice),
                    Output::Adhoc { id, outcome } => self.asked.answer(id, outcome),
                    Output::Transmit { id, transaction } => {
                        if let Err(end) = self.send(&mut link, id, &transaction).await {
                            return end;
                        }
                    }
                }
            }
            if self.cancel.is_cancelled() && !link.is_writing() {
                return End::Stopped;
            }
            if let Err(error) = self.wait_for_input(&mut link).await {
                return End::Broken(error);
            }
        }
    }

    async fn send(
        &mut self,
        link: &mut Link,
        id: TransactionId,
        transaction: &Transaction,
    ) -> Result<(), End> {
        if self.cancel.is_cancelled() {
            // The write under way is waited for; nothing else leaves.
            return Ok(());
        }
        let writing = link.is_writing();
        let sent = link.send(id, transaction);
        let sent = match transaction.request {
            // A read may be dropped half-way; a write is followed to its end.
            Request::Read(_) if !writing => self.cancel.run_until_cancelled(sent).await,
            _ => Some(sent.await),
        };
        match sent {
            None => Err(End::Stopped),
            Some(sent) => sent.map_err(End::Broken),
        }
    }

    /// Waits for a reply, a command or the next deadline, and takes it.
    async fn wait_for_input(&mut self, link: &mut Link) -> Result<(), WireError> {
        let (deadline, takes_commands) = {
            let schedule = lock(&self.schedule);
            (schedule.poll_timeout(), schedule.takes_commands())
        };
        // Once the bus is to stop, only the write under way is waited for.
        let goes_on = !self.cancel.is_cancelled();
        tokio::select! {
            () = self.cancel.cancelled(), if goes_on => {}
            replied = link.next() => {
                let reply = replied?;
                let stamp = clock::now();
                // Commands that came meanwhile take part in what is sent next.
                self.take_commands();
                if self.strays_came() {
                    self.input(Input::Stray);
                }
                lock(&self.schedule).handle_input(reply, stamp);
            }
            Some(command) = self.commands.recv(), if goes_on && takes_commands => {
                self.input(Input::Command(command));
            }
            adhoc = self.asked.next(), if goes_on => self.input(Input::Adhoc(adhoc)),
            () = until(deadline), if goes_on => lock(&self.schedule).handle_timeout(clock::now()),
        }
        Ok(())
    }

    /// Waits before the wire is tried again; commands are refused meanwhile.
    async fn wait(&mut self, pause: Duration) {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            while self.forward_event().await {}
            let deadline = lock(&self.schedule).poll_timeout();
            tokio::select! {
                () = &mut over => return,
                () = until(deadline) => lock(&self.schedule).handle_timeout(clock::now()),
                () = self.cancel.cancelled() => return,
                Some(command) = self.commands.recv() => self.input(Input::Command(command)),
                adhoc = self.asked.next() => self.input(Input::Adhoc(adhoc)),
            }
        }
    }

    /// Whether as many bytes as a late answer has at least came before the last reply or with it.
    fn strays_came(&mut self) -> bool {
        let before = std::mem::replace(&mut self.strays, self.findings.stray_bytes());
        self.strays - before > NOISE
    }

    fn take_commands(&mut self) {
        while let Some(adhoc) = self.asked.try_next() {
            self.input(Input::Adhoc(adhoc));
        }
        while lock(&self.schedule).takes_commands() {
            match self.commands.try_recv() {
                Ok(command) => self.input(Input::Command(command)),
                Err(_) => return,
            }
        }
    }

    fn input(&self, input: Input) {
        lock(&self.schedule).handle_input(input, clock::now());
    }

    fn output(&self) -> Option<Output> {
        lock(&self.schedule).poll_output()
    }

    /// Hands on one output while no wire is there to transmit on; `false` when there is none.
    async fn forward_event(&mut self) -> bool {
        match self.output() {
            None => return false,
            Some(Output::Event(event)) => self.emit(event).await,
            Some(Output::Notice(notice)) => self.log(&notice),
            Some(Output::Adhoc { id, outcome }) => self.asked.answer(id, outcome),
            Some(Output::Transmit { .. }) => debug!(bus = %self.bus.name, "request dropped"),
        }
        true
    }

    /// Hands an event on. While nobody takes events the bus stands still, but for its end.
    async fn emit(&self, event: Event) {
        let patience = async {
            self.cancel.cancelled().await;
            sleep(LAST_EVENTS).await;
        };
        tokio::select! {
            biased;
            // The receiver is gone only while the appliance stops.
            _sent_or_gone = self.events.send(event) => {}
            () = patience => debug!(bus = %self.bus.name, "nobody took the last events"),
        }
    }

    fn log(&self, notice: &Notice) {
        if notice.is_warning() {
            warn!(bus = %self.bus.name, "{notice}");
        } else {
            info!(bus = %self.bus.name, "{notice}");
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn port(bus: &Bus) -> String {
    match (&bus.port, &bus.tcp) {
        (Some(port), _) => port.display().to_string(),
        (None, Some(address)) => address.clone(),
        (None, None) => String::new(),
    }
}

fn lock(schedule: &Mutex<Schedule>) -> MutexGuard<'_, Schedule> {
    schedule.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
