//! A pseudo-terminal is the line, and the test is the instrument.

use tokio::io::AsyncWriteExt;

use super::*;
use crate::reading::{Quality, Reading, Value};

/// Longest wait for something that must happen.
const SOON: Duration = Duration::from_secs(10);

/// An instrument on a pty, and the line that listens to it.
struct Bench {
    wire: SerialStream,
    events: mpsc::Receiver<Event>,
    handle: SerialHandle,
    cancel: CancellationToken,
    _far: SerialStream,
}

fn sensor(port: PathBuf, rest: serde_json::Value) -> SerialSensor {
    let mut fields = serde_json::json!({ "name": "scale-1", "port": port });
    for (key, value) in rest.as_object().unwrap() {
        fields[key] = value.clone();
    }
    serde_json::from_value(fields).unwrap()
}

fn pty() -> (SerialStream, SerialStream, PathBuf) {
    let (wire, far) = SerialStream::pair().unwrap();
    let path = PathBuf::from(far.name().unwrap());
    (wire, far, path)
}

fn bench(rest: serde_json::Value) -> Bench {
    let (wire, far, path) = pty();
    let (sender, events) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let handle = start(sensor(path, rest), sender, cancel.clone());
    Bench {
        wire,
        events,
        handle,
        cancel,
        _far: far,
    }
}

impl Bench {
    async fn event(&mut self) -> Event {
        timeout(SOON, self.events.recv()).await.unwrap().unwrap()
    }

    /// Sends a frame again and again until something is told; the port opens in its own time.
    async fn event_on(&mut self, frame: &[u8]) -> Event {
        loop {
            self.wire.write_all(frame).await.unwrap();
            let pause = Duration::from_millis(100);
            if let Ok(event) = timeout(pause, self.events.recv()).await {
                return event.unwrap();
            }
        }
    }

    async fn state(&mut self) -> DeviceState {
        match self.event().await {
            Event::Device { state, .. } => state,
            other => panic!("{other:?}"),
        }
    }

    async fn reading(&mut self) -> Reading {
        match self.event().await {
            Event::Readings(mut readings) => readings.remove(0),
            other => panic!("{other:?}"),
        }
    }
}

fn scale() -> serde_json::Value {
    serde_json::json!({ "decode": { "regex": "(?P<weight>[-0-9.]+) kg" }, "timeout": "300ms" })
}

#[tokio::test]
async fn a_line_on_the_wire_becomes_a_reading_of_an_online_device() {
    let mut bench = bench(scale());
    let online = bench.event_on(b"12.50 kg\r\n").await;
    assert!(matches!(
        online,
        Event::Device {
            state: DeviceState::Online,
            ..
        }
    ));
    let reading = bench.reading().await;
    assert_eq!((&*reading.device, &*reading.point), ("scale-1", "weight"));
    assert_eq!(
        reading.value.map(|value| value.to_string()).as_deref(),
        Some("12.5")
    );
    assert_eq!(reading.quality, Quality::Good);
    let status = bench.handle.status();
    assert_eq!(
        (status.state, status.bad_frames),
        (Some(DeviceState::Online), 0)
    );
    bench.cancel.cancel();
    timeout(SOON, bench.handle.stopped()).await.unwrap();
}

#[tokio::test]
async fn a_silent_instrument_goes_offline_once_and_comes_back_once() {
    let mut bench = bench(scale());
    let DeviceState::Offline { reason } = bench.state().await else {
        panic!("online without a frame");
    };
    assert_eq!(reason, "nothing received in 300ms");
    bench.wire.write_all(b"1 kg\n").await.unwrap();
    assert_eq!(bench.state().await, DeviceState::Online);
    let good = bench.reading().await;
    assert_eq!(good.value, Some(Value::Integer(1)));
    assert!(matches!(bench.state().await, DeviceState::Offline { .. }));
    let stale = bench.reading().await;
    assert_eq!(stale.quality, Quality::Stale);
    assert_eq!(stale.reason.as_deref(), Some("nothing received in 300ms"));
    assert_eq!((stale.value, stale.stamp), (good.value, good.stamp));
    let shown = &bench.handle.status().points[0];
    assert_eq!(shown.value, Some(Value::Integer(1)));
    assert_eq!(shown.known, Some((good.stamp, Quality::Stale)));
}

