//! Frames as a capture file that Wireshark opens and decodes without any setting. A core.
//!
//! Each packet is an exported PDU (LINKTYPE_WIRESHARK_UPPER_PDU, 252), which names the dissector of
//! its bytes: `mbrtu` for RTU frames, CRC included, and `mbtcp` for those with an MBAP header. The
//! addresses are of TEST-NET (RFC 5737): the client is 198.51.100.1, unit N is 192.0.2.N.
//!
//! Invariant: the bytes are those of the wire; a frame that is not whole is never decoded as one.

use std::time::Duration;

use super::frame::{Direction, Frame, Verdict, Wrapping};

/// Section header, interface description and enhanced packet block (draft-ietf-opsawg-pcapng 4).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Tells the byte order; we write the least significant byte first.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LINKTYPE_WIRESHARK_UPPER_PDU: u16 = 252;
/// Options of blocks.
const OPT_COMMENT: u16 = 1;
const SHB_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const EPB_FLAGS: u16 = 2;
/// Bits of `EPB_FLAGS`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
const CRC_ERROR: u32 = 1 << 24;
/// Tags of an exported PDU (Wireshark's exported_pdu.h).
const TAG_DISSECTOR: u16 = 12;
const TAG_IPV4_SOURCE: u16 = 20;
const TAG_IPV4_DESTINATION: u16 = 21;
const TAG_PORT_TYPE: u16 = 24;
const TAG_SOURCE_PORT: u16 = 25;
const TAG_DESTINATION_PORT: u16 = 26;
const PORT_TYPE_TCP: u32 = 2;
/// By its port Wireshark tells the server, and so requests from responses.
const SERVER_PORT: u32 = 502;
const CLIENT_PORT: u32 = 50_200;
const CLIENT: [u8; 4] = [198, 51, 100, 1];

/// What a capture file starts with; `bus` names the interface.
pub(crate) fn start(bus: &str) -> Vec<u8> {
    let mut header = BYTE_ORDER.to_le_bytes().to_vec();
    // Version 1.0, and a section of a length that is not known yet.
    header.extend([1, 0, 0, 0]);
    header.extend([0xff; 8]);
    option(
        &mut header,
        SHB_APPLICATION,
        concat!("gateway ", env!("CARGO_PKG_VERSION")).as_bytes(),
    );
    option(&mut header, 0, &[]);
    let mut interface = LINKTYPE_WIRESHARK_UPPER_PDU.to_le_bytes().to_vec();
    // Reserved, and packets of any length. Times are microseconds unless an option says otherwise.
    interface.extend([0; 6]);
    option(&mut interface, IF_NAME, bus.as_bytes());
    option(&mut interface, 0, &[]);
    let mut start = block(SECTION_HEADER, header);
    start.extend(block(INTERFACE, interface));
    start
}

/// One frame.
pub(crate) fn packet(frame: &Frame) -> Vec<u8> {
    let data = exported(frame);
    let micros = u64::try_from(frame.time.as_microsecond())
        .unwrap_or(0)
        .to_le_bytes();
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut packet = 0u32.to_le_bytes().to_vec();
    packet.extend(&micros[4..]);
    packet.extend(&micros[..4]);
    packet.extend(length);
    packet.extend(length);
    packet.extend(&data);
    pad(&mut packet);
    option(&mut packet, OPT_COMMENT, comment(frame).as_bytes());
    option(&mut packet, EPB_FLAGS, &flags(frame).to_le_bytes());
    option(&mut packet, 0, &[]);
    block(PACKET, packet)
}

