//! One connection to the upstream by rumqttc, MQTT 5 or 3.1.1 behind the same few calls and events.
//!
//! Invariant: after its first error a session does nothing more; the link opens another. Layer:
//! driver.

use std::{error::Error, io, sync::Arc, time::Duration};

use broker_lite::{
    packet::{MessageProperties, PayloadFormat, QoS, Text, UserProperties},
    topic::{TopicFilter, TopicName},
};
use bytes::Bytes;
use rumqttc::{Outgoing, TlsConfiguration, Transport, v5};
use rustls::{AlertDescription, ClientConfig};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    cause::Cause,
    forwarder::{Allowance, Answer},
    outbound::Outbound,
};

/// Largest packet taken from the upstream: the broker's own default.
const MAX_INCOMING_BYTES: usize = 256 << 10;
/// Largest packet that MQTT allows; what goes out is bounded by the upstream's own limit.
const MAX_OUTGOING_BYTES: usize = 268_435_455;
/// Messages from upstream that may wait for us at once.
pub(crate) const INCOMING_WINDOW: u16 = 32;
/// Requests beside the publishes of one window: acknowledgements, subscriptions, the goodbye.
const OTHER_REQUESTS: usize = 2 * INCOMING_WINDOW as usize + 16;
/// Events that may wait for the link.
const EVENTS: usize = 1024;
/// How long the upstream keeps our subscriptions and what comes in for them while we are away.
const SESSION_EXPIRY_S: u32 = 7 * 24 * 3600;

/// What a connection is made of.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) client_id: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<ClientConfig>,
    pub(crate) keep_alive: Duration,
    pub(crate) window: u16,
    pub(crate) version: crate::config::Protocol,
}

/// What the upstream did.
#[derive(Debug)]
pub(crate) enum Event {
    /// It let us in.
    Connected(Allowance),
    /// The oldest publish that had no packet identifier yet has been written under this one; 0 with
    /// QoS 0.
    Written(u16),
    /// It answered a publish.
    Answered(u16, Answer),
    /// It answered a subscription: one word per refused filter.
    Refused(Vec<String>),
    /// It published to us.
    Received(Received),
}

/// A message from upstream.
#[derive(Debug)]
pub(crate) struct Received {
    /// `None` with QoS 0, which needs no acknowledgement.
    pub(crate) packet_id: Option<u16>,
    /// The upstream sends it again.
    pub(crate) duplicate: bool,
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    pub(crate) properties: Option<Arc<MessageProperties>>,
}

/// The request queue is full or the session has ended.
#[derive(Debug)]
pub(crate) struct NotSent;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    events: mpsc::Receiver<Result<Event, Cause>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Client {
    V5(v5::AsyncClient),
    V3(rumqttc::AsyncClient),
}

impl Session {
    /// Starts to connect; the first event tells how it went.
    pub(crate) fn open(options: Options) -> Session {
        let (sender, events) = mpsc::channel(EVENTS);
        let requests = usize::from(options.window) + OTHER_REQUESTS;
        // A task of its own, since rumqttc's `poll` loses packets when it is cancelled half-way.
        let (client, task) = match options.version {
            crate::config::Protocol::V5 => {
                let (client, events) = v5::AsyncClient::new(options_v5(options), requests);
                (Client::V5(client), tokio::spawn(run_v5(events, sender)))
            }
            crate::config::Protocol::V3 => {
                let (client, events) = rumqttc::AsyncClient::new(options_v3(options), requests);
                (Client::V3(client), tokio::spawn(run_v3(events, sender)))
            }
        };
        Session {
            client,
            events,
            task,
        }
    }

    /// The next event; an error is the last one.
    pub(crate) async fn next(&mut self) -> Result<Event, Cause> {
        let ended = || Cause::Closed("the connection's task is gone".to_owned());
        self.events.recv().await.unwrap_or_else(|| Err(ended()))
    }

    /// The next event if there is one already.
    pub(crate) fn try_next(&mut self) -> Option<Result<Event, Cause>> {
        self.events.try_recv().ok()
    }

    /// Queues a message; `Written` events come in the same order.
    pub(crate) fn publish(&self, message: &Outbound) -> Result<(), NotSent> {
        let (topic, payload) = (message.topic.as_str(), message.payload.clone());
        match &self.client {
            Client::V5(client) => client
                .try_publish_with_properties(
                    topic,
                    qos_v5(message.qos),
                    message.retain,
                    payload,
                    properties_to_v5(&message.properties),
                )
                .map_err(|_| NotSent),
            Client::V3(client) => client
                .try_publish(topic, qos_v3(message.qos), message.retain, payload)
                .map_err(|_| NotSent),
        }
    }

