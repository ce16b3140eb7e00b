//! Writes packets.
//!
//! Values. Invariant: what `encode` writes, `decode` of the same version reads back; a packet that
//! cannot be written leaves the buffer as it was. 3.1.1 has no properties: they are left out.

use bytes::{BufMut, BytesMut};

use super::property::Property;
use super::wire::{Length, Sink, varint_len};
use super::{
    Ack, Auth, Authentication, ConnAck, ConnAckProperties, Connect, ConnectProperties, Details,
    Disconnect, MAX_REMAINING_LENGTH, MessageProperties, Packet, PacketType, PayloadFormat,
    Publish, ReasonCode, SubscribeOptions, SubscribeRequest, Text, UserProperties, Version, Will,
};

use crate::topic::SubscriptionFilter;

/// The longest binary field: its length travels in two bytes.
const MAX_BINARY_BYTES: usize = 65_535;

/// Why a packet cannot be written: our own mistake, or a version that cannot express it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// More than 268,435,455 bytes after the fixed header.
    #[error("{0} is longer than a remaining length can say")]
    TooLarge(PacketType),
    /// A password, will, correlation data, authentication data or shared filter of more than
    /// 65,535 bytes.
    #[error("{0} has a field of more than 65535 bytes")]
    FieldTooLong(PacketType),
    /// AUTH, or a CONNACK reason without a return code, in 3.1.1.
    #[error("{0} with this reason cannot be said in this version of MQTT")]
    NotInVersion(PacketType),
    /// A reason code that the packet type must not carry.
    #[error("{0} must not carry this reason code")]
    ReasonNotAllowed(PacketType),
    /// Something is absent that the packet cannot do without: a topic, a filter, a reason, an
    /// authentication method.
    #[error("{0} lacks {1}")]
    Lacks(PacketType, &'static str),
}

/// Appends a packet to `out`.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    let body = body_len(packet, version)?;
    out.reserve(1 + varint_len(body) + body);
    out.put_u8(first_byte(packet));
    Sink::varint(out, body);
    write_body(packet, version, out);
    Ok(())
}

/// How many bytes `encode` would write, fixed header included: to be held against the receiver's
/// maximum packet size.
pub fn encoded_len(packet: &Packet, version: Version) -> Result<usize, EncodeError> {
    let body = body_len(packet, version)?;
    Ok(1 + varint_len(body) + body)
}

fn body_len(packet: &Packet, version: Version) -> Result<usize, EncodeError> {
    check(packet, version)?;
    let mut length = Length::default();
    write_body(packet, version, &mut length);
    if length.0 > MAX_REMAINING_LENGTH {
        return Err(EncodeError::TooLarge(packet.packet_type()));
    }
    Ok(length.0)
}

/// Looks for what the types leave possible but the wire does not.
fn check(packet: &Packet, version: Version) -> Result<(), EncodeError> {
    let packet_type = packet.packet_type();
    let lacks = |what| Err(EncodeError::Lacks(packet_type, what));
    let reasons: &[ReasonCode] = match packet {
        Packet::ConnAck(packet) => std::slice::from_ref(&packet.reason),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            std::slice::from_ref(&ack.reason)
        }
        Packet::Disconnect(packet) => std::slice::from_ref(&packet.reason),
        Packet::Auth(packet) => std::slice::from_ref(&packet.reason),
        Packet::SubAck(packet) => &packet.reasons,
        Packet::UnsubAck(packet) => &packet.reasons,
        _ => &[],
    };
    if !reasons.iter().all(|reason| reason.allowed_in(packet_type)) {
        return Err(EncodeError::ReasonNotAllowed(packet_type));
    }
    if !binary_fields(packet)
        .iter()
        .flatten()
        .all(|length| *length <= MAX_BINARY_BYTES)
    {
        return Err(EncodeError::FieldTooLong(packet_type));
    }
    if !filters(packet).all(|filter| filter.text_len() <= MAX_BINARY_BYTES) {
        return Err(EncodeError::FieldTooLong(packet_type));
    }
    match (packet, version) {
        (Packet::Auth(_), Version::V3) => Err(EncodeError::NotInVersion(packet_type)),
        (Packet::ConnAck(packet), Version::V3) if packet.reason.connect_return_code().is_none() => {
            Err(EncodeError::NotInVersion(packet_type))
        }
        (Packet::Publish(packet), Version::V3) if packet.topic.is_none() => lacks("a topic"),
        (Packet::Publish(packet), _) if packet.topic.is_none() && packet.topic_alias.is_none() => {
            lacks("a topic")
        }
        (Packet::Subscribe(packet), _) if packet.requests.is_empty() => lacks("a topic filter"),
        (Packet::Unsubscribe(packet), _) if packet.filters.is_empty() => lacks("a topic filter"),
        (Packet::SubAck(packet), _) if packet.reasons.is_empty() => lacks("a reason code"),
        (Packet::UnsubAck(packet), Version::V5) if packet.reasons.is_empty() => {
            lacks("a reason code")
        }
        (Packet::Auth(packet), _)
            if packet.authentication.is_none() && !is_bare_success(packet) =>
        {
            lacks("an authentication method")
        }
        _ => Ok(()),
    }
}

