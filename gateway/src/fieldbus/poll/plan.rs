//! Which requests read a device's points, by what they cost on the bus. A core.
//!
//! Invariant: the same device, cost and lessons give the same plan; a point is never split, and
//! what was learned to be a hole is never read across.

use std::{collections::BTreeSet, fmt, time::Duration};

use crate::config;

use crate::fieldbus::{
    register::{Register, Table},
    transaction::{Request, Span},
    wire::line_rate::LineRate,
};

/// Bytes that an MBAP header has beyond the unit and the CRC of a serial frame.
const MBAP_EXTRA: usize = 4;
/// How long a device thinks before it answers, until it has been measured.
const TURNAROUND: Duration = Duration::from_millis(10);
/// A round trip over a plant network with the device's own time.
const ROUND_TRIP: Duration = Duration::from_millis(2);
/// One byte on a plant network of 10 Mbit/s, so that a hole is cheap but not free.
const NETWORK_BYTE: Duration = Duration::from_nanos(800);

/// What a request costs on a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// A serial line, or a converter that speaks RTU to one.
    Line(LineRate),
    /// Modbus TCP.
    Network,
}

impl Cost {
    /// What requests cost on a configured bus.
    pub(crate) fn of(bus: &config::Bus) -> Cost {
        let mbap = bus.tcp.is_some() && bus.framing != Some(config::Framing::Rtu);
        if mbap {
            Cost::Network
        } else {
            Cost::Line(LineRate::of(bus))
        }
    }

    /// How long a read keeps the bus busy: request, turnaround, answer, silence.
    pub(crate) fn read(self, span: Span) -> Duration {
        let transfer = self.transfer(&Request::Read(span));
        match self {
            Cost::Line(rate) => transfer + TURNAROUND + rate.silence(),
            Cost::Network => transfer + ROUND_TRIP,
        }
    }

    /// How long a request and its answer take on the wire, beside the device's own time.
    pub(crate) fn transfer(self, request: &Request) -> Duration {
        let (sent, received) = request.frame_bytes();
        match self {
            Cost::Line(rate) => rate.frame(sent + received),
            Cost::Network => NETWORK_BYTE * bytes(sent + received + 2 * MBAP_EXTRA),
        }
    }
}

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

/// What a device answers at most in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Registers.
    pub(crate) registers: u16,
    /// Coils or discrete inputs.
    pub(crate) bits: u16,
}

/// What a device has taught by exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lessons {
    /// Addresses that no request may contain unless a point stands there.
    pub(crate) holes: BTreeSet<Register>,
    /// Addresses that a request may begin with but not contain further on.
    pub(crate) cuts: BTreeSet<Register>,
}

/// One request of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub(crate) span: Span,
    /// How often it is sent.
    pub interval: Duration,
    /// Indices of the points that it reads, in the order of their addresses.
    pub points: Vec<usize>,
    /// Elements read that no point wants.
    pub across: u16,
    /// How long it keeps the bus busy.
    pub time: Duration,
    /// Why it begins where it begins.
    pub reason: Reason,
}

/// Why a request was not joined with the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is none before it in this table at this interval.
    First,
    /// Reading the hole between takes longer than a second request.
    HoleDearer {
        /// Elements in the hole.
        elements: u32,
    },
    /// Together they exceed what the device answers in one request.
    Limit,
    /// The device answered an exception when they were read together.
    Learned,
}

/// As `gateway plan` prints it.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::First => f.write_str("first of its table and interval"),
            Reason::HoleDearer { elements } => {
                write!(
                    f,
                    "reading the {elements} between takes longer than a request"
                )
            }
            Reason::Limit => f.write_str("the device's limit per request"),
            Reason::Learned => f.write_str("the device refused to read them together"),
        }
    }
}

/// The cheapest requests that read all items; every item's span is within the limits.
pub(crate) fn plan(items: &[Item], limits: Limits, cost: Cost, lessons: &Lessons) -> Vec<Planned> {
    let mut groups: Vec<(Table, Duration)> = items
        .iter()
        .map(|item| (item.span.table, item.interval))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let mut planned = Vec::new();
    for (table, interval) in groups {
        let mut group: Vec<Item> = items
            .iter()
            .filter(|item| item.span.table == table && item.interval == interval)
            .copied()
            .collect();
        group.sort_by_key(|item| (item.span.start, item.span.count, item.point));
        let shelf = Shelf {
            items: &group,
            most: if table.is_bits() {
                limits.bits
            } else {
                limits.registers
            },
            cost,
            lessons,
        };
        planned.extend(shelf.requests());
    }
    planned
}

