//! MQTT 5.0 as rumqttc speaks it: its packets, its state, and what they mean to the link. Layer:
//! driver.
//!
//! Invariant: nothing but CONNECT is said before the upstream has let us in.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use broker_lite::{
    packet::{MessageProperties, PayloadFormat, QoS, Text, UserProperties},
    topic::{TopicFilter, TopicName},
};
use bytes::BytesMut;
use rumqttc::v5::{
    Event as Happened, Incoming, MqttState, Request, StateError,
    mqttbytes::{
        Error, QoS as Qos5,
        v5::{
            ConnAck, Connect, ConnectProperties, ConnectReturnCode, Filter, LastWill, Packet,
            PubAck, PubAckReason, Publish, PublishProperties, RetainForwardRule, Subscribe,
        },
    },
};

use super::{
    Event, INCOMING_WINDOW, MAX_INCOMING_BYTES, Options, Received, SESSION_EXPIRY_S, SILENT,
    conversation::Dialect, not_sent, numbers::Numbers,
};
use crate::upstream::{
    cause::{Cause, words},
    forwarder::{Allowance, Answer},
    outbound::Outbound,
};

/// One connection's state.
pub(super) struct V5 {
    options: Options,
    state: MqttState,
    /// Ours, or the upstream's where that is shorter.
    keep_alive: Duration,
    /// Messages that may be under way; 0 before the upstream has let us in.
    window: u16,
    max_outgoing: Option<u32>,
    numbers: Numbers,
    events: VecDeque<Event>,
}

impl V5 {
    pub(super) fn new(options: Options) -> V5 {
        V5 {
            state: MqttState::new(options.window, true),
            keep_alive: options.keep_alive,
            window: 0,
            max_outgoing: None,
            numbers: Numbers::new(options.window),
            events: VecDeque::new(),
            options,
        }
    }

    /// The answer to CONNECT.
    fn let_in(&mut self, packet: Packet) -> Result<(), Cause> {
        let Packet::ConnAck(answer) = packet else {
            return Err(Cause::Protocol("it did not begin with CONNACK".to_owned()));
        };
        if answer.code != ConnectReturnCode::Success {
            return Err(refusal(answer.code));
        }
        let allowance = allowance(&answer);
        self.window = self.options.window.min(allowance.receive_maximum).max(1);
        self.max_outgoing = allowance.maximum_packet;
        let asked = answer.properties.as_ref();
        let asked = asked.and_then(|properties| properties.server_keep_alive);
        if let Some(seconds) = asked.filter(|seconds| *seconds > 0) {
            let asked = Duration::from_secs(u64::from(seconds));
            self.keep_alive = self.keep_alive.min(asked);
        }
        self.events.push_back(Event::Connected(allowance));
        let packet = Packet::ConnAck(answer);
        self.state.handle_incoming_packet(packet).map_err(cause)?;
        // The state's own word of it says less than ours.
        self.state.events.clear();
        Ok(())
    }

    /// Takes over what rumqttc's state has to tell.
    fn note(&mut self) {
        let happened = self.state.events.drain(..);
        self.events
            .extend(happened.filter_map(|happened| match happened {
                Happened::Incoming(packet) => incoming(packet),
                Happened::Outgoing(_) => None,
            }));
    }

    fn write(&self, packet: Option<Packet>, to: &mut BytesMut) -> Result<(), Cause> {
        let Some(packet) = packet else { return Ok(()) };
        let written = packet.write(to, self.max_outgoing);
        written.map(drop).map_err(|error| Cause::of(&error))
    }
}

impl Dialect for V5 {
    type Request = Request;

    fn connect(&self, to: &mut BytesMut) -> Result<(), Cause> {
        let will = self.options.will.as_ref();
        let expiry = match will {
            Some(_) => 0,
            None => SESSION_EXPIRY_S,
        };
        let properties = ConnectProperties {
            session_expiry_interval: Some(expiry),
            receive_maximum: Some(INCOMING_WINDOW),
            max_packet_size: Some(MAX_INCOMING_BYTES as u32),
            ..ConnectProperties::new()
        };
        let connect = Connect {
            keep_alive: self.options.keep_alive_s(),
            client_id: self.options.client_id.clone(),
            clean_start: will.is_some(),
            properties: Some(properties),
        };
        let will = will.map(|will| {
            let (topic, qos) = (will.topic.as_str(), qos_v5(will.qos));
            LastWill::new(topic, will.payload.clone(), qos, will.retain, None)
        });
        self.write(Some(Packet::Connect(connect, will, None)), to)
    }

