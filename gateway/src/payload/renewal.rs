//! Requests for a new certificate, on `client/<name>/renew`, and their answers. Core.
//!
//! Invariant: an answer goes to topics that only its client reads; who is not that client gets none.

use std::sync::Arc;

use broker_lite::message::Message;
use bytes::Bytes;

use crate::clients::{listing::Certified, name::ClientName};

use super::{Object, answer_to};

/// Topics on which requests arrive: a room of their own, as for requests to buses.
pub(crate) const REQUESTS: &str = "client/+/renew";

/// Where a client asks.
pub(crate) fn request_topic(name: &ClientName) -> String {
    format!("client/{name}/renew")
}

/// What only this client reads of answers.
pub(crate) fn responses(name: &ClientName) -> String {
    format!("response/{name}/#")
}

/// Who asks, and where the answer goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Envelope {
    pub(crate) name: ClientName,
    correlation: Option<Bytes>,
    response_topic: Option<Arc<str>>,
}

/// What comes of a request.
pub(crate) type Outcome = Result<Certified, String>;

/// Reads whose request it is, which the broker says `publisher` sent; `Err` says why it has no answer at all.
pub(crate) fn envelope(message: &Message, publisher: Option<&str>) -> Result<Envelope, String> {
    let level = message.topic.as_ref().split('/').nth(1).unwrap_or_default();
    let name: ClientName = level.parse()?;
    match publisher {
        Some(user) if user == name.as_str() => {}
        Some(other) => return Err(format!("{other} asks for a certificate of {name}")),
        None => return Err(format!("nobody known asks for a certificate of {name}")),
    }
    let properties = message.properties.as_deref();
    let asked = properties.and_then(|properties| properties.response_topic.as_ref());
    Ok(Envelope {
        response_topic: asked.map(|topic| Arc::from(topic.as_ref())),
        correlation: properties.and_then(|properties| properties.correlation_data.clone()),
        name,
    })
}

/// The request itself, in PEM.
pub(crate) fn request(envelope: &Envelope, payload: &[u8]) -> Result<String, String> {
    if let Some(topic) = &envelope.response_topic
        && !is_own(topic, &envelope.name)
    {
        let name = &envelope.name;
        return Err(format!(
            "response topic {topic} is not below response/{name}/"
        ));
    }
    let text = std::str::from_utf8(payload).map_err(|_| "the request is no PEM text".to_owned())?;
    Ok(text.to_owned())
}

/// The answer on the client's own topic, and where it asked for it.
pub(crate) fn answers(envelope: &Envelope, outcome: &Outcome) -> Vec<Message> {
    let Envelope {
        name,
        correlation,
        response_topic,
    } = envelope;
    let own = super::topic(&["response", name.as_str(), "renew"]);
    let own_text = own.as_ref().map(ToString::to_string);
    let asked = response_topic
        .as_deref()
        .filter(|topic| is_own(topic, name));
    // One that asks for the answer where it is published anyway gets it once, with its correlation.
    let twice = asked.is_some() && asked == own_text.as_deref();
    let own = own.filter(|_| !twice);
    answer_to(own, asked, correlation.as_ref(), answer(outcome).into())
}

fn is_own(topic: &str, name: &ClientName) -> bool {
    let below = topic.strip_prefix("response/");
    let below = below.and_then(|rest| rest.strip_prefix(name.as_str()));
    below.is_some_and(|rest| rest.starts_with('/') && !rest.contains(['+', '#']))
}

fn answer(outcome: &Outcome) -> String {
    let mut object = Object::new();
    match outcome {
        Ok(certified) => {
            object.text("result", "issued");
            object.text("certificate", &certified.certificate);
            object.text("ca", &certified.ca);
            object.text("ends", &certified.ends.to_string());
            object.text("renew", &certified.renew.to_string());
        }
        Err(reason) => {
            object.text("result", "refused");
            object.text("reason", reason);
        }
    }
    object.finish()
}

#[cfg(test)]
mod tests {
    use broker_lite::{packet::MessageProperties, topic::TopicName};

    use super::*;

    fn message(response_topic: Option<&str>) -> Message {
        let topic = |text: &str| TopicName::parse(text).expect("a topic");
        let mut message = Message::new(topic("client/press-3/renew"), "PEM");
        message.properties = Some(Arc::new(MessageProperties {
            response_topic: response_topic.map(topic),
            correlation_data: Some(Bytes::from_static(b"7")),
            ..MessageProperties::default()
        }));
        message
    }

    #[test]
    fn only_the_client_itself_asks_for_its_certificate() {
        assert!(envelope(&message(None), Some("press-3")).is_ok());
        for other in [None, Some("press-4"), Some("")] {
            assert!(envelope(&message(None), other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn answers_go_where_only_the_client_reads() {
        for (asked, taken, topics) in [
            (None, true, &["response/press-3/renew"][..]),
            (
                Some("response/press-3/mine"),
                true,
                &["response/press-3/renew", "response/press-3/mine"],
            ),
            (
                Some("response/press-3/renew"),
                true,
                &["response/press-3/renew"],
            ),
            (
                Some("response/press-33/x"),
                false,
                &["response/press-3/renew"],
            ),
            (Some("telemetry/x"), false, &["response/press-3/renew"]),
        ] {
            let envelope = envelope(&message(asked), Some("press-3")).unwrap();
            assert_eq!(request(&envelope, b"PEM").is_ok(), taken, "{asked:?}");
            let answers = answers(&envelope, &Err("no".to_owned()));
            let answered: Vec<&str> = answers.iter().map(|one| one.topic.as_ref()).collect();
            assert_eq!(answered, topics);
        }
    }
}
