//! Finds one packet in a stream of bytes and reads it.
//!
//! Values. Invariant: what the first bytes already forbid (a wrong type, wrong flags, too long) is
//! refused before the rest has come, and nothing is allocated for bytes that have not come.

use bytes::{Buf, BytesMut};

use super::read;
use super::wire::{self, Reader};
use super::{DecodeError, Fault, Packet, PacketType, Version};

/// Which end sent the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The broker reads.
    Client,
    /// A client, simulator or test reads.
    Server,
}

/// What a packet is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// Which end sent it.
    pub sender: Sender,
    /// What the connection speaks; `None` before CONNECT, which is then all that is taken.
    pub version: Option<Version>,
    /// In bytes, fixed header included.
    pub max_packet_size: usize,
}

impl Expect {
    /// The first packet of a client.
    pub fn connect(max_packet_size: usize) -> Self {
        Self {
            sender: Sender::Client,
            version: None,
            max_packet_size,
        }
    }

    /// A packet of a client after its CONNECT.
    pub fn from_client(version: Version, max_packet_size: usize) -> Self {
        Self {
            sender: Sender::Client,
            version: Some(version),
            max_packet_size,
        }
    }

    /// A packet of a server.
    pub fn from_server(version: Version, max_packet_size: usize) -> Self {
        Self {
            sender: Sender::Server,
            version: Some(version),
            max_packet_size,
        }
    }
}

/// Takes one packet off the front of `input`. `None` when more bytes are needed; `input` is then
/// as it was. After an error the stream cannot be read on.
pub fn decode(input: &mut BytesMut, expect: Expect) -> Result<Option<Packet>, DecodeError> {
    let Some(&first) = input.first() else {
        return Ok(None);
    };
    let packet_type = packet_type(first >> 4);
    let error = |fault, input: &BytesMut| DecodeError {
        fault,
        packet: packet_type,
        version: expect.version.unwrap_or_else(|| claimed_version(input)),
    };
    let header = match header(input, packet_type, expect) {
        Ok(Some(header)) => header,
        Ok(None) => return Ok(None),
        Err(fault) => return Err(error(fault, input)),
    };
    let total = header.length + header.body;
    if input.len() < total {
        return Ok(None);
    }
    // The packet's parts are copied out: one that is kept would otherwise keep the whole buffer.
    let mut body = Reader::new(&input[header.length..total]);
    let packet = read_body(header, &mut body, expect).map_err(|fault| error(fault, input))?;
    input.advance(total);
    Ok(Some(packet))
}

/// A fixed header.
#[derive(Clone, Copy)]
struct Header {
    packet_type: PacketType,
    flags: u8,
    /// Of the header itself, in bytes.
    length: usize,
    /// Of what follows, in bytes.
    body: usize,
}

/// Reads and judges the fixed header; `None` when more bytes are needed.
fn header(
    input: &[u8],
    packet_type: Option<PacketType>,
    expect: Expect,
) -> Result<Option<Header>, Fault> {
    let flags = input[0] & 0x0f;
    if expect.version.is_none() && packet_type != Some(PacketType::Connect) {
        return Err(Fault::NotConnectFirst);
    }
    let packet_type = packet_type.ok_or(Fault::UnknownType)?;
    check_direction(packet_type, expect)?;
    check_flags(packet_type, flags)?;
    let Some((body, length_bytes)) = wire::varint(&input[1..])? else {
        return Ok(None);
    };
    let (length, body) = (1 + length_bytes, body as usize);
    if length + body > expect.max_packet_size {
        return Err(Fault::PacketTooLarge);
    }
    if largest_body(packet_type, expect.version).is_some_and(|largest| body > largest) {
        return Err(Fault::TrailingBytes);
    }
    Ok(Some(Header {
        packet_type,
        flags,
        length,
        body,
    }))
}

