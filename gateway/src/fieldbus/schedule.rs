//! What goes over one bus next. A core.
//!
//! Commands come first, then the request whose deadline is nearest. A unit that does not answer
//! is asked only when the others leave time for it, or when its turn is overdue.
//!
//! Invariant: one transaction is under way at a time, and no write is sent twice.

mod notice;
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

use super::{
    Command, CommandResult, DeviceState, Event, Outcome,
    device::{Device, Lesson, Poll},
    health::Health,
    jitter::Jitter,
    plan::{self, Cost},
    transaction::{Exception, Reply, Request, Span, Transaction},
    write::{self, Checked, Refusal, Write},
};

pub(crate) use notice::Notice;
use status::Counters;
pub use status::{BusStatus, DeviceStatus};

/// Commands that wait at most; a person or a controller that sends more does not see results.
pub(crate) const COMMANDS_MAX: usize = 64;
/// Units that may not answer get one part in so many of a bus whose other requests leave no time
/// for them: they come back after an outage, and the others hardly notice.
const SHARE_OF_UNANSWERING: u32 = 10;
/// Answers in time after which a request that was late counts as punctual again.
const PUNCTUAL_AFTER: u32 = 10;

/// What the world tells the schedule.
#[derive(Debug)]
pub(crate) enum Input {
    /// The wire can be used.
    WireUp,
    /// It cannot, and why. What was under way is lost.
    WireDown(String),
    /// What came of the transaction under way.
    Reply(Reply),
    /// A value to be written.
    Command(Command),
    /// No more transactions: what waits is refused.
    Stop,
}

/// What the schedule asks of the world.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send a request and tell what comes of it.
    Transmit(Transaction),
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
    under_way: Option<UnderWay>,
    /// The first is the one being executed.
    writes: VecDeque<Write>,
    outputs: VecDeque<Output>,
    jitter: Jitter,
    counters: Counters,
    /// Not before then does an overdue unit that may not answer go before the others.
    unanswering_at: Instant,
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
    device: usize,
    purpose: Purpose,
    read: Option<Span>,
    sent: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The poll with this index in its device.
    Poll(usize),
    /// Is the unit back?
    Probe,
    /// Does the parked point with this index answer again?
    Recheck(usize),
    /// The first of `writes`.
    Write,
}

