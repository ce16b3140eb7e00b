//! What the loss of one frame costs, and how often a unit that is gone is told.

use super::*;

/// A world in which unit 2 does not answer its first request at or after `lost`.
fn losing_one(lost: Duration) -> World {
    let mut waits = true;
    Box::new(move |one: &Transaction, at: Duration| {
        if one.unit == 2 && at >= lost && std::mem::take(&mut waits) {
            silent(one)
        } else {
            healthy(one)
        }
    })
}

#[test]
fn a_unit_that_loses_one_frame_is_asked_again_soon_even_without_slack() {
    let devices = [
        device("a", 1, 20, &["input:0"]),
        device("b", 2, 1_000, &["input:0"]),
    ];
    let mut sim = Sim::on(&bus(), &devices, losing_one(secs(30)));
    sim.run_until(secs(60));
    let of_unit = sim
        .sent
        .iter()
        .filter(|(at, one)| one.unit == 2 && *at >= secs(30));
    let times: Vec<Duration> = of_unit.map(|(at, _)| *at).collect();
    // The time-out, and as long again for those whose deadlines were nearer.
    let soon = Duration::from_millis(2 * TIMEOUT_MS + 100);
    assert!(times[1] - times[0] <= soon, "{:?}", times[1] - times[0]);
    assert_eq!(sim.states("b").len(), 1, "it was not told offline");
}

#[test]
fn a_unit_that_fails_in_turns_differently_is_told_offline_once_with_its_first_cause() {
    let mut turn = 0;
    let world = move |one: &Transaction, at: Duration| {
        turn += 1;
        match one.unit {
            2 if (60..3_600).contains(&at.as_secs()) && turn % 2 == 0 => silent(one),
            2 if (60..3_600).contains(&at.as_secs()) => {
                let noise = Reply::Garbled(format!("noise {turn}"));
                (Duration::from_millis(5), noise)
            }
            _ => healthy(one),
        }
    };
    let devices = [
        device("a", 1, 1_000, &["input:0"]),
        device("b", 2, 1_000, &["input:0"]),
    ];
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(4_000));
    let states = sim.states("b");
    assert!(
        matches!(states[..], [(0, true), (60..=70, false), (3_600.., true)]),
        "{states:?}"
    );
}

#[test]
fn a_wire_that_fails_in_turns_differently_is_told_with_what_broke_it_and_what_keeps_it_down() {
    let devices = [device("a", 1, 1_000, &["input:0"])];
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(5));
    for attempt in 0..50 {
        for reason in ["reset", "refused", "no route"] {
            sim.input(Input::WireDown(reason.to_owned()));
            sim.run_until(secs(6 + attempt));
        }
    }
    assert_eq!(sim.states("a"), [(0, true), (5, false), (6, false)]);
    sim.input(Input::WireUp);
    sim.run_until(secs(70));
    sim.input(Input::WireDown("reset".to_owned()));
    sim.run_until(secs(71));
    assert!(
        matches!(sim.states("a")[3..], [(55, true), (70, false)]),
        "{:?}",
        sim.states("a")
    );
}

/// Requests of unit 1 in each interval.
const REQUESTS: usize = 18;

/// Beside unit 2, unit 1 takes three quarters of the bus: eighteen requests of 20.6 ms every half
/// second. What is left holds no time-out of 300 ms.
fn well_booked(world: World) -> Sim {
    let registers: Vec<String> = (0..REQUESTS)
        .map(|at| format!("input:{}", at * 126))
        .collect();
    let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
    let devices = [
        device("busy", 1, 500, &registers),
        device("ill", 2, 1_000, &["input:0", "input:1"]),
    ];
    Sim::new(&devices, world)
}

