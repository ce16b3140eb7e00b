//! Writes what follows the fixed header, packet type by packet type (chapter 3).
//!
//! Values. Invariant: a body is written twice, once to be counted, and both times alike; nothing
//! here can fail, because `encode` has looked at the packet before.

use super::property::Identifier;
use super::wire::{Length, Sink};
use super::{
    Ack, Auth, Authentication, ConnAck, ConnAckProperties, Connect, ConnectProperties, Details,
    Disconnect, MessageProperties, Packet, PayloadFormat, Publish, ReasonCode, SubAck, Subscribe,
    SubscribeOptions, SubscriptionId, Text, UnsubAck, Unsubscribe, UserProperties, Version, Will,
};
use crate::topic::SubscriptionFilter;

/// Everything after the fixed header.
pub(super) fn write_body<S: Sink>(packet: &Packet, version: Version, out: &mut S) {
    match packet {
        Packet::Publish(packet) => write_publish(packet, version, out),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            write_ack(ack, version, out);
        }
        Packet::Connect(packet) => write_connect(packet, out),
        Packet::ConnAck(packet) => write_conn_ack(packet, version, out),
        Packet::Subscribe(packet) => write_subscribe(packet, version, out),
        Packet::SubAck(packet) => write_sub_ack(packet, version, out),
        Packet::Unsubscribe(packet) => write_unsubscribe(packet, version, out),
        Packet::UnsubAck(packet) => write_unsub_ack(packet, version, out),
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
                Identifier::TopicAlias,
                packet.topic_alias.map(|alias| alias.value()),
            );
            write_u32(out, Identifier::MessageExpiry, packet.message_expiry_s);
            for identifier in &packet.subscription_ids {
                write_subscription_id(out, Some(*identifier));
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
    write_u32(out, Identifier::SessionExpiry, properties.session_expiry_s);
    write_u16(
        out,
        Identifier::ReceiveMaximum,
        properties.receive_maximum.map(|n| n.get()),
    );
    write_u32(
        out,
        Identifier::MaximumPacketSize,
        properties.maximum_packet_size.map(|n| n.get()),
    );
    write_u16(
        out,
        Identifier::TopicAliasMaximum,
        properties.topic_alias_maximum,
    );
    let response_information = properties.request_response_information;
    write_flag(
        out,
        Identifier::RequestResponseInformation,
        response_information,
    );
    write_flag(
        out,
        Identifier::RequestProblemInformation,
        properties.request_problem_information,
    );
    write_authentication(out, properties.authentication.as_ref());
    write_user_properties(out, &properties.user_properties);
}

