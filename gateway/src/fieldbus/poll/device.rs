//! One device: its points, the plan that reads them, what its exceptions have taught. A core.
//!
//! Invariant: every point is in exactly one request of the plan, or parked.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config,
    reading::{Reading, Stamp, Value},
};

use crate::fieldbus::{
    DeviceState,
    poll::{
        health::Health,
        memory::{self, Memory},
        overload::Booking,
        pace::Pace,
        patience::Patience,
        plan::{self, Cost, Item, Lessons, Limits, Place, Planned, Turn},
        point::{self, Parked, Point},
        turnaround::Turnaround,
        write::Functions,
    },
    register::Register,
    transaction::{Answer, Exception, Span},
};

/// Another plan has to save more than one part in so many of a device's bus time, so that the plan
/// does not change to and fro with the turnaround.
const WORTH_CHANGING: f64 = 20.0;
/// First pause of a point that alone answers with an exception.
const PARKED_FIRST: Duration = Duration::from_secs(30);
/// Longest pause of such a point.
const PARKED_MAX: Duration = Duration::from_secs(1_800);

/// A configured device as the schedule knows it.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) name: Arc<str>,
    pub(crate) unit: u8,
    pub(crate) points: Vec<Point>,
    pub(crate) polls: Vec<Poll>,
    pub(crate) health: Health,
    /// How long it is waited for.
    pub(crate) patience: Patience,
    /// How it is written.
    pub(crate) functions: Functions,
    /// The same before it has taught anything.
    configured_functions: Functions,
    /// What was last told of it, and when.
    pub(crate) told: Option<(DeviceState, Stamp)>,
    /// No value is too old before then; `None` while there is none that could be.
    pub(crate) stale_at: Option<Instant>,
    limits: Limits,
    cost: Cost,
    lessons: Lessons,
    /// What tells its lessons from another device's.
    fingerprint: String,
    turnaround: Turnaround,
    polls_made: u64,
    /// Polls that were answered with values.
    pub(crate) good_polls: u64,
}

/// A poll of a device, whatever becomes of the plan around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PollId(u64);

/// One request of the plan and its place in time.
#[derive(Debug, Clone)]
pub(crate) struct Poll {
    pub(crate) id: PollId,
    pub(crate) planned: Planned,
    /// When it may be sent; its answer is in time until one interval later.
    pub(crate) due: Instant,
    /// Whether it keeps that.
    pub(crate) pace: Pace,
    /// How many of the wider turns were asked last.
    asked: usize,
}

impl Poll {
    fn asked(&self) -> &Turn {
        let wider = self.asked.checked_sub(1);
        let turn = wider.and_then(|index| self.planned.wider.get(index));
        turn.unwrap_or(&self.planned.base)
    }

    /// How often it is to be sent.
    pub(crate) fn interval(&self) -> Duration {
        self.planned.interval()
    }

    /// Until when the answer is in time, or early enough for one that gives way.
    pub(crate) fn deadline(&self) -> Instant {
        let own = self.due + self.interval();
        self.pace.deadline().unwrap_or(own)
    }

    /// What it books of the bus' time.
    pub(crate) fn booking(&self) -> Booking {
        self.pace.booking(self.planned.booking())
    }

    /// Lets it give way by this factor; 1: not any more.
    pub(crate) fn stretch(&mut self, factor: f64, now: Instant) {
        let from = self.due.max(now);
        self.pace.stretch(factor, self.interval(), from);
    }

    /// Moves on to the next moment of the grid whose deadline is still ahead.
    pub(crate) fn advance(&mut self, now: Instant) {
        let behind = self.intervals_behind(now);
        self.due += self.interval().saturating_mul(behind.max(1));
        self.pace.answered(behind > 0, self.due, now);
    }

    fn intervals_behind(&self, now: Instant) -> u32 {
        let interval = self.interval().as_nanos().max(1);
        let behind = now.saturating_duration_since(self.due).as_nanos() / interval;
        u32::try_from(behind).unwrap_or(u32::MAX)
    }
}

/// What an exception has taught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lesson {
    /// The request was split.
    Split,
    /// These points are asked more rarely, next after the pause.
    Parked(Vec<usize>, Duration),
    /// Nothing: the device is busy or ill, and is asked again at the next interval.
    Passing,
}

