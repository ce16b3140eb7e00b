//! The plan: what is read together, what apart, and that no other grouping is cheaper.

use proptest::prelude::*;

use crate::{
    config::Parity,
    fieldbus::{register::Table, wire::line_rate::LineRate},
};

use super::{place::Block, *};

const SECOND: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits {
    registers: 125,
    bits: 2_000,
    bits_from_zero: false,
    one_value: false,
    blocks: Vec::new(),
};

fn line(baud: u32) -> Cost {
    Cost::line(LineRate::new(baud, Parity::Even, None))
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
        .map(|request| (request.base.span.start, request.base.span.count))
        .collect()
}

#[test]
fn a_hole_is_read_when_that_is_cheaper_than_a_second_request() {
    let two = items(&[(0, 2), (10, 2)]);
    let planned = plan(&two, &LIMITS, line(9_600), &Lessons::default());
    assert_eq!(spans(&planned), [(0, 12)]);
    assert_eq!(planned[0].base.across, 8);
    let far = items(&[(0, 2), (60, 2)]);
    let planned = plan(&far, &LIMITS, line(9_600), &Lessons::default());
    assert_eq!(spans(&planned), [(0, 2), (60, 2)]);
    assert_eq!(planned[1].reason, Reason::HoleDearer { elements: 58 });
    // The faster the line, the more the turnaround weighs.
    let planned = plan(&far, &LIMITS, line(115_200), &Lessons::default());
    assert_eq!(spans(&planned), [(0, 62)]);
}

#[test]
fn over_a_network_everything_within_the_limit_is_one_request() {
    let spread = items(&[(0, 2), (50, 2), (123, 2), (124, 4)]);
    let planned = plan(&spread, &LIMITS, Cost::network(), &Lessons::default());
    assert_eq!(planned.len(), 2);
    assert_eq!(planned[1].reason, Reason::Limit);
}

#[test]
fn a_point_is_never_split_at_the_limit() {
    let limits = Limits {
        registers: 5,
        ..LIMITS
    };
    let three = items(&[(0, 2), (2, 2), (4, 2)]);
    let planned = plan(&three, &limits, line(9_600), &Lessons::default());
    assert_eq!(
        planned
            .iter()
            .map(|one| one.base.points.len())
            .sum::<usize>(),
        3
    );
    assert!(planned.iter().all(|one| one.base.span.count % 2 == 0));
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
    let planned = plan(&four, &LIMITS, line(9_600), &lessons);
    assert_eq!(spans(&planned), [(0, 2), (10, 2), (12, 4)]);
    assert_eq!(planned[1].reason, Reason::Learned);
}

#[test]
fn overlapping_points_share_their_registers() {
    let overlapping = items(&[(3, 1), (3, 1), (2, 4), (0, 1)]);
    let planned = plan(&overlapping, &LIMITS, line(9_600), &Lessons::default());
    assert_eq!(spans(&planned), [(0, 6)]);
    assert_eq!(planned[0].base.across, 1);
    assert_eq!(planned[0].base.points, [3, 2, 0, 1]);
}

#[test]
fn load_is_the_share_of_time_that_the_bus_is_busy() {
    let planned = plan(&items(&[(0, 2)]), &LIMITS, line(9_600), &Lessons::default());
    let share = load(&planned);
    assert!((0.033..0.036).contains(&share), "{share}");
}

/// Items at (start, count, interval in tenths of a second).
fn timed(places: &[(u16, u16, u64)]) -> Vec<Item> {
    let spans: Vec<(u16, u16)> = places
        .iter()
        .map(|(start, count, _)| (*start, *count))
        .collect();
    let tenths = places.iter().map(|(.., tenths)| *tenths);
    let timed = |(item, tenths): (Item, u64)| Item {
        interval: Duration::from_millis(100 * tenths),
        ..item
    };
    items(&spans).into_iter().zip(tenths).map(timed).collect()
}

fn turns(request: &Planned) -> Vec<(u64, u16, u16, Vec<usize>)> {
    let turn = |turn: &Turn| {
        let tenths = turn.interval.as_millis() as u64 / 100;
        (tenths, turn.span.start, turn.span.count, turn.added.clone())
    };
    request.turns().map(turn).collect()
}

#[test]
fn a_slow_point_rides_every_so_often_on_a_faster_points_request() {
    let three = timed(&[(0, 2, 10), (2, 2, 100), (4, 2, 600)]);
    let planned = plan(&three, &LIMITS, line(9_600), &Lessons::default());
    assert_eq!(planned.len(), 1);
    let expected = [
        (10, 0, 2, vec![0]),
        (100, 0, 4, vec![1]),
        (600, 0, 6, vec![2]),
    ];
    assert_eq!(turns(&planned[0]), expected);
}

