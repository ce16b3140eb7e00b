//! Another codec, mqtt-protocol-core by Takatoshi Kondo: our packets as its packets, and its verdict on bytes.
//!
//! Invariant: nothing of our own encoder or decoder is used here, only the packets' fields.

use mqtt_protocol_core::mqtt::{
    common::Cursor,
    connection::{PacketBuildResult, PacketBuilder, PacketData, RawPacket},
    packet::{self as peer, Property, Qos, SubEntry, SubOpts, v3_1_1, v5_0},
    result_code::MqttError,
};

use super::*;

/// A packet of the other codec.
pub(super) type Peer = peer::Packet;

/// How the other codec writes what may be written in several ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As we write it: properties in our order, and nothing that may be left out.
    Ours,
    /// As we do, but with the reason for success, which may be left out.
    WithReason,
    /// Properties by falling identifier, and everything that may be left out.
    Whole,
}

/// What the other codec makes of the first packet in `bytes`; `None` while it is not complete.
pub(super) fn read(bytes: &[u8], version: Version) -> Option<Result<Peer, MqttError>> {
    match PacketBuilder::new().feed(&mut Cursor::new(bytes)) {
        PacketBuildResult::Complete(raw) => Some(parse(&raw, version)),
        PacketBuildResult::Incomplete => None,
        PacketBuildResult::Error(error) => Some(Err(error)),
    }
}

/// Hands the body to the parser of its type, as the codec's own connection does.
fn parse(raw: &RawPacket, version: Version) -> Result<Peer, MqttError> {
    macro_rules! exact {
        ($packet:ty) => {
            raw.parse_exact(<$packet>::parse)?.into()
        };
    }
    let level = raw.data_as_slice().get(6);
    Ok(match (raw.packet_type(), version) {
        (1, _) if level == Some(&4) => exact!(v3_1_1::Connect),
        (1, _) if level == Some(&5) => exact!(v5_0::Connect),
        (3, version) => {
            let PacketData::Publish(body) = &raw.data else {
                return Err(MqttError::MalformedPacket);
            };
            let body = body.clone();
            match version {
                Version::V3 => v3_1_1::Publish::parse(raw.flags(), body)?.0.into(),
                Version::V5 => v5_0::Publish::parse(raw.flags(), body)?.0.into(),
            }
        }
        (2, Version::V3) => exact!(v3_1_1::Connack),
        (4, Version::V3) => exact!(v3_1_1::Puback),
        (5, Version::V3) => exact!(v3_1_1::Pubrec),
        (6, Version::V3) => exact!(v3_1_1::Pubrel),
        (7, Version::V3) => exact!(v3_1_1::Pubcomp),
        (8, Version::V3) => exact!(v3_1_1::Subscribe),
        (9, Version::V3) => exact!(v3_1_1::Suback),
        (10, Version::V3) => exact!(v3_1_1::Unsubscribe),
        (11, Version::V3) => exact!(v3_1_1::Unsuback),
        (12, Version::V3) => exact!(v3_1_1::Pingreq),
        (13, Version::V3) => exact!(v3_1_1::Pingresp),
        (14, Version::V3) => exact!(v3_1_1::Disconnect),
        (2, Version::V5) => exact!(v5_0::Connack),
        (4, Version::V5) => exact!(v5_0::Puback),
        (5, Version::V5) => exact!(v5_0::Pubrec),
        (6, Version::V5) => exact!(v5_0::Pubrel),
        (7, Version::V5) => exact!(v5_0::Pubcomp),
        (8, Version::V5) => exact!(v5_0::Subscribe),
        (9, Version::V5) => exact!(v5_0::Suback),
        (10, Version::V5) => exact!(v5_0::Unsubscribe),
        (11, Version::V5) => exact!(v5_0::Unsuback),
        (12, Version::V5) => exact!(v5_0::Pingreq),
        (13, Version::V5) => exact!(v5_0::Pingresp),
        (14, Version::V5) => exact!(v5_0::Disconnect),
        (15, Version::V5) => exact!(v5_0::Auth),
        _ => return Err(MqttError::MalformedPacket),
    })
}

