//! Rows of the buffer as data: whose values they hold, and what births have to tell before them.
//!
//! Invariant: each row that was pushed in is answered once: sent, said already, or never. Layer: core.

use std::time::Instant;

use super::{
    super::{
        command::REBIRTH,
        sample::{self, Sample, Subject, Taken},
    },
    Edge, Key, Outbound, Sent,
    messages::BD_SEQ,
};

/// The node's metric for gap markers.
pub(super) const GAP: &str = "alert/gap";
/// The node's metric for words about a message that goes to the dead letters.
pub(super) const DEAD_LETTER: &str = "alert/dead-letter";
/// The node's metric for words about a budget that is used up.
pub(super) const BUDGET: &str = "alert/budget";

impl Edge {
    /// A row, or a gap, to be sent with the next `flush`.
    pub(crate) fn push(&mut self, message: Outbound) {
        self.pending.push(message);
    }

    /// Reads what is pending, so that one birth can tell of all that is new in it.
    pub(super) fn learn_pending(
        &mut self,
        now_ms: u64,
        sent: &mut Vec<Sent>,
    ) -> Vec<(Outbound, About)> {
        let mut rows = Vec::new();
        for message in std::mem::take(&mut self.pending) {
            let is_device = |name: &str| self.devices.contains_key(name);
            let about = match about(&message, now_ms, is_device) {
                Some(about) => about,
                None => {
                    sent.push(Sent::Said(message.key));
                    continue;
                }
            };
            match self.learn_all(about.device.as_deref(), &about.samples) {
                Ok(()) => rows.push((message, about)),
                Err(reason) => sent.push(Sent::Never(message.key, reason)),
            }
        }
        rows
    }

    pub(super) fn learn_all(
        &mut self,
        device: Option<&str>,
        samples: &[(String, Sample)],
    ) -> Result<(), String> {
        let metrics = match device {
            Some(name) => match self.devices.get_mut(name) {
                Some(device) => &mut device.metrics,
                None => return Ok(()),
            },
            None => &mut self.node,
        };
        for (name, sample) in samples {
            if device.is_none() && [BD_SEQ, REBIRTH].contains(&name.as_str()) {
                return Err(format!("the metric {name:?} is the specification's own"));
            }
            metrics
                .learn(name, sample, &mut self.aliases)
                .map_err(|error| format!("metric {name:?} cannot be declared: {error}"))?;
        }
        Ok(())
    }

    pub(super) fn send(
        &mut self,
        message: &Outbound,
        about: &About,
        now: Instant,
        now_ms: u64,
        sent: &mut Vec<Sent>,
    ) {
        let device = about.device.as_deref();
        if let Some(name) = device {
            sent.extend(self.device_birth_if_due(name, now, now_ms));
        }
        let (metrics, born_ms) = match device.and_then(|name| self.devices.get_mut(name)) {
            Some(device) => (&mut device.metrics, device.born_ms),
            None => (&mut self.node, self.born_ms),
        };
        let born_ms = born_ms.unwrap_or(now_ms);
        let data = about.samples.iter();
        let data: Vec<_> = data
            .filter_map(|(name, sample)| metrics.data(name, sample, born_ms))
            .collect();
        if data.is_empty() {
            return sent.push(Sent::Said(message.key));
        }
        let kind = if device.is_some() { "DDATA" } else { "NDATA" };
        let data = Outbound {
            key: message.key,
            // What it costs is counted by its packet.
            packing: message.packing.clone(),
            ..self.numbered(kind, device, data, now_ms)
        };
        sent.push(Sent::Data(data));
    }
}

/// Whose values a row holds; without a device they are the node's.
#[derive(Debug)]
pub(super) struct About {
    device: Option<String>,
    samples: Vec<(String, Sample)>,
}

/// `None` for what births and deaths say.
fn about(message: &Outbound, now_ms: u64, is_device: impl Fn(&str) -> bool) -> Option<About> {
    let Some(packing) = &message.packing else {
        let name = match message.key {
            Key::Gap { .. } => GAP,
            Key::Notice => BUDGET,
            Key::Row(_) | Key::StandIn => DEAD_LETTER,
        };
        let sample = sample::whole(&message.payload, now_ms);
        return Some(About {
            device: None,
            samples: vec![(name.to_owned(), sample)],
        });
    };
    let origin = &packing.origin;
    let taken = Taken {
        at: origin.received,
        clock: origin.clock,
    };
    let topic = origin.topic.as_str();
    match sample::read(topic, &message.payload, taken, is_device) {
        Subject::Device(device, samples) => Some(About {
            device: Some(device.to_owned()),
            samples,
        }),
        Subject::Node(sample) => Some(About {
            device: None,
            samples: vec![(topic.to_owned(), sample)],
        }),
        Subject::State(..) => None,
    }
}
