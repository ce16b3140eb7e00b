//! The test is the clock, the port and the instrument.
#![expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]

use jiff::Timestamp;

use super::*;
use crate::reading::{ClockState, Quality, Value};

const MS: Duration = Duration::from_millis(1);

/// A session, its time, and what it has asked for.
struct Bench {
    session: Session,
    now: Instant,
}

fn bench(keys: serde_json::Value) -> Bench {
    let mut sensor = serde_json::json!({
        "name": "scale", "port": "/dev/null", "baud": 1_000_000, "response_timeout": "100ms",
        "decode": { "regex": "(?P<weight>[-0-9.]+) kg" },
    });
    for (key, value) in keys.as_object().expect("keys") {
        sensor[key] = value.clone();
    }
    let sensor = serde_json::from_value(sensor).expect("a sensor");
    let now = Instant::now();
    let session = Session::new(sensor, stamp(now)).expect("a session");
    let mut bench = Bench { session, now };
    bench.input(Input::Opened);
    bench
}

fn stamp(monotonic: Instant) -> Stamp {
    Stamp {
        wall: Timestamp::UNIX_EPOCH,
        monotonic,
        clock: ClockState::Synced,
    }
}

impl Bench {
    fn input(&mut self, input: Input<'_>) {
        self.session.handle_input(input, stamp(self.now));
    }

    /// Lets time pass, as the driver does.
    fn pass(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.session.handle_timeout(stamp(self.now));
        }
        self.now = end;
    }

    /// Everything asked for, a line each.
    fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.session.poll_output())
            .map(|output| match output {
                Output::Transmit { bytes, .. } => format!("> {}", bytes.escape_ascii()),
                Output::BadFrame(error) => format!("bad: {error}"),
                Output::Event(Event::Device { state, .. }) => match state {
                    DeviceState::Online => "online".to_owned(),
                    DeviceState::Offline { reason } => format!("offline: {reason}"),
                },
                Output::Event(Event::Removed { device }) => format!("removed: {device}"),
                Output::Event(Event::Result(result)) => format!("{:?}", result.outcome),
                Output::Event(Event::Readings(readings)) => {
                    let shown = |reading: &Reading| {
                        let value = reading.value.as_ref().map(Value::to_string);
                        let stale = if reading.quality == Quality::Stale {
                            " stale"
                        } else {
                            ""
                        };
                        format!("{}={}{stale}", reading.point, value.unwrap_or_default())
                    };
                    readings.iter().map(shown).collect::<Vec<_>>().join(" ")
                }
            })
            .collect()
    }

    fn says(&mut self, text: &str) -> Vec<String> {
        self.input(Input::Bytes(text.as_bytes()));
        self.told()
    }

    fn command(&mut self, point: &str, value: serde_json::Value) -> Vec<String> {
        let command = self.written(point, value, None);
        self.input(Input::Command(command));
        self.told()
    }

    fn written(&self, point: &str, value: serde_json::Value, expires: Option<Duration>) -> Command {
        Command {
            device: "scale".into(),
            point: Some(point.into()),
            value,
            expires,
            received: stamp(self.now),
            correlation: None,
            response_topic: None,
            sender: None,
        }
    }
}

fn polled() -> serde_json::Value {
    serde_json::json!({ "request": [{ "send": "W\r\n", "interval": "1s" }] })
}

fn with_point(mut keys: serde_json::Value, confirm: bool) -> serde_json::Value {
    let mut point = serde_json::json!({
        "name": "setpoint", "access": "read-write", "write": "S {value:.1}\r\n",
        "min": 0, "max": 80,
    });
    if confirm {
        point["confirm"] = "^OK".into();
    }
    keys["point"] = serde_json::json!([point]);
    keys
}

#[test]
fn an_instrument_that_is_asked_is_read_in_its_answers() {
    let mut bench = bench(polled());
    assert_eq!(bench.told(), ["> W\\r\\n"]);
    assert_eq!(bench.says("12.50 kg\r\n"), ["online", "weight=12.5"]);
    bench.pass(999 * MS);
    assert_eq!(bench.told(), Vec::<String>::new());
    bench.pass(MS);
    assert_eq!(bench.told(), ["> W\\r\\n"]);
    let status = bench.session.status();
    assert_eq!((status.sent, status.frames, status.unanswered), (2, 1, 0));
}

