//! Reads messages of the local broker as values of metrics.
//!
//! Invariant: every message has a reading: what is no reading of a device is a value of the node under its topic.
//! Layer: core.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value as Json, value::RawValue};

use super::datatype::Published;
use crate::reading::ClockState;

/// A value of one metric at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// `None`: there is none, and the quality says why.
    pub(crate) value: Option<Published>,
    /// Milliseconds since 1970.
    pub(crate) time_ms: u64,
    pub(crate) quality: Quality,
}

/// What a value is worth, with the numbers of the property `Quality` (tck-id-payloads-propertyset-quality-value-value).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quality {
    Bad = 0,
    Good = 192,
    Stale = 500,
}

/// Whom a message is about.
#[derive(Debug, PartialEq)]
pub(crate) enum Subject<'t> {
    /// Points of a device, by name.
    Device(&'t str, Vec<(String, Sample)>),
    /// Whether a device is there.
    State(&'t str, bool),
    /// The node itself: the message as it is.
    Node(Sample),
}

/// When the local broker took a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) at: Timestamp,
    pub(crate) clock: ClockState,
}

/// What a message on a local topic says. Readings bear their own time; one that was taken before the clock was known
/// counts from when the broker took it, which is put right later.
pub(crate) fn read<'t>(
    topic: &'t str,
    payload: &[u8],
    taken: Taken,
    is_device: impl Fn(&str) -> bool,
) -> Subject<'t> {
    let mut levels = topic.splitn(3, '/');
    let (kind, device, point) = (levels.next(), levels.next(), levels.next());
    let of_device = device.filter(|device| is_device(device));
    match (kind, of_device, point) {
        (Some("telemetry"), Some(device), Some(point)) => {
            Subject::Device(device, vec![(point.to_owned(), reading(payload, taken))])
        }
        (Some("telemetry"), Some(device), None) => match readings(payload, taken) {
            Some(samples) => Subject::Device(device, samples),
            None => Subject::Node(whole(payload, milliseconds(taken.at))),
        },
        (Some("state"), Some(device), None) => {
            let state = object(payload);
            let online = state.is_some_and(|state| word(&state, "state") == Some("online"));
            Subject::State(device, online)
        }
        _ => Subject::Node(whole(payload, milliseconds(taken.at))),
    }
}

/// The message as one good value.
pub(crate) fn whole(payload: &[u8], time_ms: u64) -> Sample {
    Sample {
        value: Some(published(payload)),
        time_ms,
        quality: Quality::Good,
    }
}

/// Milliseconds since 1970; what lies before is 1970.
pub(crate) fn milliseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

fn reading(payload: &[u8], taken: Taken) -> Sample {
    match object(payload) {
        Some(object) if object.contains_key("value") => {
            let time_ms = time(&object, taken);
            sample(&object, time_ms)
        }
        _ => whole(payload, milliseconds(taken.at)),
    }
}

/// All values of a device's message.
fn readings(payload: &[u8], taken: Taken) -> Option<Vec<(String, Sample)>> {
    let message = object(payload)?;
    let time_of_all = time(&message, taken);
    let values = object(message.get("values")?.get().as_bytes())?;
    let samples = values.iter().filter_map(|(name, value)| {
        let value = &object(value.get().as_bytes())?;
        let own = value.contains_key("time") && taken.clock == ClockState::Synced;
        let time_ms = if own { time(value, taken) } else { time_of_all };
        Some((name.clone(), sample(value, time_ms)))
    });
    Some(samples.collect())
}

fn sample(reading: &Object<'_>, time_ms: u64) -> Sample {
    let value = reading.get("value").filter(|value| value.get() != "null");
    let quality = match word(reading, "quality") {
        Some("bad") => Quality::Bad,
        Some("stale") => Quality::Stale,
        _ => Quality::Good,
    };
    Sample {
        value: value.map(|value| Published::Json(json(value.get()))),
        time_ms,
        quality,
    }
}

fn time(message: &Object<'_>, taken: Taken) -> u64 {
    let unsynced = word(message, "clock") == Some("unsynced");
    let written = word(message, "time").and_then(|text| text.parse::<Timestamp>().ok());
    milliseconds(written.filter(|_| !unsynced).unwrap_or(taken.at))
}

