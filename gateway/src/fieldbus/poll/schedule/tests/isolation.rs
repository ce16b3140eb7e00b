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

/// How often each request of unit 1 goes out on a well booked bus.
const INTERVAL: Duration = Duration::from_millis(500);

/// Beside unit 2, unit 1 takes three quarters of the bus: eighteen requests of 20.6 ms in each
/// interval. What is left holds no time-out of 300 ms.
fn well_booked(world: World) -> Sim {
    booked(18, world)
}

/// So many requests of unit 1 beside unit 2.
fn booked(requests: u16, world: World) -> Sim {
    let registers: Vec<String> = (0..requests)
        .map(|at| format!("input:{}", at * 126))
        .collect();
    let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
    let interval = u64::try_from(INTERVAL.as_millis()).expect("short");
    let devices = [
        device("busy", 1, interval, &registers),
        device("ill", 2, 1_000, &["input:0", "input:1"]),
    ];
    Sim::new(&devices, world)
}

/// The intervals in which not every request of unit 1 went out.
fn missed(sim: &Sim, requests: usize) -> Vec<u32> {
    let mut asked: HashMap<u128, HashSet<u16>> = HashMap::new();
    for (at, one) in sim.sent.iter().filter(|(_, one)| one.unit == 1) {
        let Request::Read(span) = one.request else {
            unreachable!("only reads");
        };
        let slot = at.as_millis() / INTERVAL.as_millis();
        asked.entry(slot).or_default().insert(span.start);
    }
    let whole = u32::try_from(sim.elapsed().as_millis() / INTERVAL.as_millis()).expect("hours");
    let all = |slot: &u32| asked.get(&u128::from(*slot)).map(HashSet::len) == Some(requests);
    (0..whole).filter(|slot| !all(slot)).collect()
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
        .map(|(_, wait)| wait.as_millis())
        .collect();
    assert!(dead.len() >= 12, "{dead:?}");
    let shorter = |wait: &u128| (100..u128::from(TIMEOUT_MS)).contains(wait);
    assert!(dead.iter().all(shorter), "{dead:?}");
    assert!(missed(&sim, 18).is_empty(), "{:?}", missed(&sim, 18));
}

/// When unit 2, which died after ten seconds, is asked once it counts as offline.
fn probes(sim: &Sim) -> Vec<Duration> {
    let asked = waits(sim).into_iter().filter(|(at, _)| *at >= secs(10));
    asked.skip(3).map(|(at, _)| at).collect()
}

#[test]
fn where_there_is_time_a_dead_unit_is_asked_after_each_pause() {
    let mut sim = well_booked(taking(|at| (at < secs(10)).then_some(0)));
    sim.run_until(secs(3_600));
    let probes = probes(&sim);
    for two in probes.windows(2) {
        assert!(two[1] - two[0] <= secs(301), "{two:?}");
    }
    assert!(probes.len() >= 14, "{probes:?}");
}

#[test]
fn where_the_others_can_spare_no_time_a_dead_unit_waits_for_its_share() {
    // 23 requests take 474 ms of each 500.
    let mut sim = booked(23, taking(|at| (at < secs(10)).then_some(0)));
    sim.run_until(secs(3_600));
    let probes = probes(&sim);
    for (index, two) in probes.windows(2).enumerate() {
        let pause = secs((10 << index.min(5)).min(300));
        assert!(two[1] - two[0] >= pause * 8 / 5, "{index}: {two:?}");
    }
    assert!((6..=11).contains(&probes.len()), "{probes:?}");
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
    sim.answers_late = |one, at| one.unit == 2 && at >= secs(60);
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

#[test]
fn a_unit_that_was_never_heard_of_is_given_a_whole_time_out_once() {
    // 250 ms from the start: no shorter wait holds its answer, and the line brings no late one.
    let mut sim = well_booked(taking(|_| Some(250)));
    sim.run_until(secs(60));
    assert!(
        matches!(sim.states("ill")[..], [(0..=5, true), ..]),
        "{:?}",
        sim.states("ill")
    );
}

/// A unit that answers at first, and then from so many seconds on.
fn away(from: u64, until: u64) -> World {
    Box::new(move |one: &Transaction, at: Duration| {
        if one.unit == 2 && (from..until).contains(&at.as_secs()) {
            silent(one)
        } else {
            healthy(one)
        }
    })
}

fn pair() -> [config::Device; 2] {
    [
        device("b", 1, 1_000, &["holding:0"]),
        device("a", 2, 1_000, &["holding:0"]),
    ]
}

fn writes_to(sim: &Sim, unit: u8) -> usize {
    let is_write = |one: &Transaction| !matches!(one.request, Request::Read(_));
    let mut of_unit = sim.sent.iter().filter(|(_, one)| one.unit == unit);
    of_unit.by_ref().filter(|(_, one)| is_write(one)).count()
}

#[test]
fn a_command_for_a_unit_that_is_offline_asks_it_first_and_is_refused_with_the_cause() {
    let mut sim = Sim::new(&pair(), away(10, 1_000));
    sim.run_until(secs(100));
    let asked = |sim: &Sim| sim.sent.iter().filter(|(_, one)| one.unit == 2).count();
    let before = asked(&sim);
    for _ in 0..20 {
        sim.command("p0", json!(7));
    }
    sim.run_until(secs(104));
    let refused = "not sent: the device is offline: no answer in 300ms".to_owned();
    assert_eq!(sim.outcomes(), vec![Outcome::Refused(refused); 20]);
    assert_eq!(asked(&sim) - before, 1, "once for all of them");
    assert_eq!(writes_to(&sim, 2), 0);
}

#[test]
fn a_command_finds_a_unit_that_is_back_before_its_next_probe_does() {
    let mut sim = Sim::new(&pair(), away(10, 700));
    sim.run_until(secs(701));
    sim.command("p0", json!(7));
    sim.run_until(secs(702));
    let seven = crate::reading::Value::Integer(7);
    assert_eq!(sim.outcomes(), [Outcome::Executed(seven)]);
    assert!(
        matches!(sim.states("a")[..], [.., (701, true)]),
        "{:?}",
        sim.states("a")
    );
}
