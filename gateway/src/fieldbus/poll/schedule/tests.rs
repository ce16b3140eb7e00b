//! The schedule against simulated units, in simulated time.

mod adhoc;
mod endurance;
mod functions;
mod isolation;
mod overload;
mod pipeline;
mod recall;
mod room;
mod saturation;
mod shared;
mod stale;
mod structures;

use std::collections::{HashMap, HashSet};

use jiff::{Timestamp, ToSpan};
use serde_json::json;

use crate::{
    config::{Access, Bus, Parity, Publish},
    reading::{ClockState, Quality},
};

use crate::fieldbus::{
    poll::device::Lesson,
    transaction::{Answer, Exception, Request},
};

use super::*;

const TIMEOUT_MS: u64 = 300;

/// What a unit does when it is asked, so long after the start.
type World = Box<dyn FnMut(&Transaction, Duration) -> (Duration, Reply)>;

struct Sim {
    schedule: Schedule,
    start: Stamp,
    now: Stamp,
    world: World,
    sent: Vec<(Duration, Transaction)>,
    /// Which of them timed out.
    unanswered: HashSet<usize>,
    /// Whose answers come when nobody waits for them any more, so long after the start.
    answers_late: fn(&Transaction, Duration) -> bool,
    late_answer: bool,
    events: Vec<(Duration, Event)>,
    notices: Vec<Notice>,
    adhoc: Vec<(Duration, AdhocId, AdhocOutcome)>,
}

impl Sim {
    fn new(devices: &[config::Device], world: World) -> Sim {
        Sim::on(&bus(), devices, world)
    }

