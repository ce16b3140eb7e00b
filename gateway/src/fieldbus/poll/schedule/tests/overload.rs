//! Buses that are asked for more than there is time.

use crate::fieldbus::poll::{device, plan};

use super::*;

/// Each request of these devices takes 20.6 ms on the test's line of 19,200 baud.
fn far_apart(name: &str, unit: u8, interval_ms: u64, requests: u16) -> config::Device {
    let registers: Vec<String> = (0..requests)
        .map(|at| format!("input:{}", at * 126))
        .collect();
    let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
    device(name, unit, interval_ms, &registers)
}

/// The longest time between two readings of a device's points, each point by itself.
fn longest_gap(sim: &Sim, device: &str, since: Duration) -> Duration {
    let mut last: HashMap<&str, Duration> = HashMap::new();
    let mut longest = Duration::ZERO;
    for (at, event) in sim.events.iter().filter(|(at, _)| *at >= since) {
        let Event::Readings(readings) = event else {
            continue;
        };
        let good = |one: &&Reading| &*one.device == device && one.quality == Quality::Good;
        for reading in readings.iter().filter(good) {
            if let Some(before) = last.insert(&reading.point, *at) {
                longest = longest.max(*at - before);
            }
        }
    }
    longest
}

fn overloads(sim: &Sim) -> Vec<bool> {
    let told = |notice: &Notice| match notice {
        Notice::Overload { .. } => Some(true),
        Notice::Relieved { .. } => Some(false),
        _ => None,
    };
    sim.notices.iter().filter_map(told).collect()
}

/// 33 % at half a second, 33 % at two seconds, 82 % at five, 7 % at thirty: 155 %.
fn plant() -> [config::Device; 4] {
    [
        far_apart("fast", 1, 500, 8),
        far_apart("middle", 2, 2_000, 32),
        far_apart("slow", 3, 5_000, 200),
        far_apart("slowest", 4, 30_000, 100),
    ]
}

#[test]
fn slow_points_give_way_to_fast_ones_and_nobody_starves() {
    let mut sim = Sim::new(&plant(), Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(600));
    let settled = secs(30);
    let gap = |name: &str| longest_gap(&sim, name, settled).as_millis();
    // A reading may come an interval after it is due, so twice the interval after the last.
    assert!(gap("fast") <= 1_000, "{}", gap("fast"));
    assert!(gap("middle") <= 4_000, "{}", gap("middle"));
    assert!(gap("slow") > 10_000, "{}", gap("slow"));
    assert!(gap("slow") <= 40_000, "{}", gap("slow"));
    assert!(gap("slowest") <= 120_000, "{}", gap("slowest"));
    // No time is left over while points are late.
    let busy = sim.schedule.status("line", "port", sim.now.monotonic);
    assert!(busy.utilisation > 0.99, "{}", busy.utilisation);
}

#[test]
fn overload_is_told_once_when_it_begins_and_once_when_it_has_ended() {
    let world = |one: &Transaction, at: Duration| match one.unit {
        3 if at > secs(300) && at < secs(900) => silent(one),
        _ => healthy(one),
    };
    let mut sim = Sim::new(&plant(), Box::new(world));
    sim.run_until(secs(299));
    assert_eq!(overloads(&sim), [true]);
    let Some(Notice::Overload { load, late }) = sim.notices.first() else {
        panic!("{:?}", sim.notices);
    };
    assert!((1.4..1.7).contains(load), "{load}");
    let names: HashSet<&str> = late.iter().map(|one| &*one.device).collect();
    assert_eq!(names, HashSet::from(["slow"]), "the 7 % fit the reserve");
    let text = sim.notices[0].to_string();
    assert!(
        text.contains(" % booked; slow points give way: slow, input register"),
        "{text}"
    );
    assert!(
        text.contains(" instead of 5s, slow, ") && text.contains(" and 192 more; "),
        "{text}"
    );
    let status = sim.schedule.status("line", "port", sim.now.monotonic);
    assert!(status.late.len() == 200 && status.load > 1.5);
    // The slow device dies, and the others have time; then it returns.
    sim.run_until(secs(890));
    assert_eq!(overloads(&sim), [true, false]);
    let status = sim.schedule.status("line", "port", sim.now.monotonic);
    assert_eq!(status.late, []);
    sim.run_until(secs(2_400));
    assert_eq!(overloads(&sim), [true, false, true]);
}