/// The share of time that requests keep the bus busy; 1 is all of it.
pub fn load<'a>(planned: impl IntoIterator<Item = &'a Planned>) -> f64 {
    planned
        .into_iter()
        .map(|request| request.time.as_secs_f64() / request.interval.as_secs_f64().max(1e-6))
        .sum()
}

/// Points of one table and interval, sorted by address.
struct Shelf<'a> {
    items: &'a [Item],
    most: u16,
    cost: Cost,
    lessons: &'a Lessons,
}

/// How far one request can reach from its first item.
struct Reach {
    /// Spans of the requests that read the first item and so many more.
    spans: Vec<Span>,
    /// What stopped it.
    stopped: Reason,
}

impl Shelf<'_> {
    /// Splits the items where the sum of times is least; with equal sums, into fewer requests.
    fn requests(&self) -> Vec<Planned> {
        let count = self.items.len();
        let mut best = vec![(Duration::MAX, usize::MAX, 0); count + 1];
        best[0] = (Duration::ZERO, 0, 0);
        for first in 0..count {
            let (time, requests, _) = best[first];
            for (more, span) in self.reach(first).spans.into_iter().enumerate() {
                let candidate = (time + self.cost.read(span), requests + 1, first);
                let end = &mut best[first + more + 1];
                if (candidate.0, candidate.1) < (end.0, end.1) {
                    *end = candidate;
                }
            }
        }
        let mut starts = Vec::new();
        let mut end = count;
        while end > 0 {
            let first = best[end].2;
            starts.push((first, end));
            end = first;
        }
        starts.reverse();
        let mut before = None;
        let request = |(first, end)| self.request(before.replace(first), first, end);
        starts.into_iter().map(request).collect()
    }

    fn request(&self, before: Option<usize>, first: usize, end: usize) -> Planned {
        let items = &self.items[first..end];
        let span = items[1..]
            .iter()
            .fold(items[0].span, |span, item| joined(span, item.span));
        let mut wanted = 0;
        let mut upto = u32::from(span.start);
        for item in items {
            let from = upto.max(u32::from(item.span.start));
            wanted += item.span.end().saturating_sub(from);
            upto = upto.max(item.span.end());
        }
        Planned {
            span,
            interval: items[0].interval,
            points: items.iter().map(|item| item.point).collect(),
            across: span.count - u16::try_from(wanted).unwrap_or(span.count),
            time: self.cost.read(span),
            reason: self.reason(before, first, end),
        }
    }

    /// Why the request of items `first..end` is not one with that which begins with `before`.
    fn reason(&self, before: Option<usize>, first: usize, end: usize) -> Reason {
        let Some(before) = before else {
            return Reason::First;
        };
        let reach = self.reach(before);
        if reach.spans.len() < end - before {
            return reach.stopped;
        }
        let hole_start = reach.spans[first - before - 1].end();
        let hole_end = u32::from(self.items[first].span.start);
        Reason::HoleDearer {
            elements: hole_end.saturating_sub(hole_start),
        }
    }

    fn reach(&self, first: usize) -> Reach {
        let mut span = self.items[first].span;
        let mut spans = vec![span];
        for item in &self.items[first + 1..] {
            if self.refused(span, item.span) {
                return Reach {
                    spans,
                    stopped: Reason::Learned,
                };
            }
            if item.span.end().max(span.end()) - u32::from(span.start) > u32::from(self.most) {
                return Reach {
                    spans,
                    stopped: Reason::Limit,
                };
            }
            span = joined(span, item.span);
            spans.push(span);
        }
        Reach {
            spans,
            stopped: Reason::First,
        }
    }

    /// Whether the device has refused to read `next` together with what ends before it.
    fn refused(&self, span: Span, next: Span) -> bool {
        let at = |address| Register {
            table: span.table,
            address,
        };
        let cut = self.lessons.cuts.contains(&at(next.start)) && next.start > span.start;
        let hole = u16::try_from(span.end())
            .is_ok_and(|end| end < next.start && self.has_hole(at(end), at(next.start)));
        cut || hole
    }

    fn has_hole(&self, from: Register, to: Register) -> bool {
        self.lessons.holes.range(from..to).next().is_some()
    }
}

fn joined(span: Span, next: Span) -> Span {
    let end = span.end().max(next.end());
    let count = end - u32::from(span.start);
    Span {
        count: u16::try_from(count).unwrap_or(u16::MAX),
        ..span
    }
}

