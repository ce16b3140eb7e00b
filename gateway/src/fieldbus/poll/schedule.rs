//! What goes over one bus next. A core.
//!
//! Commands come first, then the request whose deadline is nearest. When there is more to ask than
//! time, those with long intervals give way: `load`, with the rule in `poll/overload.rs`. A unit that does not answer
//! is asked only when the others leave time for it, or when its turn is overdue.
//!
//! On a serial line one transaction is under way at a time; a Modbus TCP device may take several
//! (`pipeline`). Transactions that tools ask for share the bus by slack: `adhoc`.
//!
//! Invariant: no more transactions are under way than the bus takes, never two of one poll, one
//! command's at most, and no write is sent twice.

mod adhoc;
mod choice;
mod load;
mod notice;
mod replies;
mod slack;
mod status;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config,
    reading::{Reading, Stamp},
};

use crate::fieldbus::{
    Command, CommandResult, DeviceState, Event, Outcome,
    poll::{
        device::{Device, PollId},
        health::Health,
        jitter::Jitter,
        memory::{Memories, Memory},
        plan::Cost,
        write::{self, Checked, Refusal, Write},
    },
    transaction::{Reply, Span, Transaction},
};

use adhoc::AdhocQueue;
pub(crate) use adhoc::{ADHOC_MAX, Adhoc, AdhocId, AdhocOutcome};
pub use load::Late;
use load::Load;
pub(crate) use notice::Notice;
use status::Counters;
pub use status::{BusStatus, DeviceStatus};

/// Commands that wait at most; a person or a controller that sends more does not see results.
pub(crate) const COMMANDS_MAX: usize = 64;
/// Causes told of the wire until a device answers again: what broke it, and what keeps it from
/// coming back. Two that alternate with each attempt are not told for ever.
const WIRE_CAUSES_MAX: u32 = 2;
/// The number of a transaction under way; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TransactionId(u64);

/// Why a bus is down before its wire was opened for the first time.
pub(crate) const NOT_OPENED: &str = "not opened yet";
/// What the world tells the schedule.
#[derive(Debug)]
pub(crate) enum Input {
    /// The wire can be used.
    WireUp,
    /// It cannot, and why. What was under way is lost.
    WireDown(String),
    /// What came of a transaction under way.
    Reply { id: TransactionId, reply: Reply },
    /// The same of one that cost the connection, which is made anew: whatever else was under way
    /// is lost with it. Reads are asked again, a write has failed.
    Severed { id: TransactionId, reply: Reply },
    /// Bytes came that nobody asked for: a late answer, perhaps.
    Stray,
    /// A value to be written.
    Command(Command),
    /// A request of a tool; see [`adhoc`].
    Adhoc(Adhoc),
    /// No more transactions: what waits is refused.
    Stop,
}

/// What the schedule asks of the world.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send a request and tell what comes of it.
    Transmit {
        id: TransactionId,
        transaction: Transaction,
    },
    /// What became of a tool's request.
    Adhoc { id: AdhocId, outcome: AdhocOutcome },
    /// Tell the appliance.
    Event(Event),
    /// Tell the log.
    Notice(Notice),
}

/// The schedule of one bus.
#[derive(Debug)]
pub(crate) struct Schedule {
    response_timeout: Duration,
    cost: Cost,
    devices: Vec<Device>,
    wire: Wire,
    /// Causes told of the wire since a device last answered.
    wire_causes: u32,
    /// Transactions that the bus takes at once.
    window: usize,
    under_way: Vec<UnderWay>,
    transactions: u64,
    /// The first is the one being executed.
    writes: VecDeque<Write>,
    adhoc: AdhocQueue,
    load: Load,
    outputs: VecDeque<Output>,
    jitter: Jitter,
    counters: Counters,
    /// The device that last did not answer and was not waited for as long as configured.
    shortened: Option<usize>,
    /// Not before then does an overdue unit that may not answer go before the others.
    unanswering_at: Instant,
    /// The silence after the last answer ends then.
    silent_at: Instant,
    /// When it was last decided what to send next.
    decided_at: Instant,
}

#[derive(Debug)]
enum Wire {
    Up,
    Down(String),
}

#[derive(Debug)]
struct UnderWay {
    id: TransactionId,
    /// Index of the configured device, if the unit is one.
    device: Option<usize>,
    purpose: Purpose,
    /// The unit may not answer.
    doubtful: bool,
    /// It went before others although there was no slack.
    overdue: bool,
    read: Option<Span>,
    sent: Instant,
    /// How long the unit may take for itself.
    patience: Duration,
    /// From when its answer can be timed; `None`: others are under way, which it may have to wait for.
    timed_from: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// This poll of its device.
    Poll(PollId),
    /// Is the unit back?
    Probe,
    /// Does the parked point with this index answer again?
    Recheck(usize),
    /// The first of `writes`.
    Write,
    /// Is the unit back, for which the first of `writes` is?
    Knock,
    /// The first of `adhoc`.
    Adhoc,
}

