//! MQTT 3.1.1 as rumqttc speaks it: its packets, its state, and what they mean to the link. Layer:
//! driver.
//!
//! Invariant: nothing but CONNECT is said before the upstream has let us in.

use std::{collections::VecDeque, mem, time::Duration};

use broker_lite::{packet::QoS, topic::TopicFilter};
use bytes::BytesMut;
use rumqttc::{
    Connect, ConnectReturnCode, Disconnect, Event as Happened, Incoming, LastWill, MqttState,
    Packet, PingReq, PubAck, Publish, Request, StateError, Subscribe, SubscribeFilter,
    mqttbytes::Error,
};

use super::{
    Event, MAX_INCOMING_BYTES, MAX_OUTGOING_BYTES, Options, Received, SILENT,
    conversation::Dialect, not_sent, numbers::Numbers,
};
use crate::upstream::{
    cause::{Cause, words},
    forwarder::{Allowance, Answer},
    outbound::Outbound,
};

/// 3.1.1 knows no limits beyond the protocol's own.
const ALLOWANCE: Allowance = Allowance {
    receive_maximum: u16::MAX,
    maximum_packet: None,
    maximum_qos: QoS::ExactlyOnce,
    retain_available: true,
};

/// One connection's state.
pub(super) struct V3 {
    options: Options,
    state: MqttState,
    is_in: bool,
    numbers: Numbers,
    events: VecDeque<Event>,
}

impl V3 {
    pub(super) fn new(options: Options) -> V3 {
        V3 {
            state: MqttState::new(options.window, true),
            is_in: false,
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
        match answer.code {
            ConnectReturnCode::Success => {
                self.is_in = true;
                self.events.push_back(Event::Connected(ALLOWANCE));
                Ok(())
            }
            ConnectReturnCode::ServiceUnavailable => {
                Err(Cause::Closed("service unavailable".to_owned()))
            }
            code => Err(Cause::NotAuthorised(words(&code))),
        }
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
}

impl Dialect for V3 {
    type Request = Request;

    fn connect(&self, to: &mut BytesMut) -> Result<(), Cause> {
        let mut connect = Connect::new(self.options.client_id.clone());
        connect.keep_alive = self.options.keep_alive_s();
        let will = self.options.will.as_ref();
        connect.clean_session = will.is_some();
        connect.last_will = will.map(|will| {
            let (topic, qos) = (will.topic.as_str(), qos_v3(will.qos));
            LastWill::new(topic, will.payload.clone(), qos, will.retain)
        });
        write(Some(Packet::Connect(connect)), to)
    }

    fn take(&mut self, from: &mut BytesMut, to: &mut BytesMut) -> Result<bool, Cause> {
        let packet = match Packet::read(from, MAX_INCOMING_BYTES) {
            Ok(packet) => packet,
            Err(Error::InsufficientBytes(_)) => return Ok(false),
            Err(error) => return Err(Cause::of(&error)),
        };
        match packet {
            packet if !self.is_in => self.let_in(packet)?,
            Packet::PubAck(ack) => {
                if !self.numbers.give_back(ack.pkid) {
                    return Err(not_sent(ack.pkid));
                }
                let answered = Event::Answered(ack.pkid, Answer::Acknowledged);
                self.events.push_back(answered);
            }
            packet => {
                let answer = self.state.handle_incoming_packet(packet);
                write(answer.map_err(cause)?, to)?;
                self.note();
            }
        }
        Ok(true)
    }

    fn say(&mut self, request: Request, to: &mut BytesMut) -> Result<(), Cause> {
        let packet = match request {
            Request::Publish(mut publish) => {
                if publish.qos != rumqttc::QoS::AtMostOnce {
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
        write(packet, to)
    }

    fn ping(&mut self, to: &mut BytesMut) -> Result<(), Cause> {
        self.say(Request::PingReq(PingReq), to)
    }

    fn has_room(&self) -> bool {
        self.is_in && self.numbers.is_free()
    }

    fn take_events(&mut self) -> VecDeque<Event> {
        mem::take(&mut self.events)
    }

    fn keep_alive(&self) -> Duration {
        self.options.keep_alive
    }
}

fn write(packet: Option<Packet>, to: &mut BytesMut) -> Result<(), Cause> {
    let Some(packet) = packet else { return Ok(()) };
    let written = packet.write(to, MAX_OUTGOING_BYTES);
    written.map(drop).map_err(|error| Cause::of(&error))
}

pub(super) fn publish(message: &Outbound) -> Request {
    let (topic, payload) = (message.topic.as_str(), message.payload.clone());
    let mut publish = Publish::from_bytes(topic, qos_v3(message.qos), payload);
    publish.retain = message.retain;
    Request::Publish(publish)
}

pub(super) fn subscribe(filters: &[TopicFilter]) -> Request {
    let filters = filters.iter().map(|filter| {
        let path = filter.as_str().to_owned();
        SubscribeFilter::new(path, rumqttc::QoS::AtLeastOnce)
    });
    Request::Subscribe(Subscribe::new_many(filters))
}

pub(super) fn acknowledge(packet_id: u16) -> Request {
    Request::PubAck(PubAck::new(packet_id))
}

pub(super) fn disconnect() -> Request {
    Request::Disconnect(Disconnect)
}

fn incoming(packet: Incoming) -> Option<Event> {
    match packet {
        Packet::SubAck(ack) => {
            let refused = ack.return_codes.iter();
            let refused = refused.filter(|code| **code == rumqttc::SubscribeReasonCode::Failure);
            Some(Event::Refused(refused.map(words).collect()))
        }
        Packet::Publish(publish) => Some(Event::Received(Received {
            packet_id: (publish.qos != rumqttc::QoS::AtMostOnce).then_some(publish.pkid),
            duplicate: publish.dup,
            topic: publish.topic,
            payload: publish.payload,
            retain: publish.retain,
            properties: None,
        })),
        _ => None,
    }
}

fn cause(error: StateError) -> Cause {
    match error {
        StateError::AwaitPingResp => Cause::Silent(SILENT.to_owned()),
        error => Cause::of(&error),
    }
}

fn qos_v3(qos: QoS) -> rumqttc::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce | QoS::ExactlyOnce => rumqttc::QoS::AtLeastOnce,
    }
}