/// A unit that may not answer.
#[derive(Debug)]
struct Waiting {
    device: usize,
    purpose: Purpose,
    since: Instant,
    overdue_at: Instant,
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
            wire: Wire::Down("not opened yet".to_owned()),
            under_way: None,
            writes: VecDeque::new(),
            outputs: VecDeque::new(),
            jitter: Jitter::new(seed),
            counters: Counters::new(now),
            unanswering_at: now.monotonic,
            decided_at: now.monotonic,
        }
    }

    /// Takes what happened at `now`.
    pub(crate) fn handle_input(&mut self, input: Input, now: Stamp) {
        match input {
            Input::WireUp => self.wire_up(now),
            Input::WireDown(reason) => self.wire_down(reason, now),
            Input::Reply(reply) => self.replied(reply, now),
            Input::Command(command) => self.command(command, now),
            Input::Stop => self.stop(now),
        }
        self.start_next(now);
    }

    /// Starts what has become due; early and repeated calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Stamp) {
        self.start_next(now);
    }

    /// The next thing to do; drain until `None`.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Schedule::handle_timeout`] has something to do; `None` while a transaction is under
    /// way or the wire is down.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.under_way.is_some() || !self.is_up() {
            return None;
        }
        let write = self.writes.front().and_then(Write::ready_at);
        let devices = self.devices.iter().flat_map(wake_times);
        let all = devices.chain(write).chain([self.unanswering_at]);
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
        let polls = self.devices.iter().flat_map(|device| &device.polls);
        BusStatus {
            name: bus.to_owned(),
            port: port.to_owned(),
            down,
            since: self.counters.since,
            requests: self.counters.requests,
            time_outs: self.counters.time_outs,
            exceptions: self.counters.exceptions,
            garbled: self.counters.garbled,
            load: plan::load(polls.map(|poll| &poll.planned)),
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
        for device in &mut self.devices {
            device.health = Health::Unproven;
        }
    }

    fn wire_down(&mut self, reason: String, now: Stamp) {
        if self.is_up() {
            self.counters.since = now;
        }
        if let Some(lost) = self.under_way.take()
            && lost.purpose == Purpose::Write
        {
            let failure = format!("{reason}; it may or may not have been executed");
            self.finish_write(Outcome::Failed(failure), now);
        }
        self.refuse_waiting(&reason, now);
        for index in 0..self.devices.len() {
            let reason = reason.clone();
            self.tell(index, DeviceState::Offline { reason }, now);
        }
        self.wire = Wire::Down(reason);
    }

    fn stop(&mut self, now: Stamp) {
        let reason = "the bus is being stopped".to_owned();
        self.refuse_waiting(&reason, now);
        self.wire = Wire::Down(reason);
    }

    fn refuse_waiting(&mut self, reason: &str, now: Stamp) {
        while let Some(write) = self.writes.pop_front() {
            let refusal = Refusal::WireDown(reason.to_owned());
            self.refuse(write.command, &refusal, now);
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

    // --- what came of the transaction under way ---

    fn replied(&mut self, reply: Reply, now: Stamp) {
        let Some(under_way) = self.under_way.take() else {
            return;
        };
        self.counters.replied(&reply, under_way.sent, now.monotonic);
        let device = &mut self.devices[under_way.device];
        if !device.health.is_online() {
            // What was not read while the unit did not answer is no fault of the bus' load.
            device.restart(under_way.sent);
        }
        self.note_health(&under_way, &reply, now);
        match under_way.purpose {
            Purpose::Poll(poll) => self.polled(under_way.device, poll, &reply, now),
            Purpose::Probe => {}
            Purpose::Recheck(point) => self.rechecked(under_way.device, point, reply, now),
            Purpose::Write => self.wrote(under_way.device, &reply, now),
        }
    }

    fn note_health(&mut self, under_way: &UnderWay, reply: &Reply, now: Stamp) {
        let Some(device) = self.devices.get_mut(under_way.device) else {
            return;
        };
        if let Some(reason) = silence(reply, self.response_timeout) {
            device.health.failed(
                under_way.read,
                self.response_timeout,
                &mut self.jitter,
                now.monotonic,
            );
            if device.health.is_offline() {
                self.tell(under_way.device, DeviceState::Offline { reason }, now);
            }
            return;
        }
        device.health.answered();
        self.tell(under_way.device, DeviceState::Online, now);
    }

    fn polled(&mut self, index: usize, poll: usize, reply: &Reply, now: Stamp) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        let Some(planned) = device.polls.get(poll).map(|poll| poll.planned.clone()) else {
            return;
        };
        let readings = match reply {
            Reply::Answer(answer) => device.readings(&planned.points, planned.span, answer, now),
            Reply::Exception(exception) if !exception.means_silence() => {
                self.excepted(index, poll, *exception, now);
                return;
            }
            Reply::Exception(_) | Reply::TimedOut | Reply::Garbled(_) => return,
        };
        let notice = punctuality(device, poll, now.monotonic);
        self.outputs.extend(notice.map(Output::Notice));
        self.publish(readings);
    }

    fn excepted(&mut self, index: usize, poll: usize, exception: Exception, now: Stamp) {
        let device = &mut self.devices[index];
        device.polls[poll].advance(now.monotonic);
        let planned = device.polls[poll].planned.clone();
        let lesson = device.learn(&planned, exception, now.monotonic);
        let notice = Notice::Exception {
            device: Arc::clone(&device.name),
            unit: device.unit,
            span: planned.span,
            exception,
            lesson: lesson.clone(),
        };
        let bad = match &lesson {
            Lesson::Split => Vec::new(),
            Lesson::Parked(points, _) => device.bad_readings(points, now),
            Lesson::Passing => device.bad_readings(&planned.points, now),
        };
        // What passes is told once, with the readings that it spoils.
        if lesson != Lesson::Passing || !bad.is_empty() {
            self.outputs.push_back(Output::Notice(notice));
        }
        self.publish(bad);
    }

    fn rechecked(&mut self, index: usize, point: usize, reply: Reply, now: Stamp) {
        let device = &mut self.devices[index];
        match reply {
            Reply::Answer(answer) => {
                let span = device.points[point].span;
                let readings = device.readings(&[point], span, &answer, now);
                device.unpark(point, now.monotonic);
                let notice = Notice::Unparked {
                    device: Arc::clone(&device.name),
                    point: Arc::clone(&device.points[point].name),
                };
                self.outputs.push_back(Output::Notice(notice));
                self.publish(readings);
            }
            Reply::Exception(exception) if !exception.means_silence() => {
                device.park(&[point], now.monotonic);
            }
            Reply::Exception(_) | Reply::TimedOut | Reply::Garbled(_) => {}
        }
    }

    fn wrote(&mut self, index: usize, reply: &Reply, now: Stamp) {
        let Some(write) = self.writes.front_mut() else {
            return;
        };
        let mut points = self.devices[index].points.iter();
        let point = points.find(|point| point.name == write.command.point);
        if let Some(outcome) = write.replied(reply, point, now.monotonic) {
            self.finish_write(outcome, now);
        }
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

    // --- what to send next ---

    fn start_next(&mut self, now: Stamp) {
        if self.under_way.is_some() || !self.is_up() {
            return;
        }
        self.refuse_expired(now);
        let now = now.monotonic;
        self.decided_at = now;
        let next = self
            .write_due(now)
            .or_else(|| self.unanswering_overdue(now))
            .or_else(|| self.poll_due(now))
            .or_else(|| self.unanswering_with_slack(now));
        if let Some((device, purpose)) = next {
            self.transmit(device, purpose, now);
        }
    }

    fn refuse_expired(&mut self, now: Stamp) {
        while let Some(refusal) = self
            .writes
            .front()
            .and_then(|write| write.expired(now.monotonic))
        {
            if let Some(write) = self.writes.pop_front() {
                self.refuse(write.command, &refusal, now);
            }
        }
    }

    fn write_due(&self, now: Instant) -> Option<(usize, Purpose)> {
        let write = self.writes.front()?;
        let ready = write.ready_at().is_none_or(|at| at <= now);
        ready.then_some((write.device, Purpose::Write))
    }

    /// A unit that may not answer and has waited for too long.
    fn unanswering_overdue(&mut self, now: Instant) -> Option<(usize, Purpose)> {
        if now < self.unanswering_at {
            return None;
        }
        let waiting = self.unanswering(now);
        let overdue = waiting.filter(|waiting| waiting.overdue_at <= now);
        let first = overdue.min_by_key(|waiting| waiting.overdue_at)?;
        let next = (first.device, first.purpose);
        self.unanswering_at = now + self.response_timeout * SHARE_OF_UNANSWERING;
        Some(next)
    }

    /// The poll or recheck of an answering unit whose deadline is nearest.
    fn poll_due(&self, now: Instant) -> Option<(usize, Purpose)> {
        let online = |(_, device): &(usize, &Device)| device.health.is_online();
        let due = |(index, device): (usize, &Device)| {
            let (deadline, purpose) = nearest(device, now)?;
            Some((deadline, index, purpose))
        };
        let devices = self.devices.iter().enumerate().filter(online);
        let first = devices
            .filter_map(due)
            .min_by_key(|(deadline, ..)| *deadline);
        first.map(|(_, index, purpose)| (index, purpose))
    }

    /// A unit that may not answer, if the others can wait that long.
    fn unanswering_with_slack(&self, now: Instant) -> Option<(usize, Purpose)> {
        let waiting = self.unanswering(now);
        let first = waiting.min_by_key(|waiting| waiting.since)?;
        let next = (first.device, first.purpose);
        self.has_slack(now).then_some(next)
    }

    /// Units that may not answer and that it is time to ask.
    fn unanswering(&self, now: Instant) -> impl Iterator<Item = Waiting> {
        let waiting = move |(index, device): (usize, &Device)| {
            let (since, overdue_at, purpose) = match &device.health {
                Health::Silent(silence) if silence.probe_at <= now => {
                    (silence.probe_at, silence.overdue_at, Purpose::Probe)
                }
                Health::Unproven => {
                    let (deadline, purpose) = nearest(device, now)?;
                    (deadline, deadline, purpose)
                }
                Health::Silent(_) | Health::Online => return None,
            };
            Some(Waiting {
                device: index,
                purpose,
                since,
                overdue_at,
            })
        };
        self.devices.iter().enumerate().filter_map(waiting)
    }

    /// Whether every answering unit keeps its deadlines if the bus is blocked for a response
    /// time-out from now.
    fn has_slack(&self, now: Instant) -> bool {
        let online = self
            .devices
            .iter()
            .filter(|device| device.health.is_online());
        let mut jobs: Vec<(Instant, Duration)> = online
            .flat_map(|device| &device.polls)
            .filter(|poll| poll.due <= now + self.response_timeout)
            .map(|poll| (poll.deadline(), poll.planned.time))
            .collect();
        jobs.sort_unstable();
        let mut free_at = now + self.response_timeout;
        jobs.into_iter().all(|(deadline, time)| {
            free_at += time;
            free_at <= deadline
        })
    }

    fn transmit(&mut self, index: usize, purpose: Purpose, now: Instant) {
        let device = &self.devices[index];
        let request = match purpose {
            Purpose::Poll(poll) => device.polls.get(poll).map(|poll| poll.planned.span),
            Purpose::Recheck(point) => device.points.get(point).map(|point| point.span),
            Purpose::Probe => probe(device),
            Purpose::Write => None,
        };
        let request = match (request, self.writes.front()) {
            (Some(span), _) => Request::Read(span),
            (None, Some(write)) if purpose == Purpose::Write => write.request(),
            (None, _) => return,
        };
        let read = match &request {
            Request::Read(span) => Some(*span),
            _ => None,
        };
        self.counters.sent();
        self.under_way = Some(UnderWay {
            device: index,
            purpose,
            read,
            sent: now,
        });
        self.outputs.push_back(Output::Transmit(Transaction {
            unit: device.unit,
            timeout: self.response_timeout + self.cost.transfer(&request),
            request,
        }));
    }
}

/// Why a reply counts as none, if it does.
fn silence(reply: &Reply, timeout: Duration) -> Option<String> {
    match reply {
        Reply::TimedOut => Some(format!("no answer in {timeout:?}")),
        Reply::Garbled(what) => Some(what.clone()),
        Reply::Exception(exception) if exception.means_silence() => Some(exception.to_string()),
        Reply::Exception(_) | Reply::Answer(_) => None,
    }
}

fn probe(device: &Device) -> Option<Span> {
    let usual = device.usual_span()?;
    match &device.health {
        Health::Silent(silence) => Some(silence.probe(usual)),
        Health::Unproven | Health::Online => Some(usual),
    }
}

/// What is due of a device, with the nearest deadline.
fn nearest(device: &Device, now: Instant) -> Option<(Instant, Purpose)> {
    let due = |(index, poll): (usize, &Poll)| {
        (poll.due <= now).then(|| (poll.deadline(), Purpose::Poll(index)))
    };
    let recheck = |(index, point): (usize, &super::device::Point)| {
        let parked = point.parked.filter(|parked| parked.retry_at <= now)?;
        Some((parked.retry_at + parked.pause, Purpose::Recheck(index)))
    };
    let polls = device.polls.iter().enumerate().filter_map(due);
    let rechecks = device.points.iter().enumerate().filter_map(recheck);
    polls.chain(rechecks).min_by_key(|(deadline, _)| *deadline)
}

/// When a device next wants something.
fn wake_times(device: &Device) -> Vec<Instant> {
    match &device.health {
        Health::Silent(silence) => vec![silence.probe_at, silence.overdue_at],
        Health::Unproven | Health::Online => {
            let polls = device.polls.iter().map(|poll| poll.due);
            let parked = device.points.iter().filter_map(|point| point.parked);
            polls.chain(parked.map(|parked| parked.retry_at)).collect()
        }
    }
}

/// Moves a poll on and tells when it begins or ceases to be late.
fn punctuality(device: &mut Device, poll: usize, now: Instant) -> Option<Notice> {
    let name = Arc::clone(&device.name);
    let poll = device.polls.get_mut(poll)?;
    let (span, interval) = (poll.planned.span, poll.planned.interval);
    let missed = poll.advance(now);
    match (poll.in_time_since_late, missed) {
        (None, false) => None,
        (before, true) => {
            poll.in_time_since_late = Some(0);
            before.is_none().then_some(Notice::Late {
                device: name,
                span,
                interval,
            })
        }
        (Some(in_time), false) if in_time + 1 < PUNCTUAL_AFTER => {
            poll.in_time_since_late = Some(in_time + 1);
            None
        }
        (Some(_), false) => {
            poll.in_time_since_late = None;
            Some(Notice::Punctual {
                device: name,
                span,
                interval,
            })
        }
    }
}

#[cfg(test)]
mod tests;