#[test]
fn a_slow_point_far_away_keeps_a_request_of_its_own() {
    let two = timed(&[(0, 2, 10), (80, 2, 100)]);
    let planned = plan(&two, &LIMITS, line(9_600), &Lessons::default());
    assert_eq!(spans(&planned), [(0, 2), (80, 2)]);
    assert_eq!(planned[1].reason, Reason::HoleDearer { elements: 78 });
}

#[test]
fn what_is_read_anyway_needs_no_turn_of_its_own() {
    let hole = timed(&[(0, 2, 10), (2, 1, 600), (4, 2, 10)]);
    let planned = plan(&hole, &LIMITS, line(9_600), &Lessons::default());
    assert_eq!(planned.len(), 1);
    assert_eq!(turns(&planned[0]), [(10, 0, 6, vec![0, 1, 2])]);
}

#[test]
fn an_interval_that_is_no_multiple_is_read_along_each_time_or_apart() {
    let near = timed(&[(0, 2, 10), (2, 1, 15)]);
    let planned = plan(&near, &LIMITS, line(9_600), &Lessons::default());
    assert_eq!(turns(&planned[0]), [(10, 0, 3, vec![0, 1])]);
    let rare = timed(&[(0, 2, 10), (20, 1, 995)]);
    let planned = plan(&rare, &LIMITS, line(9_600), &Lessons::default());
    assert_eq!(spans(&planned), [(0, 2), (20, 1)]);
}

#[test]
fn a_request_does_not_grow_longer_than_its_shortest_interval() {
    let fast = timed(&[(0, 2, 1), (2, 60, 10)]);
    let planned = plan(&fast, &LIMITS, line(9_600), &Lessons::default());
    assert_eq!(spans(&planned), [(0, 2), (2, 60)]);
}

fn blocks(blocks: &[(u16, u16, bool)]) -> Limits {
    let block = |(start, count, alone): &(u16, u16, bool)| Block {
        span: Span {
            table: Table::Input,
            start: *start,
            count: *count,
        },
        alone: *alone,
    };
    Limits {
        blocks: blocks.iter().map(block).collect(),
        ..LIMITS
    }
}

#[test]
fn a_block_is_read_whole_and_once_at_its_fastest_points_interval() {
    let four = timed(&[(0, 2, 10), (12, 2, 100), (18, 2, 10), (30, 1, 10)]);
    let together = blocks(&[(10, 10, false)]);
    let planned = plan(&four, &together, line(9_600), &Lessons::default());
    assert_eq!(turns(&planned[0]), [(10, 0, 31, vec![0, 1, 2, 3])]);
    let alone = blocks(&[(10, 10, true)]);
    let planned = plan(&four, &alone, line(9_600), &Lessons::default());
    assert_eq!(spans(&planned), [(0, 2), (10, 10), (30, 1)]);
    assert_eq!(turns(&planned[1]), [(10, 10, 10, vec![1, 2])]);
    assert_eq!(planned[2].reason, Reason::Alone);
}

#[test]
fn a_device_may_want_one_value_per_request_and_bits_from_zero() {
    let limits = Limits {
        one_value: true,
        ..LIMITS
    };
    let three = items(&[(0, 2), (2, 2), (2, 2)]);
    let planned = plan(&three, &limits, line(9_600), &Lessons::default());
    assert_eq!(spans(&planned), [(0, 2), (2, 2)]);
    let limits = Limits {
        bits_from_zero: true,
        ..LIMITS
    };
    let mut coils = items(&[(8, 1), (20, 1)]);
    for coil in &mut coils {
        coil.span.table = Table::Coil;
    }
    let planned = plan(&coils, &limits, line(9_600), &Lessons::default());
    assert_eq!(spans(&planned), [(0, 21)]);
    assert_eq!(planned[0].base.across, 19);
}

#[test]
fn slow_points_miss_but_for_those_that_fit_the_reserve() {
    let three = timed(&[(0, 2, 1), (200, 120, 4), (400, 120, 600)]);
    let planned = plan(&three, &LIMITS, line(9_600), &Lessons::default());
    assert!(load(&planned) > 1.0, "{}", load(&planned));
    let missing = missing(planned.iter().map(|request| ((), request)), 1);
    let points: Vec<usize> = missing
        .iter()
        .flat_map(|(_, turn)| turn.added.clone())
        .collect();
    assert_eq!(points, [1]);
}