    /// Asks for what matches, at QoS 1. What is retained comes only with a new subscription.
    pub(crate) fn subscribe(&self, filters: &[TopicFilter]) -> Result<(), NotSent> {
        if filters.is_empty() {
            return Ok(());
        }
        match &self.client {
            Client::V5(client) => {
                use v5::mqttbytes::{
                    QoS,
                    v5::{Filter, RetainForwardRule},
                };
                let filters = filters.iter().map(|filter| Filter {
                    retain_forward_rule: RetainForwardRule::OnNewSubscribe,
                    ..Filter::new(filter.as_str(), QoS::AtLeastOnce)
                });
                client.try_subscribe_many(filters).map_err(|_| NotSent)
            }
            Client::V3(client) => {
                let filters = filters.iter().map(|filter| {
                    let path = filter.as_str().to_owned();
                    rumqttc::SubscribeFilter::new(path, rumqttc::QoS::AtLeastOnce)
                });
                client.try_subscribe_many(filters).map_err(|_| NotSent)
            }
        }
    }

    /// Acknowledges a message from upstream.
    pub(crate) fn acknowledge(&self, packet_id: u16) -> Result<(), NotSent> {
        match &self.client {
            Client::V5(client) => {
                use v5::mqttbytes::{QoS, v5::Publish};
                let mut publish = Publish::new("", QoS::AtLeastOnce, Bytes::new(), None);
                publish.pkid = packet_id;
                client.try_ack(&publish).map_err(|_| NotSent)
            }
            Client::V3(client) => {
                let mut publish = rumqttc::Publish::new("", rumqttc::QoS::AtLeastOnce, Vec::new());
                publish.pkid = packet_id;
                client.try_ack(&publish).map_err(|_| NotSent)
            }
        }
    }

    /// Says goodbye; the last event is an error.
    pub(crate) fn disconnect(&self) -> Result<(), NotSent> {
        match &self.client {
            Client::V5(client) => client.try_disconnect().map_err(|_| NotSent),
            Client::V3(client) => client.try_disconnect().map_err(|_| NotSent),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn options_v5(options: Options) -> v5::MqttOptions {
    let mut mqtt = v5::MqttOptions::new(options.client_id, options.host, options.port);
    mqtt.set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
        .set_receive_maximum(Some(INCOMING_WINDOW))
        .set_max_packet_size(Some(MAX_INCOMING_BYTES as u32))
        .set_keep_alive(options.keep_alive)
        .set_manual_acks(true)
        .set_outgoing_inflight_upper_limit(options.window);
    if let Some(tls) = options.tls {
        mqtt.set_transport(transport(tls));
    }
    mqtt
}

fn options_v3(options: Options) -> rumqttc::MqttOptions {
    let mut mqtt = rumqttc::MqttOptions::new(options.client_id, options.host, options.port);
    mqtt.set_clean_session(false)
        .set_max_packet_size(MAX_INCOMING_BYTES, MAX_OUTGOING_BYTES)
        .set_keep_alive(options.keep_alive)
        .set_manual_acks(true)
        .set_inflight(options.window);
    if let Some(tls) = options.tls {
        mqtt.set_transport(transport(tls));
    }
    mqtt
}

fn transport(tls: ClientConfig) -> Transport {
    Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls)))
}

async fn run_v5(mut events: v5::EventLoop, link: mpsc::Sender<Result<Event, Cause>>) {
    loop {
        let event = match events.poll().await {
            Ok(v5::Event::Incoming(packet)) => incoming_v5(packet).map(Ok),
            Ok(v5::Event::Outgoing(outgoing)) => written(&outgoing).map(Ok),
            Err(error) => Some(Err(cause_v5(error))),
        };
        if send(&link, event).await {
            return;
        }
    }
}

async fn run_v3(mut events: rumqttc::EventLoop, link: mpsc::Sender<Result<Event, Cause>>) {
    loop {
        let event = match events.poll().await {
            Ok(rumqttc::Event::Incoming(packet)) => incoming_v3(packet).map(Ok),
            Ok(rumqttc::Event::Outgoing(outgoing)) => written(&outgoing).map(Ok),
            Err(error) => Some(Err(cause_v3(error))),
        };
        if send(&link, event).await {
            return;
        }
    }
}

/// Tells whether it was the last event, or nobody listens any more.
async fn send(
    link: &mpsc::Sender<Result<Event, Cause>>,
    event: Option<Result<Event, Cause>>,
) -> bool {
    match event {
        None => false,
        Some(event) => {
            let last = event.is_err();
            link.send(event).await.is_err() || last
        }
    }
}

fn written(outgoing: &Outgoing) -> Option<Event> {
    match outgoing {
        Outgoing::Publish(packet_id) => Some(Event::Written(*packet_id)),
        _ => None,
    }
}