/// Our packet, built field by field with the other codec.
pub(super) fn build(packet: &Packet, version: Version, form: Form) -> Result<Peer, MqttError> {
    match version {
        Version::V3 => build_v3(packet),
        Version::V5 => build_v5(packet, form),
    }
}

fn build_v3(packet: &Packet) -> Result<Peer, MqttError> {
    macro_rules! ack {
        ($packet:ident, $ack:expr) => {
            v3_1_1::$packet::builder()
                .packet_id($ack.packet_id.value())
                .build()?
                .into()
        };
    }
    Ok(match packet {
        Packet::Connect(packet) => connect_v3(packet)?.into(),
        Packet::ConnAck(packet) => {
            let code = packet
                .reason
                .connect_return_code()
                .expect("a code of 3.1.1");
            v3_1_1::Connack::builder()
                .session_present(packet.session_present)
                .return_code(code.try_into().expect("the same codes"))
                .build()?
                .into()
        }
        Packet::Publish(packet) => v3_1_1::Publish::builder()
            .topic_name(packet.topic.as_ref().expect("no aliases in 3.1.1").as_str())?
            .dup(packet.dup)
            .retain(packet.retain)
            .qos(qos(packet.delivery.qos()))
            .packet_id(packet.packet_id().map(PacketId::value))
            .payload(packet.payload.to_vec())
            .build()?
            .into(),
        Packet::PubAck(ack) => ack!(Puback, ack),
        Packet::PubRec(ack) => ack!(Pubrec, ack),
        Packet::PubRel(ack) => ack!(Pubrel, ack),
        Packet::PubComp(ack) => ack!(Pubcomp, ack),
        Packet::Subscribe(packet) => v3_1_1::Subscribe::builder()
            .packet_id(packet.packet_id.value())
            .entries(entries(packet)?)
            .build()?
            .into(),
        Packet::SubAck(packet) => v3_1_1::Suback::builder()
            .packet_id(packet.packet_id.value())
            .return_codes(codes(&packet.reasons)?)
            .build()?
            .into(),
        Packet::Unsubscribe(packet) => v3_1_1::Unsubscribe::builder()
            .packet_id(packet.packet_id.value())
            .entries(packet.filters.iter().map(ToString::to_string))?
            .build()?
            .into(),
        Packet::UnsubAck(packet) => ack!(Unsuback, packet),
        Packet::PingReq => v3_1_1::Pingreq::builder().build()?.into(),
        Packet::PingResp => v3_1_1::Pingresp::builder().build()?.into(),
        Packet::Disconnect(_) => v3_1_1::Disconnect::builder().build()?.into(),
        Packet::Auth(_) => panic!("3.1.1 has no AUTH"),
    })
}

fn connect_v3(packet: &Connect) -> Result<v3_1_1::Connect, MqttError> {
    let mut builder = v3_1_1::Connect::builder()
        .clean_start(packet.clean_start)
        .keep_alive(packet.keep_alive_s)
        .client_id(packet.client_id.as_str())?;
    if let Some(will) = &packet.will {
        let (topic, payload) = (will.topic.as_str(), will.payload.to_vec());
        builder = builder.will_message(topic, payload, qos(will.qos), will.retain)?;
    }
    if let Some(user_name) = &packet.user_name {
        builder = builder.user_name(user_name.as_str())?;
    }
    if let Some(password) = &packet.password {
        builder = builder.password(password.0.to_vec())?;
    }
    builder.build()
}