impl Schedule {
    /// The schedule of a bus whose wire is not up yet; `seed` spreads the probes.
    pub(crate) fn new(
        bus: &config::Bus,
        devices: &[config::Device],
        seed: u64,
        now: Stamp,
    ) -> Schedule {
        let cost = Cost::of(bus);
        let device = |device| Device::new(device, cost, now.monotonic);
        Schedule {
            response_timeout: bus.response_timeout.as_duration(),
            cost,
            devices: devices.iter().map(device).collect(),
            wire: Wire::Down(NOT_OPENED.to_owned()),
            wire_causes: 0,
            window: bus.window(),
            under_way: Vec::new(),
            transactions: 0,
            writes: VecDeque::new(),
            adhoc: AdhocQueue::new(now.monotonic),
            load: Load::new(now.monotonic),
            outputs: VecDeque::new(),
            jitter: Jitter::new(seed),
            counters: Counters::new(now),
            shortened: None,
            unanswering_at: now.monotonic,
            silent_at: now.monotonic,
            decided_at: now.monotonic,
        }
    }

    /// Plans with what devices taught before a restart.
    pub(crate) fn recall(&mut self, memories: &Memories, now: Instant) {
        for device in &mut self.devices {
            if let Some(memory) = memories.get(&*device.name) {
                device.recall(memory, now);
            }
        }
    }

    /// Plans as if a device had taught nothing yet; `false` where there is no such device.
    pub(crate) fn forget(&mut self, device: &str, now: Instant) -> bool {
        let mut devices = self.devices.iter_mut();
        let found = devices.find(|one| &*one.name == device);
        found.map(|device| device.forget(now)).is_some()
    }

    /// What each device has taught so far.
    pub(crate) fn memories(&self) -> impl Iterator<Item = (String, Memory)> {
        let memories = self.devices.iter().map(Device::memory);
        let names = self.devices.iter().map(|device| device.name.to_string());
        names.zip(memories).filter(|(_, memory)| !memory.is_empty())
    }

    /// Takes what happened at `now`.
    pub(crate) fn handle_input(&mut self, input: Input, now: Stamp) {
        match input {
            Input::WireUp => self.wire_up(now),
            Input::WireDown(reason) => self.wire_down(reason, now),
            Input::Reply { id, reply } => self.replied(id, reply, now),
            Input::Severed { id, reply } => self.severed(id, reply, now),
            Input::Stray => self.heard_late(),
            Input::Command(command) => self.command(command, now),
            Input::Adhoc(adhoc) => self.ask(adhoc),
            Input::Stop => self.stop(now),
        }
        self.handle_timeout(now);
    }

    /// Starts what has become due, and tells what has become old; early and repeated calls do
    /// nothing.
    pub(crate) fn handle_timeout(&mut self, now: Stamp) {
        self.tell_stale(now);
        self.watch_load(now.monotonic);
        self.start_next(now);
    }