/// The topic filters: valid each, but a group's name and its filter may be too long together.
fn filters(packet: &Packet) -> impl Iterator<Item = &SubscriptionFilter> {
    let (requests, filters): (&[SubscribeRequest], &[SubscriptionFilter]) = match packet {
        Packet::Subscribe(packet) => (&packet.requests, &[]),
        Packet::Unsubscribe(packet) => (&[], &packet.filters),
        _ => (&[], &[]),
    };
    requests
        .iter()
        .map(|request| &request.filter)
        .chain(filters)
}

/// The lengths of the binary fields whose type does not bound them.
fn binary_fields(packet: &Packet) -> [Option<usize>; 4] {
    let data = |authentication: &Option<Authentication>| {
        authentication
            .as_ref()?
            .data
            .as_ref()
            .map(|data| data.0.len())
    };
    let correlation = |properties: Option<&MessageProperties>| {
        properties?.correlation_data.as_ref().map(bytes::Bytes::len)
    };
    match packet {
        Packet::Connect(packet) => {
            let will = packet.will.as_ref();
            [
                packet.password.as_ref().map(|password| password.0.len()),
                will.map(|will| will.payload.len()),
                correlation(will.and_then(|will| will.properties.as_deref())),
                data(&packet.properties.authentication),
            ]
        }
        Packet::ConnAck(packet) => [data(&packet.properties.authentication), None, None, None],
        Packet::Publish(packet) => [correlation(packet.properties.as_deref()), None, None, None],
        Packet::Auth(packet) => [data(&packet.authentication), None, None, None],
        _ => [None; 4],
    }
}

fn is_bare_success(packet: &Auth) -> bool {
    packet.reason == ReasonCode::Success && packet.details.is_none()
}

fn first_byte(packet: &Packet) -> u8 {
    let flags = match packet {
        Packet::Publish(packet) => {
            u8::from(packet.dup) << 3 | (packet.qos() as u8) << 1 | u8::from(packet.retain)
        }
        Packet::PubRel(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) => 0b0010,
        _ => 0,
    };
    (packet.packet_type() as u8) << 4 | flags
}