fn build_v5(packet: &Packet, form: Form) -> Result<Peer, MqttError> {
    macro_rules! ack {
        ($packet:ident, $ack:expr) => {{
            let ack = $ack;
            let details = details(ack.details.as_deref(), form);
            let mut builder = v5_0::$packet::builder().packet_id(ack.packet_id.value());
            let bare = details.is_empty() && form != Form::Whole;
            if !bare || form != Form::Ours || ack.reason != ReasonCode::Success {
                builder = builder.reason_code(code(ack.reason)?);
            }
            if !bare {
                builder = builder.props(details);
            }
            builder.build()?.into()
        }};
    }
    Ok(match packet {
        Packet::Connect(packet) => connect_v5(packet, form)?.into(),
        Packet::ConnAck(packet) => v5_0::Connack::builder()
            .session_present(packet.session_present)
            .reason_code(code(packet.reason)?)
            .props(conn_ack_properties(&packet.properties, form))
            .build()?
            .into(),
        Packet::Publish(packet) => publish_v5(packet, form)?.into(),
        Packet::PubAck(ack) => ack!(Puback, ack),
        Packet::PubRec(ack) => ack!(Pubrec, ack),
        Packet::PubRel(ack) => ack!(Pubrel, ack),
        Packet::PubComp(ack) => ack!(Pubcomp, ack),
        Packet::Subscribe(packet) => v5_0::Subscribe::builder()
            .packet_id(packet.packet_id.value())
            .props(subscribe_properties(packet, form))
            .entries(entries(packet)?)
            .build()?
            .into(),
        Packet::SubAck(packet) => v5_0::Suback::builder()
            .packet_id(packet.packet_id.value())
            .props(details(packet.details.as_deref(), form))
            .reason_codes(codes(&packet.reasons)?)
            .build()?
            .into(),
        Packet::Unsubscribe(packet) => {
            let mut block = Block::default();
            block.user(&packet.user_properties);
            v5_0::Unsubscribe::builder()
                .packet_id(packet.packet_id.value())
                .props(block.finish(form))
                .entries(packet.filters.iter().map(ToString::to_string))?
                .build()?
                .into()
        }
        Packet::UnsubAck(packet) => v5_0::Unsuback::builder()
            .packet_id(packet.packet_id.value())
            .props(details(packet.details.as_deref(), form))
            .reason_codes(codes(&packet.reasons)?)
            .build()?
            .into(),
        Packet::PingReq => v5_0::Pingreq::builder().build()?.into(),
        Packet::PingResp => v5_0::Pingresp::builder().build()?.into(),
        Packet::Disconnect(packet) => disconnect_v5(packet, form)?.into(),
        Packet::Auth(packet) => {
            let mut block = Block::default();
            block.authentication(packet.authentication.as_ref());
            block.details(packet.details.as_deref());
            v5_0::Auth::builder()
                .reason_code(code(packet.reason)?)
                .props(block.finish(form))
                .build()?
                .into()
        }
    })
}

fn connect_v5(packet: &Connect, form: Form) -> Result<v5_0::Connect, MqttError> {
    let mut builder = v5_0::Connect::builder()
        .clean_start(packet.clean_start)
        .keep_alive(packet.keep_alive_s)
        .client_id(packet.client_id.as_str())?
        .props(connect_properties(&packet.properties, form));
    if let Some(will) = &packet.will {
        let (topic, payload) = (will.topic.as_str(), will.payload.to_vec());
        let mut block = Block::default();
        block.push(will.delay_s, peer::WillDelayInterval::new);
        block.push(will.message_expiry_s, peer::MessageExpiryInterval::new);
        block.message(will.properties.as_deref());
        builder = builder
            .will_message(topic, payload, qos(will.qos), will.retain)?
            .will_props(block.finish(form));
    }
    if let Some(user_name) = &packet.user_name {
        builder = builder.user_name(user_name.as_str())?;
    }
    if let Some(password) = &packet.password {
        builder = builder.password(password.0.to_vec())?;
    }
    builder.build()
}

fn connect_properties(properties: &ConnectProperties, form: Form) -> Vec<Property> {
    let mut block = Block::default();
    block.push(
        properties.session_expiry_s,
        peer::SessionExpiryInterval::new,
    );
    block.push(
        properties.receive_maximum.map(u16::from),
        peer::ReceiveMaximum::new,
    );
    block.push(
        properties.maximum_packet_size.map(u32::from),
        peer::MaximumPacketSize::new,
    );
    block.push(properties.topic_alias_maximum, peer::TopicAliasMaximum::new);
    block.push(
        properties.request_response_information.map(u8::from),
        peer::RequestResponseInformation::new,
    );
    block.push(
        properties.request_problem_information.map(u8::from),
        peer::RequestProblemInformation::new,
    );
    block.authentication(properties.authentication.as_ref());
    block.user(&properties.user_properties);
    block.finish(form)
}