fn incoming_v5(packet: v5::Incoming) -> Option<Event> {
    use v5::mqttbytes::{QoS as Qos5, v5::Packet};
    match packet {
        Packet::ConnAck(accepted) => {
            let properties = accepted.properties.as_ref();
            let maximum_qos = properties.and_then(|properties| properties.max_qos);
            Some(Event::Connected(Allowance {
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
            }))
        }
        Packet::PubAck(ack) => Some(Event::Answered(ack.pkid, answer_v5(ack.reason))),
        Packet::SubAck(ack) => {
            use v5::mqttbytes::v5::SubscribeReasonCode::Success;
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

fn incoming_v3(packet: rumqttc::Incoming) -> Option<Event> {
    use rumqttc::Packet;
    match packet {
        Packet::ConnAck(_) => {
            // 3.1.1 knows no limits beyond the protocol's own.
            Some(Event::Connected(Allowance {
                receive_maximum: u16::MAX,
                maximum_packet: None,
                maximum_qos: QoS::ExactlyOnce,
                retain_available: true,
            }))
        }
        Packet::PubAck(ack) => Some(Event::Answered(ack.pkid, Answer::Acknowledged)),
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

fn answer_v5(reason: v5::mqttbytes::v5::PubAckReason) -> Answer {
    use v5::mqttbytes::v5::PubAckReason::{
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

fn cause_v5(error: v5::ConnectionError) -> Cause {
    use v5::{ConnectionError, StateError, mqttbytes::v5::ConnectReturnCode};
    match error {
        ConnectionError::ConnectionRefused(code) => {
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
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code,
            reason_string,
        }) => {
            let why = reason_string.map_or_else(String::new, |text| format!(" ({text})"));
            Cause::Closed(format!("{}{why}", words(&reason_code)))
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => Cause::Silent(SILENT.to_owned()),
        // Unlike its other variants this one does not tell its source: with TLS 1.3 the server's
        // word on our certificate comes as an alert while the first packet is awaited.
        ConnectionError::MqttState(StateError::Deserialization(error)) => cause(&error),
        error => cause(&error),
    }
}

fn cause_v3(error: rumqttc::ConnectionError) -> Cause {
    use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
    match error {
        ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable) => {
            Cause::Closed("service unavailable".to_owned())
        }
        ConnectionError::ConnectionRefused(code) => Cause::NotAuthorised(words(&code)),
        ConnectionError::MqttState(StateError::AwaitPingResp) => Cause::Silent(SILENT.to_owned()),
        error => cause(&error),
    }
}

const SILENT: &str = "it no longer answers pings";

/// Finds the TLS or socket error inside rumqttc's.
fn cause(error: &(dyn Error + 'static)) -> Cause {
    let mut next = Some(error);
    while let Some(link) = next {
        if let Some(tls) = link.downcast_ref::<rustls::Error>() {
            return tls_cause(tls);
        }
        if let Some(io) = link.downcast_ref::<io::Error>() {
            if let Some(tls) = io
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            {
                return tls_cause(tls);
            }
            return io_cause(io);
        }
        next = link.source();
    }
    Cause::Closed(error.to_string())
}

fn tls_cause(error: &rustls::Error) -> Cause {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, DecryptError, HandshakeFailure, UnknownCA, UnsupportedCertificate,
    };
    match error {
        rustls::Error::InvalidCertificate(why) => Cause::ServerCertificate(why.to_string()),
        rustls::Error::AlertReceived(
            alert @ (AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | DecryptError
            | HandshakeFailure
            | UnknownCA
            | UnsupportedCertificate),
        ) => Cause::OurCertificate(words(alert)),
        error => Cause::Protocol(error.to_string()),
    }
}

fn io_cause(error: &io::Error) -> Cause {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => Cause::Closed(error.to_string()),
        _ => {
            let text = error.to_string();
            let why = text.split(" (os error").next().unwrap_or(&text);
            Cause::Unreachable(why.to_owned())
        }
    }
}

/// An enumeration's name as words: `TopicNameInvalid` becomes `topic name invalid`.
fn words(name: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    for character in format!("{name:?}").chars() {
        if character.is_uppercase() && text.ends_with(|last: char| last.is_lowercase()) {
            text.push(' ');
        }
        text.extend(character.to_lowercase());
    }
    text
}

fn qos_v5(qos: QoS) -> v5::mqttbytes::QoS {
    match qos {
        QoS::AtMostOnce => v5::mqttbytes::QoS::AtMostOnce,
        QoS::AtLeastOnce | QoS::ExactlyOnce => v5::mqttbytes::QoS::AtLeastOnce,
    }
}

fn qos_v3(qos: QoS) -> rumqttc::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce | QoS::ExactlyOnce => rumqttc::QoS::AtLeastOnce,
    }
}

fn properties_to_v5(properties: &MessageProperties) -> v5::mqttbytes::v5::PublishProperties {
    v5::mqttbytes::v5::PublishProperties {
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
fn properties_from_v5(
    properties: v5::mqttbytes::v5::PublishProperties,
) -> Option<MessageProperties> {
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
