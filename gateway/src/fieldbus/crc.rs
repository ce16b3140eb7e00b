//! The checksum of Modbus frames on serial lines. A value.
//!
//! The simulator has a second one of its own on purpose: a mistake here must not pass unseen between
//! the two ends.
//!
//! Invariant: it travels low byte first, and a frame with its own makes zero.

use ::crc::{CRC_16_MODBUS, Crc, Digest};

/// Modbus over serial line 6.2.2.
const MODBUS: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);
/// The shortest frame: unit, function and checksum.
pub(crate) const SHORTEST: usize = 4;

/// The checksum of these bytes.
pub(crate) fn crc(bytes: &[u8]) -> u16 {
    MODBUS.checksum(bytes)
}

/// Whether the last two bytes are the checksum of those before.
pub(crate) fn is_sealed(frame: &[u8]) -> bool {
    match frame.split_last_chunk() {
        Some((body, seal)) if frame.len() >= SHORTEST => crc(body).to_le_bytes() == *seal,
        _ => false,
    }
}

/// Bytes of the shortest frame that begins here, found by its checksum alone.
pub(crate) fn sealed_length(bytes: &[u8]) -> Option<usize> {
    let mut sum = MODBUS.digest();
    bytes.iter().zip(1..).find_map(|(byte, length)| {
        sum.update(&[*byte]);
        (length >= SHORTEST && is_zero(&sum)).then_some(length)
    })
}

fn is_zero(sum: &Digest<'_, u16>) -> bool {
    sum.clone().finalize() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_the_specification() {
        assert_eq!(crc(b"123456789"), 0x4b37);
        // Modbus over serial line 6.2.2, its own example.
        assert_eq!(crc(&[0x02, 0x07]), 0x1241);
    }

    #[test]
    fn a_frame_ends_where_its_checksum_does() {
        let frame = [&[0x02, 0x07][..], &0x1241u16.to_le_bytes()].concat();
        assert!(is_sealed(&frame));
        assert!(!is_sealed(&frame[..3]));
        let more = [&frame[..], &[1, 2, 3]].concat();
        assert_eq!(sealed_length(&more), Some(4));
        assert_eq!(sealed_length(&more[..3]), None);
        assert_eq!(sealed_length(&[7; 300]), None);
    }
}
