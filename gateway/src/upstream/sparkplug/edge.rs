//! The session of the edge node: births, data, deaths and their sequence.
//!
//! Invariant: within a session NBIRTH comes first with `seq` 0, each message after it bears the next one, and data of a
//! device stands between its DBIRTH and its DDEATH. Layer: core.

mod messages;
mod rows;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use broker_lite::topic::{TopicError, TopicName};

use self::rows::{BUDGET, DEAD_LETTER, GAP};
use super::{
    super::outbound::{Key, Outbound},
    Catalog,
    command::{self, REBIRTH},
    datatype::DataType,
    host::Host,
    metrics::{Aliases, Metrics},
    sample::{self, Subject, Taken},
    wire::{self, Value},
};
use crate::config;

/// How long after its last data the death of a device that went offline is told: the last values come behind its state.
const LINGER: Duration = Duration::from_secs(2);
/// Least time between two rebirths; hosts that ask more often get one for all.
const REBIRTH_PAUSE: Duration = Duration::from_secs(1);

/// What is to be done with what was pushed in.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Send this; its key is answered when it has arrived.
    Data(Outbound),
    /// Send this message of the session's own.
    Own(Outbound),
    /// Births and deaths say it already.
    Said(Key),
    /// It can never go up.
    Never(Key, String),
}

/// What a message from upstream wants.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    /// Publish these locally: topic and payload of commands.
    Commands(Vec<(String, String)>),
    /// The session says what follows by itself.
    Nothing,
    /// It is not carried out, and why.
    Refused(String),
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Edge {
    group: String,
    node_id: String,
    host: Option<Host>,
    /// More servers than this one: a host that is offline here may be online there.
    several_servers: bool,
    aliases: Aliases,
    node: Metrics,
    devices: BTreeMap<String, Device>,
    /// Of the connection under way or the next one.
    bd_seq: u8,
    /// A server has accepted the connection with that number, so the next one gets another.
    accepted: bool,
    seq: u8,
    /// NBIRTH has been sent on this connection.
    born_ms: Option<u64>,
    last_birth: Option<Instant>,
    rebirth_at: Option<Instant>,
    pending: Vec<Outbound>,
}

#[derive(Debug, Default)]
struct Device {
    metrics: Metrics,
    /// As its state says; `None` while nothing is known.
    online: Option<bool>,
    /// DBIRTH has been sent, with this time.
    born_ms: Option<u64>,
    /// When its death is told, unless it comes back or has more to say.
    dies_at: Option<Instant>,
}

impl Edge {
    /// The edge node of this configuration, not yet connected.
    ///
    /// # Errors
    /// The names make no topics.
    pub(crate) fn new(
        config: &config::Sparkplug,
        gateway: &str,
        several_servers: bool,
        catalog: &Catalog,
    ) -> Result<Edge, TopicError> {
        let mut edge = Edge {
            group: config.group.clone(),
            node_id: config.node.clone().unwrap_or_else(|| gateway.to_owned()),
            host: config.primary_host.as_deref().map(Host::new),
            several_servers,
            aliases: Aliases::default(),
            node: Metrics::default(),
            devices: BTreeMap::new(),
            bd_seq: 0,
            accepted: false,
            seq: 0,
            born_ms: None,
            last_birth: None,
            rebirth_at: None,
            pending: Vec::new(),
        };
        for name in [GAP, DEAD_LETTER, BUDGET] {
            let text = Some(DataType::String);
            edge.node.declare(name, text, None, &mut edge.aliases);
        }
        for entry in &catalog.0 {
            let device = edge.devices.entry(entry.device.clone()).or_default();
            for (name, datatype, unit) in &entry.points {
                let unit = unit.as_deref();
                device
                    .metrics
                    .declare(name, *datatype, unit, &mut edge.aliases);
            }
            edge.topic("DDEATH", Some(&entry.device))?;
        }
        edge.topic("NDEATH", None)?;
        Ok(edge)
    }

    /// Begins another connection; gives the will that it is made with.
    pub(crate) fn connect(&mut self) -> Outbound {
        if std::mem::take(&mut self.accepted) {
            self.bd_seq = self.bd_seq.wrapping_add(1);
        }
        if let Some(host) = &mut self.host {
            host.forget();
        }
        self.disconnected();
        self.death()
    }

    /// A server has taken the will.
    pub(crate) fn accepted(&mut self) {
        self.accepted = true;
    }

    /// Whether the births of this connection have been sent.
    pub(crate) fn is_born(&self) -> bool {
        self.born_ms.is_some()
    }

    /// The host application that is waited for.
    pub(crate) fn awaits(&self) -> Option<&str> {
        let host = self.host.as_ref()?;
        (host.online() != Some(true)).then(|| host.id())
    }

    /// The connection is gone, and with it what this session has said.
    fn disconnected(&mut self) {
        self.born_ms = None;
        self.rebirth_at = None;
        self.pending.clear();
        for device in self.devices.values_mut() {
            device.born_ms = None;
            device.dies_at = None;
        }
    }

    /// Whether the births may be sent: the primary host application is there, or nobody waits for one.
    pub(crate) fn may_be_born(&self) -> bool {
        self.born_ms.is_none()
            && self
                .host
                .as_ref()
                .is_none_or(|host| host.online() == Some(true))
    }

    /// Whether the connection is to be ended because the primary host application is offline here.
    pub(crate) fn has_to_leave(&self) -> bool {
        let offline = self
            .host
            .as_ref()
            .is_some_and(|host| host.online() == Some(false));
        offline && (self.born_ms.is_some() || self.several_servers)
    }