/// Unit 2 takes so long for itself from some moment on; what is later than the time-out is lost.
fn taking(own: fn(Duration) -> Option<u64>) -> World {
    Box::new(move |one: &Transaction, at: Duration| {
        let (time, reply) = healthy(one);
        match own(at) {
            Some(own) if one.unit == 2 => {
                let time = time + Duration::from_millis(own);
                if time <= one.timeout {
                    (time, reply)
                } else {
                    silent(one)
                }
            }
            None if one.unit == 2 => silent(one),
            _ => (time, reply),
        }
    })
}

/// When unit 2 was asked, and for how long it was waited for.
fn waits(sim: &Sim) -> Vec<(Duration, Duration)> {
    let of_unit = sim.sent.iter().filter(|(_, one)| one.unit == 2);
    of_unit.map(|(at, one)| (*at, one.timeout)).collect()
}

#[test]
fn a_dead_unit_is_waited_for_only_as_long_as_the_others_can_wait() {
    let mut sim = well_booked(taking(|at| (at < secs(10)).then_some(0)));
    sim.run_until(secs(3_600));
    let dead: Vec<_> = waits(&sim)
        .into_iter()
        .filter(|(at, _)| *at >= secs(10))
        .collect();
    let (full, brief): (Vec<_>, Vec<_>) = dead
        .iter()
        .partition(|(_, wait)| *wait >= Duration::from_millis(TIMEOUT_MS));
    assert!(brief.len() >= 9 && full.len() <= 6, "{dead:?}");
    // Each request of the other goes out in each of its intervals.
    let interval = Duration::from_millis(500);
    let mut asked: HashMap<u128, HashSet<u16>> = HashMap::new();
    for (at, one) in sim.sent.iter().filter(|(_, one)| one.unit == 1) {
        let Request::Read(span) = one.request else {
            unreachable!("only reads");
        };
        let slot = at.as_millis() / interval.as_millis();
        asked.entry(slot).or_default().insert(span.start);
    }
    let late = (0..7_200).filter(|slot| asked.get(slot).map(HashSet::len) != Some(REQUESTS));
    for slot in late {
        let at = Duration::from_millis(u64::try_from(slot * 500).expect("an hour"));
        let by_full =
            |(from, _): &(Duration, Duration)| *from <= at + interval && at < *from + 2 * interval;
        assert!(full.iter().any(by_full), "late at {at:?}: {full:?}");
    }
}

#[test]
fn a_unit_that_returns_slower_than_it_was_is_found_again() {
    // 10 ms until it dies; when it is back, 250 ms, which no brief wait holds.
    let own = |at: Duration| match at.as_secs() {
        0..10 => Some(0),
        10..60 => None,
        _ => Some(250),
    };
    let mut sim = well_booked(taking(own));
    sim.run_until(secs(600));
    assert!(
        matches!(
            sim.states("ill")[..],
            [(0..=2, true), (10..=12, false), (60..=300, true)]
        ),
        "{:?}",
        sim.states("ill")
    );
}

#[test]
fn reads_that_follow_each_other_without_an_answer_all_differ_in_length() {
    let mut seed = Jitter::new(3);
    let world = move |one: &Transaction, _| {
        let coin = seed.spread(Duration::from_micros(1_000)).as_micros() % 3;
        if one.unit == 2 && coin == 0 {
            silent(one)
        } else {
            healthy(one)
        }
    };
    let mut sim = well_booked(Box::new(world));
    sim.run_until(secs(3_600));
    let of_unit = |(index, (at, one)): (usize, &(Duration, Transaction))| match &one.request {
        Request::Read(span) if one.unit == 2 => {
            Some((*at, span.data_bytes(), sim.unanswered.contains(&index)))
        }
        _ => None,
    };
    let reads: Vec<_> = sim.sent.iter().enumerate().filter_map(of_unit).collect();
    let mut twice = 0;
    for three in reads.windows(3) {
        let [(from, first, true), (_, second, true), (to, third, _)] = three else {
            continue;
        };
        // A pause lets the line be drained.
        if *to - *from < secs(2) {
            assert!(
                first != second && second != third && first != third,
                "{three:?}"
            );
            twice += 1;
        }
    }
    assert!(twice > 100, "{twice}");
}
