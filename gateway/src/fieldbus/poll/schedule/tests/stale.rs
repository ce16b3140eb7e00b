//! Values that no newer one follows.

use super::*;

fn readings(sim: &Sim, quality: Quality) -> Vec<(u64, Reading)> {
    let of = |(at, event): &(Duration, Event)| match event {
        Event::Readings(readings) => readings
            .iter()
            .map(|one| (at.as_secs(), one.clone()))
            .collect(),
        _ => Vec::new(),
    };
    let all = sim.events.iter().flat_map(of);
    all.filter(|(_, reading)| reading.quality == quality)
        .collect()
}

#[test]
fn values_of_a_silent_device_are_published_once_as_stale_with_their_own_time() {
    let devices = [device("a", 1, 1_000, &["holding:0", "holding:1"])];
    let silent = |at: Duration| (20..100).contains(&at.as_secs());
    let world = move |transaction: &Transaction, at: Duration| match &transaction.request {
        Request::Read(_) if silent(at) => (Duration::from_millis(TIMEOUT_MS), Reply::TimedOut),
        Request::Read(span) => answered(*span),
        _ => unreachable!("only reads"),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(Duration::from_secs(400));
    let stale = readings(&sim, Quality::Stale);
    let points: Vec<_> = stale.iter().map(|(at, one)| (*at, &*one.point)).collect();
    assert_eq!(points, [(30, "p0"), (30, "p1")], "ten seconds overdue");
    for (_, reading) in &stale {
        assert_eq!(reading.value, Some(crate::reading::Value::Integer(7)));
        assert_eq!(reading.reason.as_deref(), Some("no answer in 300ms"));
        let age = reading.stamp.monotonic - sim.start.monotonic;
        assert_eq!(age.as_secs(), 19, "the moment of the value itself");
    }
    let good = readings(&sim, Quality::Good);
    assert!(
        good.iter().any(|(at, _)| *at > 100),
        "good again after the silence"
    );
}

#[test]
fn values_grow_stale_while_the_wire_is_down() {
    let devices = [device("a", 1, 1_000, &["holding:0"])];
    let world = |transaction: &Transaction, _| match &transaction.request {
        Request::Read(span) => answered(*span),
        _ => unreachable!("only reads"),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(Duration::from_secs(5));
    sim.input(Input::WireDown("unplugged".to_owned()));
    sim.run_until(Duration::from_secs(60));
    let stale = readings(&sim, Quality::Stale);
    assert_eq!(stale.len(), 1);
    assert_eq!(
        (stale[0].0, stale[0].1.reason.as_deref()),
        (15, Some("unplugged"))
    );
    let status = sim.schedule.status("line", "port", sim.now.monotonic);
    let point = &status.devices[0].points[0];
    assert_eq!(point.value, Some(crate::reading::Value::Integer(7)));
    assert_eq!(
        point.known.map(|(_, quality)| quality),
        Some(Quality::Stale)
    );
}
