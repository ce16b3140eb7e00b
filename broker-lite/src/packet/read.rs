//! Reads what follows the fixed header, packet type by packet type (chapter 3).
//!
//! Values. Invariant: every rule that a single packet can break is checked here or in `property`;
//! bytes left over are the caller's to refuse.

use super::property;
use super::wire::Reader;
use super::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Delivery, Disconnect, Fault,
    MAX_FILTERS, PacketType, Publish, QoS, ReasonCode, RetainHandling, Sender, SubAck, Subscribe,
    SubscribeOptions, SubscribeRequest, UnsubAck, Unsubscribe, UserProperties, Version, Will,
};
use crate::topic::{TopicError, TopicName};

/// The bits of the connect flags.
mod connect_flags {
    pub(super) const RESERVED: u8 = 1;
    pub(super) const CLEAN_START: u8 = 1 << 1;
    pub(super) const WILL: u8 = 1 << 2;
    pub(super) const WILL_QOS_SHIFT: u8 = 3;
    pub(super) const WILL_RETAIN: u8 = 1 << 5;
    pub(super) const PASSWORD: u8 = 1 << 6;
    pub(super) const USER_NAME: u8 = 1 << 7;
}

pub(super) fn connect(body: &mut Reader<'_>) -> Result<Connect, Fault> {
    let version = protocol(body)?;
    let flags = body.u8()?;
    let has = |flag| flags & flag != 0;
    let will_qos = check_connect_flags(flags, version)?;
    let keep_alive_s = body.u16()?;
    let properties = match version {
        Version::V3 => ConnectProperties::default(),
        Version::V5 => property::connect(body)?,
    };
    let client_id = body.text()?;
    let will = if has(connect_flags::WILL) {
        Some(will(
            body,
            version,
            will_qos,
            has(connect_flags::WILL_RETAIN),
        )?)
    } else {
        None
    };
    let user_name = has(connect_flags::USER_NAME)
        .then(|| body.text())
        .transpose()?;
    let password = has(connect_flags::PASSWORD)
        .then(|| body.credential())
        .transpose()?;
    Ok(Connect {
        version,
        clean_start: has(connect_flags::CLEAN_START),
        keep_alive_s,
        client_id,
        will,
        user_name,
        password,
        properties,
    })
}

/// The protocol's name and level. MQTT 3.1 (`MQIsdp`, level 3) is refused as a version that this
/// broker does not speak.
fn protocol(body: &mut Reader<'_>) -> Result<Version, Fault> {
    if body.str()? != "MQTT" {
        return Err(Fault::ProtocolName);
    }
    match body.u8()? {
        4 => Ok(Version::V3),
        5 => Ok(Version::V5),
        _ => Err(Fault::ProtocolVersion),
    }
}

fn check_connect_flags(flags: u8, version: Version) -> Result<QoS, Fault> {
    let has = |flag| flags & flag != 0;
    if has(connect_flags::RESERVED) {
        return Err(Fault::ConnectReservedFlag);
    }
    let will_qos = QoS::from_u8(flags >> connect_flags::WILL_QOS_SHIFT & 0b11);
    let will_qos = will_qos.ok_or(Fault::WillQos)?;
    if !has(connect_flags::WILL) {
        if will_qos != QoS::AtMostOnce {
            return Err(Fault::WillQosWithoutWill);
        }
        if has(connect_flags::WILL_RETAIN) {
            return Err(Fault::WillRetainWithoutWill);
        }
    }
    let password_alone = has(connect_flags::PASSWORD) && !has(connect_flags::USER_NAME);
    if version == Version::V3 && password_alone {
        return Err(Fault::PasswordWithoutUserName);
    }
    Ok(will_qos)
}

fn will(body: &mut Reader<'_>, version: Version, qos: QoS, retain: bool) -> Result<Will, Fault> {
    let properties = match version {
        Version::V3 => property::WillProperties::default(),
        Version::V5 => property::will(body)?,
    };
    let topic = topic(body.str()?)?.ok_or(Fault::EmptyTopic)?;
    Ok(Will {
        topic,
        payload: body.binary()?,
        qos,
        retain,
        delay_s: properties.delay_s,
        message_expiry_s: properties.message_expiry_s,
        properties: properties.message,
    })
}

