//! Writes packets.
//!
//! Values. Invariant: what `encode` writes, `decode` of the same version reads back; a packet that
//! cannot be written leaves the buffer as it was. 3.1.1 has no properties: they are left out.

use bytes::{BufMut, BytesMut};

use super::wire::{Length, Sink, varint_len};
use super::write::write_body;
use super::{
    Auth, Authentication, MAX_REMAINING_LENGTH, MessageProperties, Packet, PacketType, ReasonCode,
    SubscribeRequest, Version,
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
    if !reasons(packet)
        .iter()
        .all(|reason| reason.allowed_in(packet_type))
    {
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
    check_presence(packet, version)
}

/// Looks for what the types leave absent but the wire needs, or the version cannot say.
fn check_presence(packet: &Packet, version: Version) -> Result<(), EncodeError> {
    let packet_type = packet.packet_type();
    let lacks = |what| Err(EncodeError::Lacks(packet_type, what));
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

/// The reason codes it carries.
fn reasons(packet: &Packet) -> &[ReasonCode] {
    match packet {
        Packet::ConnAck(packet) => std::slice::from_ref(&packet.reason),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            std::slice::from_ref(&ack.reason)
        }
        Packet::Disconnect(packet) => std::slice::from_ref(&packet.reason),
        Packet::Auth(packet) => std::slice::from_ref(&packet.reason),
        Packet::SubAck(packet) => &packet.reasons,
        Packet::UnsubAck(packet) => &packet.reasons,
        _ => &[],
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
