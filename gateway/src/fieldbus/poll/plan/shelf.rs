//! The cheapest requests for the places of one table whose intervals share requests. A core.
//!
//! Invariant: of all ways to cut the sorted places into requests, the one with the least burden
//! is taken; with equal burdens, that with fewer requests.

use std::{collections::BTreeMap, time::Duration};

use crate::fieldbus::{register::Register, transaction::Span};

use super::{Cost, Lessons, Limits, Place, Planned, Reason, Turn};

/// What burdens are counted in: nanoseconds of the bus in so many nanoseconds, an hour.
const PER: u128 = 3_600_000_000_000;

/// Nanoseconds of the bus per hour.
type Burden = u128;

/// Places of one table, sorted by address.
pub(super) struct Shelf<'a> {
    places: Vec<Place>,
    limits: &'a Limits,
    cost: Cost,
    lessons: &'a Lessons,
}

/// A shelf and where it is cut into requests.
pub(super) struct Grouping<'a> {
    shelf: Shelf<'a>,
    /// First place of each request and the place after its last.
    cuts: Vec<(usize, usize)>,
    burden: Burden,
}

/// How far one request can reach from its first place.
struct Reach {
    /// What it costs to read the first place and so many more; `None`: not in one request.
    burdens: Vec<Option<Burden>>,
    /// What stopped it.
    stopped: Reason,
}

/// How often what is read, from what is read each time to everything.
type Levels = Vec<(Duration, Span)>;

impl<'a> Shelf<'a> {
    pub(super) fn new(
        mut places: Vec<Place>,
        limits: &'a Limits,
        cost: Cost,
        lessons: &'a Lessons,
    ) -> Shelf<'a> {
        places.sort_by_key(|place| place.own);
        Shelf {
            places,
            limits,
            cost,
            lessons,
        }
    }

    /// Cuts where the sum of burdens is least.
    pub(super) fn grouping(self) -> Grouping<'a> {
        let count = self.places.len();
        let mut best = vec![(Burden::MAX, usize::MAX, 0); count + 1];
        best[0] = (0, 0, 0);
        for first in 0..count {
            let (before, requests, _) = best[first];
            for (more, burden) in self.reach(first).burdens.into_iter().enumerate() {
                let Some(burden) = burden else { continue };
                let candidate = (before + burden, requests + 1, first);
                let end = &mut best[first + more + 1];
                if (candidate.0, candidate.1) < (end.0, end.1) {
                    *end = candidate;
                }
            }
        }
        let mut cuts = Vec::new();
        let mut end = count;
        while end > 0 {
            let first = best[end].2;
            cuts.push((first, end));
            end = first;
        }
        cuts.reverse();
        Grouping {
            burden: best[count].0,
            shelf: self,
            cuts,
        }
    }

    fn reach(&self, first: usize) -> Reach {
        let mut burdens = Vec::new();
        let mut span = self.places[first].span;
        let mut by_interval = BTreeMap::new();
        let most = u32::from(self.limits.most(span));
        let mut stopped = Reason::First;
        for (index, place) in self.places.iter().enumerate().skip(first) {
            if index > first {
                if place.alone || self.places[first].alone {
                    stopped = Reason::Alone;
                } else if self.refused(first, span, place) {
                    stopped = Reason::Learned;
                } else if span.joined(place.span).end() - u32::from(span.start) > most {
                    stopped = Reason::Limit;
                }
                if stopped != Reason::First {
                    break;
                }
            }
            span = span.joined(place.span);
            let of_interval = by_interval.entry(place.interval).or_insert(place.span);
            *of_interval = of_interval.joined(place.span);
            burdens.push(self.burden(&levels(&by_interval)));
        }
        Reach { burdens, stopped }
    }

    /// What a request with these levels costs; `None` where reading everything takes longer than
    /// the shortest interval, so that those who want only a part would have to wait.
    fn burden(&self, levels: &Levels) -> Option<Burden> {
        let mut burden = 0;
        let mut narrower = Duration::ZERO;
        for (interval, span) in levels {
            let time = self.cost.read(*span);
            if !narrower.is_zero() && time > levels[0].0 {
                return None;
            }
            let more = (time - narrower).as_nanos();
            burden += more * PER / interval.as_nanos().max(1);
            narrower = time;
        }
        Some(burden)
    }

    /// Whether the device has refused to read `next` together with what ends before it.
    fn refused(&self, first: usize, span: Span, next: &Place) -> bool {
        let at = |address| Register {
            table: span.table,
            address,
        };
        let start = next.own.start;
        let cut = start > self.places[first].own.start && self.lessons.cuts.contains(&at(start));
        let hole = u16::try_from(span.end())
            .is_ok_and(|end| end < next.span.start && self.has_hole(at(end), at(next.span.start)));
        cut || hole
    }

    fn has_hole(&self, from: Register, to: Register) -> bool {
        self.lessons.holes.range(from..to).next().is_some()
    }
}