fn write_will<S: Sink>(will: &Will, version: Version, out: &mut S) {
    write_block(out, version, |out| {
        write_u32(out, Identifier::WillDelay, will.delay_s);
        write_u32(out, Identifier::MessageExpiry, will.message_expiry_s);
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
    write_u32(out, Identifier::SessionExpiry, properties.session_expiry_s);
    write_u16(
        out,
        Identifier::ReceiveMaximum,
        properties.receive_maximum.map(|n| n.get()),
    );
    // QoS 2 is said by leaving the property out (3.2.2.3.4).
    let maximum_qos = properties
        .maximum_qos
        .map(|qos| qos as u8)
        .filter(|qos| *qos < 2);
    write_u8(out, Identifier::MaximumQos, maximum_qos);
    write_flag(
        out,
        Identifier::RetainAvailable,
        properties.retain_available,
    );
    write_u32(
        out,
        Identifier::MaximumPacketSize,
        properties.maximum_packet_size.map(|n| n.get()),
    );
    write_text(
        out,
        Identifier::AssignedClientId,
        properties.assigned_client_id.as_ref(),
    );
    write_u16(
        out,
        Identifier::TopicAliasMaximum,
        properties.topic_alias_maximum,
    );
    write_flag(
        out,
        Identifier::WildcardsAvailable,
        properties.wildcards_available,
    );
    write_flag(
        out,
        Identifier::SubscriptionIdsAvailable,
        properties.subscription_ids_available,
    );
    write_flag(
        out,
        Identifier::SharedAvailable,
        properties.shared_available,
    );
    write_u16(
        out,
        Identifier::ServerKeepAlive,
        properties.server_keep_alive_s,
    );
    write_text(
        out,
        Identifier::ResponseInformation,
        properties.response_information.as_ref(),
    );
    write_text(
        out,
        Identifier::ServerReference,
        properties.server_reference.as_ref(),
    );
    write_authentication(out, properties.authentication.as_ref());
    write_details(out, properties.details.as_deref());
}

fn write_subscribe<S: Sink>(packet: &Subscribe, version: Version, out: &mut S) {
    out.two(packet.packet_id.value());
    write_block(out, version, |out| {
        write_subscription_id(out, packet.subscription_id);
        write_user_properties(out, &packet.user_properties);
    });
    for request in &packet.requests {
        write_filter(out, &request.filter);
        out.byte(options_byte(request.options, version));
    }
}

fn write_sub_ack<S: Sink>(packet: &SubAck, version: Version, out: &mut S) {
    out.two(packet.packet_id.value());
    write_details_block(out, version, packet.details.as_deref());
    for reason in &packet.reasons {
        out.byte(sub_ack_byte(*reason, version));
    }
}

fn write_unsubscribe<S: Sink>(packet: &Unsubscribe, version: Version, out: &mut S) {
    out.two(packet.packet_id.value());
    write_block(out, version, |out| {
        write_user_properties(out, &packet.user_properties)
    });
    for filter in &packet.filters {
        write_filter(out, filter);
    }
}

fn write_unsub_ack<S: Sink>(packet: &UnsubAck, version: Version, out: &mut S) {
    out.two(packet.packet_id.value());
    write_details_block(out, version, packet.details.as_deref());
    if version == Version::V5 {
        for reason in &packet.reasons {
            out.byte(reason.value());
        }
    }
}

fn write_subscription_id(out: &mut dyn Sink, identifier: Option<SubscriptionId>) {
    if let Some(identifier) = identifier {
        out.byte(Identifier::SubscriptionId as u8);
        out.varint(identifier.value() as usize);
    }
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
            write_u32(out, Identifier::SessionExpiry, packet.session_expiry_s);
            write_text(
                out,
                Identifier::ServerReference,
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
        write_text(
            out,
            Identifier::ReasonString,
            details.reason_string.as_ref(),
        );
        write_user_properties(out, &details.user_properties);
    }
}

fn write_message_properties(out: &mut dyn Sink, properties: Option<&MessageProperties>) {
    let Some(properties) = properties else { return };
    let utf8 = properties
        .payload_format
        .map(|format| format == PayloadFormat::Utf8);
    write_flag(out, Identifier::PayloadFormat, utf8);
    write_text(
        out,
        Identifier::ContentType,
        properties.content_type.as_ref(),
    );
    if let Some(topic) = &properties.response_topic {
        out.byte(Identifier::ResponseTopic as u8);
        out.binary(topic.as_str().as_bytes());
    }
    if let Some(data) = &properties.correlation_data {
        out.byte(Identifier::CorrelationData as u8);
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
        Identifier::AuthenticationMethod,
        Some(&authentication.method),
    );
    if let Some(data) = &authentication.data {
        out.byte(Identifier::AuthenticationData as u8);
        out.binary(&data.0);
    }
}

fn write_user_properties(out: &mut dyn Sink, properties: &UserProperties) {
    out.put(properties.as_wire());
}

fn write_text(out: &mut dyn Sink, property: Identifier, value: Option<&Text>) {
    if let Some(value) = value {
        out.byte(property as u8);
        out.binary(value.as_str().as_bytes());
    }
}

fn write_flag(out: &mut dyn Sink, property: Identifier, value: Option<bool>) {
    write_u8(out, property, value.map(u8::from));
}

fn write_u8(out: &mut dyn Sink, property: Identifier, value: Option<u8>) {
    if let Some(value) = value {
        out.byte(property as u8);
        out.byte(value);
    }
}

fn write_u16(out: &mut dyn Sink, property: Identifier, value: Option<u16>) {
    if let Some(value) = value {
        out.byte(property as u8);
        out.two(value);
    }
}

fn write_u32(out: &mut dyn Sink, property: Identifier, value: Option<u32>) {
    if let Some(value) = value {
        out.byte(property as u8);
        out.four(value);
    }
}