    fn take(&mut self, from: &mut BytesMut, to: &mut BytesMut) -> Result<bool, Cause> {
        let packet = match Packet::read(from, Some(MAX_INCOMING_BYTES as u32)) {
            Ok(packet) => packet,
            Err(Error::InsufficientBytes(_)) => return Ok(false),
            Err(error) => return Err(Cause::of(&error)),
        };
        match packet {
            packet if self.window == 0 => self.let_in(packet)?,
            Packet::PubAck(ack) => {
                if !self.numbers.give_back(ack.pkid) {
                    return Err(not_sent(ack.pkid));
                }
                let answered = Event::Answered(ack.pkid, answer_v5(ack.reason));
                self.events.push_back(answered);
            }
            packet => {
                let answer = self.state.handle_incoming_packet(packet);
                self.write(answer.map_err(cause)?, to)?;
                self.note();
            }
        }
        Ok(true)
    }

    fn say(&mut self, request: Request, to: &mut BytesMut) -> Result<(), Cause> {
        let packet = match request {
            Request::Publish(mut publish) => {
                if publish.qos != Qos5::AtMostOnce {
                    publish.pkid = self.numbers.take();
                }
                self.events.push_back(Event::Written(publish.pkid));
                Some(Packet::Publish(publish))
            }
            Request::Subscribe(mut subscribe) => {
                subscribe.pkid = self.numbers.other();
                Some(Packet::Subscribe(subscribe))
            }
            other => self.state.handle_outgoing_packet(other).map_err(cause)?,
        };
        self.note();
        self.write(packet, to)
    }

    fn ping(&mut self, to: &mut BytesMut) -> Result<(), Cause> {
        self.say(Request::PingReq, to)
    }

    fn has_room(&self) -> bool {
        self.numbers.under_way() < self.window && self.numbers.is_free()
    }

    fn take_events(&mut self) -> VecDeque<Event> {
        mem::take(&mut self.events)
    }

    fn keep_alive(&self) -> Duration {
        self.keep_alive
    }
}

pub(super) fn publish(message: &Outbound) -> Request {
    let properties = properties_to_v5(&message.properties);
    let (topic, payload) = (message.topic.as_str(), message.payload.clone());
    let mut publish = Publish::new(topic, qos_v5(message.qos), payload, Some(properties));
    publish.retain = message.retain;
    Request::Publish(publish)
}

/// What is retained comes only with a new subscription.
pub(super) fn subscribe(filters: &[TopicFilter]) -> Request {
    let filters = filters.iter().map(|filter| Filter {
        retain_forward_rule: RetainForwardRule::OnNewSubscribe,
        ..Filter::new(filter.as_str(), Qos5::AtLeastOnce)
    });
    Request::Subscribe(Subscribe::new_many(filters, None))
}

pub(super) fn acknowledge(packet_id: u16) -> Request {
    Request::PubAck(PubAck::new(packet_id, None))
}

pub(super) fn disconnect() -> Request {
    Request::Disconnect
}

fn allowance(answer: &ConnAck) -> Allowance {
    let properties = answer.properties.as_ref();
    let maximum_qos = properties.and_then(|properties| properties.max_qos);
    Allowance {
        receive_maximum: properties
            .and_then(|properties| properties.receive_max)
            .unwrap_or(u16::MAX),
        maximum_packet: properties.and_then(|properties| properties.max_packet_size),
        maximum_qos: maximum_qos.map_or(QoS::ExactlyOnce, |qos| {
            QoS::from_u8(qos).unwrap_or(QoS::AtLeastOnce)
        }),
        retain_available: properties
            .and_then(|properties| properties.retain_available)
            .is_none_or(|available| available == 1),
    }
}

