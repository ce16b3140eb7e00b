//! The fields that packets are made of: integers, strings, binary data (MQTT 5.0 section 1.5).
//!
//! Values. Invariant: a reader never looks past its packet, and never allocates for bytes that a
//! length field promises but that are not there.

use bytes::{Bytes, BytesMut};

use super::{Credential, Fault, PacketId, Text};
use crate::topic::{SubscriptionFilter, TopicError};

/// A variable byte integer has at most this many bytes.
const MAX_VARINT_BYTES: usize = 4;

/// Walks over the bytes of one packet.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(packet: &'a [u8]) -> Self {
        Self { rest: packet }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Cuts off what is to be read as a packet of its own.
    pub(super) fn part(&mut self, length: usize) -> Result<Self, Fault> {
        Ok(Self {
            rest: self.take(length)?,
        })
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn varint(&mut self) -> Result<u32, Fault> {
        let (value, length) = varint(self.rest)?.ok_or(Fault::Truncated)?;
        self.take(length)?;
        Ok(value)
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, Fault> {
        PacketId::new(self.u16()?).ok_or(Fault::ZeroPacketId)
    }

    /// A UTF-8 encoded string.
    pub(super) fn str(&mut self) -> Result<&'a str, Fault> {
        let length = self.u16()?;
        let bytes = self.take(length.into())?;
        if bytes.contains(&0) {
            return Err(Fault::NullCharacter);
        }
        std::str::from_utf8(bytes).map_err(|_| Fault::NotUtf8)
    }

    pub(super) fn text(&mut self) -> Result<Text, Fault> {
        Text::parse(self.str()?).map_err(|_| Fault::NullCharacter)
    }

    /// Binary data with its length.
    pub(super) fn binary(&mut self) -> Result<Bytes, Fault> {
        let length = self.u16()?;
        let bytes = self.take(length.into())?;
        Ok(Bytes::copy_from_slice(bytes))
    }

    pub(super) fn credential(&mut self) -> Result<Credential, Fault> {
        self.binary().map(Credential)
    }

    /// The topic filter of SUBSCRIBE and UNSUBSCRIBE.
    pub(super) fn filter(&mut self) -> Result<SubscriptionFilter, Fault> {
        SubscriptionFilter::parse(self.str()?).map_err(|error| match error {
            TopicError::Empty => Fault::EmptyFilter,
            TopicError::MisplacedHash => Fault::MisplacedHash,
            TopicError::MisplacedPlus => Fault::MisplacedPlus,
            TopicError::BadShareName | TopicError::NoSharedFilter => Fault::ShareInvalid,
            // `str` has seen to these, and a filter has no rule against wildcards.
            TopicError::TooLong | TopicError::Null | TopicError::WildcardInName => {
                Fault::NullCharacter
            }
        })
    }

    /// All that is left.
    pub(super) fn remainder(&mut self) -> Bytes {
        Bytes::copy_from_slice(std::mem::take(&mut self.rest))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }
}

/// Reads a variable byte integer and says how many bytes it took; `None` if more are needed.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Fault> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(MAX_VARINT_BYTES).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]
            let minimal = index == 0 || *byte != 0;
            return if minimal {
                Ok(Some((value, index + 1)))
            } else {
                Err(Fault::LengthNotMinimal)
            };
        }
    }
    if bytes.len() < MAX_VARINT_BYTES {
        Ok(None)
    } else {
        Err(Fault::LengthTooLong)
    }
}

/// How many bytes a variable byte integer takes.
pub(super) fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Takes encoded fields: to write them, or to know how long they are.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn byte(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn two(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn four(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// `value` is at most 268,435,455.
    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// `bytes` is at most 65,535 long: by its type, or because the encoder checked.
    fn binary(&mut self, bytes: &[u8]) {
        self.two(bytes.len() as u16);
        self.put(bytes);
    }
}

impl Sink for BytesMut {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what would be written.
#[derive(Default)]
pub(super) struct Length(pub(super) usize);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_take_the_bytes_of_table_1_1() {
        let table: [(u32, &[u8]); 8] = [
            (0, &[0x00]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xff, 0xff, 0x7f]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xff, 0xff, 0xff, 0x7f]),
        ];
        for (value, bytes) in table {
            let mut written = BytesMut::new();
            Sink::varint(&mut written, value as usize);
            assert_eq!(&written[..], bytes);
            assert_eq!(varint(bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(varint_len(value as usize), bytes.len());
            assert_eq!(varint(&bytes[..bytes.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn overlong_variable_byte_integers_are_refused() {
        assert_eq!(varint(&[0x80, 0x00]), Err(Fault::LengthNotMinimal));
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff]), Err(Fault::LengthTooLong));
    }
}
