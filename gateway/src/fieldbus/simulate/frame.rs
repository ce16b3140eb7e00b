//! Frames of Modbus RTU and Modbus TCP, as a device reads and writes them. A core.
//!
//! They are written here a second time on purpose: a device that shared the client's library would
//! share its mistakes.
//!
//! Invariant: only a whole request with a right checksum is one.

use crate::config::Framing;

use super::unit::{Damage, Reply};

/// The longest frame on a serial line (Modbus over serial line 2.5.1).
pub(super) const FRAME_MAX: usize = 256;
/// Bytes of an MBAP header with the unit (Modbus messaging on TCP/IP 3.1.3).
const MBAP_HEADER: usize = 7;
/// The longest protocol data unit (application protocol 4.1).
const PDU_MAX: usize = 253;
/// Unit and checksum around an RTU frame's protocol data unit.
const RTU_AROUND: usize = 3;

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) unit: u8,
    pub(super) pdu: Vec<u8>,
    /// Modbus TCP's; zero over RTU.
    pub(super) transaction: u16,
    /// Bytes that it took on the wire.
    pub(super) bytes: usize,
}

/// What stands at the start of the bytes received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A request.
    Request(Request),
    /// So many bytes that are none, to be thrown away.
    Garbage(usize),
    /// Too little to say.
    Unfinished,
    /// Nothing that can ever be read again (Modbus TCP has no mark to find its way back by).
    Lost,
}

/// Looks at the bytes received.
pub(super) fn find(framing: Framing, received: &[u8]) -> Found {
    match framing {
        Framing::Tcp => find_mbap(received),
        Framing::Rtu => find_rtu(received),
    }
}

/// The bytes of an answer.
pub(super) fn seal(framing: Framing, request: &Request, reply: &Reply) -> Vec<u8> {
    let Damage {
        crc: wrong_crc,
        transaction,
        cut,
    } = reply.damage;
    let mut frame = Vec::with_capacity(reply.pdu.len() + MBAP_HEADER);
    match framing {
        Framing::Tcp => {
            let transaction = request.transaction.wrapping_add(u16::from(transaction));
            let length = u16::try_from(reply.pdu.len() + 1).unwrap_or(u16::MAX);
            frame.extend(transaction.to_be_bytes());
            frame.extend([0, 0]);
            frame.extend(length.to_be_bytes());
            frame.push(reply.unit);
            frame.extend(&reply.pdu);
        }
        Framing::Rtu => {
            frame.push(reply.unit);
            frame.extend(&reply.pdu);
            let checksum = crc(&frame) ^ u16::from(wrong_crc);
            frame.extend(checksum.to_le_bytes());
        }
    }
    if cut {
        frame.truncate(frame.len() / 2);
    }
    frame
}

fn find_mbap(received: &[u8]) -> Found {
    let Some((&[t1, t2, p1, p2, high, low, unit], rest)) = received.split_first_chunk() else {
        return Found::Unfinished;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if [p1, p2] != [0, 0] || !(2..=PDU_MAX + 1).contains(&length) {
        return Found::Lost;
    }
    match rest.get(..length - 1) {
        None => Found::Unfinished,
        Some(pdu) => Found::Request(Request {
            unit,
            pdu: pdu.to_vec(),
            transaction: u16::from_be_bytes([t1, t2]),
            bytes: MBAP_HEADER + pdu.len(),
        }),
    }
}

fn find_rtu(received: &[u8]) -> Found {
    let Some(length) = rtu_length(received) else {
        return Found::Unfinished;
    };
    let Some(frame) = received.get(..length) else {
        return Found::Unfinished;
    };
    let (body, checksum) = frame.split_at(length - 2);
    if checksum != crc(body).to_le_bytes() {
        // Perhaps the request begins behind some noise.
        return Found::Garbage(1);
    }
    Found::Request(Request {
        unit: body[0],
        pdu: body[1..].to_vec(),
        transaction: 0,
        bytes: length,
    })
}

/// Bytes of the request that begins here, checksum included, once that can be told.
fn rtu_length(received: &[u8]) -> Option<usize> {
    let counted = |at: usize| Some(at + usize::from(*received.get(at)?) + RTU_AROUND);
    let length = match received.get(1)? {
        7 | 11 | 12 | 17 => 4,
        15 | 16 => counted(6)?,
        22 => 10,
        23 => counted(10)?,
        43 => 7,
        _ => 8,
    };
    Some(length.min(FRAME_MAX))
}

/// CRC-16/MODBUS (Modbus over serial line 6.2.2), written a second time: a mistake of the client's
/// must not pass unseen between the two ends.
pub(super) fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc: u16, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xa001
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtu(body: &[u8]) -> Vec<u8> {
        [body, &crc(body).to_le_bytes()].concat()
    }

    #[test]
    fn the_checksum_is_that_of_the_specification() {
        assert_eq!(crc(b"123456789"), 0x4b37);
        assert_eq!(crc(&[0x02, 0x07]), 0x1241);
    }

    #[test]
    fn requests_of_every_function_code_are_as_long_as_they_say() {
        for pdu in [
            &[1, 0, 0, 0, 1][..],
            &[5, 0, 0, 0xff, 0],
            &[15, 0, 0, 0, 9, 2, 1, 1],
            &[16, 0, 0, 0, 1, 2, 1, 1],
            &[17],
            &[22, 0, 0, 0, 0, 0, 0],
            &[23, 0, 0, 0, 1, 0, 0, 0, 1, 2, 9, 9],
            &[43, 14, 1, 0],
        ] {
            let frame = rtu(&[&[7], pdu].concat());
            for end in 0..frame.len() {
                assert_eq!(find(Framing::Rtu, &frame[..end]), Found::Unfinished);
            }
            let Found::Request(request) = find(Framing::Rtu, &[&frame[..], &[1]].concat()) else {
                panic!("{pdu:?} is not found");
            };
            assert_eq!((request.unit, &request.pdu[..]), (7, pdu));
            assert_eq!(request.bytes, frame.len());
        }
    }

    #[test]
    fn a_wrong_checksum_is_no_request_and_noise_before_one_is_passed_over() {
        let mut frame = rtu(&[1, 4, 0, 0, 0, 2]);
        frame[7] ^= 1;
        assert_eq!(find(Framing::Rtu, &frame), Found::Garbage(1));
        let noisy = [&[0xff, 0][..], &rtu(&[1, 4, 0, 0, 0, 2])].concat();
        assert_eq!(find(Framing::Rtu, &noisy), Found::Garbage(1));
        assert_eq!(find(Framing::Rtu, &noisy[1..]), Found::Garbage(1));
        assert!(matches!(find(Framing::Rtu, &noisy[2..]), Found::Request(_)));
    }

    #[test]
    fn a_header_of_another_protocol_or_an_impossible_length_ends_the_connection() {
        let header = |protocol: u8, length: u16| {
            let [high, low] = length.to_be_bytes();
            [0, 9, 0, protocol, high, low, 1, 17]
        };
        let Found::Request(request) = find(Framing::Tcp, &header(0, 2)) else {
            panic!("no request");
        };
        assert_eq!((request.transaction, request.pdu), (9, vec![17]));
        assert_eq!(find(Framing::Tcp, &header(0, 3)), Found::Unfinished);
        assert_eq!(find(Framing::Tcp, &header(1, 2)), Found::Lost);
        assert_eq!(find(Framing::Tcp, &header(0, 1)), Found::Lost);
        assert_eq!(find(Framing::Tcp, &header(0, 999)), Found::Lost);
    }
}
