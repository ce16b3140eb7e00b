//! Which requests read a device's points, by what they cost on the bus. A core.
//!
//! ```text
//!  points ─▶ place (what is read whole) ─▶ shelf (cheapest requests) ─▶ Planned
//! ```
//!
//! Points of several intervals share requests where that takes less of the bus' time than
//! requests for each interval.
//!
//! Invariant: the same device, cost and lessons give the same plan; a point is never split, and
//! what was learned to be a hole is never read across.

mod cost;
mod place;
mod shelf;

use std::{collections::BTreeSet, fmt, ops::Add, time::Duration};

use crate::config;

use crate::fieldbus::{
    decode::Codec,
    poll::overload::{self, Booking},
    register::Register,
    transaction::Span,
};

pub use cost::Cost;
pub(crate) use place::{Limits, Place};
use shelf::{Grouping, Shelf};

/// Different intervals of a table for which sharing is considered, the shortest ones: each is
/// tried with each, and people write few.
const SHARED_INTERVALS_MAX: usize = 16;

/// A point as the plan sees it: where it stands and how often it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    /// The point's index in its device.
    pub(crate) point: usize,
    /// Its elements.
    pub(crate) span: Span,
    /// How often it is read.
    pub(crate) interval: Duration,
}

/// What a device has taught by exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lessons {
    /// Addresses that no request may contain unless a point stands there.
    pub(crate) holes: BTreeSet<Register>,
    /// Addresses that a request may begin with but not contain further on.
    pub(crate) cuts: BTreeSet<Register>,
}

/// One request of a plan, sent again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What is read each time.
    pub base: Turn,
    /// What is read more rarely along with it: each turn contains those before it.
    pub wider: Vec<Turn>,
    /// Why it begins where it begins.
    pub reason: Reason,
}

/// What one request reads when its turn has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub(crate) span: Span,
    /// How often.
    pub interval: Duration,
    /// Indices of the points that it reads, in the order of their addresses.
    pub points: Vec<usize>,
    /// Those of them that no narrower turn reads.
    pub added: Vec<usize>,
    /// Elements read that no point wants.
    pub across: u16,
    /// How long it keeps the bus busy.
    pub time: Duration,
}

impl Planned {
    /// How often it is sent.
    pub fn interval(&self) -> Duration {
        self.base.interval
    }

    /// What it reads when it reads everything.
    pub fn widest(&self) -> &Turn {
        self.wider.last().unwrap_or(&self.base)
    }

    /// Whether both read the same registers for the same points in each turn.
    pub(crate) fn reads_as(&self, other: &Planned) -> bool {
        let reads = |turn: &Turn| (turn.span, turn.interval, turn.points.clone());
        self.turns().map(reads).eq(other.turns().map(reads))
    }

    /// From what is read each time to everything.
    pub fn turns(&self) -> impl DoubleEndedIterator<Item = &Turn> {
        std::iter::once(&self.base).chain(&self.wider)
    }

    /// Counts with other costs what it reads.
    pub(crate) fn count(&mut self, cost: Cost) {
        for turn in std::iter::once(&mut self.base).chain(&mut self.wider) {
            turn.time = cost.read(turn.span);
        }
    }

    /// The share of time that each turn keeps the bus busy beyond the narrower ones.
    pub fn shares(&self) -> impl Iterator<Item = (&Turn, f64)> {
        let mut narrower = Duration::ZERO;
        self.turns().map(move |turn| {
            let more = turn.time.saturating_sub(narrower);
            narrower = turn.time;
            let share = more.as_secs_f64() / turn.interval.as_secs_f64().max(1e-6);
            (turn, share)
        })
    }

    /// What it books, with what is read along more rarely spread over all times it is sent.
    pub(crate) fn booking(&self) -> Booking {
        let shares = self.shares().map(|(_, share)| share);
        Booking {
            interval: self.interval(),
            time: self.interval().mul_f64(shares.sum()),
        }
    }
}

/// Why a request was not joined with the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is none before it in this table.
    First,
    /// Its points have another interval, and reading them along takes longer.
    Interval,
    /// Reading the hole between takes longer than a second request.
    HoleDearer {
        /// Elements in the hole.
        elements: u32,
    },
    /// They stand side by side, but together they take more of the bus' time.
    Dearer,
    /// Together they exceed what the device answers in one request.
    Limit,
    /// The configuration says that one of both is read by itself.
    Alone,
    /// The device answered an exception when they were read together.
    Learned,
}