impl Grouping<'_> {
    /// Nanoseconds of the bus per hour.
    pub(super) fn burden(&self) -> Burden {
        self.burden
    }

    /// Its places and others.
    pub(super) fn with(&self, others: &[Place]) -> Vec<Place> {
        [&self.shelf.places, others].concat()
    }

    /// The requests; `after` others of the same table.
    pub(super) fn requests(&self, after: bool) -> Vec<Planned> {
        let mut before = None;
        let request = |(first, end): &(usize, usize)| {
            let reason = match before.replace(*first) {
                None if after => Reason::Interval,
                None => Reason::First,
                Some(before) => self.reason(before, *first, *end),
            };
            request(&self.shelf.places[*first..*end], self.shelf.cost, reason)
        };
        self.cuts.iter().map(request).collect()
    }

    /// Why the request of places `first..end` is not one with that which begins with `before`.
    fn reason(&self, before: usize, first: usize, end: usize) -> Reason {
        let reach = self.shelf.reach(before);
        if reach.burdens.len() < end - before {
            return reach.stopped;
        }
        let places = &self.shelf.places;
        let hole_start = places[before..first].iter().map(|one| one.span.end()).max();
        let hole_end = u32::from(places[first].span.start);
        match hole_end.saturating_sub(hole_start.unwrap_or(hole_end)) {
            0 => Reason::Dearer,
            elements => Reason::HoleDearer { elements },
        }
    }
}

/// What is read how often by one request for places of several intervals. An interval that is a
/// multiple of the longest so far gets a level of its own; another one is served by the slowest
/// level that it is a multiple of, at worst each time.
fn levels(by_interval: &BTreeMap<Duration, Span>) -> Levels {
    let mut levels: Levels = Vec::new();
    for (interval, span) in by_interval {
        let divides = |level: &(Duration, Span)| is_multiple(*interval, level.0);
        let slowest = levels.iter().rposition(divides).unwrap_or(0);
        if levels.is_empty() || slowest + 1 == levels.len() && divides(&levels[slowest]) {
            let narrower = levels.last().map_or(*span, |(_, narrower)| *narrower);
            levels.push((*interval, narrower.joined(*span)));
        } else {
            for (_, wider) in &mut levels[slowest..] {
                *wider = wider.joined(*span);
            }
        }
    }
    // What is read anyway needs no turn of its own.
    levels.dedup_by_key(|(_, span)| *span);
    levels
}

fn is_multiple(interval: Duration, of: Duration) -> bool {
    interval.as_nanos().is_multiple_of(of.as_nanos().max(1))
}

fn request(places: &[Place], cost: Cost, reason: Reason) -> Planned {
    let mut by_interval = BTreeMap::new();
    for place in places {
        let span = by_interval.entry(place.interval).or_insert(place.span);
        *span = span.joined(place.span);
    }
    let mut narrower: Vec<usize> = Vec::new();
    let turns = levels(&by_interval).into_iter().map(|(interval, span)| {
        let within = |place: &&Place| span.contains(place.span);
        let turn = turn(
            places.iter().filter(within),
            interval,
            span,
            cost,
            &narrower,
        );
        narrower.clone_from(&turn.points);
        turn
    });
    let mut turns: Vec<Turn> = turns.collect();
    let base = turns.remove(0);
    Planned {
        base,
        wider: turns,
        reason,
    }
}

fn turn<'p>(
    places: impl Iterator<Item = &'p Place>,
    interval: Duration,
    span: Span,
    cost: Cost,
    narrower: &[usize],
) -> Turn {
    let items: Vec<_> = places.flat_map(|place| &place.items).collect();
    let mut wanted = 0;
    let mut upto = u32::from(span.start);
    for item in &items {
        let from = upto.max(u32::from(item.span.start));
        wanted += item.span.end().saturating_sub(from);
        upto = upto.max(item.span.end());
    }
    let points: Vec<usize> = items.iter().map(|item| item.point).collect();
    let new = |point: &usize| !narrower.contains(point);
    Turn {
        span,
        interval,
        added: points.iter().copied().filter(new).collect(),
        points,
        across: span.count - u16::try_from(wanted).unwrap_or(span.count),
        time: cost.read(span),
    }
}

#[cfg(test)]
pub(super) fn request_of(places: &[Place], cost: Cost) -> Option<Planned> {
    let one = request(places, cost, Reason::First);
    let (widest, interval) = (one.widest().time, one.interval());
    (one.wider.is_empty() || widest <= interval).then_some(one)
}
