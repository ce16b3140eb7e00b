//! Requests that a technician writes down himself, on `modbus/<bus>/request`, and their responses. Core.
//!
//! Invariant: each request gets one response; what is wrong with it is one, too.

use std::sync::Arc;

use broker_lite::message::Message;
use bytes::Bytes;
use serde::Deserialize;
use settings::Period;

use crate::{
    fieldbus::{
        raw::{self, RawOutcome, RawRequest},
        register::Register,
        transaction::Answer,
    },
    reading::Stamp,
};

use super::{Object, RESPONSES, answer_to, identifier};

/// Topics on which requests arrive: a room of their own, so that who may send commands may not
/// send these, and no device's name stands in the way.
pub(crate) const REQUESTS: &str = "modbus/+/request";

/// Which bus a request is for and where its response goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Envelope {
    /// The bus that the topic names.
    pub(crate) bus: Arc<str>,
    /// Given back with the response.
    pub(crate) correlation: Option<Bytes>,
    response_topic: Option<Arc<str>>,
}

/// The payload of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    unit: u8,
    register: Option<Register>,
    count: Option<usize>,
    values: Option<Values>,
    pdu: Option<String>,
    timeout: Option<Period>,
    id: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Values {
    Coils(Vec<bool>),
    Registers(Vec<u16>),
}

/// Reads a request, or says what is wrong with it.
pub(crate) fn request(message: &Message) -> (Envelope, Result<RawRequest, String>) {
    let mut levels = message.topic.as_ref().split('/').skip(1);
    let properties = message.properties.as_deref();
    let asked = properties.and_then(|properties| properties.response_topic.as_ref());
    let allowed = asked.filter(|topic| topic.as_ref().starts_with(RESPONSES));
    let mut envelope = Envelope {
        bus: levels.next().unwrap_or_default().into(),
        correlation: properties.and_then(|properties| properties.correlation_data.clone()),
        response_topic: allowed.map(|topic| Arc::from(topic.as_ref())),
    };
    let mut read = || {
        let mut written = written(&message.payload)?;
        if let Some(id) = written.id.take() {
            let id = identifier(id)?;
            envelope.correlation.get_or_insert(id);
        }
        match asked {
            Some(topic) if allowed.is_none() => {
                Err(format!("response topic {topic} is not below {RESPONSES}"))
            }
            _ => written.request(),
        }
    };
    let request = read();
    (envelope, request)
}

fn written(payload: &[u8]) -> Result<Written, String> {
    serde_json::from_slice(payload).map_err(|error| {
        format!(
            "{error}; write {{\"unit\": 1, \"register\": \"holding:0\", \"count\": 2}}, with \"values\" \
             instead of \"count\" to write, or {{\"unit\": 1, \"pdu\": \"0300000002\"}}"
        )
    })
}

