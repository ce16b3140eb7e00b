//! The edge node's promises, read by a host that trusts nothing: it follows sequence numbers, knows a metric only by
//! its birth, and takes data only of what is alive. The tests are the cores' driver.
#![expect(clippy::disallowed_methods, reason = "tests measure time")]

use std::{collections::HashMap, time::Instant};

use broker_lite::{
    packet::{MessageProperties, QoS},
    topic::TopicName,
};
use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::json;

use super::{
    super::outbound::{Key, Origin, Outbound, Packing},
    command::{self, Refused},
    datatype::Published,
    edge::{Edge, Heard, Sent},
    sample::Taken,
    wire::{Metric, Payload, Value},
    *,
};
use crate::reading::ClockState;

#[test]
fn a_session_begins_with_births_numbered_from_zero_and_the_wills_own_bd_seq() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    let will = Payload::decode(&*bench.edge.connect().payload).unwrap();
    assert_eq!(will.seq, None);
    assert_eq!(will.metrics[0].value, Some(Value::Long(0)));
    bench.birth();
    assert_eq!(bench.host.log, ["NBIRTH 0", "DBIRTH m 1"]);
    assert_eq!(bench.host.bd_seq, 0);
    bench.row("telemetry/m/voltage", reading(1.5, 20));
    assert_eq!(bench.host.log[2..], ["DDATA m 2"]);
    assert_eq!(bench.host.live["m/voltage"], json!(1.5));

    let will = Payload::decode(&*bench.edge.connect().payload).unwrap();
    assert_eq!(will.metrics[0].value, Some(Value::Long(1)));
    bench.birth();
    assert_eq!(bench.host.bd_seq, 1);
}

#[test]
fn bd_seq_and_seq_go_round_after_255() {
    let mut bench = Bench::new(None);
    for _ in 0..=256 {
        bench.edge.connect();
        bench.edge.connect();
        bench.edge.accepted();
    }
    bench.online("m", true);
    bench.birth();
    assert_eq!(bench.host.bd_seq, 0);
    for number in 0..600 {
        bench.row("telemetry/m/voltage", reading(f64::from(number), 20));
    }
    assert_eq!(bench.host.data, 600);
}

#[test]
fn after_an_outage_births_come_first_then_the_backlog_as_history_with_its_own_times() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.now_ms = 100_000;
    bench.learn("telemetry/m/voltage", &reading(9.0, 99));
    bench.connect();
    assert_eq!(
        bench.host.live["m/voltage"],
        json!(9.0),
        "the newest value, told by the birth"
    );
    for second in 50..=99 {
        bench.row("telemetry/m/voltage", reading(second as f64, second));
    }
    bench.row("telemetry/m/voltage", reading(10.0, 101));
    let times: Vec<_> = bench.host.history["m/voltage"]
        .iter()
        .map(|(time, _)| *time)
        .collect();
    assert_eq!(
        times,
        (50..=99).map(|second| second * 1_000).collect::<Vec<u64>>()
    );
    assert_eq!(bench.host.live["m/voltage"], json!(10.0));
}

#[test]
fn what_newer_data_has_overtaken_is_history() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.connect();
    for second in [30, 20, 31] {
        bench.row("telemetry/m/voltage", reading(second as f64, second));
    }
    assert_eq!(bench.host.history["m/voltage"], [(20_000, json!(20.0))]);
    assert_eq!(bench.host.live["m/voltage"], json!(31.0));
}

#[test]
fn a_device_that_goes_offline_dies_after_its_last_data_and_is_born_when_it_returns() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.connect();
    bench.online("m", false);
    bench.row(
        "telemetry/m/voltage",
        br#"{"value":1.5,"time":"1970-01-01T00:00:20Z","quality":"stale"}"#.to_vec(),
    );
    assert!(bench.host.alive.contains_key("m"));
    assert_eq!(bench.host.quality["m/voltage"], 500);
    bench.now = bench.edge.poll_timeout().unwrap();
    bench.flush();
    assert_eq!(bench.host.log.last().unwrap(), "DDEATH m 3");
    assert_eq!(bench.edge.poll_timeout(), None);
    bench.online("m", true);
    bench.flush();
    assert_eq!(bench.host.log.last().unwrap(), "DBIRTH m 4");
}