    fn on(bus: &Bus, devices: &[config::Device], world: World) -> Sim {
        let start = start();
        let mut schedule = Schedule::new(bus, devices, 42, start);
        schedule.handle_input(Input::WireUp, start);
        Sim {
            schedule,
            start,
            now: start,
            world,
            sent: Vec::new(),
            unanswered: HashSet::new(),
            answers_late: |_, _| false,
            late_answer: false,
            events: Vec::new(),
            notices: Vec::new(),
            adhoc: Vec::new(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.now.monotonic - self.start.monotonic
    }

    fn advance(&mut self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).expect("a short time");
        self.now.monotonic += time;
        self.now.wall += micros.microseconds();
    }

    fn input(&mut self, input: Input) {
        self.schedule.handle_input(input, self.now);
    }

    fn run_until(&mut self, end: Duration) {
        while self.elapsed() < end {
            match self.schedule.poll_output() {
                Some(Output::Event(event)) => self.events.push((self.elapsed(), event)),
                Some(Output::Notice(notice)) => self.notices.push(notice),
                Some(Output::Transmit { id, transaction }) => self.transact(id, transaction),
                Some(Output::Adhoc { id, outcome }) => {
                    self.adhoc.push((self.elapsed(), id, outcome));
                }
                None => self.wait(end),
            }
        }
    }

    fn transact(&mut self, id: TransactionId, transaction: Transaction) {
        let elapsed = self.elapsed();
        let (time, reply) = (self.world)(&transaction, elapsed);
        if reply == Reply::TimedOut {
            self.unanswered.insert(self.sent.len());
        }
        let too_late = reply == Reply::TimedOut && (self.answers_late)(&transaction, elapsed);
        self.sent.push((elapsed, transaction));
        self.advance(time);
        if std::mem::replace(&mut self.late_answer, too_late) {
            self.input(Input::Stray);
        }
        self.input(Input::Reply { id, reply });
    }

    fn wait(&mut self, end: Duration) {
        let end = self.start.monotonic + end;
        let next = self.schedule.poll_timeout().unwrap_or(end).min(end);
        let pause = next.saturating_duration_since(self.now.monotonic);
        self.advance(pause.max(Duration::from_micros(1)));
        self.schedule.handle_timeout(self.now);
    }

    fn reading_times(&self, device: &str) -> Vec<Duration> {
        let of_device = |event: &Event| match event {
            Event::Readings(readings) => {
                &*readings[0].device == device && readings[0].quality == Quality::Good
            }
            _ => false,
        };
        let events = self.events.iter().filter(|(_, event)| of_device(event));
        events.map(|(at, _)| *at).collect()
    }

    fn states(&self, device: &str) -> Vec<(u64, bool)> {
        let state = |(at, event): &(Duration, Event)| match event {
            Event::Device {
                device: name,
                state,
                ..
            } if &**name == device => Some((at.as_secs(), *state == DeviceState::Online)),
            _ => None,
        };
        self.events.iter().filter_map(state).collect()
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let outcome = |(_, event): &(Duration, Event)| match event {
            Event::Result(result) => Some(result.outcome.clone()),
            _ => None,
        };
        self.events.iter().filter_map(outcome).collect()
    }

    fn command(&mut self, point: &str, value: serde_json::Value) {
        let command = Command {
            device: "a".into(),
            point: (!point.is_empty()).then(|| point.into()),
            value,
            expires: Some(Duration::from_secs(5)),
            received: self.now,
            correlation: None,
            response_topic: None,
            sender: None,
        };
        self.input(Input::Command(command));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
fn start() -> Stamp {
    Stamp {
        wall: Timestamp::UNIX_EPOCH,
        monotonic: Instant::now(),
        clock: ClockState::Unsynced,
    }
}

fn bus() -> Bus {
    Bus {
        name: "line".to_owned(),
        port: Some("/dev/ttyS0".into()),
        tcp: None,
        framing: None,
        baud: 19_200,
        parity: Parity::Even,
        stop_bits: None,
        raw_requests: false,
        pipeline: 1,
        rs485: None,
        echo: config::Echo::Auto,
        tls: None,
        response_timeout: settings::Period::from_millis(TIMEOUT_MS),
        allow_overload: false,
    }
}

fn device(name: &str, unit: u8, interval_ms: u64, registers: &[&str]) -> config::Device {
    let point = |(index, register): (usize, &&str)| config::Point {
        name: format!("p{index}"),
        access: Access::ReadWrite,
        max: Some(1_000.0),
        ..config::Point::example(register, None)
    };
    config::Device {
        name: name.to_owned(),
        bus: "line".to_owned(),
        unit,
        interval: settings::Period::from_millis(interval_ms),
        stale_after: None,
        publish: Publish::Point,
        max_registers: 125,
        max_bits: 2_000,
        write_single: config::WriteSingle::Auto,
        mask_write: true,
        read_write: false,
        bits_from_zero: false,
        one_value_per_request: false,
        read_together: Vec::new(),
        read_alone: Vec::new(),
        points: registers.iter().enumerate().map(point).collect(),
    }
}

fn answered(span: Span) -> (Duration, Reply) {
    let count = usize::from(span.count);
    let answer = if span.table.is_bits() {
        Answer::Bits(vec![false; count])
    } else {
        Answer::Registers(vec![7; count])
    };
    (Cost::of(&bus()).read(span), Reply::Answer(answer))
}

fn healthy(transaction: &Transaction) -> (Duration, Reply) {
    match transaction.request {
        Request::Read(span) => answered(span),
        _ => (Duration::from_millis(20), Reply::Answer(Answer::Written)),
    }
}

fn silent(transaction: &Transaction) -> (Duration, Reply) {
    (transaction.timeout, Reply::TimedOut)
}

fn refused(code: u8) -> (Duration, Reply) {
    (Duration::from_millis(20), Reply::Exception(Exception(code)))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_dead_device_makes_no_healthy_point_miss_its_interval() {
    let devices = [
        device("a", 1, 1_000, &["input:0", "input:1"]),
        device("b", 2, 500, &["holding:0"]),
        device("dead", 3, 1_000, &["input:0", "coil:0"]),
        device("dying", 4, 1_000, &["input:0"]),
    ];
    let world = |transaction: &Transaction, at: Duration| match transaction.unit {
        3 => silent(transaction),
        4 if (60..600).contains(&at.as_secs()) => silent(transaction),
        _ => healthy(transaction),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(3_600));
    for (name, interval_ms) in [("a", 1_000), ("b", 500)] {
        let times = sim.reading_times(name);
        for (slot, at) in times.iter().enumerate() {
            let due = Duration::from_millis(interval_ms) * u32::try_from(slot).expect("few");
            let late = at.saturating_sub(due);
            assert!(
                late.as_millis() <= u128::from(interval_ms),
                "{name}: {late:?} at {at:?}"
            );
        }
        assert!(times.len() as u64 >= 3_600_000 / interval_ms - 1);
    }
    assert_eq!(sim.notices, []);
}

#[test]
fn a_device_that_dies_and_returns_is_told_once_each_and_polled_again() {
    let devices = [
        device("a", 1, 1_000, &["input:0"]),
        device("dying", 4, 1_000, &["input:0"]),
    ];
    let world = |transaction: &Transaction, at: Duration| match transaction.unit {
        4 if (60..600).contains(&at.as_secs()) => silent(transaction),
        _ => healthy(transaction),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(3_600));
    let states = sim.states("dying");
    assert!(
        matches!(states[..], [(0, true), (60..=63, false), (600..=900, true)]),
        "{states:?}"
    );
    assert_eq!(sim.states("a"), [(0, true)]);
    assert!(sim.reading_times("dying").len() > 2_700);
    let probes = sim
        .sent
        .iter()
        .filter(|(at, transaction)| transaction.unit == 4 && (63..600).contains(&at.as_secs()));
    assert!(probes.count() <= 8);
}

#[test]
fn a_read_after_one_that_was_not_answered_asks_for_another_length() {
    let devices = [device("a", 1, 500, &["input:0", "coil:3", "holding:9"])];
    let mut seed = Jitter::new(3);
    let world = move |transaction: &Transaction, _| {
        let coin = seed.spread(Duration::from_micros(1_000)).as_micros() % 3;
        if coin == 0 {
            silent(transaction)
        } else {
            healthy(transaction)
        }
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(600));
    let mut unanswered = 0;
    for (index, pair) in sim.sent.windows(2).enumerate() {
        let [(_, before), (_, after)] = pair else {
            continue;
        };
        let (Request::Read(before), Request::Read(after)) = (&before.request, &after.request)
        else {
            continue;
        };
        if sim.unanswered.contains(&index) {
            assert_ne!(before.data_bytes(), after.data_bytes());
            unanswered += 1;
        }
    }
    assert!(unanswered > 100, "{unanswered}");
}

#[test]
fn a_write_is_sent_once_whatever_comes_of_it() {
    type Fate = fn(&Transaction) -> (Duration, Reply);
    let fates: [(Fate, &str); 3] = [
        (silent, "no answer; it may or may not have been executed"),
        (
            |_| refused(4),
            "the device answered exception 04 server device failure",
        ),
        (
            |_| (Duration::from_millis(5), Reply::Garbled("noise".to_owned())),
            "noise; it may or may not have been executed",
        ),
    ];
    for (fate, reason) in fates {
        let world = move |transaction: &Transaction, _| match transaction.request {
            Request::Read(_) => healthy(transaction),
            _ => fate(transaction),
        };
        let devices = [device("a", 1, 1_000, &["holding:0"])];
        let mut sim = Sim::new(&devices, Box::new(world));
        sim.run_until(secs(2));
        sim.command("p0", json!(5));
        sim.run_until(secs(60));
        assert_eq!(sim.outcomes(), [Outcome::Failed(reason.to_owned())]);
        assert_eq!(writes(&sim), 1);
    }
}

fn writes(sim: &Sim) -> usize {
    let is_write = |transaction: &Transaction| !matches!(transaction.request, Request::Read(_));
    sim.sent.iter().filter(|(_, one)| is_write(one)).count()
}

#[test]
fn a_write_is_executed_when_it_reads_back() {
    let mut register = 0;
    let mut applied_after = 2;
    let world = move |transaction: &Transaction, _| match &transaction.request {
        Request::WriteRegister { word, .. } => {
            register = *word;
            healthy(transaction)
        }
        Request::Read(_) => {
            // The device takes a moment until the register shows what was written.
            let shown = if register != 0 && applied_after > 0 {
                applied_after -= 1;
                0
            } else {
                register
            };
            let answer = Answer::Registers(vec![shown]);
            (Duration::from_millis(20), Reply::Answer(answer))
        }
        _ => silent(transaction),
    };
    let devices = [device("a", 1, 60_000, &["holding:0"])];
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(1));
    sim.command("p0", json!(5));
    sim.run_until(secs(3));
    let five = crate::reading::Value::Integer(5);
    assert_eq!(sim.outcomes(), [Outcome::Executed(five)]);
    assert_eq!(writes(&sim), 1);
}

#[test]
fn a_write_that_does_not_read_back_has_failed() {
    let devices = [device("a", 1, 60_000, &["holding:0"])];
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(1));
    sim.command("p0", json!(5));
    sim.run_until(secs(3));
    let reason = "the device acknowledged the write, but it reads back 7, not 5";
    assert_eq!(sim.outcomes(), [Outcome::Failed(reason.to_owned())]);
}

#[test]
fn limits_and_rounding_do_not_hide_that_a_write_was_not_taken() {
    let mut rounded = device("a", 1, 60_000, &["holding:0"]);
    rounded.points[0].scale = Some(0.01);
    rounded.points[0].round = Some(0);
    let mut sim = Sim::new(&[rounded], Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(1));
    sim.command("p0", json!(0.09));
    sim.run_until(secs(3));
    let reason = "the device acknowledged the write, but it reads back 0.07, not 0.09";
    assert_eq!(sim.outcomes(), [Outcome::Failed(reason.to_owned())]);
}

#[test]
fn a_command_that_must_not_be_sent_is_refused_with_its_reason() {
    let devices = [device("a", 1, 1_000, &["holding:0", "input:5"])];
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.command("nowhere", json!(1));
    sim.command("p1", json!(1));
    sim.command("p0", json!(1_001));
    sim.command("p0", json!(0.5));
    sim.run_until(secs(1));
    let reasons: Vec<String> = sim
        .outcomes()
        .into_iter()
        .map(|outcome| format!("{outcome:?}"))
        .collect();
    assert_eq!(
        reasons,
        [
            r#"Refused("device \"a\" has no point \"nowhere\"")"#,
            r#"Refused("a/p1 is read-only; `access = \"read-write\"` at the point would permit it")"#,
            r#"Refused("1001 is above the greatest permitted value 1000")"#,
            r#"Refused("0.5 lies between two steps of the register; write 0 or 1")"#,
        ]
    );
    assert_eq!(writes(&sim), 0);
}

#[test]
fn a_command_that_waited_for_too_long_is_not_sent() {
    let devices = [device("a", 1, 1_000, &["holding:0"])];
    let world = |transaction: &Transaction, _| match transaction.request {
        Request::Read(_) => (secs(6), Reply::TimedOut),
        _ => healthy(transaction),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.command("p0", json!(1));
    sim.run_until(secs(30));
    let expired = "expired: more than 5s passed before it could be sent";
    assert_eq!(sim.outcomes(), [Outcome::Refused(expired.to_owned())]);
    assert_eq!(writes(&sim), 0);
}

#[test]
fn a_command_goes_before_every_poll_on_a_saturated_bus() {
    let registers: Vec<String> = (0..50)
        .map(|index| format!("holding:{}", index * 500))
        .collect();
    let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
    let devices = [device("a", 1, 100, &registers)];
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(10));
    let before = sim.elapsed();
    sim.command("p0", json!(7));
    sim.run_until(secs(11));
    let result_at = sim
        .events
        .iter()
        .find_map(|(at, event)| matches!(event, Event::Result(_)).then(|| *at - before));
    assert!(
        result_at.is_some_and(|waited| waited < Duration::from_millis(100)),
        "{result_at:?}"
    );
}

#[test]
fn polls_keep_to_their_grid_for_ever() {
    let devices = [device("a", 1, 1_000, &["input:0"])];
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(10_000));
    let off = |(at, _): &(Duration, Transaction)| at.subsec_micros() > 10;
    assert_eq!(sim.sent.iter().filter(|one| off(one)).count(), 0);
    assert_eq!(sim.sent.len(), 10_000);
}

#[test]
fn a_refused_hole_is_learned_and_a_refused_point_is_parked_alone() {
    let devices = [device(
        "a",
        1,
        1_000,
        &["input:0", "input:1", "input:2", "input:9", "input:3"],
    )];
    let world = |transaction: &Transaction, at: Duration| match transaction.request {
        // Addresses 4 to 8 do not exist; 2 does not for the first minute.
        Request::Read(span) => {
            let hole = span.start <= 8 && span.end() > 4;
            let ill = span.start <= 2 && span.end() > 2 && at < secs(60);
            if hole || ill {
                refused(2)
            } else {
                answered(span)
            }
        }
        _ => silent(transaction),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(50));
    let good = |sim: &Sim, since: u64| -> HashMap<String, usize> {
        let mut points = HashMap::new();
        for (at, event) in &sim.events {
            if let Event::Readings(readings) = event {
                let good = readings.iter().filter(|one| one.quality == Quality::Good);
                for reading in good.filter(|_| *at >= secs(since)) {
                    *points.entry(reading.point.to_string()).or_insert(0) += 1;
                }
            }
        }
        points
    };
    let before = good(&sim, 10);
    for healthy in ["p0", "p1", "p3", "p4"] {
        assert!(before[healthy] >= 39, "{before:?}");
    }
    assert!(!before.contains_key("p2"));
    let parked = |notice: &&Notice| match notice {
        Notice::Exception { lesson, .. } => matches!(lesson, Lesson::Parked(..)),
        _ => false,
    };
    assert_eq!(sim.notices.iter().filter(parked).count(), 1);
    let bad: Vec<_> = sim
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Readings(readings) => readings.iter().find(|one| one.quality == Quality::Bad),
            _ => None,
        })
        .map(|reading| (&*reading.point, reading.reason.as_deref()))
        .collect();
    assert_eq!(bad, [("p2", Some("exception 02 illegal data address"))]);
    // Once the device has the register, the point comes back by itself.
    sim.run_until(secs(200));
    assert!(good(&sim, 150)["p2"] >= 49);
    // Two requests remain: 0 to 3 in one, 9 alone.
    assert_eq!(sim.schedule.devices[0].polls.len(), 2);
}

