//! What devices taught before a restart.

use super::*;

/// A device whose `input:5` does not exist and which does not read `input:10` and 11 together.
fn picky(transaction: &Transaction) -> (Duration, Reply) {
    let Request::Read(span) = transaction.request else {
        return healthy(transaction);
    };
    let has = |address: u16| span.start <= address && u32::from(address) < span.end();
    if has(5) || has(10) && has(11) {
        return refused(2);
    }
    answered(span)
}

/// A minute with a device that taught `memories` before, and how many exceptions it answered.
fn run(memories: &Memories) -> (Sim, u64) {
    let picky = |transaction: &Transaction, _| picky(transaction);
    let mut sim = Sim::new(&[], Box::new(picky));
    sim.schedule = Schedule::new(&bus(), &[example()], 42, sim.start);
    sim.schedule.recall(memories, sim.now.monotonic);
    sim.schedule.handle_input(Input::WireUp, sim.start);
    sim.run_until(secs(60));
    let exceptions = sim
        .schedule
        .status("line", "", sim.now.monotonic)
        .exceptions;
    (sim, exceptions)
}

fn example() -> config::Device {
    let registers = ["input:0", "input:5", "input:8", "input:10", "input:11"];
    device("a", 1, 1_000, &registers)
}

fn memories(sim: &Sim) -> Memories {
    sim.schedule.memories().collect()
}

#[test]
fn after_a_restart_nothing_is_learned_twice() {
    let (sim, exceptions) = run(&Memories::new());
    assert!(exceptions > 3, "{exceptions}");
    let before = sim.schedule.status("line", "", sim.now.monotonic);
    assert_eq!(before.devices[0].parked, ["p1"]);
    let (again, exceptions) = run(&memories(&sim));
    // The parked point is asked at once, and after thirty seconds.
    assert_eq!(exceptions, 2);
    let after = again.schedule.status("line", "", again.now.monotonic);
    assert_eq!(after.devices[0].parked, before.devices[0].parked);
    assert_eq!(after.devices[0].requests, before.devices[0].requests);
    assert_eq!(
        memories(&again)["a"].lessons(),
        memories(&sim)["a"].lessons()
    );
}

#[test]
fn another_devices_lessons_are_forgotten() {
    let (sim, _) = run(&Memories::new());
    let mut others = memories(&sim);
    for memory in others.values_mut() {
        memory.fingerprint = "another".to_owned();
    }
    let (_, exceptions) = run(&others);
    assert!(exceptions > 3, "{exceptions}");
}

#[test]
fn the_bus_the_unit_the_limits_and_the_points_make_a_device_another() {
    let of = |change: fn(&mut config::Device)| {
        let mut device = example();
        change(&mut device);
        crate::fieldbus::poll::memory::fingerprint(&device)
    };
    let same = of(|device| device.stale_after = Some(settings::Period::from_secs(1)));
    assert_eq!(
        of(|_| {}),
        same,
        "what is not asked of the device is no matter"
    );
    let changes: [fn(&mut config::Device); 5] = [
        |device| device.bus = "other".to_owned(),
        |device| device.unit = 2,
        |device| device.max_registers = 8,
        |device| device.points[0].register = "input:1".parse().expect("a register"),
        |device| drop(device.points.pop()),
    ];
    for change in changes {
        assert_ne!(of(change), same);
    }
}