#[test]
fn the_backlog_of_a_device_that_is_offline_goes_up_between_a_birth_and_a_death() {
    let mut bench = Bench::new(None);
    bench.online("m", false);
    bench.now_ms = 100_000;
    bench.connect();
    assert_eq!(bench.host.log, ["NBIRTH 0"]);
    bench.row("telemetry/m/voltage", reading(1.0, 50));
    bench.row("telemetry/m/voltage", reading(2.0, 51));
    bench.now = bench.edge.poll_timeout().unwrap();
    bench.flush();
    let expected = [
        "NBIRTH 0",
        "DBIRTH m 1",
        "DDATA m 2",
        "DDATA m 3",
        "DDEATH m 4",
    ];
    assert_eq!(bench.host.log, expected);
    assert_eq!(bench.host.history["m/voltage"].len(), 2);
}

#[test]
fn a_rebirth_is_sent_on_command_and_many_commands_get_one() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.connect();
    let rebirth = rebirth();
    for _ in 0..50 {
        let heard = bench
            .edge
            .received("spBv1.0/plant/NCMD/gw", &rebirth, false, bench.now);
        assert_eq!(heard, Heard::Nothing);
    }
    bench.row("telemetry/m/voltage", reading(1.0, 20));
    assert_eq!(
        bench.host.log.len(),
        2,
        "no data before the births that were asked for"
    );
    bench.now = bench.edge.poll_timeout().unwrap();
    bench.flush();
    assert_eq!(bench.host.log[2..], ["NBIRTH 0", "DBIRTH m 1", "DDATA m 2"]);
    assert_eq!(bench.host.bd_seq, 0);
}

#[test]
fn commands_become_local_ones_by_name_or_alias() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.connect();
    let alias = bench.host.alias("m/setpoint");
    let metric = |name: Option<&str>, alias, value| Metric {
        name: name.map(str::to_owned),
        alias,
        value,
        ..Metric::default()
    };
    let payload = Payload {
        metrics: vec![
            metric(
                Some("setpoint"),
                None,
                Some(Value::Int((-5_i32).cast_unsigned())),
            ),
            metric(None, Some(alias), Some(Value::Int(7))),
            metric(Some("valve"), None, Some(Value::Boolean(true))),
            metric(Some("voltage"), None, Some(Value::Float(0.1))),
            metric(Some("mode"), None, Some(Value::String("auto".to_owned()))),
            metric(Some("mode"), None, None),
        ],
        ..Payload::default()
    };
    let heard = bench.dcmd("m", &payload);
    let expected = [
        ("command/m/setpoint", "-5"),
        ("command/m/setpoint", "7"),
        ("command/m/valve", "true"),
        ("command/m/voltage", "0.1"),
        ("command/m/mode", "\"auto\""),
        ("command/m/mode", "null"),
    ];
    let expected = expected.map(|(topic, value)| (topic.to_owned(), value.to_owned()));
    assert_eq!(heard, Heard::Commands(expected.to_vec()));
}