    /// Sends all births.
    pub(crate) fn birth(&mut self, now: Instant, now_ms: u64) -> Vec<Sent> {
        self.last_birth = Some(now);
        self.rebirth_at = None;
        self.born_ms = Some(now_ms);
        self.seq = 0;
        let mut metrics = vec![
            self.bd_seq_metric(Some(now_ms)),
            wire::Metric {
                name: Some(REBIRTH.to_owned()),
                timestamp: Some(now_ms),
                datatype: Some(DataType::Boolean.code()),
                value: Some(Value::Boolean(false)),
                ..wire::Metric::default()
            },
        ];
        metrics.extend(self.node.birth(now_ms));
        let mut sent = vec![self.own("NBIRTH", None, metrics, now_ms)];
        let there = self
            .devices
            .iter()
            .filter(|(_, device)| device.online == Some(true) || device.dies_at.is_some());
        let there: Vec<String> = there.map(|(name, _)| name.clone()).collect();
        for device in self.devices.values_mut() {
            device.born_ms = None;
        }
        for name in there {
            sent.extend(self.device_birth(&name, now_ms));
        }
        sent
    }

    /// Takes note of a message on the local broker, whose value or state the next birth tells.
    pub(crate) fn learn(&mut self, topic: &TopicName, payload: &[u8], taken: Taken, now: Instant) {
        let is_device = |name: &str| self.devices.contains_key(name);
        match sample::read(topic.as_str(), payload, taken, is_device) {
            Subject::Device(name, samples) => {
                let _too_many = self.learn_all(Some(name), &samples);
            }
            Subject::State(name, online) => {
                if let Some(device) = self.devices.get_mut(name) {
                    device.online = Some(online);
                    let dying = !online && device.born_ms.is_some();
                    device.dies_at = dying.then(|| now + LINGER);
                }
            }
            Subject::Node(_) => {}
        }
    }

    /// Takes in a message from upstream.
    pub(crate) fn received(
        &mut self,
        topic: &str,
        payload: &[u8],
        retained: bool,
        now: Instant,
    ) -> Heard {
        if let Some(host) = self.host.as_mut().filter(|host| host.topic() == topic) {
            host.heard(payload);
            return Heard::Nothing;
        }
        if retained {
            return Heard::Refused("a retained message is no command".to_owned());
        }
        let done = match self.addressee(topic) {
            Some(("NCMD", None)) => command::asks_for_rebirth(payload).map(|asks| {
                if asks && self.born_ms.is_some() {
                    let earliest = self.last_birth.map(|last| last + REBIRTH_PAUSE);
                    self.rebirth_at
                        .get_or_insert(earliest.map_or(now, |at| at.max(now)));
                }
                Heard::Nothing
            }),
            Some(("DCMD", Some(device))) => {
                let metrics = self.devices.get(device).map(|device| &device.metrics);
                let writes = command::writes(payload, |name, alias| metrics?.find(name, alias));
                writes.map(|writes| {
                    let commands = writes
                        .into_iter()
                        .map(|(point, value)| (format!("command/{device}/{point}"), value));
                    Heard::Commands(commands.collect())
                })
            }
            _ => return Heard::Refused("it is addressed to nobody here".to_owned()),
        };
        done.unwrap_or_else(|refused| Heard::Refused(refused.to_string()))
    }

    /// When `flush` has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let deaths = self.devices.values().filter_map(|device| device.dies_at);
        self.born_ms?;
        deaths.chain(self.rebirth_at).min()
    }

    /// Sends what is due: births of what is new or was asked for, then the rows, then deaths.
    pub(crate) fn flush(&mut self, now: Instant, now_ms: u64) -> Vec<Sent> {
        if self.born_ms.is_none() || self.rebirth_at.is_some_and(|at| at > now) {
            return Vec::new();
        }
        let mut sent = Vec::new();
        let rows = self.learn_pending(now_ms, &mut sent);
        if self.rebirth_at.is_some() || self.node.changed() {
            sent.extend(self.birth(now, now_ms));
        }
        for (message, subject) in rows {
            self.send(&message, &subject, now, now_ms, &mut sent);
        }
        self.follow_states(now, now_ms, &mut sent);
        sent
    }

    /// A device that speaks is born; one that has something new to tell, again.
    fn device_birth_if_due(&mut self, name: &str, now: Instant, now_ms: u64) -> Option<Sent> {
        let device = self.devices.get_mut(name)?;
        if device.online != Some(true) {
            device.dies_at = Some(now + LINGER);
        }
        if device.born_ms.is_some() && !device.metrics.changed() {
            return None;
        }
        self.device_birth(name, now_ms)
    }

    fn device_birth(&mut self, name: &str, now_ms: u64) -> Option<Sent> {
        let device = self.devices.get_mut(name)?;
        device.born_ms = Some(now_ms);
        let metrics = device.metrics.birth(now_ms);
        Some(self.own("DBIRTH", Some(name), metrics, now_ms))
    }

    /// Births and deaths of devices that came and went.
    fn follow_states(&mut self, now: Instant, now_ms: u64, sent: &mut Vec<Sent>) {
        let due: Vec<(String, bool)> = self
            .devices
            .iter()
            .filter_map(|(name, device)| {
                let arrives = device.online == Some(true)
                    && (device.born_ms.is_none() || device.metrics.changed());
                let dies = device.born_ms.is_some() && device.dies_at.is_some_and(|at| at <= now);
                (arrives || dies).then(|| (name.clone(), arrives))
            })
            .collect();
        for (name, arrives) in due {
            if arrives {
                sent.extend(self.device_birth(&name, now_ms));
                continue;
            }
            if let Some(device) = self.devices.get_mut(&name) {
                device.born_ms = None;
                device.dies_at = None;
            }
            sent.push(self.own("DDEATH", Some(&name), Vec::new(), now_ms));
        }
    }
}