/// Members with their values as they were written: a number is to keep its digits.
type Object<'p> = BTreeMap<String, &'p RawValue>;

fn object(payload: &[u8]) -> Option<Object<'_>> {
    serde_json::from_slice(payload).ok()
}

/// A member that is a text without escapes, as our own words and times are.
fn word<'p>(object: &Object<'p>, name: &str) -> Option<&'p str> {
    let value = object.get(name)?.get();
    value.strip_prefix('"')?.strip_suffix('"')
}

fn published(payload: &[u8]) -> Published {
    match std::str::from_utf8(payload) {
        Ok(text) => Published::Json(json(text)),
        Err(_) => Published::Bytes(payload.to_vec()),
    }
}

/// Numbers, truth values and texts as what they are, whatever else as its text. The standard library reads a number to its
/// last digit, which serde_json does not.
fn json(text: &str) -> Json {
    match serde_json::from_str(text) {
        Ok(Json::Number(number)) if number.is_f64() => match text.parse::<f64>() {
            Ok(exact) => exact.into(),
            Err(_) => text.into(),
        },
        Ok(scalar @ (Json::Bool(_) | Json::Number(_) | Json::String(_))) => scalar,
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN: Taken = Taken {
        at: Timestamp::UNIX_EPOCH,
        clock: ClockState::Synced,
    };

    #[test]
    fn a_reading_keeps_its_own_time_and_quality() {
        let payload = br#"{"value":231.4,"unit":"V","time":"1970-01-01T00:00:02.500Z","clock":"synced","quality":"stale","seq":3}"#;
        let Subject::Device("m", samples) = read("telemetry/m/voltage", payload) else {
            panic!("a device's reading");
        };
        let expected = Sample {
            value: Some(Published::Json(serde_json::json!(231.4))),
            time_ms: 2_500,
            quality: Quality::Stale,
        };
        assert_eq!(samples, [("voltage".to_owned(), expected)]);
    }

    #[test]
    fn a_reading_of_an_unknown_time_counts_from_when_it_was_taken() {
        let payload =
            br#"{"value":null,"time":"1971-01-01T00:00:00Z","clock":"unsynced","quality":"bad"}"#;
        let Subject::Device(_, samples) = read("telemetry/m/voltage", payload) else {
            panic!("a device's reading");
        };
        assert_eq!((samples[0].1.time_ms, &samples[0].1.value), (0, &None));
        assert_eq!(samples[0].1.quality, Quality::Bad);
    }

    #[test]
    fn a_message_of_a_whole_device_is_many_samples() {
        let payload = br#"{"values":{"a":{"value":1,"quality":"good"},"b":{"value":2,"time":"1970-01-01T00:00:01Z"}},"time":"1970-01-01T00:00:09Z"}"#;
        let Subject::Device("m", samples) = read("telemetry/m", payload) else {
            panic!("a device's readings");
        };
        let times: Vec<_> = samples
            .iter()
            .map(|(name, sample)| (name.as_str(), sample.time_ms))
            .collect();
        assert_eq!(times, [("a", 9_000), ("b", 1_000)]);
    }

    #[test]
    fn states_tell_whether_a_device_is_there() {
        assert_eq!(
            read("state/m", br#"{"state":"online"}"#),
            Subject::State("m", true)
        );
        assert_eq!(read("state/m", b""), Subject::State("m", false));
    }

    #[test]
    fn whatever_is_no_reading_of_a_device_belongs_to_the_node() {
        let value = |topic, payload: &[u8]| match read(topic, payload) {
            Subject::Node(sample) => sample.value.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            value("telemetry/press/count", b"7"),
            Published::Json(7.into())
        );
        assert_eq!(
            value("result/m/x", b"{\"a\":1}"),
            Published::Json("{\"a\":1}".into())
        );
        assert_eq!(
            value("state/press", b"online"),
            Published::Json("online".into())
        );
        assert_eq!(value("x", b"\xff"), Published::Bytes(vec![0xff]));
    }

    fn read<'t>(topic: &'t str, payload: &[u8]) -> Subject<'t> {
        super::read(topic, payload, TAKEN, |device| device == "m")
    }
}
