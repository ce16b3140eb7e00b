//! A host application that trusts nothing: it follows sequence numbers, knows a metric only by its birth, and takes
//! data only of what is alive.

use std::collections::HashMap;

use broker_lite::packet::QoS;
use prost::Message as _;
use serde_json::json;

use super::super::{
    datatype::DataType,
    edge::Sent,
    wire::{self, Metric, Payload, Value},
};
use crate::upstream::outbound::Outbound;

/// What the host knows of a metric: its name with its device's before it, and its type.
type Declared = HashMap<u64, (String, u32)>;

/// A host application that follows the specification's rules for hosts, and fails where an edge node breaks its own.
#[derive(Default)]
pub(super) struct Listener {
    pub(super) log: Vec<String>,
    pub(super) bd_seq: u64,
    seq: Option<u64>,
    /// By device; the node's stand under "".
    pub(super) alive: HashMap<String, Declared>,
    pub(super) live: HashMap<String, serde_json::Value>,
    pub(super) history: HashMap<String, Vec<(u64, serde_json::Value)>>,
    pub(super) quality: HashMap<String, u32>,
    pub(super) data: usize,
}

impl Listener {
    pub(super) fn take(&mut self, sent: Vec<Sent>) {
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

    pub(super) fn alias(&self, name: &str) -> u64 {
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