#[test]
fn retained_misaddressed_and_excessive_commands_are_refused_in_words() {
    let mut bench = Bench::new(None);
    bench.connect();
    let now = bench.now;
    let mut said = |topic: &str, payload: &[u8], retained| match bench
        .edge
        .received(topic, payload, retained, now)
    {
        Heard::Refused(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(said("spBv1.0/plant/NCMD/gw", &rebirth(), true).contains("retained"));
    assert!(said("spBv1.0/plant/DCMD/other/m", &[], false).contains("nobody"));
    assert!(said("spBv1.0/plant/NCMD/gw", b"\xff", false).contains("no Sparkplug B payload"));
    let many = Payload {
        metrics: vec![Metric::default(); 65],
        ..Payload::default()
    };
    assert!(said("spBv1.0/plant/DCMD/gw/m", &many.encode_to_vec(), false).contains("65 writes"));
}

#[test]
fn births_wait_for_the_primary_host_and_the_session_ends_when_it_leaves() {
    let mut bench = Bench::new(Some("scada"));
    bench.edge.connect();
    bench.edge.accepted();
    assert!(!bench.edge.may_be_born());
    let mut state = |online, timestamp| {
        let payload = json!({ "online": online, "timestamp": timestamp }).to_string();
        bench
            .edge
            .received("spBv1.0/STATE/scada", payload.as_bytes(), true, bench.now);
        (bench.edge.may_be_born(), bench.edge.has_to_leave())
    };
    assert_eq!(
        state(false, 1_000),
        (false, false),
        "there is no other server to go to"
    );
    assert_eq!(state(true, 2_000), (true, false));
    bench.birth();
    let mut state = |online, timestamp| {
        let payload = json!({ "online": online, "timestamp": timestamp }).to_string();
        bench
            .edge
            .received("spBv1.0/STATE/scada", payload.as_bytes(), false, bench.now);
        bench.edge.has_to_leave()
    };
    assert!(!state(false, 1_500), "older than its birth");
    assert!(state(false, 2_000));
    bench.edge.connect();
    assert!(!bench.edge.may_be_born());
}

#[test]
fn what_no_configuration_describes_is_declared_by_a_birth_before_its_first_value() {
    let mut bench = Bench::new(None);
    bench.online("m", true);
    bench.connect();
    bench.row("telemetry/m/new", br#"{"value":"on"}"#.to_vec());
    bench.row("telemetry/press-3/count", b"7".to_vec());
    bench.row("telemetry/press-3/count", b"seven".to_vec());
    bench.row("telemetry/press-3/count", b"\xff".to_vec());
    assert_eq!(bench.host.live["m/new"], json!("on"));
    assert_eq!(bench.host.live["/telemetry/press-3/count"], json!([255]));
    let births = bench
        .host
        .log
        .iter()
        .filter(|line| line.starts_with("NBIRTH"));
    assert_eq!(
        births.count(),
        4,
        "the first, and one for each type: {:?}",
        bench.host.log
    );
}

#[test]
fn states_are_told_by_births_and_gaps_by_a_metric_of_the_node() {
    let mut bench = Bench::new(None);
    bench.connect();
    let state = bench.message(1, "state/m", br#"{"state":"online"}"#.to_vec());
    bench.edge.push(state);
    let sent = bench.edge.flush(bench.now, bench.now_ms);
    assert!(matches!(sent[..], [Sent::Said(Key::Row(1))]), "{sent:?}");
    let key = Key::Gap { id: 1, count: 3 };
    let gap = Outbound {
        key,
        packing: None,
        ..bench.message(
            2,
            "alert/gap/telemetry/m/voltage",
            b"{\"count\":3}".to_vec(),
        )
    };
    bench.edge.push(gap);
    bench.flush();
    assert_eq!(bench.host.live["/alert/gap"], json!("{\"count\":3}"));
}

#[test]
fn a_message_that_would_need_one_metric_too_many_is_refused_alone() {
    let mut bench = Bench::new(None);
    bench.connect();
    let topics = (0..=metrics::MAX_METRICS).map(|number| format!("x/{number}"));
    for (number, topic) in topics.enumerate() {
        let row = bench.message(number as i64, &topic, b"1".to_vec());
        bench.edge.push(row);
    }
    let sent = bench.edge.flush(bench.now, bench.now_ms);
    let refused = sent.iter().filter(|sent| matches!(sent, Sent::Never(..)));
    // Three of the metrics are the node's own.
    assert_eq!(refused.count(), 4);
}

proptest! {
    /// Whatever a point publishes reaches the host as it was, in the type that the last birth declared.
    #[test]
    fn every_value_arrives_as_it_was_published(
        values in prop::collection::vec(any_value(), 1..12),
        point in prop::sample::select(vec!["voltage", "setpoint", "valve", "mode", "count", "new"]),
    ) {
        let mut bench = Bench::new(None);
        bench.online("m", true);
        bench.connect();
        for (second, value) in values.into_iter().enumerate() {
            let payload = json!({ "value": value, "time": stamp(20 + second as u64) });
            bench.row(&format!("telemetry/m/{point}"), payload.to_string().into_bytes());
            let arrived = &bench.host.live[&format!("m/{point}")];
            let text = match &value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let same = arrived == &value
                || arrived == &json!(text)
                || arrived == &json!(text.as_bytes())
                || arrived.as_f64().zip(value.as_f64()).is_some_and(|(a, b)| a == b);
            prop_assert!(same, "{value} arrived as {arrived}");
        }
    }

    /// Nothing that comes down ends the session, and what it asks for is bounded.
    #[test]
    fn no_command_payload_ends_the_session(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        metrics in prop::collection::vec(any_metric(), 0..80),
        kind in prop::sample::select(vec!["NCMD/gw", "DCMD/gw/m", "DCMD/gw/unknown", "DCMD/gw", "XCMD/gw/m/n"]),
        cut in any::<prop::sample::Index>(),
        retained in any::<bool>(),
    ) {
        let mut bench = Bench::new(Some("scada"));
        bench.edge.connect();
        let mut encoded = Payload { metrics, ..Payload::default() }.encode_to_vec();
        let whole = encoded.clone();
        encoded.truncate(cut.index(encoded.len() + 1));
        for payload in [&payload, &encoded, &whole] {
            let topic = format!("spBv1.0/plant/{kind}");
            for topic in [topic.as_str(), "spBv1.0/STATE/scada", "spBv1.0", ""] {
                if let Heard::Commands(commands) = bench.edge.received(topic, payload, retained, bench.now) {
                    prop_assert!(commands.len() <= command::MAX_WRITES);
                    for (_, value) in commands {
                        prop_assert!(serde_json::from_str::<serde_json::Value>(&value).is_ok());
                    }
                }
            }
        }
    }
}

#[test]
fn a_payload_nested_without_end_is_refused() {
    // Field 2 (metrics) of field 9 (properties) of field 2 … each one wrapped into the next.
    let mut payload = Vec::new();
    for _ in 0..2_000 {
        let mut outer = vec![0x12];
        prost::encoding::encode_varint(payload.len() as u64, &mut outer);
        outer.extend_from_slice(&payload);
        payload = outer;
    }
    let refused = command::writes(&payload, |_, _| None);
    assert!(matches!(refused, Ok(_) | Err(Refused::Unreadable(_))));
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<u64>().prop_map(|value| json!(value)),
        any::<i16>().prop_map(|value| json!(value)),
        any::<f32>()
            .prop_filter("JSON has no others", |value| value.is_finite())
            .prop_map(|value| json!(value.to_string().parse::<f64>().unwrap())),
        any::<f64>()
            .prop_filter("JSON has no others", |value| value.is_finite())
            .prop_map(|value| json!(value)),
        ".{0,12}".prop_map(|value| json!(value)),
        prop::collection::vec("[a-z]{1,5}", 0..4).prop_map(|value| json!(value)),
    ]
}

fn any_metric() -> impl Strategy<Value = Metric> {
    let value = prop_oneof![
        any::<u32>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::Long),
        any::<f32>().prop_map(Value::Float),
        any::<f64>().prop_map(Value::Double),
        any::<bool>().prop_map(Value::Boolean),
        ".{0,8}".prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(Value::Bytes),
    ];
    let name = prop::option::of(prop_oneof![
        Just("Node Control/Rebirth".to_owned()),
        Just("setpoint".to_owned()),
        ".{0,8}"
    ]);
    let numbers = (
        prop::option::of(0_u64..10),
        prop::option::of(0_u32..40),
        prop::option::of(any::<bool>()),
    );
    (name, prop::option::of(value), numbers).prop_map(
        |(name, value, (alias, datatype, is_null))| Metric {
            name,
            value,
            alias,
            datatype,
            is_null,
            ..Metric::default()
        },
    )
}

fn rebirth() -> Vec<u8> {
    let metric = Metric {
        name: Some("Node Control/Rebirth".to_owned()),
        value: Some(Value::Boolean(true)),
        ..Metric::default()
    };
    Payload {
        metrics: vec![metric],
        ..Payload::default()
    }
    .encode_to_vec()
}

fn stamp(second: u64) -> String {
    Timestamp::from_second(second as i64).unwrap().to_string()
}

fn reading(value: f64, second: u64) -> Vec<u8> {
    json!({ "value": value, "time": stamp(second) })
        .to_string()
        .into_bytes()
}

/// An edge node and the host that listens to it.
struct Bench {
    edge: Edge,
    host: Listener,
    now: Instant,
    now_ms: u64,
    rows: i64,
}

impl Bench {
    fn new(primary_host: Option<&str>) -> Bench {
        let config = config::Sparkplug {
            group: "plant".to_owned(),
            node: None,
            primary_host: primary_host.map(str::to_owned),
        };
        let points = [
            ("voltage", DataType::Float),
            ("setpoint", DataType::Int16),
            ("valve", DataType::Boolean),
            ("mode", DataType::String),
            ("count", DataType::UInt64),
        ];
        let entry = Entry {
            device: "m".to_owned(),
            points: points
                .map(|(name, datatype)| (name.to_owned(), Some(datatype), Some("V".to_owned())))
                .to_vec(),
        };
        Bench {
            edge: Edge::new(&config, "gw", false, &Catalog(vec![entry])).unwrap(),
            host: Listener::default(),
            now: Instant::now(),
            now_ms: 10_000,
            rows: 0,
        }
    }

    fn connect(&mut self) {
        self.edge.connect();
        self.birth();
    }

    fn birth(&mut self) {
        self.edge.accepted();
        assert!(self.edge.may_be_born());
        let sent = self.edge.birth(self.now, self.now_ms);
        self.host.take(sent);
    }

    fn flush(&mut self) {
        let sent = self.edge.flush(self.now, self.now_ms);
        self.host.take(sent);
    }

    fn learn(&mut self, topic: &str, payload: &[u8]) {
        let taken = Taken {
            at: Timestamp::from_millisecond(self.now_ms as i64).unwrap(),
            clock: ClockState::Synced,
        };
        let topic = TopicName::parse(topic).unwrap();
        self.edge.learn(&topic, payload, taken, self.now);
    }

    fn online(&mut self, device: &str, online: bool) {
        let state = if online { "online" } else { "offline" };
        let payload = json!({ "state": state }).to_string();
        self.learn(&format!("state/{device}"), payload.as_bytes());
    }

    fn row(&mut self, topic: &str, payload: Vec<u8>) {
        self.rows += 1;
        let row = self.message(self.rows, topic, payload);
        self.edge.push(row);
        self.flush();
    }

    fn message(&self, row: i64, topic: &str, payload: Vec<u8>) -> Outbound {
        let topic = TopicName::parse(topic).unwrap();
        let origin = Origin {
            topic: topic.clone(),
            seq: row as u64,
            received: Timestamp::from_millisecond(self.now_ms as i64).unwrap(),
            clock: ClockState::Synced,
        };
        Outbound {
            key: Key::Row(row),
            source: topic.clone(),
            overtakes: false,
            topic,
            payload: Bytes::from(payload),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: MessageProperties::default(),
            packing: Some(Box::new(Packing {
                batch: None,
                compress: None,
                origin,
            })),
        }
    }

    fn dcmd(&mut self, device: &str, payload: &Payload) -> Heard {
        let topic = format!("spBv1.0/plant/DCMD/gw/{device}");
        self.edge
            .received(&topic, &payload.encode_to_vec(), false, self.now)
    }
}

/// What the host knows of a metric: its name with its device's before it, and its type.
type Declared = HashMap<u64, (String, u32)>;

/// A host application that follows the specification's rules for hosts, and fails where an edge node breaks its own.
#[derive(Default)]
struct Listener {
    log: Vec<String>,
    bd_seq: u64,
    seq: Option<u64>,
    /// By device; the node's stand under "".
    alive: HashMap<String, Declared>,
    live: HashMap<String, serde_json::Value>,
    history: HashMap<String, Vec<(u64, serde_json::Value)>>,
    quality: HashMap<String, u32>,
    data: usize,
}

impl Listener {
    fn take(&mut self, sent: Vec<Sent>) {
        for sent in sent {
            match sent {
                Sent::Data(message) => {
                    self.data += 1;
                    self.message(&message);
                }
                Sent::Own(message) => self.message(&message),
                Sent::Said(_) => {}
                Sent::Never(key, reason) => panic!("{key:?}: {reason}"),
            }
        }
    }

    fn message(&mut self, message: &Outbound) {
        assert_eq!((message.qos, message.retain), (QoS::AtMostOnce, false));
        let levels: Vec<_> = message.topic.as_str().split('/').collect();
        let (kind, device) = (levels[2], levels.get(4).copied());
        assert_eq!(
            (levels[0], levels[1], levels[3]),
            ("spBv1.0", "plant", "gw")
        );
        let payload = Payload::decode(&*message.payload).unwrap();
        assert!(payload.timestamp.is_some());
        let seq = payload.seq.expect("a number in the session");
        match kind {
            "NBIRTH" => assert_eq!(seq, 0),
            _ => assert_eq!(Some(seq), self.seq.map(|last| (last + 1) % 256)),
        }
        self.seq = Some(seq);
        let of = device.map_or(String::new(), |device| format!(" {device}"));
        self.log.push(format!("{kind}{of} {seq}"));
        let device = device.unwrap_or_default();
        match kind {
            "NBIRTH" => {
                self.alive.clear();
                self.bd_seq = match payload.metrics[0].value {
                    Some(Value::Long(number)) => number,
                    _ => panic!("bdSeq is an Int64"),
                };
                self.born(device, &payload.metrics);
            }
            "DBIRTH" => self.born(device, &payload.metrics),
            "DDEATH" => assert!(self.alive.remove(device).is_some(), "it was not alive"),
            _ => self.told(device, &payload.metrics),
        }
    }

    fn born(&mut self, device: &str, metrics: &[Metric]) {
        let mut declared = Declared::new();
        for metric in metrics {
            let name = format!("{device}/{}", metric.name.as_ref().expect("a name"));
            let datatype = metric.datatype.expect("a type");
            assert!(metric.value.is_some() != (metric.is_null == Some(true)));
            if let Some(value) = read(metric, datatype) {
                self.live.insert(name.clone(), value);
            }
            match metric.alias {
                Some(alias) => {
                    let others = self.alive.iter().filter(|(other, _)| *other != device);
                    assert!(
                        others
                            .flat_map(|(_, known)| known.keys())
                            .all(|known| *known != alias)
                    );
                    assert!(declared.insert(alias, (name, datatype)).is_none());
                }
                None => assert!(["/bdSeq", "/Node Control/Rebirth"].contains(&name.as_str())),
            }
        }
        self.alive.insert(device.to_owned(), declared);
    }

    fn told(&mut self, device: &str, metrics: &[Metric]) {
        for metric in metrics {
            assert_eq!(
                (&metric.name, metric.datatype),
                (&None, None),
                "aliases alone"
            );
            let declared = &self.alive.get(device).expect("it is alive");
            let (name, datatype) = declared[&metric.alias.expect("an alias")].clone();
            let value = read(metric, datatype).unwrap_or_default();
            let time = metric.timestamp.expect("its own time");
            if let Some(properties) = &metric.properties
                && let Some(wire::Property::Int(code)) = properties.values[0].value
            {
                self.quality.insert(name.clone(), code);
            }
            match metric.is_historical {
                Some(true) => self.history.entry(name).or_default().push((time, value)),
                _ => drop(self.live.insert(name, value)),
            }
        }
    }

    fn alias(&self, name: &str) -> u64 {
        let known = self.alive.values().flatten();
        let mut found = known.filter(|(_, (known, _))| known == name);
        *found.next().expect("declared").0
    }
}

/// A value as JSON, by its declared type.
fn read(metric: &Metric, datatype: u32) -> Option<serde_json::Value> {
    let datatype = DataType::from_code(datatype).expect("a type of the specification");
    match metric.value.clone()? {
        Value::Bytes(bytes) => Some(json!(bytes)),
        value => datatype.read(value),
    }
}

#[test]
fn points_have_the_type_that_their_registers_hold() {
    use crate::config::{Point, PointType};
    let of = |kind, change: fn(&mut Point)| {
        let mut point = Point::example("holding:0", Some(kind));
        change(&mut point);
        DataType::of(&point)
    };
    assert_eq!(of(PointType::U16, |_| {}), DataType::UInt16);
    assert_eq!(of(PointType::I24, |_| {}), DataType::Int32);
    assert_eq!(of(PointType::U48, |_| {}), DataType::UInt64);
    assert_eq!(of(PointType::F32, |_| {}), DataType::Float);
    assert_eq!(
        of(PointType::F32, |point| point.scale = Some(0.1)),
        DataType::Double
    );
    assert_eq!(
        of(PointType::I16, |point| point.scale = Some(0.1)),
        DataType::Double
    );
    assert_eq!(
        of(PointType::U16, |point| point.bit = Some(3)),
        DataType::Boolean
    );
    assert_eq!(of(PointType::Raw, |_| {}), DataType::String);
    let named = |point: &mut Point| {
        point.values.0.insert(0, "off".to_owned());
    };
    assert_eq!(of(PointType::U16, named), DataType::String);
}

#[test]
fn a_value_too_wide_for_its_type_is_declared_anew_and_never_cut() {
    let wide = Published::Json(json!(70_000));
    assert_eq!(DataType::UInt16.write(&wide), None);
    assert_eq!(DataType::UInt16.wider(&wide), DataType::Double);
    let double = Published::Json(json!(0.123_456_789_012));
    assert_eq!(DataType::Float.write(&double), None);
}
