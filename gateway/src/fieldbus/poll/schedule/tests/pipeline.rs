//! Several transactions under way on one Modbus TCP connection.

use std::collections::BTreeSet;

use super::*;

/// A connection that carries several requests at once. The world says when each is answered; one
/// that is not costs the connection.
struct Connection {
    schedule: Schedule,
    start: Stamp,
    now: Stamp,
    world: World,
    /// By the moment of its end.
    under_way: Vec<(Instant, TransactionId, Transaction, Reply)>,
    sent: Vec<Transaction>,
    most: usize,
    events: Vec<Event>,
}

impl Connection {
    fn new(pipeline: u8, devices: &[config::Device], world: World) -> Connection {
        let bus = Bus {
            port: None,
            tcp: Some("192.0.2.1:502".to_owned()),
            pipeline,
            ..bus()
        };
        let start = start();
        let mut schedule = Schedule::new(&bus, devices, 7, start);
        schedule.handle_input(Input::WireUp, start);
        Connection {
            schedule,
            start,
            now: start,
            world,
            under_way: Vec::new(),
            sent: Vec::new(),
            most: 0,
            events: Vec::new(),
        }
    }

    fn run_until(&mut self, end: Duration) {
        let end = self.start.monotonic + end;
        while self.now.monotonic < end {
            while let Some(output) = self.schedule.poll_output() {
                match output {
                    Output::Transmit { id, transaction } => self.send(id, transaction),
                    Output::Event(event) => self.events.push(event),
                    Output::Notice(_) | Output::Adhoc { .. } => {}
                }
            }
            self.step(end);
        }
    }

    fn send(&mut self, id: TransactionId, transaction: Transaction) {
        let elapsed = self.now.monotonic - self.start.monotonic;
        let (time, reply) = (self.world)(&transaction, elapsed);
        let ends = self.now.monotonic + time;
        self.sent.push(transaction.clone());
        self.under_way.push((ends, id, transaction, reply));
        self.most = self.most.max(self.under_way.len());
    }

    fn step(&mut self, end: Instant) {
        let ends = |one: &(usize, &(Instant, TransactionId, Transaction, Reply))| one.1.0;
        let first = self.under_way.iter().enumerate().min_by_key(ends);
        let first = first.map(|(index, one)| (one.0, index));
        let wake = self.schedule.poll_timeout().unwrap_or(end).min(end);
        match first {
            Some((at, index)) if at <= wake => {
                self.now.monotonic = at;
                let (_, id, _, reply) = self.under_way.remove(index);
                let input = if reply == Reply::TimedOut {
                    self.under_way.clear();
                    Input::Severed { id, reply }
                } else {
                    Input::Reply { id, reply }
                };
                self.schedule.handle_input(input, self.now);
            }
            _ => {
                self.now.monotonic = wake.max(self.now.monotonic + Duration::from_micros(1));
                self.schedule.handle_timeout(self.now);
            }
        }
    }

    fn good_readings(&self, device: &str) -> usize {
        let readings = self.events.iter().filter_map(|event| match event {
            Event::Readings(readings) => Some(readings),
            _ => None,
        });
        readings
            .flatten()
            .filter(|one| &*one.device == device && one.quality == Quality::Good)
            .count()
    }
}

fn spread(count: u16) -> Vec<String> {
    (0..count)
        .map(|index| format!("holding:{}", index * 500))
        .collect()
}

fn plc(interval_ms: u64, requests: u16) -> config::Device {
    let registers = spread(requests);
    let registers: Vec<&str> = registers.iter().map(String::as_str).collect();
    device("a", 1, interval_ms, &registers)
}

/// Ten milliseconds for whatever is asked.
fn after_10_ms(transaction: &Transaction) -> (Duration, Reply) {
    (Duration::from_millis(10), healthy(transaction).1)
}

#[test]
fn a_window_of_four_carries_four_times_as_much_and_never_more_at_once() {
    let rate = |pipeline| {
        let world = Box::new(|one: &Transaction, _| after_10_ms(one));
        let mut connection = Connection::new(pipeline, &[plc(50, 40)], world);
        connection.run_until(secs(10));
        assert_eq!(connection.most, usize::from(pipeline));
        connection.sent.len()
    };
    let (one, four) = (rate(1), rate(4));
    assert!((990..=1_001).contains(&one), "{one}");
    assert!((3_960..=4_004).contains(&four), "{four}");
}