#[test]
fn a_device_comes_back_even_on_a_saturated_bus() {
    let devices = [
        device("a", 1, 20, &["input:0"]),
        device("back", 2, 1_000, &["input:0"]),
    ];
    let world = |transaction: &Transaction, at: Duration| match transaction.unit {
        2 if at < secs(30) => silent(transaction),
        _ => healthy(transaction),
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(120));
    assert!(
        matches!(sim.states("back")[..], [(_, false), (30..=90, true)]),
        "{:?}",
        sim.states("back")
    );
    let lost = sim
        .sent
        .iter()
        .filter(|(at, one)| one.unit == 2 && *at < secs(30))
        .count();
    assert!(lost <= 10, "{lost}");
}

#[test]
fn a_broken_wire_is_told_once_per_device_and_refuses_commands() {
    let devices = [
        device("a", 1, 1_000, &["holding:0"]),
        device("b", 2, 1_000, &["input:0"]),
    ];
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(5));
    sim.input(Input::WireDown("unplugged".to_owned()));
    sim.input(Input::WireDown("unplugged".to_owned()));
    sim.command("p0", json!(1));
    sim.run_until(secs(10));
    sim.input(Input::WireUp);
    sim.run_until(secs(20));
    for name in ["a", "b"] {
        assert!(matches!(
            sim.states(name)[..],
            [(0, true), (5, false), (10, true)]
        ));
        assert!(sim.reading_times(name).len() >= 14);
    }
    assert_eq!(
        sim.outcomes(),
        [Outcome::Refused("not sent: unplugged".to_owned())]
    );
}

