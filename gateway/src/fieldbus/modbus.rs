//! Drives one Modbus bus: one task, one wire, one transaction at a time. Driver.
//!
//! Invariant: after a time-out or a strange answer nothing is sent before the wire is known to
//! hold no late answer: a serial line is drained to silence, a TCP connection is made anew.
#![expect(clippy::disallowed_methods, reason = "driver: owns the clock")]

mod adhoc;
mod call;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{broadcast, mpsc},
    time::{sleep, sleep_until, timeout},
};
use tokio_modbus::client::{Client, Context, rtu, tcp};
use tokio_modbus::slave::{Slave, SlaveContext};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    clock,
    config::{Bus, Device, Framing},
};

use crate::fieldbus::{
    Command, Event,
    poll::schedule::{AdhocOutcome, COMMANDS_MAX, Input, Notice, Output, Schedule, TransactionId},
    transaction::{Reply, Request, Transaction},
    wire::{
        line_rate::LineRate,
        tap::Tap,
        {Wire, WireError},
    },
};

use adhoc::{Asked, Asker};

pub use crate::fieldbus::{
    poll::schedule::{BusStatus, DeviceStatus},
    wire::tap::{Traced, What},
};

/// First pause before a port or a connection is tried again.
const REOPEN_FIRST: Duration = Duration::from_millis(500);
/// Longest pause before that.
const REOPEN_MAX: Duration = Duration::from_secs(30);
/// A wire that lived this long is tried again soon when it breaks.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// Least silence that proves a serial line drained: USB converters hold bytes back for 16 ms.
const FENCE_MIN: Duration = Duration::from_millis(30);
/// How long events that are under way at the end may take to be handed over.
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// A running bus; clones are the same bus.
#[derive(Debug, Clone)]
pub struct BusHandle {
    name: Arc<str>,
    port: Arc<str>,
    commands: mpsc::Sender<Command>,
    asker: Asker,
    schedule: Arc<Mutex<Schedule>>,
    tap: Tap,
    done: CancellationToken,
}