#[test]
fn what_holds_a_bus_up_for_long_is_told_and_what_does_so_for_a_moment_is_not() {
    // 13 % booked; the slow one says that it is busy, and takes nine tenths of a second for it.
    let world = |busy: std::ops::Range<u64>| {
        move |one: &Transaction, at: Duration| match one.unit {
            2 if busy.contains(&at.as_secs()) => (Duration::from_millis(1_900), refused(6).1),
            _ => healthy(one),
        }
    };
    let devices = [far_apart("fast", 1, 500, 3), far_apart("slow", 2, 2_000, 1)];
    let mut long = Sim::new(&devices, Box::new(world(100..900)));
    long.run_until(secs(890));
    assert_eq!(overloads(&long), [true], "{:?}", long.notices);
    let mut told = long.notices.iter();
    let told = told.find(|one| matches!(one, Notice::Overload { .. }));
    let text = told.expect("an overload").to_string();
    assert!(
        text.contains("read later than their intervals: fast, "),
        "{text}"
    );
    assert!(
        text.ends_with("take more of the bus than is planned"),
        "{text}"
    );
    long.run_until(secs(1_300));
    assert_eq!(overloads(&long), [true, false], "{:?}", long.notices);
    let mut short = Sim::new(&devices, Box::new(world(100..340)));
    short.run_until(secs(800));
    assert!(overloads(&short).is_empty(), "{:?}", short.notices);
}

#[test]
fn a_bus_just_at_its_limit_is_not_told_again_and_again() {
    // 98 to 102 % in turn, by how long the device takes.
    let world = |one: &Transaction, at: Duration| {
        let (time, reply) = healthy(one);
        let slower = (at.as_secs() / 20).is_multiple_of(2);
        (time.mul_f64(if slower { 1.02 } else { 0.98 }), reply)
    };
    let devices = [
        far_apart("fast", 1, 1_000, 24),
        far_apart("slow", 2, 10_000, 244),
    ];
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(1_200));
    assert!(overloads(&sim).len() <= 1, "{:?}", sim.notices);
}

#[test]
fn even_one_interval_that_is_too_short_for_the_line_leaves_the_slow_points_theirs() {
    let devices = [
        device("a", 1, 20, &["input:0"]),
        device("b", 2, 1_000, &["input:0"]),
    ];
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(60));
    assert_eq!(overloads(&sim), [true], "{:?}", sim.notices);
    assert!(sim.reading_times("b").len() >= 58);
    // The other takes all that is left.
    assert!(sim.reading_times("a").len() >= 1_350);
}

#[test]
fn a_command_goes_before_everything_on_an_overloaded_bus() {
    let mut devices = plant().to_vec();
    devices.push(device("a", 9, 60_000, &["holding:0"]));
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(60));
    let before = sim.elapsed();
    sim.command("p0", json!(7));
    sim.run_until(secs(62));
    let result =
        |(at, event): &(Duration, Event)| matches!(event, Event::Result(_)).then(|| *at - before);
    let waited = sim.events.iter().find_map(result).expect("a result");
    assert!(waited < Duration::from_millis(150), "{waited:?}");
}

#[test]
fn units_that_answer_are_all_found_at_once_on_a_bus_that_is_asked_for_too_much() {
    // Each takes 20.6 ms and wants to be read every 10 ms.
    let devices: Vec<_> = (1..=20)
        .map(|unit| far_apart(&format!("d{unit}"), unit, 10, 1))
        .collect();
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(2));
    for device in &devices {
        assert_eq!(sim.states(&device.name).len(), 1, "{}", device.name);
    }
}

#[test]
fn what_check_names_is_what_the_schedule_lets_miss() {
    for plant in [
        plant().to_vec(),
        vec![far_apart("a", 1, 1_000, 40), far_apart("b", 2, 30_000, 500)],
        vec![far_apart("a", 1, 100, 6), far_apart("b", 2, 2_000, 4)],
    ] {
        let cost = Cost::of(&bus());
        let planned: Vec<_> = plant
            .iter()
            .flat_map(|one| {
                device::requests(one, cost, None)
                    .into_iter()
                    .map(|all| (&*one.name, all))
            })
            .collect();
        let named = plan::missing(planned.iter().map(|(name, one)| (*name, one)), 1);
        let named: HashSet<(&str, u16)> = named
            .iter()
            .map(|(name, turn)| (*name, turn.span.start))
            .collect();
        let mut sim = Sim::new(&plant, Box::new(|one: &Transaction, _| healthy(one)));
        sim.run_until(secs(300));
        let late = sim.schedule.status("line", "port", sim.now.monotonic).late;
        let late: HashSet<(&str, u16)> = late
            .iter()
            .map(|one| (&*one.device, one.span.start))
            .collect();
        assert!(!named.is_empty());
        assert_eq!(named, late);
    }
}