fn write_body<S: Sink>(packet: &Packet, version: Version, out: &mut S) {
    match packet {
        Packet::Publish(packet) => write_publish(packet, version, out),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            write_ack(ack, version, out);
        }
        Packet::Connect(packet) => write_connect(packet, out),
        Packet::ConnAck(packet) => write_conn_ack(packet, version, out),
        Packet::Subscribe(packet) => {
            out.two(packet.packet_id.value());
            write_block(out, version, |out| {
                if let Some(identifier) = packet.subscription_id {
                    out.byte(Property::SubscriptionId as u8);
                    out.varint(identifier.value() as usize);
                }
                write_user_properties(out, &packet.user_properties);
            });
            for request in &packet.requests {
                write_filter(out, &request.filter);
                out.byte(options_byte(request.options, version));
            }
        }
        Packet::SubAck(packet) => {
            out.two(packet.packet_id.value());
            write_details_block(out, version, packet.details.as_deref());
            for reason in &packet.reasons {
                out.byte(sub_ack_byte(*reason, version));
            }
        }
        Packet::Unsubscribe(packet) => {
            out.two(packet.packet_id.value());
            write_block(out, version, |out| {
                write_user_properties(out, &packet.user_properties)
            });
            for filter in &packet.filters {
                write_filter(out, filter);
            }
        }
        Packet::UnsubAck(packet) => {
            out.two(packet.packet_id.value());
            write_details_block(out, version, packet.details.as_deref());
            if version == Version::V5 {
                for reason in &packet.reasons {
                    out.byte(reason.value());
                }
            }
        }
        Packet::PingReq | Packet::PingResp => {}
        Packet::Disconnect(packet) => write_disconnect(packet, version, out),
        Packet::Auth(packet) => write_auth(packet, version, out),
    }
}

fn write_publish<S: Sink>(packet: &Publish, version: Version, out: &mut S) {
    out.binary(
        packet
            .topic
            .as_ref()
            .map_or(&[], |topic| topic.as_str().as_bytes()),
    );
    if let Some(packet_id) = packet.packet_id() {
        out.two(packet_id.value());
    }
    let without_properties = packet.properties.is_none()
        && packet.topic_alias.is_none()
        && packet.message_expiry_s.is_none()
        && packet.subscription_ids.is_empty();
    match version {
        Version::V3 => {}
        Version::V5 if without_properties => out.byte(0),
        Version::V5 => write_block(out, version, |out| {
            write_u16(
                out,
                Property::TopicAlias,
                packet.topic_alias.map(|alias| alias.value()),
            );
            write_u32(out, Property::MessageExpiry, packet.message_expiry_s);
            for identifier in &packet.subscription_ids {
                out.byte(Property::SubscriptionId as u8);
                out.varint(identifier.value() as usize);
            }
            write_message_properties(out, packet.properties.as_deref());
        }),
    }
    out.put(&packet.payload);
}

fn write_ack<S: Sink>(ack: &Ack, version: Version, out: &mut S) {
    out.two(ack.packet_id.value());
    if version == Version::V3 || (ack.reason == ReasonCode::Success && ack.details.is_none()) {
        return;
    }
    out.byte(ack.reason.value());
    if ack.details.is_some() {
        write_details_block(out, version, ack.details.as_deref());
    }
}

fn write_connect<S: Sink>(packet: &Connect, out: &mut S) {
    out.binary(b"MQTT");
    out.byte(match packet.version {
        Version::V3 => 4,
        Version::V5 => 5,
    });
    out.byte(connect_flags(packet));
    out.two(packet.keep_alive_s);
    write_block(out, packet.version, |out| {
        write_connect_properties(out, &packet.properties)
    });
    out.binary(packet.client_id.as_str().as_bytes());
    if let Some(will) = &packet.will {
        write_will(will, packet.version, out);
    }
    if let Some(user_name) = &packet.user_name {
        out.binary(user_name.as_str().as_bytes());
    }
    if let Some(password) = &packet.password {
        out.binary(&password.0);
    }
}

fn connect_flags(packet: &Connect) -> u8 {
    let will = packet.will.as_ref().map_or(0, |will| {
        u8::from(will.retain) << 5 | (will.qos as u8) << 3 | 1 << 2
    });
    u8::from(packet.user_name.is_some()) << 7
        | u8::from(packet.password.is_some()) << 6
        | will
        | u8::from(packet.clean_start) << 1
}

