//! Requests of commissioning tools beside the polls.

use crate::fieldbus::register::Table;

use super::*;

impl Sim {
    fn ask(&mut self, id: u64, unit: u8, request: Request, patience: Duration) {
        let adhoc = Adhoc {
            id: AdhocId(id),
            unit,
            request,
            response_timeout: Duration::from_millis(TIMEOUT_MS),
            send_by: self.now.monotonic + patience,
        };
        self.input(Input::Adhoc(adhoc));
    }

    fn outcome(&self, id: u64) -> Option<&AdhocOutcome> {
        let mut all = self.adhoc.iter();
        all.find(|(_, one, _)| *one == AdhocId(id))
            .map(|(.., outcome)| outcome)
    }
}

fn read(start: u16, count: u16) -> Request {
    Request::Read(Span {
        table: Table::Holding,
        start,
        count,
    })
}

fn words(count: usize) -> AdhocOutcome {
    AdhocOutcome::Replied(Reply::Answer(Answer::Registers(vec![7; count])))
}

#[test]
fn any_unit_can_be_asked_beside_the_polls() {
    let devices = [device("a", 1, 1_000, &["holding:0"])];
    let world = |one: &Transaction, _| match one.unit {
        3 => silent(one),
        _ => healthy(one),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(1));
    for (id, unit) in [(1, 1), (2, 77), (3, 3)] {
        sim.ask(id, unit, read(40, 5), secs(5));
    }
    sim.run_until(secs(3));
    assert_eq!(sim.outcome(1), Some(&words(5)));
    assert_eq!(sim.outcome(2), Some(&words(5)));
    assert_eq!(
        sim.outcome(3),
        Some(&AdhocOutcome::Replied(Reply::TimedOut))
    );
    assert_eq!(sim.states("a"), [(0, true)]);
}

#[test]
fn on_a_saturated_bus_tools_get_their_share_and_no_more() {
    let registers: Vec<String> = (0..50).map(|at| format!("holding:{}", at * 500)).collect();
    let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
    let devices = [device("a", 1, 100, &registers)];
    let polls_in_a_minute = |asking: bool| {
        let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
        sim.run_until(secs(10));
        for second in 10..70 {
            for id in 0..10 * u64::from(asking) {
                sim.ask(second * 10 + id, 99, read(0, 50), secs(60));
            }
            sim.run_until(secs(second + 1));
        }
        let polls = sim.sent.iter().filter(|(_, one)| one.unit == 1);
        let asked = sim.sent.iter().filter(|(_, one)| one.unit == 99);
        (polls.count() as f64, asked.count())
    };
    let (alone, none) = polls_in_a_minute(false);
    let (shared, asked) = polls_in_a_minute(true);
    assert_eq!(none, 0);
    assert!(asked >= 20, "{asked}");
    let share = 1.0 - shared / alone;
    let most = 1.0 / f64::from(super::super::adhoc::SHARE_OF_ADHOC);
    assert!(share > 0.02 && share <= most * 1.05, "{share}");
}

#[test]
fn tools_that_ask_a_dead_unit_make_no_healthy_point_miss_its_interval() {
    let devices = [
        device("a", 1, 1_000, &["input:0"]),
        device("b", 2, 700, &["input:0"]),
    ];
    let world = |one: &Transaction, _| match one.unit {
        9 => silent(one),
        _ => healthy(one),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(10));
    for second in 10..130 {
        sim.ask(2 * second, 9, read(0, 1), secs(30));
        sim.ask(2 * second + 1, 9, read(0, 3), secs(30));
        sim.run_until(secs(second + 1));
    }
    assert_eq!(sim.notices, []);
    let timed_out = AdhocOutcome::Replied(Reply::TimedOut);
    let count = sim.adhoc.iter().filter(|one| one.2 == timed_out).count();
    assert!(count > 100, "{count}");
}