/// Bus time per hour of the best of all ways to put items into requests.
fn best_of_all(items: &[Item], cost: Cost) -> f64 {
    fn search(rest: &[Item], groups: &mut Vec<Vec<Item>>, cost: Cost, best: &mut f64) {
        let Some((item, rest)) = rest.split_first() else {
            let one = |group: &Vec<Item>| {
                let places = LIMITS.places(group);
                shelf::request_of(&places, cost).map(|one| load([&one]))
            };
            if let Some(sum) = groups.iter().map(one).sum::<Option<f64>>() {
                *best = best.min(sum);
            }
            return;
        };
        for index in 0..=groups.len() {
            if index == groups.len() {
                groups.push(Vec::new());
            }
            groups[index].push(*item);
            search(rest, groups, cost, best);
            groups[index].pop();
            if groups[index].is_empty() {
                groups.pop();
            }
        }
    }
    let mut best = f64::INFINITY;
    search(items, &mut Vec::new(), cost, &mut best);
    best
}

fn by_interval(items: &[Item], cost: Cost) -> f64 {
    let intervals: BTreeSet<Duration> = items.iter().map(|item| item.interval).collect();
    let of = |interval: &Duration| {
        let own = items.iter().filter(|item| item.interval == *interval);
        load(&plan(
            &own.copied().collect::<Vec<_>>(),
            &LIMITS,
            cost,
            &Lessons::default(),
        ))
    };
    intervals.iter().map(of).sum()
}

proptest! {
    #[test]
    fn every_point_is_read_once_within_the_limit_and_at_no_more_than_one_by_one(
        places in prop::collection::vec((0u16..400, 1u16..5), 1..40),
    ) {
        let all = items(&places);
        let planned = plan(&all, &LIMITS, line(19_200), &Lessons::default());
        let mut read: Vec<usize> = planned.iter().flat_map(|one| one.base.points.clone()).collect();
        read.sort_unstable();
        prop_assert_eq!(read, (0..all.len()).collect::<Vec<_>>());
        for request in &planned {
            prop_assert!(request.base.span.count <= LIMITS.registers);
            for point in &request.base.points {
                let inner = all[*point].span;
                prop_assert!(inner.start >= request.base.span.start && inner.end() <= request.base.span.end());
            }
        }
        let together: Duration = planned.iter().map(|one| one.base.time).sum();
        let single: Duration = all.iter().map(|one| line(19_200).read(one.span)).sum();
        prop_assert!(together <= single);
    }

    #[test]
    fn sharing_never_takes_more_of_the_bus_than_a_request_per_interval(
        places in prop::collection::vec((0u16..300, 1u16..5, 1u64..60), 1..40),
        baud in prop::sample::select(vec![1_200u32, 9_600, 19_200, 115_200]),
    ) {
        let all = timed(&places);
        let planned = plan(&all, &LIMITS, line(baud), &Lessons::default());
        prop_assert!(load(&planned) <= by_interval(&all, line(baud)) * (1.0 + 1e-9));
        for request in &planned {
            let mut read = BTreeSet::new();
            for turn in request.turns() {
                prop_assert!(turn.span.count <= LIMITS.registers);
                read.extend(turn.added.iter().copied());
                prop_assert_eq!(&read, &turn.points.iter().copied().collect());
                for point in &turn.points {
                    prop_assert!(turn.span.contains(all[*point].span));
                    prop_assert!(turn.added.contains(point) <= (turn.interval <= all[*point].interval));
                }
            }
        }
        let mut read: Vec<usize> =
            planned.iter().flat_map(|one| one.widest().points.clone()).collect();
        read.sort_unstable();
        prop_assert_eq!(read, (0..all.len()).collect::<Vec<_>>());
    }

    #[test]
    fn no_other_grouping_of_multiples_takes_much_less_of_the_bus(
        places in prop::collection::vec(
            (0u16..120, 1u16..5, prop::sample::select(vec![10u64, 20, 100, 600])), 1..8),
        baud in prop::sample::select(vec![1_200u32, 9_600, 19_200, 115_200]),
    ) {
        let all = timed(&places);
        let planned = load(&plan(&all, &LIMITS, line(baud), &Lessons::default()));
        let best = best_of_all(&all, line(baud));
        prop_assert!(planned <= best * 1.25, "{planned} instead of {best}");
    }
}