fn exported(frame: &Frame) -> Vec<u8> {
    let good = frame.verdict() == Verdict::Good;
    let dissector: &[u8] = match frame.framing {
        Wrapping::Rtu if good => b"mbrtu",
        Wrapping::Tcp if good => b"mbtcp",
        Wrapping::Rtu | Wrapping::Tcp => b"data",
    };
    let unit = frame.content().map_or(0, |(unit, _)| unit);
    let (client, server) = ((CLIENT, CLIENT_PORT), ([192, 0, 2, unit], SERVER_PORT));
    let (source, destination) = match frame.direction {
        Direction::Request | Direction::Echo => (client, server),
        Direction::Response | Direction::Stray => (server, client),
    };
    let mut data = Vec::new();
    tag(&mut data, TAG_DISSECTOR, dissector);
    tag(&mut data, TAG_IPV4_SOURCE, &source.0);
    tag(&mut data, TAG_IPV4_DESTINATION, &destination.0);
    tag(&mut data, TAG_PORT_TYPE, &PORT_TYPE_TCP.to_be_bytes());
    tag(&mut data, TAG_SOURCE_PORT, &source.1.to_be_bytes());
    tag(
        &mut data,
        TAG_DESTINATION_PORT,
        &destination.1.to_be_bytes(),
    );
    tag(&mut data, 0, &[]);
    data.extend(&frame.bytes);
    data
}

fn comment(frame: &Frame) -> String {
    let whole = match frame.verdict() {
        Verdict::Good => "whole".to_owned(),
        Verdict::WrongCrc { found, expected } => {
            format!("wrong CRC: {found:04x} instead of {expected:04x}")
        }
        Verdict::WrongLength => "not a whole frame".to_owned(),
    };
    let who = match frame.direction {
        Direction::Request => "request",
        Direction::Response => "response",
        Direction::Echo => "echo of the request",
        Direction::Stray => "stray bytes",
    };
    let took = super::frame::milliseconds(Duration::from_micros(frame.took_us));
    format!("{who}, {whole}, {took} from first to last byte")
}

fn flags(frame: &Frame) -> u32 {
    let direction = match frame.direction {
        Direction::Request => OUTBOUND,
        Direction::Response | Direction::Echo | Direction::Stray => INBOUND,
    };
    match frame.verdict() {
        Verdict::WrongCrc { .. } => direction | CRC_ERROR,
        Verdict::Good | Verdict::WrongLength => direction,
    }
}

/// Type, length, body to a multiple of four, length again.
fn block(kind: u32, mut body: Vec<u8>) -> Vec<u8> {
    pad(&mut body);
    let length = u32::try_from(body.len() + 12)
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    [&kind.to_le_bytes()[..], &length, &body, &length].concat()
}

fn option(to: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    to.extend(code.to_le_bytes());
    to.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    to.extend(value);
    pad(to);
}

/// A tag of an exported PDU: its value is padded, and the padding counts.
fn tag(to: &mut Vec<u8>, code: u16, value: &[u8]) {
    let padded = value.len().next_multiple_of(4);
    to.extend(code.to_be_bytes());
    to.extend(u16::try_from(padded).unwrap_or(u16::MAX).to_be_bytes());
    to.extend(value);
    pad(to);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::{super::frame::tests::rtu, *};

    /// Type and body of every block; both lengths must agree.
    fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = number(&file[4..]) as usize;
            assert_eq!(
                (length % 4, number(&file[length - 4..]) as usize),
                (0, length)
            );
            found.push((number(file), &file[8..length - 4]));
            file = &file[length..];
        }
        found
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn a_file_is_a_section_an_interface_and_packets_with_the_bytes_of_the_wire() {
        let frame = rtu(Direction::Request, &[7, 3, 0, 0, 0, 10]);
        let mut file = start("rs485-0");
        file.extend(packet(&frame));
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE, PACKET]);
        assert!(contains(blocks[1].1, b"rs485-0"));
        assert!(contains(blocks[2].1, b"mbrtu\0\0\0"));
        assert!(contains(blocks[2].1, &[192, 0, 2, 7]));
        assert!(contains(blocks[2].1, &frame.bytes));
        assert!(contains(blocks[2].1, b"request, whole"));
    }

    #[test]
    fn a_frame_with_a_wrong_crc_is_flagged_and_not_decoded() {
        let mut frame = rtu(Direction::Response, &[7, 3, 2, 0, 10]);
        frame.bytes[3] ^= 1;
        let packet = packet(&frame);
        assert!(!contains(&packet, b"mbrtu"));
        assert!(contains(&packet, b"wrong CRC"));
        assert_eq!(flags(&frame), INBOUND | CRC_ERROR);
    }
}
