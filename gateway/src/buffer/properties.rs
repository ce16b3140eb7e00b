//! MQTT 5 properties as a blob of a row, and back. A value's codec.
//!
//! Invariant: what was written reads back the same; what does not read is an error, not a guess.

use broker_lite::{
    packet::{MessageProperties, PayloadFormat, Text, UserProperties},
    topic::TopicName,
};
use bytes::{Buf, Bytes};

/// Each field is its MQTT property identifier [MQTT 5, 2.2.2.2], a length of four bytes and the
/// value; a user property is two fields in a row.
const PAYLOAD_FORMAT: u8 = 0x01;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const USER_PROPERTY: u8 = 0x26;

/// A blob that is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored properties do not read")]
pub(super) struct Unreadable;

/// The properties as bytes; `None` where there is nothing to store.
pub(super) fn encode(properties: &MessageProperties) -> Option<Vec<u8>> {
    let mut blob = Vec::new();
    if let Some(format) = properties.payload_format {
        put(
            &mut blob,
            PAYLOAD_FORMAT,
            &[u8::from(format == PayloadFormat::Utf8)],
        );
    }
    if let Some(text) = &properties.content_type {
        put(&mut blob, CONTENT_TYPE, text.as_str().as_bytes());
    }
    if let Some(topic) = &properties.response_topic {
        put(&mut blob, RESPONSE_TOPIC, topic.as_str().as_bytes());
    }
    if let Some(data) = &properties.correlation_data {
        put(&mut blob, CORRELATION_DATA, data);
    }
    for (name, value) in properties.user_properties.iter() {
        put(&mut blob, USER_PROPERTY, name.as_bytes());
        put(&mut blob, USER_PROPERTY, value.as_bytes());
    }
    (!blob.is_empty()).then_some(blob)
}

/// The properties that [`encode`] wrote.
pub(super) fn decode(blob: &[u8]) -> Result<MessageProperties, Unreadable> {
    let mut rest = blob;
    let mut properties = MessageProperties::default();
    let mut user_properties = UserProperties::default();
    while !rest.is_empty() {
        let (identifier, value) = take(&mut rest)?;
        match identifier {
            PAYLOAD_FORMAT => {
                properties.payload_format = Some(match value {
                    [1] => PayloadFormat::Utf8,
                    _ => PayloadFormat::Unspecified,
                });
            }
            CONTENT_TYPE => {
                properties.content_type = Some(Text::parse(text(value)?).map_err(|_| Unreadable)?);
            }
            RESPONSE_TOPIC => {
                properties.response_topic =
                    Some(TopicName::parse(text(value)?).map_err(|_| Unreadable)?);
            }
            CORRELATION_DATA => {
                properties.correlation_data = Some(Bytes::copy_from_slice(value));
            }
            USER_PROPERTY => {
                let (_, second) = take(&mut rest)?;
                user_properties
                    .push(text(value)?, text(second)?)
                    .map_err(|_| Unreadable)?;
            }
            _ => return Err(Unreadable),
        }
    }
    properties.user_properties = user_properties;
    Ok(properties)
}

fn put(blob: &mut Vec<u8>, identifier: u8, value: &[u8]) {
    blob.push(identifier);
    // MQTT bounds each value to 65,535 bytes.
    blob.extend_from_slice(&(value.len() as u32).to_be_bytes());
    blob.extend_from_slice(value);
}

fn take<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), Unreadable> {
    if rest.len() < 5 {
        return Err(Unreadable);
    }
    let identifier = rest.get_u8();
    let length = rest.get_u32() as usize;
    let (value, after) = rest.split_at_checked(length).ok_or(Unreadable)?;
    *rest = after;
    Ok((identifier, value))
}

fn text(value: &[u8]) -> Result<&str, Unreadable> {
    str::from_utf8(value).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_read_back_as_they_were_written() {
        let mut properties = MessageProperties {
            payload_format: Some(PayloadFormat::Utf8),
            content_type: Some(Text::lossy("application/json")),
            response_topic: Some(TopicName::parse("result/a").unwrap()),
            correlation_data: Some(Bytes::from_static(&[0, 1, 255])),
            user_properties: UserProperties::default(),
        };
        properties.user_properties.push("site", "7").unwrap();
        properties.user_properties.push("", "").unwrap();
        let blob = encode(&properties).unwrap();
        assert_eq!(decode(&blob), Ok(properties));
        assert_eq!(encode(&MessageProperties::default()), None);
    }

    #[test]
    fn a_cut_blob_is_refused() {
        let properties = MessageProperties {
            content_type: Some(Text::lossy("text/plain")),
            ..MessageProperties::default()
        };
        let blob = encode(&properties).unwrap();
        for end in 1..blob.len() {
            assert_eq!(decode(&blob[..end]), Err(Unreadable), "cut at {end}");
        }
    }
}