/// A topic name, or `None` for the empty one.
fn topic(text: &str) -> Result<Option<TopicName>, Fault> {
    match TopicName::parse(text) {
        Ok(name) => Ok(Some(name)),
        Err(TopicError::Empty) => Ok(None),
        Err(_) => Err(Fault::WildcardInTopic),
    }
}

pub(super) fn conn_ack(body: &mut Reader<'_>, version: Version) -> Result<ConnAck, Fault> {
    let flags = body.u8()?;
    let code = body.u8()?;
    if flags > 1 {
        return Err(Fault::ConnAckFlags);
    }
    let session_present = flags == 1;
    let (reason, properties) = match version {
        Version::V3 => {
            let reason = ReasonCode::from_connect_return_code(code).ok_or(Fault::UnknownReason)?;
            (reason, ConnAckProperties::default())
        }
        Version::V5 => (
            reason(code, PacketType::ConnAck)?,
            property::conn_ack(body)?,
        ),
    };
    if session_present && reason != ReasonCode::Success {
        return Err(Fault::SessionPresentOnFailure);
    }
    Ok(ConnAck {
        session_present,
        reason,
        properties,
    })
}

pub(super) fn publish(
    body: &mut Reader<'_>,
    flags: u8,
    version: Version,
    from: Sender,
) -> Result<Publish, Fault> {
    let qos = QoS::from_u8(flags >> 1 & 0b11).ok_or(Fault::PublishQos)?;
    let dup = flags & 0b1000 != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(Fault::DupAtQos0);
    }
    let topic = topic(body.str()?)?;
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(body.packet_id()?),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(body.packet_id()?),
    };
    let properties = match version {
        Version::V3 => property::PublishProperties::default(),
        Version::V5 => property::publish(body, from)?,
    };
    if topic.is_none() && properties.topic_alias.is_none() {
        return Err(Fault::EmptyTopic);
    }
    Ok(Publish {
        dup,
        retain: flags & 1 != 0,
        delivery,
        topic,
        topic_alias: properties.topic_alias,
        message_expiry_s: properties.message_expiry_s,
        subscription_ids: properties.subscription_ids,
        properties: properties.message,
        payload: body.remainder(),
    })
}

pub(super) fn ack(
    body: &mut Reader<'_>,
    version: Version,
    packet_type: PacketType,
) -> Result<Ack, Fault> {
    let packet_id = body.packet_id()?;
    // 5.0 leaves a success and an empty property block out (3.4.2.1).
    if version == Version::V3 || body.is_empty() {
        return Ok(Ack::success(packet_id));
    }
    let reason = reason(body.u8()?, packet_type)?;
    let details = if body.is_empty() {
        None
    } else {
        property::details(body)?
    };
    Ok(Ack {
        packet_id,
        reason,
        details,
    })
}

pub(super) fn subscribe(body: &mut Reader<'_>, version: Version) -> Result<Subscribe, Fault> {
    let packet_id = body.packet_id()?;
    let (subscription_id, user_properties) = match version {
        Version::V3 => (None, UserProperties::default()),
        Version::V5 => property::subscribe(body)?,
    };
    let mut requests = Vec::new();
    while !body.is_empty() {
        if requests.len() >= MAX_FILTERS {
            return Err(Fault::TooManyFilters);
        }
        let filter = body.filter()?;
        let options = subscribe_options(body.u8()?, version)?;
        if options.no_local && filter.share.is_some() {
            return Err(Fault::NoLocalOnShared);
        }
        requests.push(SubscribeRequest { filter, options });
    }
    if requests.is_empty() {
        return Err(Fault::NoFilters);
    }
    Ok(Subscribe {
        packet_id,
        subscription_id,
        user_properties,
        requests,
    })
}

fn subscribe_options(byte: u8, version: Version) -> Result<SubscribeOptions, Fault> {
    let reserved = match version {
        Version::V3 => 0b1111_1100,
        Version::V5 => 0b1100_0000,
    };
    if byte & reserved != 0 {
        return Err(Fault::ReservedOptions);
    }
    Ok(SubscribeOptions {
        qos: QoS::from_u8(byte & 0b11).ok_or(Fault::SubscribeQos)?,
        no_local: byte & 0b0100 != 0,
        retain_as_published: byte & 0b1000 != 0,
        retain_handling: match byte >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(Fault::RetainHandling),
        },
    })
}