#[tokio::test]
async fn noise_keeps_an_instrument_offline_and_is_counted() {
    let mut bench = bench(scale());
    let Event::Device { state, .. } = bench.event_on(b"\xf0\x0f\n").await else {
        panic!("noise was read");
    };
    let DeviceState::Offline { reason } = state else {
        panic!("online by noise");
    };
    assert!(
        reason.starts_with("nothing readable in 300ms, but "),
        "{reason}"
    );
    assert!(reason.contains("expected a match of"), "{reason}");
    let status = bench.handle.status();
    assert!(status.bad_frames > 0 && status.frames == 0);
}

#[tokio::test]
async fn values_within_the_deadband_are_not_sent() {
    let mut fields = scale();
    fields["timeout"] = "30s".into();
    fields["point"] = serde_json::json!([{ "name": "weight", "unit": "kg", "deadband": 1 }]);
    let mut bench = bench(fields);
    let online = bench.event_on(b"10.0 kg\n").await;
    assert!(matches!(online, Event::Device { .. }));
    bench.wire.write_all(b"10.5 kg\n11.5 kg\n").await.unwrap();
    let first = bench.reading().await;
    assert_eq!(first.unit.as_deref(), Some("kg"));
    let second = bench.reading().await;
    assert_eq!(second.value.and_then(|value| value.as_f64()), Some(11.5));
}

#[tokio::test]
async fn a_frame_ended_by_silence_is_taken_without_more_bytes() {
    let fields = serde_json::json!({
        "decode": { "raw": "frame" },
        "frame": { "silence": "20ms" },
        "checksum": "xor",
    });
    let mut bench = bench(fields);
    let online = bench.event_on(b"\x01\x02\x03").await;
    assert!(matches!(
        online,
        Event::Device {
            state: DeviceState::Online,
            ..
        }
    ));
    assert_eq!(bench.reading().await.value, Some(Value::Raw(vec![1, 2])));
}

#[tokio::test]
async fn a_missing_port_is_told_once_and_opened_when_it_appears() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ttyUSB0");
    let (sender, mut events) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let handle = start(sensor(path.clone(), scale()), sender, cancel.clone());
    let Some(Event::Device { state, .. }) = timeout(SOON, events.recv()).await.unwrap() else {
        panic!("no state");
    };
    let reason = format!(
        "cannot open serial port {}: No such file or directory \
         (is the adapter plugged in?); trying again",
        path.display()
    );
    assert_eq!(state, DeviceState::Offline { reason });
    let (mut wire, _far, pts) = pty();
    std::os::unix::fs::symlink(pts, &path).unwrap();
    let online = async {
        loop {
            wire.write_all(b"1 kg\n").await.unwrap();
            let event = timeout(Duration::from_millis(50), events.recv()).await;
            if let Ok(Some(Event::Device { state, .. })) = event
                && state == DeviceState::Online
            {
                return;
            }
        }
    };
    timeout(SOON, online).await.unwrap();
    cancel.cancel();
    timeout(SOON, handle.stopped()).await.unwrap();
}

#[tokio::test]
async fn an_unplugged_port_is_told() {
    let Bench {
        mut wire,
        mut events,
        _far: far,
        ..
    } = {
        let mut bench = bench(scale());
        bench.event_on(b"1 kg\n").await;
        bench
    };
    wire.flush().await.unwrap();
    drop((wire, far));
    let offline = async {
        loop {
            if let Some(Event::Device { state, .. }) = events.recv().await
                && let DeviceState::Offline { reason } = state
            {
                return reason;
            }
        }
    };
    let reason = timeout(SOON, offline).await.unwrap();
    assert!(reason.starts_with("serial port /dev/pts/"), "{reason}");
}

