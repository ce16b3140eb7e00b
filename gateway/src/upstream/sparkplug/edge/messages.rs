//! The messages of the session: their topics, their numbers, the will.
//!
//! Invariant: each message after NBIRTH bears the next `seq`, and NDEATH the `bdSeq` of its birth. Layer: core.

use broker_lite::{
    packet::QoS,
    topic::{TopicError, TopicFilter, TopicName},
};
use prost::Message as _;

use super::{
    super::{
        datatype::DataType,
        host::Host,
        wire::{self, Payload, Value},
    },
    Edge, Key, Outbound, Sent,
};

/// The metric that ties a death to its birth.
pub(super) const BD_SEQ: &str = "bdSeq";

impl Edge {
    /// NDEATH: the will, and what is published before an intended end of the connection.
    pub(crate) fn death(&self) -> Outbound {
        let payload = Payload {
            timestamp: None,
            metrics: vec![self.bd_seq_metric(None)],
            seq: None,
        };
        Outbound {
            qos: QoS::AtLeastOnce,
            ..self.message("NDEATH", None, &payload)
        }
    }

    /// What is subscribed to; commands first.
    pub(crate) fn subscriptions(&self) -> Vec<TopicFilter> {
        let commands = [
            format!("spBv1.0/{}/NCMD/{}", self.group, self.node_id),
            format!("spBv1.0/{}/DCMD/{}/+", self.group, self.node_id),
        ];
        let state = self.host.as_ref().map(Host::topic);
        let filters = commands.into_iter().chain(state);
        filters
            .filter_map(|filter| TopicFilter::parse(&filter).ok())
            .collect()
    }

    /// The kind of message, and the device, of one of our own topics.
    pub(super) fn addressee<'t>(&self, topic: &'t str) -> Option<(&'t str, Option<&'t str>)> {
        let mut levels = topic.splitn(5, '/');
        let ours = levels.next()? == "spBv1.0" && levels.next()? == self.group;
        let kind = levels.next()?;
        (ours && levels.next()? == self.node_id).then(|| (kind, levels.next()))
    }

    pub(super) fn bd_seq_metric(&self, timestamp: Option<u64>) -> wire::Metric {
        wire::Metric {
            name: Some(BD_SEQ.to_owned()),
            timestamp,
            datatype: Some(DataType::Int64.code()),
            value: Some(Value::Long(self.bd_seq.into())),
            ..wire::Metric::default()
        }
    }

    pub(super) fn own(
        &mut self,
        kind: &str,
        device: Option<&str>,
        metrics: Vec<wire::Metric>,
        now_ms: u64,
    ) -> Sent {
        Sent::Own(self.numbered(kind, device, metrics, now_ms))
    }

    /// A message with the session's next number.
    pub(super) fn numbered(
        &mut self,
        kind: &str,
        device: Option<&str>,
        metrics: Vec<wire::Metric>,
        now_ms: u64,
    ) -> Outbound {
        let payload = Payload {
            timestamp: Some(now_ms),
            metrics,
            seq: Some(self.seq.into()),
        };
        self.seq = self.seq.wrapping_add(1);
        self.message(kind, device, &payload)
    }

    fn message(&self, kind: &str, device: Option<&str>, payload: &Payload) -> Outbound {
        let topic = self
            .topic(kind, device)
            .expect("the names of the node and of each device were tried at the start");
        Outbound {
            qos: QoS::AtMostOnce,
            ..Outbound::new(Key::StandIn, topic, payload.encode_to_vec())
        }
    }

    pub(super) fn topic(&self, kind: &str, device: Option<&str>) -> Result<TopicName, TopicError> {
        let mut topic = format!("spBv1.0/{}/{kind}/{}", self.group, self.node_id);
        if let Some(device) = device {
            topic.push('/');
            topic.push_str(device);
        }
        TopicName::parse(&topic)
    }
}