impl Device {
    /// A device whose requests are all due at `now`.
    pub(crate) fn new(device: &config::Device, cost: Cost, now: Instant) -> Device {
        let point = |point: &config::Point| Point::new(point, device, now);
        let mut device = Device {
            name: device.name.as_str().into(),
            unit: device.unit,
            points: device.points.iter().map(point).collect(),
            polls: Vec::new(),
            health: Health::Unproven,
            patience: Patience::default(),
            functions: Functions::of(device),
            configured_functions: Functions::of(device),
            told: None,
            stale_at: None,
            limits: Limits::of(device),
            cost,
            lessons: Lessons::default(),
            fingerprint: memory::fingerprint(device),
            turnaround: Turnaround::assumed(cost.turnaround()),
            polls_made: 0,
            good_polls: 0,
        };
        device.replan(now);
        device
    }

    /// What the poll with this index reads now: each point that is wanted, and what lies between.
    pub(crate) fn ask(&mut self, poll: usize) -> Option<Span> {
        let poll = self.polls.get_mut(poll)?;
        let wanted = |turn: &Turn| turn.added.iter().any(|at| self.points[*at].due <= poll.due);
        let wider = poll.planned.wider.iter().rposition(wanted);
        poll.asked = wider.map_or(0, |index| index + 1);
        Some(poll.asked().span)
    }

    /// The readings that are to be published of the answer to what the poll asked last; moves its
    /// points on to their next moments.
    pub(crate) fn polled(&mut self, poll: usize, answer: &Answer, stamp: Stamp) -> Vec<Reading> {
        let Some((turn, at)) = self.asked(poll) else {
            return Vec::new();
        };
        let wanted = |point: &usize| self.points[*point].due <= at;
        let wanted: Vec<usize> = turn.points.iter().copied().filter(wanted).collect();
        self.good_polls += 1;
        self.serve(&wanted, at);
        self.readings(&wanted, turn.span, answer, stamp)
    }

    /// What the poll asked last, and the moment for which it did.
    pub(crate) fn asked(&self, poll: usize) -> Option<(Turn, Instant)> {
        let poll = self.polls.get(poll)?;
        Some((poll.asked().clone(), poll.due))
    }

    /// What it has taught so far, to be remembered.
    pub(crate) fn memory(&self) -> Memory {
        let parked = self.points.iter().filter(|point| point.parked.is_some());
        let parked = parked.map(|point| point.name.to_string()).collect();
        let unknown = self.functions.unknown(self.configured_functions);
        let turnaround = self.turnaround();
        Memory::of(
            &self.fingerprint,
            turnaround,
            &self.lessons,
            parked,
            unknown,
        )
    }

    /// Plans with what it taught before a restart, unless it is another device by now. Points that
    /// answered with an exception are asked at once whether they still do.
    pub(crate) fn recall(&mut self, memory: &Memory, now: Instant) {
        if memory.fingerprint != self.fingerprint {
            return;
        }
        self.lessons = memory.lessons();
        self.functions = self.configured_functions.without(&memory.unknown_functions);
        if let Some(turnaround) = memory.turnaround() {
            self.turnaround = Turnaround::remembered(turnaround);
            self.cost = self.cost.with_turnaround(turnaround);
        }
        for point in &mut self.points {
            point.parked = memory
                .parked
                .contains(&point.name.to_string())
                .then_some(Parked {
                    retry_at: now,
                    pause: PARKED_FIRST,
                });
        }
        self.replan(now);
    }