/// Starts the task that owns a bus; needs a tokio runtime. `devices` are those of this bus.
pub fn start(
    bus: Bus,
    devices: Vec<Device>,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) -> BusHandle {
    let now = clock::now();
    let seed = u64::from_ne_bytes(now.wall.as_microsecond().to_ne_bytes());
    let schedule = Schedule::new(&bus, &devices, seed, now);
    let (commands, incoming) = mpsc::channel(COMMANDS_MAX);
    let (asker, asked) = adhoc::channel();
    let handle = BusHandle {
        name: bus.name.as_str().into(),
        port: port(&bus).into(),
        commands,
        asker,
        schedule: Arc::new(Mutex::new(schedule)),
        tap: Tap::new(),
        done: CancellationToken::new(),
    };
    let driver = Driver {
        bus,
        schedule: Arc::clone(&handle.schedule),
        tap: handle.tap.clone(),
        commands: incoming,
        asked,
        events,
        cancel,
        down_because: None,
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
    #[cfg_attr(not(test), expect(dead_code, reason = "for the commissioning tools"))]
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

    /// The state of the bus and its devices.
    pub fn status(&self) -> BusStatus {
        lock(&self.schedule).status(&self.name, &self.port, Instant::now())
    }

    /// What goes over the bus from now on, for whoever looks on. One who is too slow loses the
    /// oldest frames; the bus does not wait.
    pub fn subscribe_trace(&self) -> broadcast::Receiver<Traced> {
        self.tap.subscribe()
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
    commands: mpsc::Receiver<Command>,
    asked: Asked,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
    /// What was last said of a wire that is down.
    down_because: Option<String>,
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
            .run_until_cancelled(Link::open(self.bus.clone(), self.tap.clone()))
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
                        if let Err(end) = self.transact(&mut link, id, &transaction).await {
                            return end;
                        }
                    }
                }
            }
            if self.cancel.is_cancelled() {
                return End::Stopped;
            }
            self.idle().await;
        }
    }

    async fn transact(
        &mut self,
        link: &mut Link,
        id: TransactionId,
        transaction: &Transaction,
    ) -> Result<(), End> {
        if self.cancel.is_cancelled() {
            return Err(End::Stopped);
        }
        let reply = match transaction.request {
            // A read may be dropped half-way; a write is followed to its end.
            Request::Read(_) => {
                let reply = link.transact(transaction);
                self.cancel.run_until_cancelled(reply).await
            }
            _ => Some(link.transact(transaction).await),
        };
        match reply {
            None => Err(End::Stopped),
            Some(Err(error)) => Err(End::Broken(error)),
            Some(Ok(reply)) => {
                let stamp = clock::now();
                // Commands that came meanwhile take part in what is sent next.
                self.take_commands();
                lock(&self.schedule).handle_input(Input::Reply { id, reply }, stamp);
                Ok(())
            }
        }
    }

    /// Waits for a command or the next deadline.
    async fn idle(&mut self) {
        let (deadline, takes_commands) = {
            let schedule = lock(&self.schedule);
            (schedule.poll_timeout(), schedule.takes_commands())
        };
        tokio::select! {
            () = self.cancel.cancelled() => {}
            Some(command) = self.commands.recv(), if takes_commands => {
                self.input(Input::Command(command));
            }
            adhoc = self.asked.next() => self.input(Input::Adhoc(adhoc)),
            () = until(deadline) => lock(&self.schedule).handle_timeout(clock::now()),
        }
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

/// A wire with the Modbus framing on it.
struct Link {
    bus: Bus,
    tap: Tap,
    wire: Wire,
    context: Option<Context>,
    /// `None` over MBAP, where neither silence nor draining matters.
    line: Option<LineRate>,
    silent_since: Instant,
}

impl Link {
    async fn open(bus: Bus, tap: Tap) -> Result<Link, WireError> {
        let mbap = bus.port.is_none() && bus.framing != Some(Framing::Rtu);
        Ok(Link {
            wire: Wire::open(&bus, &tap).await?,
            tap,
            context: None,
            line: (!mbap).then(|| LineRate::of(&bus)),
            silent_since: Instant::now(),
            bus,
        })
    }

    /// Sends a request and waits for what comes of it. Fails when the wire is broken.
    async fn transact(&mut self, transaction: &Transaction) -> Result<Reply, WireError> {
        self.make_clear().await?;
        let context = match &mut self.context {
            Some(context) => context,
            none => none.insert(attach(&self.wire, self.line.is_none())),
        };
        context.set_slave(Slave(transaction.unit));
        let request = call::request(&transaction.request);
        let called = timeout(transaction.timeout, context.call(request)).await;
        self.silent_since = Instant::now();
        let reply = match called {
            Err(_) => Reply::TimedOut,
            Ok(Ok(result)) => call::reply(&transaction.request, result),
            Ok(Err(error)) => call::failure(error),
        };
        if matches!(reply, Reply::TimedOut | Reply::Garbled(_)) {
            self.fence().await?;
        }
        Ok(reply)
    }

    /// Sees to it that nothing stands in the way of a request: stale bytes, a connection closed
    /// while it was idle, or the silence that ends the frame before.
    async fn make_clear(&mut self) -> Result<(), WireError> {
        if let Some(line) = self.line {
            let silence = line.silence().saturating_sub(self.silent_since.elapsed());
            sleep(silence).await;
        }
        match self.wire.discard().await {
            Ok(0) => Ok(()),
            Ok(bytes) => {
                debug!(bus = %self.bus.name, bytes, "bytes that nobody asked for");
                self.fence().await
            }
            Err(_) if self.bus.port.is_none() => self.reconnect().await,
            Err(error) => Err(error),
        }
    }

    /// Makes sure that no late answer can be taken for the next request's.
    async fn fence(&mut self) -> Result<(), WireError> {
        self.context = None;
        let Some(line) = self.line else {
            return self.reconnect().await;
        };
        let drained = self.wire.drain(line.silence().max(FENCE_MIN)).await;
        self.silent_since = Instant::now();
        match drained {
            Ok(_) => Ok(()),
            Err(WireError::Closed) if self.bus.port.is_none() => self.reconnect().await,
            Err(error) => Err(error),
        }
    }

    async fn reconnect(&mut self) -> Result<(), WireError> {
        self.context = None;
        self.wire = Wire::open(&self.bus, &self.tap).await?;
        Ok(())
    }
}

fn attach(wire: &Wire, mbap: bool) -> Context {
    // The unit is set anew for each request.
    let unit = Slave(0);
    if mbap {
        tcp::attach_slave(wire.clone(), unit)
    } else {
        rtu::attach_slave(wire.clone(), unit)
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