fn read_body(header: Header, body: &mut Reader<'_>, expect: Expect) -> Result<Packet, Fault> {
    let version = expect.version.unwrap_or(Version::V5);
    let packet = match header.packet_type {
        PacketType::Connect => Packet::Connect(Box::new(read::connect(body)?)),
        PacketType::ConnAck => Packet::ConnAck(Box::new(read::conn_ack(body, version)?)),
        PacketType::Publish => {
            Packet::Publish(read::publish(body, header.flags, version, expect.sender)?)
        }
        PacketType::PubAck => Packet::PubAck(read::ack(body, version, header.packet_type)?),
        PacketType::PubRec => Packet::PubRec(read::ack(body, version, header.packet_type)?),
        PacketType::PubRel => Packet::PubRel(read::ack(body, version, header.packet_type)?),
        PacketType::PubComp => Packet::PubComp(read::ack(body, version, header.packet_type)?),
        PacketType::Subscribe => Packet::Subscribe(read::subscribe(body, version)?),
        PacketType::SubAck => Packet::SubAck(read::sub_ack(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(read::unsubscribe(body, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(read::unsub_ack(body, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => {
            Packet::Disconnect(read::disconnect(body, version, expect.sender)?)
        }
        PacketType::Auth => Packet::Auth(read::auth(body)?),
    };
    if body.is_empty() {
        Ok(packet)
    } else {
        Err(Fault::TrailingBytes)
    }
}

fn packet_type(number: u8) -> Option<PacketType> {
    Some(match number {
        1 => PacketType::Connect,
        2 => PacketType::ConnAck,
        3 => PacketType::Publish,
        4 => PacketType::PubAck,
        5 => PacketType::PubRec,
        6 => PacketType::PubRel,
        7 => PacketType::PubComp,
        8 => PacketType::Subscribe,
        9 => PacketType::SubAck,
        10 => PacketType::Unsubscribe,
        11 => PacketType::UnsubAck,
        12 => PacketType::PingReq,
        13 => PacketType::PingResp,
        14 => PacketType::Disconnect,
        15 => PacketType::Auth,
        _ => return None,
    })
}

/// Whether the sender may send this type, table 2-1.
fn check_direction(packet_type: PacketType, expect: Expect) -> Result<(), Fault> {
    use PacketType::{
        Auth, ConnAck, Connect, Disconnect, PingReq, PingResp, SubAck, Subscribe, UnsubAck,
        Unsubscribe,
    };
    match (packet_type, expect.sender, expect.version) {
        (Auth, _, Some(Version::V3)) => Err(Fault::AuthInV3),
        (Connect, Sender::Client, Some(_)) => Err(Fault::SecondConnect),
        (ConnAck | SubAck | UnsubAck | PingResp, Sender::Client, _)
        | (Connect | Subscribe | Unsubscribe | PingReq, Sender::Server, _)
        | (Disconnect, Sender::Server, Some(Version::V3)) => Err(Fault::WrongDirection),
        _ => Ok(()),
    }
}

/// Table 2-2; those of PUBLISH are read with it.
fn check_flags(packet_type: PacketType, flags: u8) -> Result<(), Fault> {
    let required = match packet_type {
        PacketType::Publish => return Ok(()),
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        _ => 0,
    };
    if flags == required {
        Ok(())
    } else {
        Err(Fault::ReservedFlags)
    }
}

/// The largest body of the types that have one size only, in bytes.
fn largest_body(packet_type: PacketType, version: Option<Version>) -> Option<usize> {
    match (packet_type, version) {
        (PacketType::PingReq | PacketType::PingResp, _)
        | (PacketType::Disconnect, Some(Version::V3)) => Some(0),
        (
            PacketType::ConnAck
            | PacketType::PubAck
            | PacketType::PubRec
            | PacketType::PubRel
            | PacketType::PubComp
            | PacketType::UnsubAck,
            Some(Version::V3),
        ) => Some(2),
        _ => None,
    }
}

/// By which version's rules a refused CONNECT is to be answered: 3.1.1 for protocol levels below
/// 5, whatever the protocol's name, and 5.0 for everything else.
fn claimed_version(packet: &[u8]) -> Version {
    let level = || {
        let (length, length_bytes) = wire::varint(packet.get(1..)?).ok()??;
        let body = packet.get(1 + length_bytes..)?;
        // What follows the packet says nothing about it.
        let body = &body[..body.len().min(length as usize)];
        let (name_length, rest) = body.split_first_chunk()?;
        rest.get(usize::from(u16::from_be_bytes(*name_length)))
            .copied()
    };
    match level() {
        Some(0..5) => Version::V3,
        _ => Version::V5,
    }
}
