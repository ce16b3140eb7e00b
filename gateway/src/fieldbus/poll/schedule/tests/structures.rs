//! Commands that write several points at once.

use super::*;

#[test]
fn a_structure_is_one_request_and_every_point_of_it_is_read_back() {
    let mut stored = [7u16; 4];
    let world = move |transaction: &Transaction, _| match &transaction.request {
        Request::WriteRegisters { address, words } => {
            let at = usize::from(*address);
            stored[at..at + words.len()].copy_from_slice(words);
            (Duration::from_millis(20), Reply::Answer(Answer::Written))
        }
        Request::Read(span) => {
            let at = usize::from(span.start);
            let words = stored[at..at + usize::from(span.count)].to_vec();
            (
                Duration::from_millis(20),
                Reply::Answer(Answer::Registers(words)),
            )
        }
        other => unreachable!("{other:?}"),
    };
    let places = ["holding:0", "holding:1", "holding:2", "holding:3"];
    let mut sim = Sim::new(&[device("a", 1, 60_000, &places)], Box::new(world));
    sim.run_until(secs(1));
    sim.command("", json!({ "p2": 30, "p1": 20 }));
    sim.run_until(secs(3));
    let value = |number| crate::reading::Value::Integer(number);
    let all = vec![("p1".into(), value(20)), ("p2".into(), value(30))];
    assert_eq!(sim.outcomes(), [Outcome::ExecutedAll(all)]);
    let sent: Vec<&Request> = sim.sent.iter().map(|(_, one)| &one.request).collect();
    let words = vec![20, 30];
    assert!(sent.contains(&&Request::WriteRegisters { address: 1, words }));
    assert_eq!(writes(&sim), 1);
}

#[test]
fn coils_of_a_structure_go_out_together() {
    let world = |transaction: &Transaction, _| match &transaction.request {
        Request::Read(span) => {
            let on = Answer::Bits(vec![true; usize::from(span.count)]);
            (Duration::from_millis(20), Reply::Answer(on))
        }
        Request::WriteCoils { .. } => (Duration::from_millis(20), Reply::Answer(Answer::Written)),
        other => unreachable!("{other:?}"),
    };
    let mut device = device("a", 1, 60_000, &["coil:4", "coil:5"]);
    device.points.iter_mut().for_each(|point| point.max = None);
    let mut sim = Sim::new(&[device], Box::new(world));
    sim.run_until(secs(1));
    sim.command("", json!({ "p0": true, "p1": true }));
    sim.run_until(secs(3));
    let coils = vec![true, true];
    let request = Request::WriteCoils { address: 4, coils };
    assert!(sim.sent.iter().any(|(_, one)| one.request == request));
    assert!(matches!(sim.outcomes()[..], [Outcome::ExecutedAll(_)]));
}

#[test]
fn a_structure_that_is_not_one_request_is_refused() {
    let places = ["holding:0", "holding:1", "holding:3", "coil:4", "input:0"];
    let mut plc = device("a", 1, 60_000, &places);
    plc.points[1].bits = "4..7".parse().ok();
    let mut sim = Sim::new(&[plc], Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(1));
    for (value, reason) in [
        (
            json!({ "p0": 1, "p2": 1 }),
            "p0 and p2 are not neighbours in one table; write them one by one",
        ),
        (
            json!({ "p3": true, "p0": 1 }),
            "p3 and p0 are not neighbours in one table; write them one by one",
        ),
        (
            json!({ "p0": 1, "p1": 1 }),
            "p1 is a part of a register, which is not written together with others",
        ),
        (
            json!({ "p0": 1, "p2": 1_001 }),
            "p2: 1001 is above the greatest permitted value 1000",
        ),
        (
            json!({ "p4": 1 }),
            "a/p4 is read-only; `access = \"read-write\"` at the point would permit it",
        ),
        (
            json!({}),
            "a device is written as {\"value\": {\"<point>\": …}}, with at least one point",
        ),
        (
            json!(1),
            "a device is written as {\"value\": {\"<point>\": …}}, with at least one point",
        ),
    ] {
        sim.command("", value);
        sim.run_until(sim.elapsed() + secs(1));
        let last = sim.outcomes().pop();
        assert_eq!(last, Some(Outcome::Refused(reason.to_owned())));
    }
    assert_eq!(writes(&sim), 0);
}