fn write_connect_properties(out: &mut dyn Sink, properties: &ConnectProperties) {
    write_u32(out, Property::SessionExpiry, properties.session_expiry_s);
    write_u16(
        out,
        Property::ReceiveMaximum,
        properties.receive_maximum.map(|n| n.get()),
    );
    write_u32(
        out,
        Property::MaximumPacketSize,
        properties.maximum_packet_size.map(|n| n.get()),
    );
    write_u16(
        out,
        Property::TopicAliasMaximum,
        properties.topic_alias_maximum,
    );
    let response_information = properties.request_response_information;
    write_flag(
        out,
        Property::RequestResponseInformation,
        response_information,
    );
    write_flag(
        out,
        Property::RequestProblemInformation,
        properties.request_problem_information,
    );
    write_authentication(out, properties.authentication.as_ref());
    write_user_properties(out, &properties.user_properties);
}

fn write_will<S: Sink>(will: &Will, version: Version, out: &mut S) {
    write_block(out, version, |out| {
        write_u32(out, Property::WillDelay, will.delay_s);
        write_u32(out, Property::MessageExpiry, will.message_expiry_s);
        write_message_properties(out, will.properties.as_deref());
    });
    out.binary(will.topic.as_str().as_bytes());
    out.binary(&will.payload);
}

fn write_conn_ack<S: Sink>(packet: &ConnAck, version: Version, out: &mut S) {
    // [MQTT-3.2.2-6]
    out.byte((packet.session_present && !packet.reason.is_failure()).into());
    out.byte(match version {
        // `check` refuses reasons without a return code.
        Version::V3 => packet.reason.connect_return_code().unwrap_or_default(),
        Version::V5 => packet.reason.value(),
    });
    write_block(out, version, |out| {
        write_conn_ack_properties(out, &packet.properties)
    });
}

fn write_conn_ack_properties(out: &mut dyn Sink, properties: &ConnAckProperties) {
    write_u32(out, Property::SessionExpiry, properties.session_expiry_s);
    write_u16(
        out,
        Property::ReceiveMaximum,
        properties.receive_maximum.map(|n| n.get()),
    );
    // QoS 2 is said by leaving the property out (3.2.2.3.4).
    let maximum_qos = properties
        .maximum_qos
        .map(|qos| qos as u8)
        .filter(|qos| *qos < 2);
    write_u8(out, Property::MaximumQos, maximum_qos);
    write_flag(out, Property::RetainAvailable, properties.retain_available);
    write_u32(
        out,
        Property::MaximumPacketSize,
        properties.maximum_packet_size.map(|n| n.get()),
    );
    write_text(
        out,
        Property::AssignedClientId,
        properties.assigned_client_id.as_ref(),
    );
    write_u16(
        out,
        Property::TopicAliasMaximum,
        properties.topic_alias_maximum,
    );
    write_flag(
        out,
        Property::WildcardsAvailable,
        properties.wildcards_available,
    );
    write_flag(
        out,
        Property::SubscriptionIdsAvailable,
        properties.subscription_ids_available,
    );
    write_flag(out, Property::SharedAvailable, properties.shared_available);
    write_u16(
        out,
        Property::ServerKeepAlive,
        properties.server_keep_alive_s,
    );
    write_text(
        out,
        Property::ResponseInformation,
        properties.response_information.as_ref(),
    );
    write_text(
        out,
        Property::ServerReference,
        properties.server_reference.as_ref(),
    );
    write_authentication(out, properties.authentication.as_ref());
    write_details(out, properties.details.as_deref());
}

fn options_byte(options: SubscribeOptions, version: Version) -> u8 {
    match version {
        Version::V3 => options.qos as u8,
        Version::V5 => {
            (options.retain_handling as u8) << 4
                | u8::from(options.retain_as_published) << 3
                | u8::from(options.no_local) << 2
                | options.qos as u8
        }
    }
}

/// 3.1.1 knows one failure.
fn sub_ack_byte(reason: ReasonCode, version: Version) -> u8 {
    match version {
        Version::V3 if reason.is_failure() => ReasonCode::UnspecifiedError.value(),
        _ => reason.value(),
    }
}