fn bytes(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::config::Parity;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: Limits = Limits {
        registers: 125,
        bits: 2_000,
    };

    fn line(baud: u32) -> Cost {
        Cost::Line(LineRate::new(baud, Parity::Even, None))
    }

    fn items(spans: &[(u16, u16)]) -> Vec<Item> {
        let item = |(point, (start, count)): (usize, &(u16, u16))| Item {
            point,
            span: Span {
                table: Table::Input,
                start: *start,
                count: *count,
            },
            interval: SECOND,
        };
        spans.iter().enumerate().map(item).collect()
    }

    fn spans(planned: &[Planned]) -> Vec<(u16, u16)> {
        planned
            .iter()
            .map(|request| (request.span.start, request.span.count))
            .collect()
    }

    #[test]
    fn a_hole_is_read_when_that_is_cheaper_than_a_second_request() {
        let two = items(&[(0, 2), (10, 2)]);
        let planned = plan(&two, LIMITS, line(9_600), &Lessons::default());
        assert_eq!(spans(&planned), [(0, 12)]);
        assert_eq!(planned[0].across, 8);
        let far = items(&[(0, 2), (60, 2)]);
        let planned = plan(&far, LIMITS, line(9_600), &Lessons::default());
        assert_eq!(spans(&planned), [(0, 2), (60, 2)]);
        assert_eq!(planned[1].reason, Reason::HoleDearer { elements: 58 });
        // The faster the line, the more the turnaround weighs.
        let planned = plan(&far, LIMITS, line(115_200), &Lessons::default());
        assert_eq!(spans(&planned), [(0, 62)]);
    }

    #[test]
    fn over_a_network_everything_within_the_limit_is_one_request() {
        let spread = items(&[(0, 2), (50, 2), (123, 2), (124, 4)]);
        let planned = plan(&spread, LIMITS, Cost::Network, &Lessons::default());
        assert_eq!(planned.len(), 2);
        assert_eq!(planned[1].reason, Reason::Limit);
    }

    #[test]
    fn a_point_is_never_split_at_the_limit() {
        let limits = Limits {
            registers: 5,
            bits: 8,
        };
        let three = items(&[(0, 2), (2, 2), (4, 2)]);
        let planned = plan(&three, limits, line(9_600), &Lessons::default());
        assert_eq!(planned.iter().map(|one| one.points.len()).sum::<usize>(), 3);
        assert!(planned.iter().all(|one| one.span.count % 2 == 0));
    }

    #[test]
    fn learned_holes_and_cuts_are_not_read_across() {
        let register = |address| Register {
            table: Table::Input,
            address,
        };
        let lessons = Lessons {
            holes: [register(5)].into(),
            cuts: [register(12)].into(),
        };
        let four = items(&[(0, 2), (10, 2), (12, 2), (14, 2)]);
        let planned = plan(&four, LIMITS, line(9_600), &lessons);
        assert_eq!(spans(&planned), [(0, 2), (10, 2), (12, 4)]);
        assert_eq!(planned[1].reason, Reason::Learned);
    }

    #[test]
    fn overlapping_points_share_their_registers() {
        let overlapping = items(&[(3, 1), (3, 1), (2, 4), (0, 1)]);
        let planned = plan(&overlapping, LIMITS, line(9_600), &Lessons::default());
        assert_eq!(spans(&planned), [(0, 6)]);
        assert_eq!(planned[0].across, 1);
        assert_eq!(planned[0].points, [3, 2, 0, 1]);
    }

    #[test]
    fn load_is_the_share_of_time_that_the_bus_is_busy() {
        let planned = plan(&items(&[(0, 2)]), LIMITS, line(9_600), &Lessons::default());
        let share = load(&planned);
        assert!((0.033..0.036).contains(&share), "{share}");
    }

    proptest! {
        #[test]
        fn every_point_is_read_once_within_the_limit_and_at_no_more_than_one_by_one(
            places in prop::collection::vec((0u16..400, 1u16..5), 1..40),
        ) {
            let all = items(&places);
            let planned = plan(&all, LIMITS, line(19_200), &Lessons::default());
            let mut read: Vec<usize> = planned.iter().flat_map(|one| one.points.clone()).collect();
            read.sort_unstable();
            prop_assert_eq!(read, (0..all.len()).collect::<Vec<_>>());
            for request in &planned {
                prop_assert!(request.span.count <= LIMITS.registers);
                for point in &request.points {
                    let inner = all[*point].span;
                    prop_assert!(inner.start >= request.span.start && inner.end() <= request.span.end());
                }
            }
            let together: Duration = planned.iter().map(|one| one.time).sum();
            let single: Duration = all.iter().map(|one| line(19_200).read(one.span)).sum();
            prop_assert!(together <= single);
        }
    }
}