/// As `gateway plan` prints it.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::First => f.write_str("first of its table"),
            Reason::Interval => {
                f.write_str("reading it along at the other interval takes longer than a request")
            }
            Reason::HoleDearer { elements } => {
                write!(
                    f,
                    "reading the {elements} between takes longer than a request"
                )
            }
            Reason::Dearer => f.write_str("together they take longer than apart"),
            Reason::Limit => f.write_str("the device's limit per request"),
            Reason::Alone => f.write_str("configured to be read by itself"),
            Reason::Learned => f.write_str("the device refused to read them together"),
        }
    }
}

/// Where a configured point stands.
pub(crate) fn span(point: &config::Point) -> Span {
    Span {
        table: point.register.table,
        start: point.register.address,
        count: Codec::of(point).elements(),
    }
}

/// The cheapest requests that read all items; every item's place is within the limits.
pub(crate) fn plan(items: &[Item], limits: &Limits, cost: Cost, lessons: &Lessons) -> Vec<Planned> {
    let places = limits.places(items);
    let tables = places.chunk_by(|one, next| one.own.table == next.own.table);
    let of_table = |places: &[Place]| {
        let shelf = |places| Shelf::new(places, limits, cost, lessons);
        clusters(places, shelf)
            .iter()
            .enumerate()
            .flat_map(|(index, cluster)| cluster.requests(index > 0))
            .collect::<Vec<_>>()
    };
    tables.flat_map(of_table).collect()
}

/// Groups the places of one table by intervals that share requests: from the shortest interval to
/// the longest, each joins those with which it saves most of the bus' time, or keeps to itself if that would cost some.
fn clusters<'a>(places: &[Place], shelf: impl Fn(Vec<Place>) -> Shelf<'a>) -> Vec<Grouping<'a>> {
    let intervals: BTreeSet<Duration> = places.iter().map(|place| place.interval).collect();
    let mut clusters: Vec<Grouping<'a>> = Vec::new();
    for (index, interval) in intervals.into_iter().enumerate() {
        let of_interval = |place: &&Place| place.interval == interval;
        let own: Vec<Place> = places.iter().filter(of_interval).cloned().collect();
        let apart = shelf(own.clone()).grouping();
        let joined = clusters.iter().enumerate().map(|(at, cluster)| {
            let both = shelf(cluster.with(&own)).grouping();
            (at, cluster.burden() + apart.burden(), both)
        });
        let saving = joined.filter(|(_, separate, both)| both.burden() <= *separate);
        let best = saving.max_by_key(|(_, separate, both)| *separate - both.burden());
        match best.filter(|_| index < SHARED_INTERVALS_MAX) {
            Some((at, _, both)) => clusters[at] = both,
            None => clusters.push(apart),
        }
    }
    clusters
}

/// The share of time that requests keep the bus busy; 1 is all of it.
pub fn load<'a>(planned: impl IntoIterator<Item = &'a Planned>) -> f64 {
    let shares = |request: &'a Planned| request.shares().map(|(_, share)| share);
    planned.into_iter().flat_map(shares).fold(0.0, f64::add)
}

/// What misses its interval when the requests, each given with its owner, book more than a bus
/// has time that takes `window` of them at once: those that the schedule lets give way, with
/// what is read along with them less often than it wants.
pub fn missing<'a, T: Copy>(
    requests: impl Iterator<Item = (T, &'a Planned)>,
    window: usize,
) -> Vec<(T, &'a Turn)> {
    let requests: Vec<_> = requests.collect();
    let bookings: Vec<Booking> = requests.iter().map(|(_, one)| one.booking()).collect();
    let wanted: f64 = bookings.iter().map(Booking::load).sum();
    if wanted <= overload::BEGINS * window as f64 {
        return Vec::new();
    }
    let factors = overload::stretches(&bookings, overload::BOOKABLE * window as f64);
    let stretched = requests.into_iter().zip(factors);
    let late = |((owner, request), factor): ((T, &'a Planned), f64)| {
        let every = request.interval().mul_f64(factor);
        let turns = request.turns();
        let late = turns.filter(move |turn| factor > 1.0 && every > turn.interval);
        late.map(move |turn| (owner, turn))
    };
    let mut late: Vec<_> = stretched.flat_map(late).collect();
    late.sort_by_key(|(_, turn)| turn.interval);
    late
}

#[cfg(test)]
mod tests;