fn write_filter<S: Sink>(out: &mut S, filter: &SubscriptionFilter) {
    match &filter.share {
        None => out.binary(filter.filter.as_str().as_bytes()),
        Some(_) => out.binary(filter.to_string().as_bytes()),
    }
}

fn write_disconnect<S: Sink>(packet: &Disconnect, version: Version, out: &mut S) {
    let bare = packet.session_expiry_s.is_none()
        && packet.server_reference.is_none()
        && packet.details.is_none();
    if version == Version::V3 || (bare && packet.reason == ReasonCode::Success) {
        return;
    }
    out.byte(packet.reason.value());
    if !bare {
        write_block(out, version, |out| {
            write_u32(out, Property::SessionExpiry, packet.session_expiry_s);
            write_text(
                out,
                Property::ServerReference,
                packet.server_reference.as_ref(),
            );
            write_details(out, packet.details.as_deref());
        });
    }
}

fn write_auth<S: Sink>(packet: &Auth, version: Version, out: &mut S) {
    if packet.authentication.is_none() {
        return;
    }
    out.byte(packet.reason.value());
    write_block(out, version, |out| {
        write_authentication(out, packet.authentication.as_ref());
        write_details(out, packet.details.as_deref());
    });
}

/// Writes a property block: counted first, because its length stands before it.
fn write_block<S: Sink>(out: &mut S, version: Version, fill: impl Fn(&mut dyn Sink)) {
    if version == Version::V5 {
        let mut length = Length::default();
        fill(&mut length);
        out.varint(length.0);
        fill(out);
    }
}

fn write_details_block<S: Sink>(out: &mut S, version: Version, details: Option<&Details>) {
    write_block(out, version, |out| write_details(out, details));
}

fn write_details(out: &mut dyn Sink, details: Option<&Details>) {
    if let Some(details) = details {
        write_text(out, Property::ReasonString, details.reason_string.as_ref());
        write_user_properties(out, &details.user_properties);
    }
}

fn write_message_properties(out: &mut dyn Sink, properties: Option<&MessageProperties>) {
    let Some(properties) = properties else { return };
    let utf8 = properties
        .payload_format
        .map(|format| format == PayloadFormat::Utf8);
    write_flag(out, Property::PayloadFormat, utf8);
    write_text(out, Property::ContentType, properties.content_type.as_ref());
    if let Some(topic) = &properties.response_topic {
        out.byte(Property::ResponseTopic as u8);
        out.binary(topic.as_str().as_bytes());
    }
    if let Some(data) = &properties.correlation_data {
        out.byte(Property::CorrelationData as u8);
        out.binary(data);
    }
    write_user_properties(out, &properties.user_properties);
}

fn write_authentication(out: &mut dyn Sink, authentication: Option<&Authentication>) {
    let Some(authentication) = authentication else {
        return;
    };
    write_text(
        out,
        Property::AuthenticationMethod,
        Some(&authentication.method),
    );
    if let Some(data) = &authentication.data {
        out.byte(Property::AuthenticationData as u8);
        out.binary(&data.0);
    }
}

fn write_user_properties(out: &mut dyn Sink, properties: &UserProperties) {
    out.put(properties.as_wire());
}

fn write_text(out: &mut dyn Sink, property: Property, value: Option<&Text>) {
    if let Some(value) = value {
        out.byte(property as u8);
        out.binary(value.as_str().as_bytes());
    }
}

fn write_flag(out: &mut dyn Sink, property: Property, value: Option<bool>) {
    write_u8(out, property, value.map(u8::from));
}

fn write_u8(out: &mut dyn Sink, property: Property, value: Option<u8>) {
    if let Some(value) = value {
        out.byte(property as u8);
        out.byte(value);
    }
}

fn write_u16(out: &mut dyn Sink, property: Property, value: Option<u16>) {
    if let Some(value) = value {
        out.byte(property as u8);
        out.two(value);
    }
}

fn write_u32(out: &mut dyn Sink, property: Property, value: Option<u32>) {
    if let Some(value) = value {
        out.byte(property as u8);
        out.four(value);
    }
}