#[test]
fn a_late_answer_is_dropped_and_never_taken_for_the_next_requests() {
    let keys = serde_json::json!({ "request": [
        { "send": "A\r", "interval": "1s" },
        { "send": "B\r", "interval": "1s", "decode": { "regex": "(?P<tare>[0-9.]+) kg" } },
    ] });
    let mut bench = bench(keys);
    assert_eq!(bench.told(), ["> A\\r"]);
    bench.pass(150 * MS);
    assert_eq!(
        bench.told(),
        Vec::<String>::new(),
        "B waits behind the fence"
    );
    assert_eq!(bench.says("1.0 kg\n"), Vec::<String>::new());
    bench.pass(50 * MS);
    assert_eq!(bench.told(), ["> B\\r"]);
    assert_eq!(bench.says("2.0 kg\n"), ["online", "tare=2"]);
    assert_eq!(bench.session.status().ignored, 1);
}

#[test]
fn what_the_decoder_does_not_read_is_not_the_answer() {
    let mut bench = bench(polled());
    bench.told();
    let told = bench.says("W\r\nS I\r\n12.5 kg\r\n");
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(told[2..], ["online", "weight=12.5"]);
    assert_eq!(bench.session.status().bad_frames, 2);
}

#[test]
fn an_instrument_that_does_not_answer_goes_offline_once_and_comes_back_once() {
    let mut bench = bench(polled());
    bench.told();
    bench.says("1 kg\n");
    bench.pass(Duration::from_secs(60));
    let told = bench.told();
    let states: Vec<_> = told.iter().filter(|line| !line.starts_with('>')).collect();
    assert_eq!(
        states,
        [
            "offline: no answer to \"W\\r\\n\" in 100ms",
            "weight=1 stale"
        ]
    );
    assert_eq!(told.len() - states.len(), 60, "it is asked at every turn");
    assert_eq!(bench.says("2 kg\n"), ["online", "weight=2"]);
}

#[test]
fn values_of_one_request_grow_stale_alone() {
    let keys = serde_json::json!({ "request": [
        { "send": "W\r", "interval": "1s" },
        { "send": "T\r", "interval": "1s", "decode": { "regex": "T(?P<tare>[0-9.]+)" } },
    ] });
    let mut bench = bench(keys);
    bench.told();
    bench.says("1 kg\n");
    bench.pass(20 * MS);
    assert_eq!(bench.told(), ["> T\\r"]);
    assert_eq!(bench.says("T5\n"), ["tare=5"]);
    let mut told = Vec::new();
    for _ in 0..10 {
        bench.pass(500 * MS);
        for line in bench.told() {
            let answers = line == "> W\\r";
            told.push(line);
            if answers {
                told.extend(bench.says("1 kg\n"));
            }
        }
    }
    assert_eq!(
        told.iter().filter(|line| *line == "tare=5 stale").count(),
        1
    );
    assert!(
        !told.iter().any(|line| line.starts_with("offline")),
        "{told:?}"
    );
}

#[test]
fn our_own_characters_are_no_answer_where_the_line_echoes() {
    let mut keys = polled();
    keys["echo"] = true.into();
    keys["decode"] = serde_json::json!({ "regex": "(?P<all>.+)" });
    let mut bench = bench(keys);
    bench.told();
    assert_eq!(bench.says("W\r"), Vec::<String>::new());
    assert_eq!(bench.says("\n12.5\r\n"), ["online", "all=12.5"]);
}

#[test]
fn a_session_is_opened_before_the_first_request() {
    let mut keys = polled();
    keys["init"] = serde_json::json!(["@\r\n", "Z\r\n"]);
    let mut bench = bench(keys);
    assert_eq!(bench.told(), ["> @\\r\\n"]);
    assert_eq!(bench.says("I4 A \"0123\"\r\n"), Vec::<String>::new());
    bench.pass(20 * MS);
    assert_eq!(bench.told(), ["> Z\\r\\n"]);
    bench.pass(201 * MS);
    assert_eq!(bench.told(), ["> W\\r\\n"], "no answer is needed");
    bench.input(Input::Lost("unplugged".to_owned()));
    bench.told();
    bench.input(Input::Opened);
    assert_eq!(bench.told(), ["> @\\r\\n"], "and after each opening again");
}