fn balance() -> serde_json::Value {
    serde_json::json!({
        "decode": { "regex": "^S S +(?P<weight>[-0-9.]+) g" },
        "data_bits": 7,
        "parity": "even",
        "response_timeout": "2s",
        "request": [{ "send": "SI\r\n", "interval": "50ms" }],
        "point": [{
            "name": "target", "access": "read-write", "write": "A10 {value:.2}\r\n",
            "confirm": "^A10 A", "min": 0, "max": 200,
        }],
    })
}

/// Reads one line that the gateway sends.
async fn asked(wire: &mut SerialStream) -> String {
    let mut line = Vec::new();
    let whole = async {
        while !line.ends_with(b"\n") {
            line.push(wire.read_u8().await.unwrap());
        }
    };
    timeout(SOON, whole).await.unwrap();
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn an_instrument_is_asked_again_and_again_and_takes_a_command() {
    let mut bench = bench(balance());
    for turn in 1..=3 {
        assert_eq!(asked(&mut bench.wire).await, "SI\r\n");
        let answer = format!("S S    {turn}.50 g\r\n");
        bench.wire.write_all(answer.as_bytes()).await.unwrap();
        if turn == 1 {
            assert_eq!(bench.state().await, DeviceState::Online);
        }
        let value = bench.reading().await.value.map(|value| value.to_string());
        assert_eq!(value, Some(format!("{turn}.5")));
    }
    let command = Command {
        device: "scale-1".into(),
        point: Some("target".into()),
        value: 12.5.into(),
        expires: None,
        received: clock::now(),
        correlation: None,
        response_topic: None,
        sender: None,
    };
    bench.handle.command(command).unwrap();
    let outcome = loop {
        // What was asked before the command came is answered first.
        let answer = match asked(&mut bench.wire).await.as_str() {
            "A10 12.50\r\n" => "A10 A\r\n",
            _ => "S S 1 g\r\n",
        };
        bench.wire.write_all(answer.as_bytes()).await.unwrap();
        if let Event::Result(result) = bench.event().await {
            break result.outcome;
        }
    };
    let expected = crate::fieldbus::number::as_written("12.5").unwrap();
    assert_eq!(outcome, crate::fieldbus::Outcome::Executed(expected));
    assert_eq!(bench.handle.status().unanswered, 0);
    bench.cancel.cancel();
    timeout(SOON, bench.handle.stopped()).await.unwrap();
}

#[tokio::test]
async fn a_command_that_waits_when_the_line_ends_gets_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, mut events) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let port = folder.path().join("ttyUSB0");
    let handle = start(sensor(port, balance()), sender, cancel.clone());
    let offline = timeout(SOON, events.recv()).await.unwrap();
    assert!(matches!(offline, Some(Event::Device { .. })));
    let command = Command {
        device: "scale-1".into(),
        point: Some("target".into()),
        value: 1.into(),
        expires: None,
        received: clock::now(),
        correlation: None,
        response_topic: None,
        sender: None,
    };
    handle.command(command).unwrap();
    cancel.cancel();
    let Some(Event::Result(result)) = timeout(SOON, events.recv()).await.unwrap() else {
        panic!("no result");
    };
    let refused = matches!(&result.outcome, crate::fieldbus::Outcome::Refused(reason)
        if reason.starts_with("not sent: "));
    assert!(refused, "{:?}", result.outcome);
    timeout(SOON, handle.stopped()).await.unwrap();
}

#[test]
fn ten_bad_frames_a_minute_are_logged() {
    let mut budget = LogBudget::default();
    let start = Instant::now();
    let allowed = |budget: &mut LogBudget, at| (0..50).filter(|_| budget.allows(at)).count();
    assert_eq!(allowed(&mut budget, start), 10);
    assert_eq!(allowed(&mut budget, start + Duration::from_secs(59)), 0);
    assert_eq!(allowed(&mut budget, start + MINUTE), 10);
}