impl Written {
    fn request(self) -> Result<RawRequest, String> {
        let request = match (self.register, self.count, self.values, self.pdu) {
            (Some(register), count, None, None) => raw::read(register, count.unwrap_or(1)),
            (Some(register), None, Some(Values::Coils(coils)), None) => {
                raw::write_coils(register, coils)
            }
            (Some(register), None, Some(Values::Registers(words)), None) => {
                raw::write_registers(register, words)
            }
            (None, None, None, Some(pdu)) => {
                let bytes =
                    hexadecimal(&pdu).ok_or("\"pdu\" is not pairs of hexadecimal digits")?;
                raw::pdu(bytes)
            }
            _ => Err("write register with count or with values, or pdu alone".to_owned()),
        };
        Ok(RawRequest {
            unit: self.unit,
            request: request?,
            timeout: self.timeout.map(Period::as_duration),
        })
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| {
        let [high, low] = pair else { return None };
        u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
    };
    digits.chunks(2).map(pair).collect()
}

/// The response on the bus' own topic, and where the sender asked for it.
pub(crate) fn responses(envelope: &Envelope, outcome: &RawOutcome, stamp: Stamp) -> Vec<Message> {
    let own = super::topic(&["modbus", &envelope.bus, "response"]);
    let payload = response(envelope, outcome, stamp);
    let asked = envelope.response_topic.as_deref();
    answer_to(own, asked, envelope.correlation.as_ref(), payload.into())
}

fn response(envelope: &Envelope, outcome: &RawOutcome, stamp: Stamp) -> String {
    let mut object = Object::new();
    object.text("result", word(outcome));
    match outcome {
        RawOutcome::Answered(Answer::Broadcast) => {
            object.text(
                "reason",
                "sent to all units of the line; none of them answers",
            );
        }
        RawOutcome::Answered(answer) => {
            if let Some((key, json)) = answer.as_json() {
                object.plain(key, json);
            }
        }
        RawOutcome::Exception(code, reason) => {
            object.plain("exception", code);
            object.text("reason", reason);
        }
        RawOutcome::Failed(reason) | RawOutcome::Refused(reason) => object.text("reason", reason),
    }
    object.correlation(envelope.correlation.as_ref());
    object.time(stamp.wall);
    object.finish()
}

/// The outcome in one word.
pub(crate) fn word(outcome: &RawOutcome) -> &'static str {
    match outcome {
        RawOutcome::Answered(Answer::Broadcast) => "sent",
        RawOutcome::Answered(_) => "answered",
        RawOutcome::Exception(..) => "exception",
        RawOutcome::Failed(_) => "failed",
        RawOutcome::Refused(_) => "refused",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_lite::{packet::MessageProperties, topic::TopicName};

    use super::*;

    fn message(payload: &str) -> Message {
        let topic = TopicName::parse("modbus/rs485-0/request").expect("a topic");
        Message::new(topic, payload.to_owned())
    }

    fn parsed(payload: &str) -> Result<RawRequest, String> {
        request(&message(payload)).1
    }

    #[test]
    fn a_request_reads_writes_or_is_a_pdu() {
        let register = |text: &str| text.parse::<Register>().expect("a register");
        for (payload, wanted) in [
            (
                r#"{"unit":1,"register":"input:7"}"#,
                raw::read(register("input:7"), 1),
            ),
            (
                r#"{"unit":1,"register":"coil:7","count":9}"#,
                raw::read(register("coil:7"), 9),
            ),
            (
                r#"{"unit":1,"register":"holding:7","values":[1,65535]}"#,
                raw::write_registers(register("holding:7"), vec![1, 65_535]),
            ),
            (
                r#"{"unit":1,"register":"coil:7","values":[true]}"#,
                raw::write_coils(register("coil:7"), vec![true]),
            ),
            (
                r#"{"unit":1,"pdu":"2b 0e 01 00"}"#,
                raw::pdu(vec![43, 14, 1, 0]),
            ),
        ] {
            let request = parsed(payload).map(|raw| raw.request);
            assert_eq!(request, wanted, "{payload}");
        }
        let slow = parsed(r#"{"unit":9,"pdu":"11","timeout":"3s"}"#).expect("a request");
        assert_eq!((slow.unit, slow.timeout), (9, Some(Duration::from_secs(3))));
    }

    #[test]
    fn what_is_no_request_is_told_what_to_write() {
        for payload in [
            "",
            "1",
            r#"{"register":"input:0"}"#,
            r#"{"unit":256,"register":"input:0"}"#,
            r#"{"unit":1}"#,
            r#"{"unit":1,"register":"40001"}"#,
            r#"{"unit":1,"register":"holding:0","count":1,"values":[1]}"#,
            r#"{"unit":1,"register":"holding:0","values":[65536]}"#,
            r#"{"unit":1,"register":"holding:0","values":[true]}"#,
            r#"{"unit":1,"register":"holding:0","pdu":"03"}"#,
            r#"{"unit":1,"pdu":"030"}"#,
            r#"{"unit":1,"pdu":"0x03"}"#,
            r#"{"unit":1,"function":3}"#,
        ] {
            let reason = parsed(payload).expect_err(payload);
            assert!(!reason.is_empty(), "{payload}");
        }
    }

    #[test]
    fn a_broadcast_is_said_to_be_sent_and_no_more() {
        let (envelope, _) = request(&message("{}"));
        let outcome = RawOutcome::Answered(Answer::Broadcast);
        let said = response(&envelope, &outcome, crate::clock::now());
        assert!(
            said.starts_with(r#"{"result":"sent","reason":"sent to all units"#),
            "{said}"
        );
    }

    #[test]
    fn the_sender_finds_his_response_by_its_id_below_response_alone() {
        let mut message = message(r#"{"unit":1,"register":"input:7","id":"a"}"#);
        let (envelope, _) = request(&message);
        assert_eq!(envelope.correlation.as_deref(), Some(&b"a"[..]));
        assert_eq!(&*envelope.bus, "rs485-0");
        for (topic, allowed) in [("response/me", true), ("command/other/p", false)] {
            message.properties = Some(Arc::new(MessageProperties {
                response_topic: TopicName::parse(topic).ok(),
                ..MessageProperties::default()
            }));
            let (envelope, request) = request(&message);
            assert_eq!(request.is_ok(), allowed);
            assert_eq!(envelope.response_topic.is_some(), allowed);
        }
    }
}