fn incoming(packet: Incoming) -> Option<Event> {
    match packet {
        Packet::SubAck(ack) => {
            use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success;
            let refused = ack.return_codes.iter();
            let refused = refused.filter(|code| !matches!(code, Success(_)));
            Some(Event::Refused(refused.map(words).collect()))
        }
        Packet::Publish(publish) => Some(Event::Received(Received {
            packet_id: (publish.qos != Qos5::AtMostOnce).then_some(publish.pkid),
            duplicate: publish.dup,
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
            retain: publish.retain,
            properties: publish
                .properties
                .and_then(properties_from_v5)
                .map(Arc::new),
        })),
        _ => None,
    }
}

fn answer_v5(reason: PubAckReason) -> Answer {
    use PubAckReason::{
        ImplementationSpecificError, NoMatchingSubscribers, NotAuthorized, PacketIdentifierInUse,
        PayloadFormatInvalid, QuotaExceeded, Success, TopicNameInvalid, UnspecifiedError,
    };
    match reason {
        Success | NoMatchingSubscribers => Answer::Acknowledged,
        // Nothing about the message will be different the next time.
        NotAuthorized | TopicNameInvalid | PayloadFormatInvalid => Answer::Never(words(&reason)),
        UnspecifiedError | ImplementationSpecificError | PacketIdentifierInUse | QuotaExceeded => {
            Answer::NotNow(format!("it refused a message: {}", words(&reason)))
        }
    }
}

fn refusal(code: ConnectReturnCode) -> Cause {
    let why = words(&code);
    match code {
        ConnectReturnCode::ServerUnavailable
        | ConnectReturnCode::ServiceUnavailable
        | ConnectReturnCode::ServerBusy
        | ConnectReturnCode::ConnectionRateExceeded
        | ConnectReturnCode::QuotaExceeded => Cause::Closed(why),
        ConnectReturnCode::MalformedPacket | ConnectReturnCode::ProtocolError => {
            Cause::Protocol(why)
        }
        _ => Cause::NotAuthorised(why),
    }
}

fn cause(error: StateError) -> Cause {
    match error {
        StateError::ServerDisconnect {
            reason_code,
            reason_string,
        } => {
            let why = reason_string.map_or_else(String::new, |text| format!(" ({text})"));
            Cause::Closed(format!("{}{why}", words(&reason_code)))
        }
        StateError::AwaitPingResp => Cause::Silent(SILENT.to_owned()),
        error => Cause::of(&error),
    }
}

fn qos_v5(qos: QoS) -> Qos5 {
    match qos {
        QoS::AtMostOnce => Qos5::AtMostOnce,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Qos5::AtLeastOnce,
    }
}

fn properties_to_v5(properties: &MessageProperties) -> PublishProperties {
    PublishProperties {
        payload_format_indicator: properties
            .payload_format
            .map(|format| u8::from(format == PayloadFormat::Utf8)),
        response_topic: properties.response_topic.as_ref().map(ToString::to_string),
        correlation_data: properties.correlation_data.clone(),
        user_properties: properties
            .user_properties
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        content_type: properties.content_type.as_ref().map(ToString::to_string),
        ..Default::default()
    }
}

/// What cannot be kept as it is, such as a response topic with wildcards, is left out.
fn properties_from_v5(properties: PublishProperties) -> Option<MessageProperties> {
    let mut user_properties = UserProperties::default();
    for (name, value) in &properties.user_properties {
        user_properties.push(name, value).ok()?;
    }
    let text = |text: Option<String>| text.and_then(|text| Text::parse(&text).ok());
    Some(MessageProperties {
        payload_format: properties
            .payload_format_indicator
            .map(|format| match format {
                1 => PayloadFormat::Utf8,
                _ => PayloadFormat::Unspecified,
            }),
        content_type: text(properties.content_type),
        response_topic: properties
            .response_topic
            .and_then(|topic| TopicName::parse(&topic).ok()),
        correlation_data: properties.correlation_data,
        user_properties,
    })
}
