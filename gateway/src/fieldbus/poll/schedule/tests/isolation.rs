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