fn conn_ack_properties(properties: &ConnAckProperties, form: Form) -> Vec<Property> {
    let mut block = Block::default();
    block.push(
        properties.session_expiry_s,
        peer::SessionExpiryInterval::new,
    );
    block.push(
        properties.receive_maximum.map(u16::from),
        peer::ReceiveMaximum::new,
    );
    block.push(
        properties.maximum_qos.map(|qos| qos as u8),
        peer::MaximumQos::new,
    );
    block.push(
        properties.retain_available.map(u8::from),
        peer::RetainAvailable::new,
    );
    block.push(
        properties.maximum_packet_size.map(u32::from),
        peer::MaximumPacketSize::new,
    );
    block.push(
        properties.assigned_client_id.as_ref().map(Text::as_str),
        peer::AssignedClientIdentifier::new,
    );
    block.push(properties.topic_alias_maximum, peer::TopicAliasMaximum::new);
    block.push(
        properties.wildcards_available.map(u8::from),
        peer::WildcardSubscriptionAvailable::new,
    );
    block.push(
        properties.subscription_ids_available.map(u8::from),
        peer::SubscriptionIdentifierAvailable::new,
    );
    block.push(
        properties.shared_available.map(u8::from),
        peer::SharedSubscriptionAvailable::new,
    );
    block.push(properties.server_keep_alive_s, peer::ServerKeepAlive::new);
    block.push(
        properties.response_information.as_ref().map(Text::as_str),
        peer::ResponseInformation::new,
    );
    block.push(
        properties.server_reference.as_ref().map(Text::as_str),
        peer::ServerReference::new,
    );
    block.authentication(properties.authentication.as_ref());
    block.details(properties.details.as_deref());
    block.finish(form)
}

fn publish_v5(packet: &Publish, form: Form) -> Result<v5_0::Publish, MqttError> {
    let mut block = Block::default();
    block.push(
        packet.topic_alias.map(TopicAlias::value),
        peer::TopicAlias::new,
    );
    block.push(packet.message_expiry_s, peer::MessageExpiryInterval::new);
    for id in &packet.subscription_ids {
        block.push(Some(id.value()), peer::SubscriptionIdentifier::new);
    }
    block.message(packet.properties.as_deref());
    let mut builder = v5_0::Publish::builder()
        .dup(packet.dup)
        .retain(packet.retain)
        .qos(qos(packet.delivery.qos()))
        .packet_id(packet.packet_id().map(PacketId::value))
        .props(block.finish(form))
        .payload(packet.payload.to_vec());
    if let Some(topic) = &packet.topic {
        builder = builder.topic_name(topic.as_str())?;
    }
    builder.build()
}

fn subscribe_properties(packet: &Subscribe, form: Form) -> Vec<Property> {
    let mut block = Block::default();
    block.push(
        packet.subscription_id.map(SubscriptionId::value),
        peer::SubscriptionIdentifier::new,
    );
    block.user(&packet.user_properties);
    block.finish(form)
}

fn disconnect_v5(packet: &Disconnect, form: Form) -> Result<v5_0::Disconnect, MqttError> {
    let mut block = Block::default();
    block.push(packet.session_expiry_s, peer::SessionExpiryInterval::new);
    block.push(
        packet.server_reference.as_ref().map(Text::as_str),
        peer::ServerReference::new,
    );
    block.details(packet.details.as_deref());
    let properties = block.finish(form);
    let bare = properties.is_empty() && form != Form::Whole;
    let mut builder = v5_0::Disconnect::builder();
    if !bare || form != Form::Ours || packet.reason != ReasonCode::Success {
        builder = builder.reason_code(code(packet.reason)?);
    }
    if !bare {
        builder = builder.props(properties);
    }
    builder.build()
}

fn details(details: Option<&Details>, form: Form) -> Vec<Property> {
    let mut block = Block::default();
    block.details(details);
    block.finish(form)
}

fn entries(packet: &Subscribe) -> Result<Vec<SubEntry>, MqttError> {
    let entry = |request: &SubscribeRequest| {
        let handling = request.options.retain_handling as u8;
        let options = SubOpts::new()
            .set_qos(qos(request.options.qos))
            .set_nl(request.options.no_local)
            .set_rap(request.options.retain_as_published)
            .set_rh(handling.try_into().expect("the same values"));
        SubEntry::new(request.filter.to_string(), options)
    };
    packet.requests.iter().map(entry).collect()
}

