//! From what the field tells to MQTT messages, and from MQTT messages to commands.
//!
//! Invariant: a number is published with the digits it was measured with, and every message of a
//! topic bears the next number of that topic. Core.

mod exact;
pub(crate) mod raw;
pub(crate) mod renewal;

use std::{
    collections::HashMap,
    fmt::{Display, Write as _},
    sync::Arc,
    time::Duration,
};

use broker_lite::{message::Message, packet::MessageProperties, topic::TopicName};
use bytes::Bytes;
use jiff::Timestamp;
use settings::Period;

use crate::{
    config::Publish,
    fieldbus::{Command, CommandResult, DeviceState, Event, Outcome, Refusal},
    reading::{ClockState, Quality, Reading, Stamp, Value},
};

pub(crate) use exact::as_written;

/// Where senders may ask for results besides `result/…`. The gateway's own rights must not carry a
/// sender's message to a topic that the sender may not publish to.
const RESPONSES: &str = "response/";

/// The user property of a message from upstream that may have been handed on before: the process
/// ended between taking note of it and knowing that the broker had it.
pub(crate) const REPEATED: &str = "repeated";

/// What the topics of devices' states begin with.
const STATE: &str = "state";
/// Every device's state.
pub(crate) const STATES: &str = "state/+";

/// The last number given in each topic of readings. States and results bear none: the buffer
/// numbers what it keeps of them, and commands to made-up devices cannot fill this map.
#[derive(Debug, Clone, Default)]
pub struct Sequences {
    last: HashMap<TopicName, u64>,
}

impl Sequences {
    /// Goes on after the given numbers; other topics begin at 1.
    pub fn new(last: HashMap<TopicName, u64>) -> Sequences {
        Sequences { last }
    }

    /// The topic's next number.
    pub fn next(&mut self, topic: &TopicName) -> u64 {
        if let Some(last) = self.last.get_mut(topic) {
            *last = last.saturating_add(1);
            return *last;
        }
        self.last.insert(topic.clone(), 1);
        1
    }
}

/// The messages that an event is worth, in order. `publish` tells how a device's readings are
/// put together. A name that no topic can hold yields no message; the configuration's check and
/// the decoders let none through.
pub fn messages(
    event: &Event,
    publish: impl Fn(&str) -> Publish,
    sequences: &mut Sequences,
) -> Vec<Message> {
    match event {
        Event::Readings(readings) => telemetry(readings, publish, sequences),
        Event::Device {
            device,
            state,
            stamp,
        } => state_message(device, state, *stamp).into_iter().collect(),
        Event::Removed { device } => state_topic(device)
            .map(|topic| Message::new(topic, Bytes::new()).retained())
            .into_iter()
            .collect(),
        Event::Result(result) => result_messages(result),
    }
}

fn telemetry(
    readings: &[Reading],
    publish: impl Fn(&str) -> Publish,
    sequences: &mut Sequences,
) -> Vec<Message> {
    let Some(first) = readings.first() else {
        return Vec::new();
    };
    match publish(&first.device) {
        Publish::Point => readings
            .iter()
            .filter_map(|reading| point_message(reading, sequences))
            .collect(),
        Publish::Device => device_message(first, readings, sequences)
            .into_iter()
            .collect(),
    }
}

fn point_message(reading: &Reading, sequences: &mut Sequences) -> Option<Message> {
    let topic = topic(&["telemetry", &reading.device, &reading.point])?;
    let sequence = sequences.next(&topic);
    let mut object = Object::new();
    object.measured(reading);
    object.stamp(reading.stamp);
    object.quality(reading);
    object.plain("seq", sequence);
    Some(Message::new(topic, object.finish()).numbered(sequence))
}

/// One message with all values; a value's own time stands beside it where it differs.
fn device_message(
    first: &Reading,
    readings: &[Reading],
    sequences: &mut Sequences,
) -> Option<Message> {
    let topic = topic(&["telemetry", &first.device])?;
    let sequence = sequences.next(&topic);
    let mut values = Object::new();
    for reading in readings {
        let mut value = Object::new();
        value.measured(reading);
        value.quality(reading);
        if reading.stamp.wall != first.stamp.wall {
            value.time(reading.stamp.wall);
        }
        values.plain(&reading.point, value.finish());
    }
    let mut object = Object::new();
    object.plain("values", values.finish());
    object.stamp(first.stamp);
    object.plain("seq", sequence);
    Some(Message::new(topic, object.finish()).numbered(sequence))
}