#[test]
fn a_command_is_sent_once_and_executed_when_it_is_confirmed() {
    let mut bench = bench(with_point(polled(), true));
    bench.told();
    assert_eq!(bench.command("setpoint", 12.5.into()), Vec::<String>::new());
    assert_eq!(bench.says("1 kg\r\n"), ["online", "weight=1"]);
    bench.pass(20 * MS);
    assert_eq!(bench.told(), ["> S 12.5\\r\\n"]);
    assert_eq!(
        bench.says("OK\r\n"),
        ["Executed(Decimal { mantissa: 125, decimals: 1 })"]
    );
    bench.pass(20 * MS);
    assert_eq!(bench.told(), Vec::<String>::new());
}

#[test]
fn a_command_that_is_not_confirmed_has_failed_and_is_not_repeated() {
    let mut bench = bench(with_point(serde_json::json!({}), true));
    bench.pass(crate::fieldbus::serial::line::GAP);
    assert_eq!(bench.command("setpoint", 1.into()), ["> S 1.0\\r\\n"]);
    assert_eq!(bench.says("3 kg\n"), ["online", "weight=3"], "it talks on");
    bench.pass(Duration::from_secs(1));
    assert_eq!(
        bench.told(),
        ["Failed(\"no answer that confirms it in 100ms; it may or may not have been executed\")"]
    );
    let mut unconfirmed = self::bench(with_point(polled(), false));
    unconfirmed.says("1 kg\n");
    unconfirmed.pass(20 * MS);
    let told = unconfirmed.command("setpoint", 1.into());
    assert!(told[0].starts_with("Failed(\"sent; "), "{told:?}");
    assert_eq!(told[1..], ["> S 1.0\\r\\n"]);
}

/// A controller that answers no commands, and whose setpoint is one of its values.
fn silent_controller() -> Bench {
    let mut bench = bench(serde_json::json!({
        "decode": { "regex": "T(?P<temperature>[0-9.]+) S(?P<setpoint>[0-9.]+)" },
        "request": [
            { "send": "R\r\n", "interval": "1m" },
            { "send": "V\r\n", "interval": "1m", "decode": { "regex": "V(?P<version>.*)" } },
        ],
        "point": [{
            "name": "setpoint", "access": "read-write", "write": "S {value:.1}\r\n", "read_back": true,
        }],
    }));
    assert_eq!(bench.told(), ["> R\\r\\n"]);
    assert_eq!(bench.says("T20.5 S40.0\r\n").len(), 2);
    bench.pass(20 * MS);
    assert_eq!(bench.told(), ["> V\\r\\n"]);
    assert_eq!(bench.says("V1.2\r\n"), ["version=1.2"]);
    bench.pass(20 * MS);
    bench
}

#[test]
fn a_command_that_nothing_answers_is_executed_when_its_value_is_read_back() {
    let mut bench = silent_controller();
    assert_eq!(bench.command("setpoint", 60.into()), ["> S 60.0\\r\\n"]);
    assert_eq!(bench.command("setpoint", 70.into()), Vec::<String>::new());
    bench.pass(60 * MS);
    assert_eq!(bench.told(), ["> R\\r\\n"], "long before its turn");
    // It is not that fast.
    let old = bench.says("T20.5 S40.0\r\n");
    assert_eq!(old, ["temperature=20.5 setpoint=40"]);
    bench.pass(99 * MS);
    assert_eq!(bench.told(), Vec::<String>::new());
    bench.pass(MS);
    assert_eq!(bench.told(), ["> R\\r\\n"]);
    let told = bench.says("T20.6 S60.00\r\n");
    assert!(told[0].starts_with("Executed("), "{told:?}");
    assert_eq!(told[1..], ["temperature=20.6 setpoint=60"]);
    bench.pass(20 * MS);
    assert_eq!(bench.told(), ["> S 70.0\\r\\n"], "the next waited for it");
}