    /// The next thing to do; drain until `None`.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Schedule::handle_timeout`] has something to do; `None` while the bus takes no
    /// more transactions: the end of one under way is soon enough.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.under_way.len() >= self.window {
            return None;
        }
        let stale = self.devices.iter().filter_map(|device| device.stale_at);
        if !self.is_up() {
            return stale.min();
        }
        let write = self.writes.front().and_then(Write::ready_at);
        let devices = self.devices.iter().flat_map(choice::wake_times);
        let all = devices
            .chain(write)
            .chain(stale)
            .chain(self.adhoc.wake_times())
            .chain([self.unanswering_at]);
        // What was due at the last decision and not sent waits for one of the others.
        all.filter(|at| *at > self.decided_at).min()
    }

    /// Whether another command can be taken.
    pub(crate) fn takes_commands(&self) -> bool {
        self.writes.len() < COMMANDS_MAX
    }

    /// The state of the bus and its devices.
    pub(crate) fn status(&self, bus: &str, port: &str, now: Instant) -> BusStatus {
        let down = match &self.wire {
            Wire::Up => None,
            Wire::Down(reason) => Some(reason.clone()),
        };
        BusStatus {
            name: bus.to_owned(),
            port: port.to_owned(),
            down,
            since: self.counters.since,
            requests: self.counters.requests,
            time_outs: self.counters.time_outs,
            exceptions: self.counters.exceptions,
            garbled: self.counters.garbled,
            echo: None,
            stray_bytes: 0,
            load: self.booked(),
            late: self.late(),
            utilisation: self.counters.utilisation(now),
            devices: self.devices.iter().map(DeviceStatus::of).collect(),
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.wire, Wire::Up)
    }

    fn wire_up(&mut self, now: Stamp) {
        if self.is_up() {
            return;
        }
        self.wire = Wire::Up;
        self.counters.since = now;
        self.load.rested_at = now.monotonic;
        for device in &mut self.devices {
            device.health = Health::Unproven;
            device.recheck_parked(now.monotonic);
        }
    }

    fn wire_down(&mut self, reason: String, now: Stamp) {
        if self.is_up() {
            self.counters.since = now;
        }
        self.end_all(&reason, now);
        let changed = !matches!(&self.wire, Wire::Down(before) if *before == reason);
        if changed && self.wire_causes < WIRE_CAUSES_MAX {
            self.wire_causes += 1;
            self.tell_all_offline(&reason, now);
        }
        self.wire = Wire::Down(reason);
    }

    fn tell_all_offline(&mut self, reason: &str, now: Stamp) {
        for index in 0..self.devices.len() {
            let reason = reason.to_owned();
            self.tell(index, DeviceState::Offline { reason }, now);
        }
    }

    fn stop(&mut self, now: Stamp) {
        let reason = "the bus is being stopped".to_owned();
        self.end_all(&reason, now);
        self.wire = Wire::Down(reason);
    }

    /// Ends every command and every tool's request: those not sent are refused, one under way has
    /// failed.
    fn end_all(&mut self, reason: &str, now: Stamp) {
        let under_way = std::mem::take(&mut self.under_way);
        let mut sent = under_way.iter().any(|one| one.purpose == Purpose::Write);
        self.end_adhoc(reason);
        while let Some(write) = self.writes.pop_front() {
            let outcome = write.lost(reason, sent);
            self.result(write.command, outcome, now);
            sent = false;
        }
    }

    fn command(&mut self, command: Command, now: Stamp) {
        match self.check(&command) {
            Ok((device, checked)) => {
                let write = Write::new(command, device, checked);
                self.writes.push_back(write);
            }
            Err(refusal) => self.refuse(command, &refusal, now),
        }
    }

    fn check(&self, command: &Command) -> Result<(usize, Checked), Refusal> {
        if let Wire::Down(reason) = &self.wire {
            return Err(Refusal::WireDown(reason.clone()));
        }
        if !self.takes_commands() {
            return Err(Refusal::QueueFull(COMMANDS_MAX));
        }
        let mut devices = self.devices.iter().enumerate();
        let found = devices.find(|(_, device)| device.name == command.device);
        let (index, device) = found.ok_or_else(|| Refusal::Device(command.device.to_string()))?;
        Ok((index, write::check(command, device)?))
    }

    fn finish_write(&mut self, outcome: Outcome, now: Stamp) {
        if let Some(write) = self.writes.pop_front() {
            self.result(write.command, outcome, now);
        }
    }

    fn refuse(&mut self, command: Command, refusal: &Refusal, now: Stamp) {
        self.result(command, Outcome::Refused(refusal.to_string()), now);
    }

    fn result(&mut self, command: Command, outcome: Outcome, stamp: Stamp) {
        let result = CommandResult {
            command,
            outcome,
            stamp,
        };
        self.event(Event::Result(result));
    }

    /// Tells once of values that no newer one has followed for too long.
    fn tell_stale(&mut self, now: Stamp) {
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            let why = match (&self.wire, &device.told) {
                (Wire::Down(reason), _) => Some(reason.clone()),
                (Wire::Up, Some((DeviceState::Offline { reason }, _))) => Some(reason.clone()),
                (Wire::Up, _) => None,
            };
            let readings = device.stale_readings(why.as_deref(), now.monotonic);
            self.publish(readings);
        }
    }

    fn publish(&mut self, readings: Vec<Reading>) {
        if !readings.is_empty() {
            self.event(Event::Readings(readings));
        }
    }

    fn tell(&mut self, index: usize, state: DeviceState, stamp: Stamp) {
        let device = &mut self.devices[index];
        if device.told.as_ref().is_some_and(|(told, _)| *told == state) {
            return;
        }
        device.told = Some((state.clone(), stamp));
        if state == DeviceState::Online {
            self.wire_causes = 0;
        }
        let device = Arc::clone(&device.name);
        self.event(Event::Device {
            device,
            state,
            stamp,
        });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

#[cfg(test)]
mod tests;
