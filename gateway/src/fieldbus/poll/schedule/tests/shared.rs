//! Points of several intervals in one request.

use super::*;

fn two_intervals(slow_ms: u64) -> config::Device {
    let mut device = device("a", 1, 1_000, &["input:0", "input:1", "input:2"]);
    device.points[1].interval = Some(settings::Period::from_millis(slow_ms));
    device
}

/// Reads of so many registers.
fn reads(sim: &Sim, registers: u16) -> usize {
    let long = |(_, sent): &&(Duration, Transaction)| matches!(sent.request, Request::Read(span) if span.count == registers);
    sim.sent.iter().filter(long).count()
}

/// How often each point was published.
fn published(sim: &Sim, points: usize) -> Vec<usize> {
    let of_point = |index: usize| {
        let name = format!("p{index}");
        let readings = sim.events.iter().filter_map(|(_, event)| match event {
            Event::Readings(readings) => Some(readings),
            _ => None,
        });
        readings.flatten().filter(|one| *one.point == *name).count()
    };
    (0..points).map(of_point).collect()
}

#[test]
fn a_slow_point_is_read_with_every_so_manyth_request_and_no_more_often() {
    let mut slow = device("a", 1, 1_000, &["input:0", "input:1"]);
    slow.points[1].interval = Some(settings::Period::from_secs(10));
    let mut sim = Sim::new(&[slow], Box::new(|transaction, _| healthy(transaction)));
    sim.run_until(Duration::from_millis(99_500));
    assert_eq!((reads(&sim, 2), reads(&sim, 1)), (10, 90));
    assert_eq!(published(&sim, 2), [100, 10]);
}

#[test]
fn a_point_that_is_read_more_often_than_it_wants_is_published_as_often_as_it_wants() {
    for (slow_ms, times) in [(10_000, 10), (1_500, 67), (3_600_000, 1)] {
        let healthy = |transaction: &Transaction, _| healthy(transaction);
        let mut sim = Sim::new(&[two_intervals(slow_ms)], Box::new(healthy));
        sim.run_until(Duration::from_millis(99_500));
        assert_eq!(reads(&sim, 3), 100, "it lies between the others");
        assert_eq!(published(&sim, 3), [100, times, 100]);
    }
}

#[test]
fn a_slow_point_that_is_refused_leaves_the_fast_ones_their_pace() {
    let mut slow = device("a", 1, 1_000, &["input:0", "input:1"]);
    slow.points[1].interval = Some(settings::Period::from_secs(10));
    let world = |transaction: &Transaction, _| match transaction.request {
        Request::Read(span) if span.end() > 1 => refused(2),
        _ => healthy(transaction),
    };
    let mut sim = Sim::new(&[slow], Box::new(world));
    sim.run_until(Duration::from_millis(99_500));
    let good = sim.reading_times("a");
    assert_eq!(good.len(), 100);
    let parked = &sim.schedule.status("line", "", sim.now.monotonic).devices[0].parked;
    assert_eq!(parked, &["p1"]);
}

#[test]
fn a_device_that_is_busy_for_the_slow_point_is_not_asked_for_it_more_often() {
    let mut slow = device("a", 1, 1_000, &["input:0", "input:1"]);
    slow.points[1].interval = Some(settings::Period::from_secs(10));
    let world = |transaction: &Transaction, _| match transaction.request {
        Request::Read(span) if span.count == 2 => refused(6),
        _ => healthy(transaction),
    };
    let mut sim = Sim::new(&[slow], Box::new(world));
    sim.run_until(Duration::from_millis(99_500));
    assert_eq!((reads(&sim, 2), reads(&sim, 1)), (10, 90));
}

#[test]
fn the_plan_follows_the_measured_turnaround_without_a_missed_reading() {
    let two = device("a", 1, 1_000, &["input:0", "input:40"]);
    let world = |transaction: &Transaction, at: Duration| {
        let (time, reply) = healthy(transaction);
        let thinking = if at < secs(300) { 0 } else { 70 };
        (time + Duration::from_millis(thinking), reply)
    };
    let mut sim = Sim::new(&[two], Box::new(world));
    sim.run_until(secs(290));
    assert_eq!(
        sim.schedule.status("line", "", sim.now.monotonic).devices[0].requests,
        2
    );
    sim.run_until(Duration::from_millis(899_500));
    let status = sim.schedule.status("line", "", sim.now.monotonic);
    assert_eq!(status.devices[0].requests, 1);
    let turnaround = status.devices[0].turnaround.expect("measured").as_millis();
    assert!((75..85).contains(&turnaround), "{turnaround}");
    assert_eq!(published(&sim, 2), [900, 900]);
    assert_eq!(reads(&sim, 41) + reads(&sim, 1) / 2, 900, "it changed once");
}

#[test]
fn time_outs_do_not_count_as_turnaround() {
    let one = device("a", 1, 1_000, &["input:0"]);
    let mut asked = 0;
    let world = move |transaction: &Transaction, _| {
        asked += 1;
        if asked % 3 == 0 {
            silent(transaction)
        } else {
            healthy(transaction)
        }
    };
    let mut sim = Sim::new(&[one], Box::new(world));
    sim.run_until(secs(120));
    let status = sim.schedule.status("line", "", sim.now.monotonic);
    let turnaround = status.devices[0].turnaround.expect("measured");
    assert!(turnaround < Duration::from_millis(15), "{turnaround:?}");
}
