//! Watches whether a bus keeps its intervals, and lets slow points give way. A core; part of the
//! schedule.
//!
//! An overload is more than there is time for: more is booked than the bus carries, or polls are late
//! and the bus has not come to rest for [`LASTING`]. Who is late after a burst of time-outs alone is
//! caught up with in a rest, and is no overload.
//!
//! Invariant: an overload is told once when it begins and once when it has ended.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::fieldbus::{
    poll::{
        device::{Device, Poll},
        overload::{self, Booking},
    },
    transaction::Span,
};

use super::{Notice, Output, Schedule};

/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Looks in a row that must agree before it is told.
const TOLD_AFTER: u32 = 10;
/// The load below which none do any more.
const ENDS: f64 = 0.95;
/// A bus on which something has been due for so long without a rest is behind for good: with a fifth
/// of it left over, it has made up for sixty time-outs of a second by then.
const LASTING: Duration = Duration::from_secs(300);

/// Whether the bus keeps its intervals.
#[derive(Debug)]
pub(super) struct Load {
    look_at: Instant,
    /// Slow points give way.
    pub(super) gives_way: bool,
    /// It was told that points are late.
    told: bool,
    /// Looks in a row that found it otherwise.
    otherwise: u32,
    /// When nothing was due for the last time.
    pub(super) rested_at: Instant,
}

impl Load {
    pub(super) fn new(now: Instant) -> Load {
        Load {
            look_at: now + PERIOD,
            gives_way: false,
            told: false,
            otherwise: 0,
            rested_at: now,
        }
    }
}

/// A request that is read later than its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Late {
    /// The device's name.
    pub device: Arc<str>,
    pub(crate) span: Span,
    /// How often it should be read.
    pub interval: Duration,
    /// How often it is read now; `None`: it is late for another reason than the load.
    pub stretched: Option<Duration>,
}

impl Schedule {
    /// Looks at the load once in a while, and lets points give way or keep their intervals again.
    pub(super) fn watch_load(&mut self, now: Instant) {
        if now < self.load.look_at || !self.is_up() {
            return;
        }
        self.load.look_at = now + PERIOD;
        let answering = self.answering();
        let bookings: Vec<Booking> = answering.map(Poll::booking).collect();
        let load = self.share(&bookings);
        self.load.gives_way = match self.load.gives_way {
            false => load > overload::BEGINS,
            true => load > ENDS,
        };
        let capacity = if self.load.gives_way {
            overload::BOOKABLE * self.window as f64
        } else {
            f64::INFINITY
        };
        let factors = overload::stretches(&bookings, capacity);
        let devices = self.devices.iter_mut();
        let online = devices.filter(|device| device.health.is_online());
        let polls = online.flat_map(|device| &mut device.polls);
        for (poll, factor) in polls.zip(factors) {
            poll.stretch(factor, now);
        }
        self.tell_load(load, now);
    }

    fn tell_load(&mut self, load: f64, now: Instant) {
        let late = self.late();
        // What was told ends only when nothing is late any more.
        let behind = self.load.told || now >= self.load.rested_at + LASTING;
        let overloaded = self.load.gives_way || behind && !late.is_empty();
        if overloaded == self.load.told {
            self.load.otherwise = 0;
            return;
        }
        self.load.otherwise += 1;
        if self.load.otherwise < TOLD_AFTER {
            return;
        }
        self.load.otherwise = 0;
        self.load.told = overloaded;
        let notice = if overloaded {
            Notice::Overload { load, late }
        } else {
            Notice::Relieved { load }
        };
        self.outputs.push_back(Output::Notice(notice));
    }

    /// The share of the bus that its devices book, by what their requests took lately.
    pub(super) fn booked(&self) -> f64 {
        let polls = self.devices.iter().flat_map(|device| &device.polls);
        self.share(&polls.map(Poll::booking).collect::<Vec<_>>())
    }

    /// What answering devices are read later than their intervals, the fastest first.
    pub(super) fn late(&self) -> Vec<Late> {
        let devices = self.devices.iter();
        let online = devices.filter(|device| device.health.is_online());
        let of_device = |device: &'_ Device| {
            let name = Arc::clone(&device.name);
            let late = device.polls.iter().filter(|poll| poll.pace.is_late());
            let late = late.map(|poll| Late {
                device: Arc::clone(&name),
                span: poll.planned.base.span,
                interval: poll.interval(),
                stretched: poll.pace.stretched(),
            });
            late.collect::<Vec<_>>()
        };
        let mut all: Vec<Late> = online.flat_map(of_device).collect();
        all.sort_by_key(|late| late.interval);
        all
    }

    fn answering(&self) -> impl Iterator<Item = &Poll> {
        let devices = self.devices.iter();
        let online = devices.filter(|device| device.health.is_online());
        online.flat_map(|device| &device.polls)
    }

    fn share(&self, bookings: &[Booking]) -> f64 {
        bookings.iter().map(Booking::load).sum::<f64>() / self.window as f64
    }
}