#[test]
fn a_command_whose_value_is_not_read_back_has_failed() {
    let mut bench = silent_controller();
    bench.command("setpoint", 60.into());
    let mut told = Vec::new();
    for _ in 0..3 {
        bench.pass(100 * MS);
        assert_eq!(bench.told(), ["> R\\r\\n"]);
        told = bench.says("T20.5 S40.0\r\n");
    }
    assert_eq!(
        told[0], "Failed(\"sent, but it reads back 40, not 60\")",
        "{told:?}"
    );
    bench.command("setpoint", 60.into());
    bench.pass(Duration::from_secs(1));
    let told = bench.told().join("\n");
    assert!(
        told.contains("Failed(\"sent, but it was not read back: no answer to"),
        "{told}"
    );
    bench.pass(Duration::from_secs(1));
    bench.command("setpoint", 60.into());
    bench.input(Input::Lost("unplugged".to_owned()));
    let told = bench.told().join("\n");
    assert!(
        told.contains("Failed(\"sent, but unplugged before it was read back"),
        "{told}"
    );
}

#[test]
fn a_command_is_refused_before_its_value_has_been_read() {
    let mut bench = bench(serde_json::json!({
        "request": [{ "send": "W\r\n" }],
        "point": [{ "name": "weight", "access": "read-write", "write": "S {value}\r\n", "read_back": true }],
    }));
    bench.told();
    let told = bench.command("weight", 1.into());
    assert!(told[0].contains("has not been read yet"), "{told:?}");
}

#[test]
fn what_an_instrument_says_unasked_counts_where_it_is_said_to() {
    let keys = |unasked: bool| {
        serde_json::json!({
            "unasked": unasked,
            "request": [{ "send": "Q\r\n", "interval": "1s", "decode": { "regex": "N(?P<net>[0-9]+)" } }],
        })
    };
    let mut bench = bench(keys(true));
    assert_eq!(bench.told(), ["> Q\\r\\n"]);
    assert_eq!(bench.says("12.5 kg\r\n"), ["online", "weight=12.5"]);
    assert_eq!(bench.says("N7\r\n"), ["net=7"], "the answer still counts");
    bench.pass(500 * MS);
    assert_eq!(bench.says("13.5 kg\r\n"), ["weight=13.5"]);
    let mut silent = self::bench(keys(false));
    silent.told();
    silent.says("N7\r\n");
    silent.pass(500 * MS);
    assert_eq!(silent.says("13.5 kg\r\n"), Vec::<String>::new());
    assert_eq!(silent.session.status().ignored, 1);
}

#[test]
fn a_command_that_cannot_be_is_refused_and_nothing_is_sent() {
    let mut bench = bench(with_point(polled(), true));
    bench.says("1 kg\n");
    for (point, value, reason) in [
        (
            "setpoint",
            serde_json::json!(81),
            "above the greatest permitted value 80",
        ),
        (
            "setpoint",
            serde_json::json!(-1),
            "below the least permitted value 0",
        ),
        (
            "setpoint",
            serde_json::json!(1.25),
            "1.25 has more than 1 decimals",
        ),
        (
            "setpoint",
            serde_json::json!("1\r\nS 80"),
            "is not a number",
        ),
        ("weight", serde_json::json!(1), "has no point"),
    ] {
        let told = bench.command(point, value);
        assert!(
            matches!(&told[..], [one] if one.contains(reason)),
            "{told:?}"
        );
    }
}

#[test]
fn a_command_waits_no_longer_than_it_may() {
    let mut bench = bench(with_point(polled(), true));
    bench.told();
    let command = bench.written("setpoint", 1.into(), Some(50 * MS));
    bench.input(Input::Command(command));
    bench.pass(300 * MS);
    let told = bench.told();
    assert!(
        matches!(&told[..], [one] if one.contains("expired")),
        "{told:?}"
    );
}

#[test]
fn every_command_gets_a_result_when_the_port_is_lost() {
    let mut bench = bench(with_point(polled(), true));
    bench.says("1 kg\n");
    bench.pass(20 * MS);
    assert_eq!(bench.command("setpoint", 1.into()), ["> S 1.0\\r\\n"]);
    assert_eq!(bench.command("setpoint", 2.into()), Vec::<String>::new());
    bench.input(Input::Lost("unplugged".to_owned()));
    let told = bench.told();
    assert!(
        told[0].starts_with("Failed(\"unplugged; it may"),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("Refused(\"not sent: unplugged"),
        "{told:?}"
    );
    let told = bench.command("setpoint", 3.into());
    assert!(
        told[0].starts_with("Refused(\"not sent: unplugged"),
        "{told:?}"
    );
}