pub(super) fn sub_ack(body: &mut Reader<'_>, version: Version) -> Result<SubAck, Fault> {
    let packet_id = body.packet_id()?;
    let details = match version {
        Version::V3 => None,
        Version::V5 => property::details(body)?,
    };
    let reasons = reasons(body, PacketType::SubAck)?;
    let known_in_v3 =
        |reason: &ReasonCode| !reason.is_failure() || *reason == ReasonCode::UnspecifiedError;
    if version == Version::V3 && !reasons.iter().all(known_in_v3) {
        return Err(Fault::UnknownReason);
    }
    Ok(SubAck {
        packet_id,
        reasons,
        details,
    })
}

pub(super) fn unsubscribe(body: &mut Reader<'_>, version: Version) -> Result<Unsubscribe, Fault> {
    let packet_id = body.packet_id()?;
    let user_properties = match version {
        Version::V3 => UserProperties::default(),
        Version::V5 => property::unsubscribe(body)?,
    };
    let mut filters = Vec::new();
    while !body.is_empty() {
        if filters.len() >= MAX_FILTERS {
            return Err(Fault::TooManyFilters);
        }
        filters.push(body.filter()?);
    }
    if filters.is_empty() {
        return Err(Fault::NoFiltersToEnd);
    }
    Ok(Unsubscribe {
        packet_id,
        user_properties,
        filters,
    })
}

pub(super) fn unsub_ack(body: &mut Reader<'_>, version: Version) -> Result<UnsubAck, Fault> {
    let packet_id = body.packet_id()?;
    let (details, reasons) = match version {
        Version::V3 => (None, Vec::new()),
        Version::V5 => (
            property::details(body)?,
            reasons(body, PacketType::UnsubAck)?,
        ),
    };
    Ok(UnsubAck {
        packet_id,
        reasons,
        details,
    })
}

pub(super) fn disconnect(
    body: &mut Reader<'_>,
    version: Version,
    from: Sender,
) -> Result<Disconnect, Fault> {
    // 5.0 leaves a normal disconnection and an empty property block out (3.14.2.1).
    if version == Version::V3 || body.is_empty() {
        return Ok(Disconnect::new(ReasonCode::Success));
    }
    let reason = reason(body.u8()?, PacketType::Disconnect)?;
    if body.is_empty() {
        return Ok(Disconnect::new(reason));
    }
    let properties = property::disconnect(body, from)?;
    Ok(Disconnect {
        reason,
        session_expiry_s: properties.session_expiry_s,
        server_reference: properties.server_reference,
        details: properties.details,
    })
}

pub(super) fn auth(body: &mut Reader<'_>) -> Result<Auth, Fault> {
    // The shortest form means success (3.15.2.1).
    if body.is_empty() {
        return Ok(Auth {
            reason: ReasonCode::Success,
            authentication: None,
            details: None,
        });
    }
    let reason = reason(body.u8()?, PacketType::Auth)?;
    let (authentication, details) = property::auth(body)?;
    Ok(Auth {
        reason,
        authentication: Some(authentication),
        details,
    })
}

fn reason(code: u8, packet_type: PacketType) -> Result<ReasonCode, Fault> {
    ReasonCode::from_u8(code)
        .filter(|reason| reason.allowed_in(packet_type))
        .ok_or(Fault::UnknownReason)
}

/// All reason codes up to the end of the packet.
fn reasons(body: &mut Reader<'_>, packet_type: PacketType) -> Result<Vec<ReasonCode>, Fault> {
    let mut reasons = Vec::new();
    while !body.is_empty() {
        if reasons.len() >= MAX_FILTERS {
            return Err(Fault::TooManyFilters);
        }
        reasons.push(reason(body.u8()?, packet_type)?);
    }
    if reasons.is_empty() {
        Err(Fault::NoReasons)
    } else {
        Ok(reasons)
    }
}