    /// Plans as if it had taught nothing yet. Who answers is waited for as before.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.lessons = Lessons::default();
        self.functions = self.configured_functions;
        self.cost = self.cost.untaught();
        self.turnaround = Turnaround::assumed(self.cost.turnaround());
        for point in &mut self.points {
            point.parked = None;
        }
        self.replan(now);
    }

    /// The turnaround, once it has been measured.
    pub(crate) fn turnaround(&self) -> Option<Duration> {
        self.turnaround.measured()
    }

    /// Takes the time that passed between a request to the device and its answer, beside that of
    /// the wire. The plan changes with it where that saves enough of the bus' time.
    pub(crate) fn answered_after(&mut self, time: Duration, now: Instant) {
        self.turnaround.answered(time);
        self.patience.took(time);
        let counted_on = self.cost.turnaround();
        let Some(turnaround) = self.turnaround.worth_planning_with(counted_on, now) else {
            return;
        };
        self.cost = self.cost.with_turnaround(turnaround);
        for poll in &mut self.polls {
            poll.planned.count(self.cost);
        }
        let before = plan::load(self.polls.iter().map(|poll| &poll.planned));
        if plan::load(&self.plan()) < before * (1.0 - 1.0 / WORTH_CHANGING) {
            self.replan(now);
        }
    }

    /// Moves points on that were read, or answered by an exception, at the moment `at`.
    pub(crate) fn serve(&mut self, points: &[usize], at: Instant) {
        for point in points {
            self.points[*point].served(at);
        }
    }

    /// The readings that are to be published of an answer to a read of `span`.
    pub(crate) fn readings(
        &mut self,
        points: &[usize],
        span: Span,
        answer: &Answer,
        stamp: Stamp,
    ) -> Vec<Reading> {
        self.publish(points, stamp, |point| {
            let value = point.value(span, answer);
            value.map_err(|bad| bad.to_string().into())
        })
    }

    /// The readings that say that points have no value, and why.
    pub(crate) fn bad_readings(
        &mut self,
        points: &[usize],
        reason: &str,
        stamp: Stamp,
    ) -> Vec<Reading> {
        let reason: Arc<str> = reason.into();
        self.publish(points, stamp, |_| Err(Arc::clone(&reason)))
    }

    fn publish(
        &mut self,
        points: &[usize],
        stamp: Stamp,
        value: impl Fn(&Point) -> Result<Value, Arc<str>>,
    ) -> Vec<Reading> {
        let mut readings = Vec::with_capacity(points.len());
        for index in points {
            let Some(point) = self.points.get_mut(*index) else {
                continue;
            };
            let value = value(point);
            readings.extend(point.watch.answered(value, stamp));
            // The earliest holds, though its point may have a newer value by then.
            let known = self.stale_at.into_iter();
            self.stale_at = known.chain(point.stale_at()).min();
        }
        readings
    }

    /// The readings that say that values are too old; once each. `why` tells the silence's cause.
    pub(crate) fn stale_readings(&mut self, why: Option<&str>, now: Instant) -> Vec<Reading> {
        if self.stale_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let old = |point: &mut Point| point.grown_old(why, now);
        let readings = self.points.iter_mut().filter_map(old).collect();
        self.stale_at = self.points.iter().filter_map(Point::stale_at).min();
        readings
    }

    /// Draws the lesson from an exception to a planned read.
    pub(crate) fn learn(&mut self, turn: &Turn, exception: Exception, now: Instant) -> Lesson {
        if exception.concerns_function() {
            return self.park(&turn.points, now);
        }
        if !exception.concerns_addresses() {
            return Lesson::Passing;
        }
        let items: Vec<Item> = turn
            .points
            .iter()
            .map(|at| self.points[*at].item(*at))
            .collect();
        let places = self.limits.places(&items);
        if !self.add_holes(turn.span, &places) && !self.add_cut(&places) {
            // A single place, or points that overlap, which cannot be told apart.
            return self.park(&turn.points, now);
        }
        self.replan(now);
        Lesson::Split
    }

    /// A point that was parked has answered.
    pub(crate) fn unpark(&mut self, point: usize, now: Instant) {
        let Some(point) = self.points.get_mut(point) else {
            return;
        };
        point.parked = None;
        point.due = now;
        for register in registers(point.span) {
            self.lessons.holes.remove(&register);
        }
        self.replan(now);
    }

    /// Lets every parked point be asked at once, as after a change to the wiring.
    pub(crate) fn recheck_parked(&mut self, now: Instant) {
        for parked in self
            .points
            .iter_mut()
            .filter_map(|point| point.parked.as_mut())
        {
            parked.retry_at = now;
        }
    }

    /// Parks points, or lengthens the pause of those that are parked.
    pub(crate) fn park(&mut self, points: &[usize], now: Instant) -> Lesson {
        let mut longest = Duration::ZERO;
        for index in points {
            let Some(point) = self.points.get_mut(*index) else {
                continue;
            };
            let pause = match point.parked {
                None => PARKED_FIRST,
                Some(parked) => (parked.pause * 2).min(PARKED_MAX),
            };
            let retry_at = now + pause;
            point.parked = Some(Parked { retry_at, pause });
            longest = longest.max(pause);
            self.lessons.holes.extend(registers(point.span));
            // The cuts that led here have served; a second culprit is found by new ones.
            let table = point.span.table;
            self.lessons.cuts.retain(|cut| cut.table != table);
        }
        self.replan(now);
        Lesson::Parked(points.to_vec(), longest)
    }

    /// Counts the intervals of requests that were due before `at` from then.
    pub(crate) fn restart(&mut self, at: Instant) {
        for poll in &mut self.polls {
            poll.due = poll.due.max(at);
        }
        for point in &mut self.points {
            point.due = point.due.max(at);
        }
    }

    /// The place of a poll in the plan as it is now.
    pub(crate) fn poll(&self, id: PollId) -> Option<usize> {
        self.polls.iter().position(|poll| poll.id == id)
    }

    /// The request by which the point with this index is read alone, as the device allows it.
    pub(crate) fn alone(&self, point: usize) -> Option<Span> {
        let point = self.points.get(point)?;
        Some(self.least_read(point.span))
    }

    /// The least request that the device allows to read `span`.
    pub(crate) fn least_read(&self, span: Span) -> Span {
        self.limits.request_for(span)
    }

    /// A read as the device usually gets it; the start of its first point if nothing is planned.
    pub(crate) fn usual_span(&self) -> Option<Span> {
        let planned = self.polls.first().map(|poll| poll.planned.base.span);
        planned.or_else(|| self.points.first().map(|point| point.span))
    }

    /// Notes what lies between the places; `false` when that is nothing new.
    fn add_holes(&mut self, span: Span, places: &[Place]) -> bool {
        let between = |register: &Register| {
            let one = Span {
                table: register.table,
                start: register.address,
                count: 1,
            };
            !places.iter().any(|place| place.span.contains(one))
        };
        let before = self.lessons.holes.len();
        self.lessons.holes.extend(registers(span).filter(between));
        self.lessons.holes.len() > before
    }

    /// Cuts before the place nearest the middle at which nothing overlaps; `false` without one.
    fn add_cut(&mut self, places: &[Place]) -> bool {
        let mut end = 0;
        let mut starts = Vec::new();
        for own in places.iter().map(|place| place.own) {
            if end > 0 && u32::from(own.start) >= end {
                starts.push(own);
            }
            end = end.max(own.end());
        }
        let Some(middle) = starts.get(starts.len() / 2) else {
            return false;
        };
        self.lessons.cuts.insert(Register {
            table: middle.table,
            address: middle.start,
        })
    }

    fn plan(&self) -> Vec<Planned> {
        let awake = |(_, point): &(usize, &Point)| point.parked.is_none();
        let points = self.points.iter().enumerate();
        let items: Vec<Item> = points.filter(awake).map(item).collect();
        plan::plan(&items, &self.limits, self.cost, &self.lessons)
    }

    /// Plans anew; points keep their place in time.
    fn replan(&mut self, now: Instant) {
        let planned = self.plan();
        let old = std::mem::take(&mut self.polls);
        for planned in planned {
            let same = old.iter().find(|poll| poll.planned.reads_as(&planned));
            let dues = planned.base.points.iter().map(|at| self.points[*at].due);
            let due = same.map_or_else(|| dues.min().unwrap_or(now), |poll| poll.due);
            // Points that have come together are wanted together.
            for at in &planned.base.points {
                let point = &mut self.points[*at];
                if point.interval == planned.interval() && point.due < due + point.interval {
                    point.due = point.due.min(due);
                }
            }
            self.polls_made += 1;
            self.polls.push(Poll {
                id: same.map_or(PollId(self.polls_made), |poll| poll.id),
                due,
                pace: same.map_or_else(Pace::default, |poll| poll.pace.clone()),
                asked: same.map_or(0, |poll| poll.asked),
                planned,
            });
        }
    }
}

/// The requests that read a device's points as configured, with what it is remembered to have
/// taught.
pub(crate) fn requests(
    device: &config::Device,
    cost: Cost,
    memory: Option<&Memory>,
) -> Vec<Planned> {
    let parked = |point: &config::Point| memory.is_some_and(|one| one.parked.contains(&point.name));
    let turnaround = memory.and_then(Memory::turnaround);
    let cost = turnaround.map_or(cost, |time| cost.with_turnaround(time));
    let items: Vec<Item> = device
        .points
        .iter()
        .enumerate()
        .filter(|(_, point)| !parked(point))
        .map(|(index, point)| Item {
            point: index,
            span: plan::span(point),
            interval: point::interval(point, device),
        })
        .collect();
    let lessons = memory.map(Memory::lessons).unwrap_or_default();
    plan::plan(&items, &Limits::of(device), cost, &lessons)
}

fn item((index, point): (usize, &Point)) -> Item {
    point.item(index)
}

fn registers(span: Span) -> impl Iterator<Item = Register> {
    let addresses = u32::from(span.start)..span.end();
    let register = move |address: u32| Register {
        table: span.table,
        address: u16::try_from(address).unwrap_or(u16::MAX),
    };
    addresses.map(register)
}
