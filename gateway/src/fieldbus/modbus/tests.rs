//! The driver against simulated devices, over a pseudo-terminal and over TCP, in real time.

use std::path::PathBuf;

use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    config::{Access, Echo, Framing, Parity, Point, PointType, Publish},
    fieldbus::{
        DeviceState, Outcome,
        register::Table,
        simulate::{self, Faults, Kind},
        transaction::{Answer, Reply, Span},
    },
    reading::{Quality, Reading, Value},
};

use super::*;

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    handle: BusHandle,
    events: mpsc::Receiver<Event>,
    cancel: CancellationToken,
}

impl Rig {
    fn new(bus: Bus, devices: Vec<Device>, cancel: CancellationToken) -> Rig {
        let (sender, events) = mpsc::channel(64);
        let handle = start(bus, devices, &Memories::new(), sender, cancel.clone());
        Rig {
            handle,
            events,
            cancel,
        }
    }

    async fn wait<T>(&mut self, mut found: impl FnMut(Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the bus runs");
                if let Some(found) = found(event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, search).await.expect("in time")
    }

    async fn reading(&mut self, point: &str) -> Reading {
        self.wait(|event| match event {
            Event::Readings(readings) => readings.into_iter().find(|one| &*one.point == point),
            _ => None,
        })
        .await
    }

    async fn state(&mut self, device: &str) -> DeviceState {
        self.wait(|event| match event {
            Event::Device {
                device: name,
                state,
                ..
            } => (&*name == device).then_some(state),
            _ => None,
        })
        .await
    }

    async fn next_time_out(&mut self) {
        let before = self.handle.status().time_outs;
        let counted = async {
            while self.handle.status().time_outs == before {
                // A bus whose events nobody takes stands still.
                while self.events.try_recv().is_ok() {}
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, counted).await.expect("a time-out");
    }

    async fn write(&mut self, point: &str, value: serde_json::Value) -> Outcome {
        let command = Command {
            device: "plc".into(),
            point: (!point.is_empty()).then(|| point.into()),
            value,
            expires: None,
            received: clock::now(),
            correlation: None,
            response_topic: None,
            sender: None,
        };
        self.handle.command(command).expect("room in the queue");
        self.wait(|event| match event {
            Event::Result(result) => Some(result.outcome),
            _ => None,
        })
        .await
    }

    async fn stop(mut self) {
        self.cancel.cancel();
        self.events.close();
        timeout(PATIENCE, self.handle.stopped())
            .await
            .expect("stopped in time");
        assert!(!self.handle.is_running());
    }
}

fn bus(port: Option<PathBuf>, tcp: Option<String>) -> Bus {
    Bus {
        name: "line".to_owned(),
        port,
        tcp,
        framing: None,
        baud: 19_200,
        parity: Parity::Even,
        stop_bits: None,
        raw_requests: false,
        pipeline: 1,
        rs485: None,
        echo: Echo::Auto,
        tls: None,
        response_timeout: settings::Period::from_millis(200),
        allow_overload: false,
    }
}

fn point(name: &str, register: &str, kind: PointType, scale: Option<f64>) -> Point {
    Point {
        name: name.to_owned(),
        scale,
        access: Access::ReadWrite,
        ..Point::example(register, Some(kind))
    }
}

fn device(name: &str, unit: u8, points: Vec<Point>) -> Device {
    Device {
        name: name.to_owned(),
        bus: "line".to_owned(),
        unit,
        // Leaves time for a unit that does not answer.
        interval: settings::Period::from_millis(300),
        stale_after: None,
        publish: Publish::Point,
        max_registers: 125,
        max_bits: 2_000,
        write_single: crate::config::WriteSingle::Auto,
        mask_write: true,
        read_write: false,
        bits_from_zero: false,
        one_value_per_request: false,
        read_together: Vec::new(),
        read_alone: Vec::new(),
        points,
    }
}

fn meter(unit: u8) -> Device {
    let points = vec![
        point("voltage", "input:0", PointType::F32, None),
        point("current", "input:6", PointType::F32, None),
    ];
    device("meter", unit, points)
}

fn plc(unit: u8) -> Device {
    let bit = Point {
        bit: Some(3),
        ..point("mode-bit", "holding:1", PointType::U16, None)
    };
    let points = vec![
        point("temperature", "input:0", PointType::I16, Some(0.1)),
        point("setpoint", "holding:0", PointType::U16, Some(0.1)),
        point("recipe", "holding:4", PointType::U32, None),
        point("pump", "coil:0", PointType::Bool, None),
        point("running", "discrete:0", PointType::Bool, None),
        bit,
    ];
    device("plc", unit, points)
}

#[tokio::test]
async fn a_serial_meter_is_read_and_its_values_are_plausible() {
    let cancel = CancellationToken::new();
    let simulated = simulate::Device::new(Kind::Meter, 7);
    let port = simulate::on_serial(vec![simulated.clone()], cancel.clone()).expect("a pty");
    let mut rig = Rig::new(bus(Some(port), None), vec![meter(7)], cancel);
    assert_eq!(rig.state("meter").await, DeviceState::Online);
    let voltage = rig.reading("voltage").await;
    assert_eq!(voltage.quality, Quality::Good);
    let volts = voltage.value.and_then(|value| value.as_f64());
    assert!(
        volts.is_some_and(|volts| (220.0..240.0).contains(&volts)),
        "{volts:?}"
    );
    // Both points came with one request.
    assert!(
        simulated
            .requests()
            .iter()
            .all(|pdu| pdu[..] == [4, 0, 0, 0, 8])
    );
    rig.stop().await;
}

#[tokio::test]
async fn commands_reach_coils_registers_and_single_bits_and_are_read_back() {
    let cancel = CancellationToken::new();
    let simulated = simulate::Device::new(Kind::Controller, 3);
    let address = simulate::on_tcp(vec![simulated.clone()], cancel.clone())
        .await
        .expect("a port");
    let mut rig = Rig::new(bus(None, Some(address.to_string())), vec![plc(3)], cancel);
    assert_eq!(rig.state("plc").await, DeviceState::Online);
    let executed = |value| Outcome::Executed(value);
    let tenths = Value::Decimal {
        mantissa: 215,
        decimals: 1,
    };
    assert_eq!(rig.write("setpoint", json!(21.5)).await, executed(tenths));
    assert_eq!(simulated.holding(0), Some(215));
    let recipe = Value::Integer(70_000);
    assert_eq!(rig.write("recipe", json!(70_000)).await, executed(recipe));
    assert_eq!(
        rig.write("pump", json!(true)).await,
        executed(Value::Bool(true))
    );
    let running = rig.wait(|event| match event {
        Event::Readings(readings) => readings
            .into_iter()
            .find(|one| &*one.point == "running" && one.value == Some(Value::Bool(true))),
        _ => None,
    });
    assert_eq!(running.await.quality, Quality::Good);
    assert_eq!(
        rig.write("mode-bit", json!(true)).await,
        executed(Value::Bool(true))
    );
    assert_eq!(simulated.holding(1), Some(8));
    let refused = rig.write("setpoint", json!(7_000)).await;
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
    let is_write = |pdu: &&Vec<u8>| matches!(pdu[0], 5 | 6 | 16 | 22);
    assert_eq!(simulated.requests().iter().filter(is_write).count(), 4);
    rig.stop().await;
}

#[tokio::test]
async fn structures_and_parts_of_registers_reach_the_device_in_one_request_each() {
    let cancel = CancellationToken::new();
    let simulated = simulate::Device::new(Kind::Controller, 3);
    let address = simulate::on_tcp(vec![simulated.clone()], cancel.clone())
        .await
        .expect("a port");
    let mode = Point {
        values: serde_json::from_value(json!({ "0": "off", "2": "auto" })).expect("names"),
        bits: "4..7".parse().ok(),
        ..point("mode", "holding:3", PointType::U16, None)
    };
    let points = vec![
        point("recipe", "holding:4", PointType::U48, None),
        point("limit", "holding:7", PointType::F16, None),
        point("pump", "coil:2", PointType::Bool, None),
        point("valve", "coil:3", PointType::Bool, None),
        mode,
    ];
    let devices = vec![device("plc", 3, points)];
    let mut rig = Rig::new(bus(None, Some(address.to_string())), devices, cancel);
    assert_eq!(rig.state("plc").await, DeviceState::Online);
    let limit = Value::Decimal {
        mantissa: 1,
        decimals: 1,
    };
    assert_eq!(
        rig.write("", json!({ "recipe": 4_294_967_297u64, "limit": 0.1 }))
            .await,
        Outcome::ExecutedAll(vec![
            ("recipe".into(), Value::Integer(4_294_967_297)),
            ("limit".into(), limit),
        ])
    );
    assert_eq!(simulated.holding(7), Some(0x2e66));
    assert_eq!(
        rig.write("", json!({ "valve": true, "pump": false })).await,
        Outcome::ExecutedAll(vec![
            ("pump".into(), Value::Bool(false)),
            ("valve".into(), Value::Bool(true)),
        ])
    );
    let auto = Value::Text("auto".to_owned());
    assert_eq!(
        rig.write("mode", json!("auto")).await,
        Outcome::Executed(auto)
    );
    assert_eq!(simulated.holding(3), Some(0x20));
    let written = simulated.requests().into_iter().map(|pdu| pdu[0]);
    let written: Vec<u8> = written.filter(|function| *function > 4).collect();
    assert_eq!(written, [16, 15, 22]);
    rig.stop().await;
}

#[tokio::test]
async fn a_device_that_falls_silent_is_offline_until_it_answers_again() {
    let cancel = CancellationToken::new();
    let dying = simulate::Device::new(Kind::Meter, 1);
    let healthy = simulate::Device::new(Kind::Controller, 2);
    let devices = vec![dying.clone(), healthy];
    let port = simulate::on_serial(devices, cancel.clone()).expect("a pty");
    let mut rig = Rig::new(bus(Some(port), None), vec![meter(1), plc(2)], cancel);
    assert_eq!(rig.state("meter").await, DeviceState::Online);
    dying.misbehave(Faults {
        silent: true,
        ..Faults::default()
    });
    let gone = rig.state("meter").await;
    let why = |state| match state {
        DeviceState::Offline { reason } => reason,
        DeviceState::Online => panic!("it is silent"),
    };
    let reason = why(gone);
    assert!(reason.starts_with("no answer in "), "{reason}");
    let before = rig.handle.status();
    assert!(before.time_outs >= 3, "{before:?}");
    rig.reading("temperature").await;
    dying.misbehave(Faults::default());
    assert_eq!(rig.state("meter").await, DeviceState::Online);
    rig.reading("voltage").await;
    rig.stop().await;
}

#[tokio::test]
async fn a_late_answer_on_a_serial_line_is_never_taken_for_another_requests() {
    let cancel = CancellationToken::new();
    let late = simulate::Device::new(Kind::Meter, 1);
    let port = simulate::on_serial(vec![late.clone()], cancel.clone()).expect("a pty");
    never_mixes_up_late_answers(late, bus(Some(port), None), cancel).await;
}

#[tokio::test]
async fn a_late_answer_over_tcp_is_never_taken_for_another_requests() {
    let cancel = CancellationToken::new();
    let late = simulate::Device::new(Kind::Meter, 1);
    let address = simulate::on_tcp(vec![late.clone()], cancel.clone())
        .await
        .expect("a port");
    never_mixes_up_late_answers(late, bus(None, Some(address.to_string())), cancel).await;
}

async fn never_mixes_up_late_answers(late: simulate::Device, bus: Bus, cancel: CancellationToken) {
    // Zeros at this place in the meter: a voltage here would be somebody else's answer.
    let zeros = vec![point("zero", "input:20", PointType::F32, None)];
    let same_length = vec![point("voltage", "input:0", PointType::F32, None)];
    let devices = vec![device("late", 1, same_length), device("zeros", 1, zeros)];
    let mut rig = Rig::new(bus, devices, cancel);
    rig.reading("voltage").await;
    for late_ms in [220, 240, 320] {
        late.misbehave(Faults {
            late: Duration::from_millis(late_ms),
            silent: false,
        });
        rig.next_time_out().await;
        late.misbehave(Faults::default());
        rig.reading("voltage").await;
    }
    let mut zeros = 0;
    let mut voltages = 0;
    while zeros < 5 || voltages < 5 {
        rig.wait(|event| match event {
            Event::Readings(readings) => Some(readings),
            _ => None,
        })
        .await
        .into_iter()
        .for_each(|reading| match (&*reading.point, reading.value) {
            ("zero", Some(value)) => {
                assert_eq!(value, Value::F32(0.0));
                zeros += 1;
            }
            ("voltage", Some(value)) => {
                assert!(value.as_f64().is_some_and(|volts| volts > 200.0));
                voltages += 1;
            }
            other => panic!("{other:?}"),
        });
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_port_that_does_not_exist_is_named_and_taken_up_once_it_does() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let link = directory.path().join("ttyUSB0");
    let cancel = CancellationToken::new();
    let mut rig = Rig::new(
        bus(Some(link.clone()), None),
        vec![meter(1)],
        cancel.clone(),
    );
    let DeviceState::Offline { reason } = rig.state("meter").await else {
        panic!("online without a port");
    };
    assert!(reason.contains("cannot open serial port"), "{reason}");
    assert!(
        reason.contains("ttyUSB0: No such file or directory"),
        "{reason}"
    );
    assert_eq!(rig.handle.status().down, Some(reason));
    let simulated = simulate::Device::new(Kind::Meter, 1);
    let port = simulate::on_serial(vec![simulated], cancel).expect("a pty");
    std::os::unix::fs::symlink(port, &link).expect("a link");
    assert_eq!(rig.state("meter").await, DeviceState::Online);
    assert_eq!(rig.handle.status().down, None);
    rig.stop().await;
}

#[tokio::test]
async fn a_command_for_a_bus_that_is_down_is_refused_with_the_reason() {
    let nowhere = bus(Some("/dev/no-such-port".into()), None);
    let mut rig = Rig::new(nowhere, vec![plc(1)], CancellationToken::new());
    let down = rig.state("plc").await;
    assert!(matches!(down, DeviceState::Offline { .. }), "{down:?}");
    let Outcome::Refused(reason) = rig.write("setpoint", json!(20)).await else {
        panic!("sent without a port");
    };
    assert!(
        reason.starts_with("not sent: cannot open serial port"),
        "{reason}"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_not_shared() {
    let cancel = CancellationToken::new();
    let simulated = simulate::Device::new(Kind::Meter, 1);
    let port = simulate::on_serial(vec![simulated], cancel.clone()).expect("a pty");
    let mut first = Rig::new(
        bus(Some(port.clone()), None),
        vec![meter(1)],
        cancel.clone(),
    );
    assert_eq!(first.state("meter").await, DeviceState::Online);
    let mut second = Rig::new(bus(Some(port), None), vec![meter(1)], cancel);
    let DeviceState::Offline { reason } = second.state("meter").await else {
        panic!("two masters on one line");
    };
    assert!(reason.contains("does another program use it?"), "{reason}");
    first.reading("voltage").await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again() {
    let first = CancellationToken::new();
    let simulated = simulate::Device::new(Kind::Controller, 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    simulate::serve_tcp(
        listener,
        Framing::Tcp,
        vec![simulated.clone()],
        first.clone(),
    );
    let bus = bus(None, Some(address.to_string()));
    let mut rig = Rig::new(bus, vec![plc(1)], CancellationToken::new());
    assert_eq!(rig.state("plc").await, DeviceState::Online);
    first.cancel();
    let gone = rig.state("plc").await;
    assert!(matches!(gone, DeviceState::Offline { .. }), "{gone:?}");
    let listener = TcpListener::bind(address).await.expect("the port again");
    simulate::serve_tcp(listener, Framing::Tcp, vec![simulated], rig.cancel.clone());
    assert_eq!(rig.state("plc").await, DeviceState::Online);
    rig.reading("temperature").await;
    rig.stop().await;
}

#[tokio::test]
async fn who_looks_on_sees_the_requests_and_the_answers() {
    let cancel = CancellationToken::new();
    let simulated = simulate::Device::new(Kind::Meter, 7);
    let port = simulate::on_serial(vec![simulated], cancel.clone()).expect("a pty");
    let mut rig = Rig::new(bus(Some(port), None), vec![meter(7)], cancel);
    let mut trace = rig.handle.subscribe_trace();
    rig.reading("voltage").await;
    let request = trace.recv().await.expect("a request");
    assert_eq!(request.what, What::Request);
    assert_eq!(request.bytes[..6], [7, 4, 0, 0, 0, 8]);
    let answer = trace.recv().await.expect("an answer");
    assert_eq!(answer.what, What::Answer);
    assert_eq!(answer.bytes[..3], [7, 4, 16]);
    assert!(answer.stamp.monotonic > request.stamp.monotonic);
    rig.stop().await;
}

#[tokio::test]
async fn rtu_frames_over_tcp_are_understood() {
    let cancel = CancellationToken::new();
    let simulated = simulate::Device::new(Kind::Meter, 9);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    simulate::serve_tcp(listener, Framing::Rtu, vec![simulated], cancel.clone());
    let bus = Bus {
        framing: Some(Framing::Rtu),
        ..bus(None, Some(address.to_string()))
    };
    let mut rig = Rig::new(bus, vec![meter(9)], cancel);
    assert_eq!(rig.reading("voltage").await.quality, Quality::Good);
    rig.stop().await;
}

#[tokio::test]
async fn a_tool_asks_beside_the_polls_and_is_refused_without_a_port() {
    let cancel = CancellationToken::new();
    let simulated = simulate::Device::new(Kind::Meter, 7);
    let port = simulate::on_serial(vec![simulated], cancel.clone()).expect("a pty");
    let mut rig = Rig::new(bus(Some(port), None), vec![meter(7)], cancel.clone());
    rig.reading("voltage").await;
    let span = Span {
        table: Table::Input,
        start: 0,
        count: 3,
    };
    let patient = Duration::from_secs(10);
    let limit = Duration::from_millis(50);
    let asked = rig.handle.ask(7, Request::Read(span), limit, patient);
    let outcome = asked.await.expect("the bus runs");
    let AdhocOutcome::Replied(Reply::Answer(Answer::Registers(words))) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(words.len(), 3);
    let asked = rig.handle.ask(8, Request::Read(span), limit, patient);
    let nobody = Some(AdhocOutcome::Replied(Reply::TimedOut));
    assert_eq!(asked.await, nobody);
    rig.stop().await;
    let nowhere = bus(Some("/dev/no-such-port".into()), None);
    let mut down = Rig::new(nowhere, vec![meter(1)], CancellationToken::new());
    down.state("meter").await;
    let asked = down.handle.ask(7, Request::Read(span), limit, patient);
    assert!(matches!(asked.await, Some(AdhocOutcome::Refused(_))));
    down.stop().await;
}

#[tokio::test]
async fn a_write_to_all_units_of_a_line_is_sent_and_nobody_is_waited_for() {
    let cancel = CancellationToken::new();
    let simulated = simulate::Device::new(Kind::Controller, 3);
    let port = simulate::on_serial(vec![simulated.clone()], cancel.clone()).expect("a pty");
    let mut rig = Rig::new(bus(Some(port), None), vec![plc(3)], cancel);
    assert_eq!(rig.state("plc").await, DeviceState::Online);
    let write = Request::WriteRegister {
        address: 0,
        word: 777,
    };
    let patient = Duration::from_secs(10);
    // Longer than the test lasts: an answer must not be waited for.
    let limit = Duration::from_secs(600);
    let asked = rig.handle.ask(0, write, limit, patient);
    let outcome = timeout(PATIENCE, asked).await.expect("in time");
    let sent = AdhocOutcome::Replied(Reply::Answer(Answer::Broadcast));
    assert_eq!(outcome, Some(sent));
    let span = Span {
        table: Table::Holding,
        start: 0,
        count: 1,
    };
    let limit = Duration::from_secs(1);
    let asked = rig.handle.ask(3, Request::Read(span), limit, patient);
    let read = AdhocOutcome::Replied(Reply::Answer(Answer::Registers(vec![777])));
    assert_eq!(asked.await, Some(read), "the unit did as all were told");
    rig.stop().await;
}

mod hostile;
mod secure;
mod slow;