#[test]
fn a_read_that_a_configured_unit_did_not_answer_is_followed_by_one_of_another_length() {
    let devices = [device("a", 1, 1_000, &["holding:0", "holding:1"])];
    let world = |one: &Transaction, _| match one.request {
        Request::Read(span) if span.start == 40 => silent(one),
        _ => healthy(one),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(1));
    sim.ask(1, 1, read(40, 2), secs(5));
    sim.run_until(secs(3));
    let at = sim
        .sent
        .iter()
        .position(|(_, one)| one.request == read(40, 2));
    let after = &sim.sent[at.expect("asked") + 1].1;
    assert_eq!(after.unit, 1);
    assert!(
        matches!(after.request, Request::Read(span) if span.count != 2),
        "{after:?}"
    );
    // A tool's time-out is no sign that the unit is ill.
    assert_eq!(sim.states("a"), [(0, true)]);
    assert_eq!(sim.notices, []);
}

#[test]
fn a_request_that_a_late_answer_would_fit_waits_for_one_read_of_another_length() {
    let devices = [device("a", 1, 1_000, &["holding:0", "holding:1"])];
    let world = |one: &Transaction, at: Duration| {
        if (5_000..5_200).contains(&at.as_millis()) {
            silent(one)
        } else {
            healthy(one)
        }
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    // Until the first time-out at the latest.
    while sim.unanswered.is_empty() {
        sim.run_until(sim.elapsed() + Duration::from_millis(10));
    }
    sim.ask(1, 1, read(70, 2), secs(20));
    sim.run_until(secs(30));
    assert_eq!(sim.outcome(1), Some(&words(2)));
    for (index, pair) in sim.sent.windows(2).enumerate() {
        let (Request::Read(before), Request::Read(after)) =
            (&pair[0].1.request, &pair[1].1.request)
        else {
            continue;
        };
        if sim.unanswered.contains(&index) {
            assert_ne!(before.data_bytes(), after.data_bytes());
        }
    }
}

#[test]
fn requests_are_refused_when_too_many_wait_too_long_or_the_wire_is_down() {
    let registers: Vec<String> = (0..50).map(|at| format!("holding:{}", at * 500)).collect();
    let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
    let devices = [device("a", 1, 100, &registers)];
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(10));
    let room = u64::try_from(ADHOC_MAX).expect("few");
    for id in 0..room + 5 {
        sim.ask(id, 99, read(0, 50), secs(1));
    }
    sim.run_until(secs(20));
    let reasons = |sim: &Sim, part: &str| {
        let refused = |one: &&(Duration, AdhocId, AdhocOutcome)| match &one.2 {
            AdhocOutcome::Refused(refusal) => refusal.to_string().contains(part),
            _ => false,
        };
        sim.adhoc.iter().filter(refused).count()
    };
    // One of them may have gone out at once.
    assert!((4..=5).contains(&reasons(&sim, "16 requests of tools wait")));
    assert!(reasons(&sim, "the bus was too busy") >= 5);
    assert_eq!(sim.adhoc.len(), ADHOC_MAX + 5);
    sim.ask(100, 99, read(0, 1), secs(60));
    sim.ask(101, 99, read(0, 1), secs(60));
    sim.input(Input::WireDown("unplugged".to_owned()));
    sim.ask(102, 99, read(0, 1), secs(60));
    sim.run_until(secs(21));
    assert_eq!(sim.adhoc.len(), ADHOC_MAX + 8);
    assert!(reasons(&sim, "not sent: unplugged") >= 2);
}

#[test]
fn a_write_of_a_tool_is_sent_once_whatever_comes_of_it() {
    let devices = [device("a", 1, 1_000, &["holding:0"])];
    let world = |one: &Transaction, _| match one.request {
        Request::Read(_) => healthy(one),
        _ => silent(one),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(1));
    let write = Request::WriteRegisters {
        address: 3,
        words: vec![1],
    };
    sim.ask(1, 1, write, secs(5));
    sim.run_until(secs(30));
    assert_eq!(
        sim.outcome(1),
        Some(&AdhocOutcome::Replied(Reply::TimedOut))
    );
    assert_eq!(writes(&sim), 1);
}