fn qos(qos: QoS) -> Qos {
    (qos as u8).try_into().expect("the same values")
}

/// The same reason in the other codec's words for this packet.
fn code<T: TryFrom<u8>>(reason: ReasonCode) -> Result<T, MqttError> {
    T::try_from(reason.value()).map_err(|_| MqttError::MalformedPacket)
}

fn codes<T: TryFrom<u8>>(reasons: &[ReasonCode]) -> Result<Vec<T>, MqttError> {
    reasons.iter().copied().map(code).collect()
}

/// A property block on its way.
#[derive(Default)]
struct Block(Vec<Property>);

impl Block {
    fn push<V, P: Into<Property>>(
        &mut self,
        value: Option<V>,
        make: impl Fn(V) -> Result<P, MqttError>,
    ) {
        let property = value.map(|value| make(value).expect("a value in range").into());
        self.0.extend(property);
    }

    fn authentication(&mut self, authentication: Option<&Authentication>) {
        let Some(authentication) = authentication else {
            return;
        };
        self.push(
            Some(authentication.method.as_str()),
            peer::AuthenticationMethod::new,
        );
        let data = authentication.data.as_ref().map(|data| data.0.to_vec());
        self.push(data, peer::AuthenticationData::new);
    }

    fn details(&mut self, details: Option<&Details>) {
        let Some(details) = details else { return };
        let reason = details.reason_string.as_ref().map(Text::as_str);
        self.push(reason, peer::ReasonString::new);
        self.user(&details.user_properties);
    }

    fn message(&mut self, properties: Option<&MessageProperties>) {
        let Some(properties) = properties else { return };
        let format = properties.payload_format.map(|format| match format {
            PayloadFormat::Unspecified => peer::PayloadFormat::Binary,
            PayloadFormat::Utf8 => peer::PayloadFormat::String,
        });
        self.push(format, peer::PayloadFormatIndicator::new);
        self.push(
            properties.content_type.as_ref().map(Text::as_str),
            peer::ContentType::new,
        );
        self.push(
            properties.response_topic.as_ref().map(TopicName::as_str),
            peer::ResponseTopic::new,
        );
        self.push(
            properties
                .correlation_data
                .as_ref()
                .map(|data| data.to_vec()),
            peer::CorrelationData::new,
        );
        self.user(&properties.user_properties);
    }

    fn user(&mut self, properties: &UserProperties) {
        for pair in properties.iter() {
            self.push(Some(pair), |(name, value)| {
                peer::UserProperty::new(name, value)
            });
        }
    }

    /// Properties that repeat keep their order, which has a meaning.
    fn finish(mut self, form: Form) -> Vec<Property> {
        if form == Form::Whole {
            self.0
                .sort_by_key(|property| std::cmp::Reverse(property.id().as_u8()));
        }
        self.0
    }
}

/// The identifiers of a packet's properties, and of its will's, as the other codec reads them.
pub(super) fn identifiers(packet: &Peer) -> (Vec<u8>, Vec<u8>) {
    let of = |properties: &[Property]| properties.iter().map(|one| one.id().as_u8()).collect();
    let some = |properties: &Option<Vec<Property>>| of(properties.as_deref().unwrap_or_default());
    let all: Vec<u8> = match packet {
        Peer::V5_0Connect(packet) => return (of(packet.props()), of(packet.will_props())),
        Peer::V5_0Connack(packet) => of(packet.props()),
        Peer::V5_0Publish(packet) => of(packet.props()),
        Peer::V5_0Puback(packet) => some(packet.props()),
        Peer::V5_0Pubrec(packet) => some(packet.props()),
        Peer::V5_0Pubrel(packet) => some(packet.props()),
        Peer::V5_0Pubcomp(packet) => some(packet.props()),
        Peer::V5_0Subscribe(packet) => of(packet.props()),
        Peer::V5_0Suback(packet) => of(packet.props()),
        Peer::V5_0Unsubscribe(packet) => of(packet.props()),
        Peer::V5_0Unsuback(packet) => of(packet.props()),
        Peer::V5_0Disconnect(packet) => some(packet.props()),
        Peer::V5_0Auth(packet) => some(packet.props()),
        _ => Vec::new(),
    };
    (all, Vec::new())
}