fn state_message(device: &str, state: &DeviceState, stamp: Stamp) -> Option<Message> {
    let topic = state_topic(device)?;
    let mut object = Object::new();
    match state {
        DeviceState::Online => object.text("state", "online"),
        DeviceState::Offline { reason } => {
            object.text("state", "offline");
            object.text("reason", reason);
        }
    }
    object.time(stamp.wall);
    Some(Message::new(topic, object.finish()).retained())
}

fn state_topic(device: &str) -> Option<TopicName> {
    topic(&[STATE, device])
}

/// The device whose state a topic tells.
pub(crate) fn device_of_state(topic: &TopicName) -> Option<&str> {
    let device = topic.as_str().strip_prefix(STATE)?;
    device.strip_prefix('/')
}

/// The result on its own topic, and where the sender asked for it.
fn result_messages(result: &CommandResult) -> Vec<Message> {
    let command = &result.command;
    let payload = Bytes::from(result_payload(result));
    let mut levels = vec!["result", &*command.device];
    levels.extend(command.point.as_deref());
    let asked = command.response_topic.as_deref();
    answer_to(topic(&levels), asked, command.correlation.as_ref(), payload)
}

/// An answer on a topic of its own, and with its correlation where the sender asked for it.
fn answer_to(
    own: Option<TopicName>,
    asked: Option<&str>,
    correlation: Option<&Bytes>,
    payload: Bytes,
) -> Vec<Message> {
    let own = own.map(|topic| Message::new(topic, payload.clone()));
    let asked = asked.and_then(|topic| TopicName::parse(topic).ok());
    let asked = asked.map(|topic| {
        let mut message = Message::new(topic, payload);
        message.properties = correlation.cloned().map(|correlation| {
            Arc::new(MessageProperties {
                correlation_data: Some(correlation),
                ..MessageProperties::default()
            })
        });
        message
    });
    own.into_iter().chain(asked).collect()
}

fn result_payload(result: &CommandResult) -> String {
    let mut object = Object::new();
    match &result.outcome {
        Outcome::Executed(value) => {
            object.text("result", "executed");
            object.value("value", Some(value));
        }
        Outcome::ExecutedAll(values) => {
            object.text("result", "executed");
            let mut members = Object::new();
            for (point, value) in values {
                members.value(point, Some(value));
            }
            object.plain("value", members.finish());
        }
        Outcome::Refused(reason) => {
            object.text("result", "refused");
            object.text("reason", reason);
        }
        Outcome::Failed(reason) => {
            object.text("result", "failed");
            object.text("reason", reason);
        }
    }
    object.correlation(result.command.correlation.as_ref());
    object.time(result.stamp.wall);
    object.finish()
}

fn topic(levels: &[&str]) -> Option<TopicName> {
    TopicName::parse(&levels.join("/")).ok()
}

/// A value as JSON, for lists of them; integers and up to 15 digits of other numbers are exact.
pub fn json(value: Option<&Value>) -> serde_json::Value {
    let mut object = Object::new();
    object.value("value", value);
    let parsed = serde_json::from_str::<serde_json::Value>(&object.finish());
    parsed.map_or(serde_json::Value::Null, |mut object| object["value"].take())
}

/// What a reading is worth; a floating-point number that is none has no JSON and is bad.
fn quality(reading: &Reading) -> &'static str {
    match reading.quality {
        _ if reading.value.as_ref().is_some_and(|value| !is_json(value)) => Quality::Bad.word(),
        quality => quality.word(),
    }
}

fn is_json(value: &Value) -> bool {
    match value {
        Value::F32(number) => number.is_finite(),
        Value::F64(number) => number.is_finite(),
        _ => true,
    }
}

/// A JSON object in the making. Numbers are written by [`Value`] itself, for a JSON library would
/// turn them into floating point.
struct Object {
    text: String,
}

impl Object {
    fn new() -> Object {
        Object {
            text: "{".to_owned(),
        }
    }

    fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }

    /// A member whose printed form is JSON already.
    fn plain(&mut self, key: &str, json: impl Display) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        // Writing to a `String` cannot fail.
        let _ = write!(self.text, "{}:{json}", escaped(key));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.plain(key, escaped(text));
    }

    fn value(&mut self, key: &str, value: Option<&Value>) {
        match value.filter(|value| is_json(value)) {
            None => self.plain(key, "null"),
            Some(text @ (Value::Text(_) | Value::Raw(_))) => self.text(key, &text.to_string()),
            Some(Value::Flags(names)) => self.plain(key, serde_json::Value::from(names.as_slice())),
            Some(number) => self.plain(key, number),
        }
    }

    fn quality(&mut self, reading: &Reading) {
        self.text("quality", quality(reading));
        if let Some(reason) = &reading.reason {
            self.text("reason", reason);
        }
    }

    fn measured(&mut self, reading: &Reading) {
        self.value("value", reading.value.as_ref());
        if let Some(unit) = &reading.unit {
            self.text("unit", unit);
        }
    }

    fn correlation(&mut self, correlation: Option<&Bytes>) {
        match correlation.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => {}
            Some((_, Ok(id))) => self.text("id", id),
            Some((bytes, Err(_))) => self.value("id", Some(&Value::Raw(bytes.to_vec()))),
        }
    }

    fn time(&mut self, time: Timestamp) {
        self.plain("time", format_args!("\"{time:.3}\""));
    }

    fn stamp(&mut self, stamp: Stamp) {
        self.time(stamp.wall);
        let clock = match stamp.clock {
            ClockState::Synced => "synced",
            ClockState::Unsynced => "unsynced",
        };
        self.text("clock", clock);
    }
}

fn escaped(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Reads a message on `command/<device>/<point>`: a bare JSON value, or
/// `{"value": …, "id": "…", "expires": "30s"}`. On `command/<device>` the value is an object of
/// points that are written in one request. A number with more digits than a double keeps them all, and
/// may be written as a text. MQTT 5's correlation data and message expiry count
/// where the payload says nothing.
///
/// # Errors
/// Another topic, a payload that is neither, or a member that cannot be read.
pub fn command(message: &Message, received: Stamp) -> Result<Command, Box<Refusal>> {
    let topic: &str = message.topic.as_ref();
    let mut levels = topic.splitn(3, '/').skip(1);
    let properties = message.properties.as_deref();
    let response = properties.and_then(|properties| properties.response_topic.as_ref());
    let (response, elsewhere) = match response {
        Some(topic) if !topic.as_ref().starts_with(RESPONSES) => (None, Some(topic)),
        allowed => (allowed, None),
    };
    let mut command = Command {
        device: levels.next().unwrap_or_default().into(),
        point: levels.next().map(Arc::from),
        value: serde_json::Value::Null,
        expires: message
            .expiry_s
            .map(|seconds| Duration::from_secs(seconds.into())),
        received,
        correlation: properties.and_then(|properties| properties.correlation_data.clone()),
        response_topic: response.map(|topic| Arc::from(topic.as_ref())),
        sender: None,
    };
    let filled = fill(&mut command, &message.payload).and_then(|()| match elsewhere {
        Some(topic) => Err(format!("response topic {topic} is not below {RESPONSES}")),
        None => Ok(()),
    });
    match filled {
        Ok(()) => Ok(command),
        Err(reason) => Err(Box::new(Refusal { command, reason })),
    }
}

/// Whether a message from upstream may have been handed on before.
pub(crate) fn is_repeated(message: &Message) -> bool {
    let properties = message.properties.as_deref();
    properties.is_some_and(|properties| {
        let mut users = properties.user_properties.iter();
        users.any(|(name, _)| name == REPEATED)
    })
}

fn fill(command: &mut Command, payload: &[u8]) -> Result<(), String> {
    let point = command.point.as_deref();
    if command.device.is_empty()
        || point.is_some_and(|point| point.is_empty() || point.contains('/'))
    {
        return Err("a command goes to command/<device>/<point> or command/<device>".to_owned());
    }
    let payload = as_written(payload).map_err(|error| {
        format!(
            "the payload is not JSON ({error}); \
             write a bare value such as 12.5, true or \"text\", or {{\"value\": 12.5}}"
        )
    })?;
    let serde_json::Value::Object(mut members) = payload else {
        command.value = payload;
        return Ok(());
    };
    // The id first: a refusal should bear it.
    if let Some(id) = members.remove("id") {
        let id = identifier(id)?;
        command.correlation.get_or_insert(id);
    }
    if let Some(expires) = members.remove("expires") {
        command.expires = Some(period(&expires)?.as_duration());
    }
    command.value = members
        .remove("value")
        .ok_or("the payload has no \"value\"")?;
    match members.keys().next() {
        Some(unknown) => Err(format!(
            "unknown member {}; a command has value, id and expires",
            escaped(unknown)
        )),
        None => Ok(()),
    }
}

fn identifier(id: serde_json::Value) -> Result<Bytes, String> {
    match id {
        serde_json::Value::String(id) => Ok(id.into()),
        serde_json::Value::Number(id) => Ok(id.to_string().into()),
        other => Err(format!("\"id\" is {other}; write a text or a number")),
    }
}

fn period(expires: &serde_json::Value) -> Result<Period, String> {
    let text = expires.as_str();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("\"expires\" is {expires}; write a time such as \"30s\""))
}

#[cfg(test)]
mod tests;
