//! Writes several messages as one: a JSON array with an entry for each.
//!
//! An entry is `{"topic", "seq", "time", …}` with one of `payload` (the message was JSON and stands here
//! digit by digit), `text` (it was other UTF-8) and `base64` (it was neither). Invariant: each entry gives
//! back its message to the byte, and can be cut out of its batch. Layer: core.

use std::fmt::Write as _;

use base64ct::{Base64, Encoding};
use broker_lite::packet::{MessageProperties, PayloadFormat, Text, UserProperties};
use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use super::outbound::{Origin, Outbound};
use crate::reading::ClockState;

/// User property of a batch: how many messages it holds.
const COUNT: &str = "batch";
const CONTENT_TYPE: &str = "application/json";

/// The message as an entry of a batch.
pub(crate) fn entry(message: &Outbound, origin: &Origin) -> Bytes {
    let mut entry = String::with_capacity(message.payload.len() + 128);
    let topic = Value::from(origin.topic.as_str());
    let (seq, time) = (origin.seq, origin.received);
    let _infallible = write!(entry, r#"{{"topic":{topic},"seq":{seq},"time":"{time}""#);
    if origin.clock == ClockState::Unsynced {
        entry.push_str(r#","clock":"unsynced""#);
    }
    if message.retain {
        entry.push_str(r#","retain":true"#);
    }
    write_properties(&mut entry, &message.properties);
    write_payload(&mut entry, &message.payload);
    entry.push('}');
    Bytes::from(entry)
}

/// The batch of these entries.
pub(crate) fn payload<'e>(entries: impl Iterator<Item = &'e Bytes>) -> Vec<u8> {
    let mut batch = vec![b'['];
    for entry in entries {
        if batch.len() > 1 {
            batch.extend_from_slice(b",\n");
        }
        batch.extend_from_slice(entry);
    }
    batch.push(b']');
    batch
}

/// What is said about a batch of so many messages beside its payload.
pub(crate) fn properties(messages: usize) -> MessageProperties {
    let mut user_properties = UserProperties::default();
    user_properties
        .push(COUNT, &messages.to_string())
        .expect("a number is short and free of null characters");
    MessageProperties {
        payload_format: Some(PayloadFormat::Utf8),
        content_type: Text::parse(CONTENT_TYPE).ok(),
        user_properties,
        ..MessageProperties::default()
    }
}

fn write_properties(entry: &mut String, properties: &MessageProperties) {
    let mut member = |name: &str, value: Value| {
        let _infallible = write!(entry, r#","{name}":{value}"#);
    };
    if let Some(content_type) = &properties.content_type {
        member("content_type", content_type.as_str().into());
    }
    if let Some(topic) = &properties.response_topic {
        member("response_topic", topic.as_str().into());
    }
    if let Some(data) = &properties.correlation_data {
        member("correlation_base64", Base64::encode_string(data).into());
    }
    let users: Vec<Value> = properties
        .user_properties
        .iter()
        .map(|(name, value)| Value::from([name, value].as_slice()))
        .collect();
    if !users.is_empty() {
        member("user_properties", users.into());
    }
}

fn write_payload(entry: &mut String, payload: &[u8]) {
    let _infallible = match std::str::from_utf8(payload) {
        Ok(text) if is_one_line_of_json(text) => write!(entry, r#","payload":{text}"#),
        Ok(text) => write!(entry, r#","text":{}"#, Value::from(text)),
        Err(_) => write!(entry, r#","base64":"{}""#, Base64::encode_string(payload)),
    };
}

/// Whether the text can stand inside other JSON as it is and be cut out again: blanks around it would be lost.
fn is_one_line_of_json(text: &str) -> bool {
    text.trim() == text && serde_json::from_str::<&RawValue>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use broker_lite::topic::TopicName;
    use proptest::prelude::*;

    use super::{
        super::outbound::{Key, Packing},
        *,
    };

    #[test]
    fn each_entry_keeps_topic_number_time_and_properties() {
        let mut message = message(br#"{"value":231.40}"#);
        message.retain = true;
        message.properties.correlation_data = Some(Bytes::from_static(&[0, 255]));
        message.properties.user_properties.push("a", "1").unwrap();
        let text = String::from_utf8(entry(&message, &origin()).to_vec()).unwrap();
        assert_eq!(
            text,
            r#"{"topic":"telemetry/a\"b","seq":42,"time":"2026-11-22T11:35:17.123Z","clock":"unsynced","retain":true,"correlation_base64":"AP8=","user_properties":[["a","1"]],"payload":{"value":231.40}}"#
        );
    }

    #[test]
    fn a_batch_of_many_is_one_json_array() {
        let entries = [b"1".as_slice(), b"{\"v\":1.10}", b"on", b"\xff"].map(|payload| {
            let message = message(payload);
            entry(&message, &origin())
        });
        let batch = payload(entries.iter());
        let value: Value = serde_json::from_slice(&batch).unwrap();
        assert_eq!(value.as_array().unwrap().len(), 4);
        assert_eq!(value[2]["text"], "on");
        assert_eq!(value[3]["base64"], "/w==");
    }

    proptest! {
        #[test]
        fn every_payload_comes_out_as_it_went_in(
            payload in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                "[ \\[\\]{}\",:0-9a-z.\n-]{0,24}".prop_map(String::into_bytes),
            ]
        ) {
            let batch = super::payload([entry(&message(&payload), &origin())].iter());
            let entries: Vec<Parts<'_>> = serde_json::from_slice(&batch).unwrap();
            let [parts] = &entries[..] else { panic!("one entry") };
            let back = match (parts.payload, &parts.text, &parts.base64) {
                (Some(json), None, None) => json.get().as_bytes().to_vec(),
                (None, Some(text), None) => text.clone().into_bytes(),
                (None, None, Some(base64)) => Base64::decode_vec(base64).unwrap(),
                _ => panic!("exactly one of the three: {batch:?}"),
            };
            prop_assert_eq!(back, payload);
        }
    }

    #[derive(serde::Deserialize)]
    struct Parts<'a> {
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
        text: Option<String>,
        base64: Option<String>,
    }

    fn origin() -> Origin {
        Origin {
            topic: TopicName::parse("telemetry/a\"b").unwrap(),
            seq: 42,
            received: "2026-11-22T11:35:17.123Z".parse().unwrap(),
            clock: ClockState::Unsynced,
        }
    }

    fn message(payload: &[u8]) -> Outbound {
        let topic = TopicName::parse("up").unwrap();
        Outbound {
            packing: Some(Box::new(Packing {
                batch: None,
                compress: None,
                origin: origin(),
            })),
            ..Outbound::new(Key::Row(1), topic, payload.to_vec())
        }
    }
}
