//! An edge node, what it is given, and the host that listens to it.
#![expect(clippy::disallowed_methods, reason = "tests measure time")]

use std::time::Instant;

use broker_lite::topic::TopicName;
use jiff::Timestamp;
use prost::Message as _;
use serde_json::json;

use super::{
    super::{
        Catalog, Entry,
        datatype::DataType,
        edge::{Edge, Heard},
        sample::Taken,
        wire::{Metric, Payload, Value},
    },
    host::Listener,
};
use crate::{
    config,
    reading::ClockState,
    upstream::outbound::{Key, Origin, Outbound, Packing},
};

/// An edge node and the host that listens to it.
pub(super) struct Bench {
    pub(super) edge: Edge,
    pub(super) host: Listener,
    pub(super) now: Instant,
    pub(super) now_ms: u64,
    rows: i64,
}

impl Bench {
    pub(super) fn new(primary_host: Option<&str>) -> Bench {
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

    pub(super) fn connect(&mut self) {
        self.edge.connect();
        self.birth();
    }

    pub(super) fn birth(&mut self) {
        self.edge.accepted();
        assert!(self.edge.may_be_born());
        let sent = self.edge.birth(self.now, self.now_ms);
        self.host.take(sent);
    }

    pub(super) fn flush(&mut self) {
        let sent = self.edge.flush(self.now, self.now_ms);
        self.host.take(sent);
    }

    pub(super) fn learn(&mut self, topic: &str, payload: &[u8]) {
        let taken = Taken {
            at: Timestamp::from_millisecond(self.now_ms as i64).unwrap(),
            clock: ClockState::Synced,
        };
        let topic = TopicName::parse(topic).unwrap();
        self.edge.learn(&topic, payload, taken, self.now);
    }

    pub(super) fn online(&mut self, device: &str, online: bool) {
        let state = if online { "online" } else { "offline" };
        let payload = json!({ "state": state }).to_string();
        self.learn(&format!("state/{device}"), payload.as_bytes());
    }

    pub(super) fn row(&mut self, topic: &str, payload: Vec<u8>) {
        self.rows += 1;
        let row = self.message(self.rows, topic, payload);
        self.edge.push(row);
        self.flush();
    }

    pub(super) fn message(&self, row: i64, topic: &str, payload: Vec<u8>) -> Outbound {
        let topic = TopicName::parse(topic).unwrap();
        let origin = Origin {
            topic: topic.clone(),
            seq: row as u64,
            received: Timestamp::from_millisecond(self.now_ms as i64).unwrap(),
            clock: ClockState::Synced,
        };
        Outbound {
            packing: Some(Box::new(Packing {
                batch: None,
                compress: None,
                origin,
            })),
            ..Outbound::new(Key::Row(row), topic, payload)
        }
    }

    pub(super) fn dcmd(&mut self, device: &str, payload: &Payload) -> Heard {
        let topic = format!("spBv1.0/plant/DCMD/gw/{device}");
        self.edge
            .received(&topic, &payload.encode_to_vec(), false, self.now)
    }
}

pub(super) fn rebirth() -> Vec<u8> {
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

pub(super) fn stamp(second: u64) -> String {
    Timestamp::from_second(second as i64).unwrap().to_string()
}

pub(super) fn reading(value: f64, second: u64) -> Vec<u8> {
    json!({ "value": value, "time": stamp(second) })
        .to_string()
        .into_bytes()
}