#[test]
fn a_write_under_way_when_the_wire_breaks_is_failed_and_not_repeated() {
    let devices = [device("a", 1, 60_000, &["holding:0"])];
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(1));
    sim.command("p0", json!(1));
    let sent = sim.schedule.poll_output();
    assert!(matches!(sent, Some(Output::Transmit { .. })), "{sent:?}");
    sim.input(Input::WireDown("unplugged".to_owned()));
    sim.input(Input::WireUp);
    sim.run_until(secs(60));
    let lost = "unplugged; it may or may not have been executed";
    assert_eq!(sim.outcomes(), [Outcome::Failed(lost.to_owned())]);
    assert_eq!(writes(&sim), 0);
}

#[test]
fn a_command_acknowledged_but_not_read_back_when_the_bus_stops_has_failed() {
    let devices = [device("a", 1, 60_000, &["holding:0"])];
    let mut sim = Sim::new(&devices, Box::new(|one: &Transaction, _| healthy(one)));
    sim.run_until(secs(1));
    sim.command("p0", json!(1));
    sim.command("p0", json!(2));
    // The first is acknowledged and waits to be read back; the second has not been sent.
    let Some(Output::Transmit { id, .. }) = sim.schedule.poll_output() else {
        panic!("the write is to be sent");
    };
    let reply = Reply::Answer(Answer::Written);
    sim.input(Input::Reply { id, reply });
    sim.schedule.poll_output();
    sim.input(Input::Stop);
    sim.run_until(secs(2));
    let stopped = "the bus is being stopped";
    let first = format!("the device acknowledged the write, but it was not read back: {stopped}");
    let second = format!("not sent: {stopped}");
    assert_eq!(
        sim.outcomes(),
        [Outcome::Failed(first), Outcome::Refused(second)]
    );
}

#[test]
fn a_point_that_was_parked_is_asked_anew_once_the_wire_returns() {
    let devices = [device("a", 1, 1_000, &["input:0"])];
    let world = |transaction: &Transaction, at: Duration| {
        if at < secs(100) {
            refused(2)
        } else {
            healthy(transaction)
        }
    };
    let mut sim = Sim::new(&devices, Box::new(world));
    sim.run_until(secs(100));
    assert!(sim.sent.len() <= 4, "{}", sim.sent.len());
    sim.input(Input::WireDown("unplugged".to_owned()));
    sim.input(Input::WireUp);
    sim.run_until(secs(110));
    assert!(sim.reading_times("a").len() >= 9);
}

#[test]
fn a_gateway_that_does_not_reach_the_unit_counts_as_silence() {
    let devices = [device("a", 1, 1_000, &["holding:0"])];
    let mut sim = Sim::new(&devices, Box::new(|_: &Transaction, _| refused(0x0b)));
    sim.run_until(secs(60));
    assert_eq!(sim.states("a").len(), 1);
    assert!(sim.sent.len() < 10);
}
