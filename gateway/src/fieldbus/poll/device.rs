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
        plan::{self, Cost, Item, Lessons, Limits, Planned},
        point::{Parked, Point},
        write::Functions,
    },
    register::Register,
    transaction::{Answer, Exception, Span},
};

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
    /// How it is written.
    pub(crate) functions: Functions,
    /// What was last told of it, and when.
    pub(crate) told: Option<(DeviceState, Stamp)>,
    /// No value is too old before then; `None` while there is none that could be.
    pub(crate) stale_at: Option<Instant>,
    limits: Limits,
    cost: Cost,
    lessons: Lessons,
    polls_made: u64,
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
    /// Answers in time since the last late one; `None` while none was late.
    pub(crate) in_time_since_late: Option<u32>,
}

impl Poll {
    /// Until when the answer is in time.
    pub(crate) fn deadline(&self) -> Instant {
        self.due + self.planned.interval
    }

    /// Moves on to the next moment of the grid whose deadline is still ahead. Returns whether
    /// moments were missed.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        let behind = self.intervals_behind(now);
        self.due += self.planned.interval.saturating_mul(behind.max(1));
        behind > 0
    }

    fn intervals_behind(&self, now: Instant) -> u32 {
        let interval = self.planned.interval.as_nanos().max(1);
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
        let point = |point: &config::Point| Point::new(point, device);
        let mut device = Device {
            name: device.name.as_str().into(),
            unit: device.unit,
            points: device.points.iter().map(point).collect(),
            polls: Vec::new(),
            health: Health::Unproven,
            functions: Functions::of(device),
            told: None,
            stale_at: None,
            limits: Limits::of(device),
            cost,
            lessons: Lessons::default(),
            polls_made: 0,
        };
        device.replan(now);
        device
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
    pub(crate) fn learn(
        &mut self,
        planned: &Planned,
        exception: Exception,
        now: Instant,
    ) -> Lesson {
        if exception.concerns_function() {
            return self.park(&planned.points, now);
        }
        if !exception.concerns_addresses() {
            return Lesson::Passing;
        }
        let alone = planned.points.len() == 1 && planned.across == 0;
        if alone {
            return self.park(&planned.points, now);
        }
        let added = if planned.across > 0 {
            self.add_holes(planned)
        } else {
            self.add_cut(planned)
        };
        if !added {
            // Points that overlap cannot be told apart.
            return self.park(&planned.points, now);
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
    }

    /// The place of a poll in the plan as it is now.
    pub(crate) fn poll(&self, id: PollId) -> Option<usize> {
        self.polls.iter().position(|poll| poll.id == id)
    }

    /// A read as the device usually gets it; the start of its first point if nothing is planned.
    pub(crate) fn usual_span(&self) -> Option<Span> {
        let planned = self.polls.first().map(|poll| poll.planned.span);
        planned.or_else(|| self.points.first().map(|point| point.span))
    }

    fn add_holes(&mut self, planned: &Planned) -> bool {
        let wanted = |register: &Register| {
            planned.points.iter().any(|point| {
                let span = self.points[*point].span;
                register.address >= span.start && u32::from(register.address) < span.end()
            })
        };
        let holes: Vec<Register> = registers(planned.span)
            .filter(|register| !wanted(register))
            .collect();
        let before = self.lessons.holes.len();
        self.lessons.holes.extend(holes);
        self.lessons.holes.len() > before
    }

    /// Cuts before the point nearest the middle at which nothing overlaps.
    fn add_cut(&mut self, planned: &Planned) -> bool {
        let mut end = 0;
        let mut places = Vec::new();
        for point in &planned.points {
            let span = self.points[*point].span;
            if end > 0 && u32::from(span.start) >= end {
                places.push(span.start);
            }
            end = end.max(span.end());
        }
        let Some(middle) = places.get(places.len() / 2) else {
            return false;
        };
        self.lessons.cuts.insert(Register {
            table: planned.span.table,
            address: *middle,
        })
    }

    /// Plans anew; requests that stay as they were keep their place in time.
    fn replan(&mut self, now: Instant) {
        let awake = |(_, point): &(usize, &Point)| point.parked.is_none();
        let points = self.points.iter().enumerate();
        let items: Vec<Item> = points.filter(awake).map(item).collect();
        let planned = plan::plan(&items, self.limits, self.cost, &self.lessons);
        let old = std::mem::take(&mut self.polls);
        let made = &mut self.polls_made;
        let poll = |planned: Planned| {
            *made += 1;
            let same = old
                .iter()
                .find(|poll| poll.planned.points == planned.points);
            Poll {
                id: same.map_or(PollId(*made), |poll| poll.id),
                due: same.map_or(now, |poll| poll.due),
                in_time_since_late: same.and_then(|poll| poll.in_time_since_late),
                planned,
            }
        };
        self.polls = planned.into_iter().map(poll).collect();
    }
}

/// The requests that read a device's points as configured, before anything has been learned.
pub(crate) fn requests(device: &config::Device, cost: Cost) -> Vec<Planned> {
    let points: Vec<Point> = device
        .points
        .iter()
        .map(|point| Point::new(point, device))
        .collect();
    let items: Vec<Item> = points.iter().enumerate().map(item).collect();
    plan::plan(&items, Limits::of(device), cost, &Lessons::default())
}

fn item((index, point): (usize, &Point)) -> Item {
    Item {
        point: index,
        span: point.span,
        interval: point.interval,
    }
}

impl Limits {
    fn of(device: &config::Device) -> Limits {
        Limits {
            registers: device.max_registers,
            bits: device.max_bits,
        }
    }
}

fn registers(span: Span) -> impl Iterator<Item = Register> {
    let addresses = u32::from(span.start)..span.end();
    let register = move |address: u32| Register {
        table: span.table,
        address: u16::try_from(address).unwrap_or(u16::MAX),
    };
    addresses.map(register)
}