#[test]
fn no_poll_is_under_way_twice_at_once() {
    let world = Box::new(|one: &Transaction, _| (Duration::from_millis(100), healthy(one).1));
    let mut connection = Connection::new(16, &[plc(20, 3)], world);
    connection.run_until(secs(5));
    assert_eq!(connection.most, 3);
    let spans: BTreeSet<String> = connection
        .under_way
        .iter()
        .map(|one| format!("{:?}", one.2.request))
        .collect();
    assert_eq!(spans.len(), connection.under_way.len());
}

#[test]
fn what_a_time_out_takes_with_it_is_read_again_and_blames_nobody_else() {
    let devices = [plc(100, 6), device("dead", 9, 1_000, &["input:0"])];
    let world = |transaction: &Transaction, _| match transaction.unit {
        9 => silent(transaction),
        _ => after_10_ms(transaction),
    };
    let mut connection = Connection::new(4, &devices, Box::new(world));
    connection.run_until(secs(60));
    let states: Vec<_> = connection
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Device { device, state, .. } => Some((&**device, *state == DeviceState::Online)),
            _ => None,
        })
        .collect();
    assert_eq!(states, [("a", true), ("dead", false)]);
    let expected = 6 * 60 * 10;
    let readings = connection.good_readings("a");
    assert!(readings + 60 >= expected, "{readings} of {expected}");
}

#[test]
fn a_write_lost_with_the_connection_has_failed_and_the_polls_beside_it_go_on() {
    let devices = [plc(1_000, 2), device("b", 2, 500, &["holding:0"])];
    let world = |transaction: &Transaction, at: Duration| match (&transaction.request, at) {
        // The unit dies with the write under way.
        (Request::Read(_), at) if transaction.unit == 2 && at > secs(2) => {
            (Duration::from_millis(50), Reply::TimedOut)
        }
        (Request::Read(_), _) => after_10_ms(transaction),
        _ => (Duration::from_millis(200), Reply::Answer(Answer::Written)),
    };
    let mut connection = Connection::new(4, &devices, Box::new(world));
    connection.run_until(Duration::from_millis(2_480));
    let command = Command {
        device: "a".into(),
        point: Some("p0".into()),
        value: json!(5),
        expires: None,
        received: connection.now,
        correlation: None,
        response_topic: None,
        sender: None,
    };
    let now = connection.now;
    connection
        .schedule
        .handle_input(Input::Command(command), now);
    connection.run_until(secs(10));
    let outcomes: Vec<_> = connection
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Result(result) => Some(result.outcome.clone()),
            _ => None,
        })
        .collect();
    let lost = "the connection was lost to another request's time-out; it may or may not have been executed";
    assert_eq!(outcomes, [Outcome::Failed(lost.to_owned())]);
    let is_write = |one: &&Transaction| !matches!(one.request, Request::Read(_));
    assert_eq!(connection.sent.iter().filter(is_write).count(), 1);
    assert!(connection.good_readings("a") >= 18);
}

#[test]
fn a_plan_that_changes_under_a_request_mixes_up_no_points() {
    // The hole between is refused, so that the plan is made anew while others are under way.
    let devices = [device(
        "a",
        1,
        100,
        &["input:0", "input:9", "input:600", "holding:3", "coil:1"],
    )];
    let world = |transaction: &Transaction, _| match transaction.request {
        Request::Read(span) if span.table == crate::fieldbus::register::Table::Input => {
            let hole = span.start < 9 && span.end() > 1;
            let words = (span.start..).take(usize::from(span.count)).collect();
            match hole {
                true => refused(2),
                false => (
                    Duration::from_millis(35),
                    Reply::Answer(Answer::Registers(words)),
                ),
            }
        }
        _ => after_10_ms(transaction),
    };
    let mut connection = Connection::new(4, &devices, Box::new(world));
    connection.run_until(secs(5));
    let mut seen = HashMap::new();
    for event in &connection.events {
        if let Event::Readings(readings) = event {
            for reading in readings {
                let value = reading.value.as_ref().and_then(|value| value.as_f64());
                let name = reading.point.to_string();
                seen.entry(name)
                    .or_insert_with(Vec::new)
                    .push(value.unwrap_or(-1.0));
            }
        }
    }
    for (name, value) in [("p0", 0.0), ("p1", 9.0), ("p2", 600.0)] {
        assert!(seen[name].len() > 40, "{name}: {}", seen[name].len());
        assert!(seen[name].iter().all(|one| *one == value), "{name}");
    }
}