#[test]
fn commands_that_wait_are_bounded() {
    let mut bench = bench(with_point(polled(), true));
    bench.told();
    for _ in 0..COMMANDS_MAX {
        assert_eq!(bench.command("setpoint", 1.into()), Vec::<String>::new());
    }
    let told = bench.command("setpoint", 1.into());
    assert!(told[0].contains("16 commands wait already"), "{told:?}");
}

#[test]
fn a_text_and_a_button_are_written_as_they_are() {
    let mut keys = polled();
    keys["point"] = serde_json::json!([
        { "name": "display", "type": "string", "access": "read-write", "write": "D \"{value}\"\r\n", "confirm": "^D A" },
        { "name": "tare", "access": "read-write", "write": "T\r\n", "confirm": "^T S" },
    ]);
    let mut bench = bench(keys);
    bench.says("1 kg\n");
    bench.pass(20 * MS);
    assert_eq!(
        bench.command("display", "ready".into()),
        ["> D \\\"ready\\\"\\r\\n"]
    );
    assert_eq!(bench.says("D A\r\n"), ["Executed(Text(\"ready\"))"]);
    bench.pass(20 * MS);
    assert_eq!(bench.command("tare", true.into()), ["> T\\r\\n"]);
    assert_eq!(bench.says("T S 1.0 kg\r\n"), ["Executed(Bool(true))"]);
    let told = bench.command("display", "a\r\nT".into());
    assert!(told[0].contains("would be taken for control"), "{told:?}");
    let told = bench.command("tare", 5.into());
    assert!(told[0].contains("a button"), "{told:?}");
}

/// Blocks of one language in a document, in their order.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let begins = format!("```{language}\n");
    let parts = document.split(&begins).skip(1);
    parts
        .filter_map(|part| part.split_once("```").map(|(block, _)| block))
        .collect()
}

fn unescaped(text: &str) -> String {
    let text = text.replace("\\r", "\r").replace("\\n", "\n");
    let mut parts = text.split("\\x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        plain.push(u8::from_str_radix(digits, 16).expect("two digits").into());
        plain += rest;
    }
    plain
}

/// What the document says goes over the line does: `>` sent, `<` received, `=` published.
fn rehearse(sensor: SerialSensor, script: &str) {
    let now = Instant::now();
    let session = Session::new(sensor, stamp(now)).expect("a session");
    let mut bench = Bench { session, now };
    bench.input(Input::Opened);
    bench.pass(crate::fieldbus::serial::line::GAP);
    let mut told: VecDeque<String> = VecDeque::new();
    for line in script.lines() {
        let (mark, text) = line.split_at(2);
        let deadline = bench.now + Duration::from_secs(2);
        match mark {
            "< " => told = bench.says(&unescaped(text)).into(),
            "= " => assert!(told.contains(&text.to_owned()), "{line}: {told:?}"),
            _ => {
                told.extend(bench.told());
                while !told.contains(&line.to_owned()) && bench.now < deadline {
                    bench.pass(MS);
                    told.extend(bench.told());
                }
                assert!(told.contains(&line.to_owned()), "{line}: {told:?}");
            }
        }
    }
}

#[test]
fn the_documents_examples_are_read_as_they_say() {
    let document = include_str!("../../../../../docs/serial.md");
    let examples = blocks(document, "toml");
    // The first text is a picture.
    let scripts = blocks(document, "text").split_off(1);
    assert_eq!((examples.len(), scripts.len()), (4, 4));
    for (example, script) in examples.into_iter().zip(scripts) {
        let loaded = crate::config::parse("docs/serial.md", example).expect("an example");
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        let [sensor] = &loaded.value.serials[..] else {
            panic!("one instrument an example");
        };
        rehearse(sensor.clone(), script);
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_at_no_time_make_a_session_panic_or_grow(
        chunks in proptest::collection::vec((proptest::collection::vec(0u8..128, 0..40), 0u64..400), 0..40),
        polled_line: bool,
    ) {
        let keys = if polled_line { polled() } else { serde_json::json!({}) };
        let mut bench = bench(with_point(keys, true));
        for (bytes, pause) in chunks {
            bench.input(Input::Bytes(&bytes));
            bench.pass(Duration::from_millis(pause));
            let command = bench.written("setpoint", 1.into(), None);
            bench.input(Input::Command(command));
            proptest::prop_assert!(bench.session.writes.len() <= COMMANDS_MAX);
            bench.told();
        }
    }
}
