//! Order in which a value's bytes arrive; letters name them from the most significant. A value.
//!
//! `ABCD` is the Modbus order. The four names of two registers are patterns that hold for every
//! length; a name of another length stands for values of exactly so many bytes.
//!
//! Invariant: the two bytes of a register stand together, and all registers alike.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

/// Most registers of a number.
const REGISTERS_MAX: usize = 4;

/// Order of registers, and of the bytes within them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", extend(
    "format" = "byte-order",
    "examples" = ["ABCD", "CDAB", "BADC", "DCBA", "GHEFCDAB", "BADCFEHG"]
))]
pub struct WordOrder {
    words: Words,
    bytes_swapped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// The most significant first.
    Straight,
    /// The least significant first.
    Reversed,
    /// Which register of the value, counted from the most significant, arrives at each place.
    Listed {
        count: usize,
        places: [u8; REGISTERS_MAX],
    },
}

impl WordOrder {
    /// Big-endian words and bytes: the Modbus order.
    pub const ABCD: WordOrder = WordOrder::pattern(Words::Straight, false);
    /// Words swapped.
    pub const CDAB: WordOrder = WordOrder::pattern(Words::Reversed, false);
    /// Bytes swapped within words.
    pub const BADC: WordOrder = WordOrder::pattern(Words::Straight, true);
    /// Words and bytes swapped: little-endian.
    pub const DCBA: WordOrder = WordOrder::pattern(Words::Reversed, true);

    const fn pattern(words: Words, bytes_swapped: bool) -> WordOrder {
        WordOrder {
            words,
            bytes_swapped,
        }
    }

    /// Registers that a value must have for this order; `None`: any.
    pub fn registers(self) -> Option<usize> {
        match self.words {
            Words::Straight | Words::Reversed => None,
            Words::Listed { count, .. } => Some(count),
        }
    }

    /// Whether the bytes within a register stand against the Modbus order.
    pub fn swaps_bytes(self) -> bool {
        self.bytes_swapped
    }

    /// The bytes of registers as they arrived, the most significant first.
    pub(crate) fn to_big_endian(self, words: &[u16]) -> Vec<u8> {
        let mut bytes = vec![0; 2 * words.len()];
        for (place, word) in words.iter().enumerate() {
            let at = 2 * self.significance(place, words.len());
            if let Some(pair) = bytes.get_mut(at..at + 2) {
                pair.copy_from_slice(&self.pair(*word));
            }
        }
        bytes
    }

    /// The registers that [`WordOrder::to_big_endian`] makes these bytes of.
    pub(crate) fn to_registers(self, bytes: &[u8]) -> Vec<u16> {
        let count = bytes.len() / 2;
        let word = |place: usize| {
            let at = 2 * self.significance(place, count);
            let pair = bytes.get(at..at + 2).unwrap_or(&[0, 0]);
            self.pair_word([pair[0], pair[1]])
        };
        (0..count).map(word).collect()
    }

    /// Which register, counted from the most significant, arrives at `place` of `count`.
    fn significance(self, place: usize, count: usize) -> usize {
        match self.words {
            Words::Reversed => count - 1 - place,
            Words::Listed {
                count: listed,
                places,
            } if listed == count => usize::from(places[place]),
            Words::Straight | Words::Listed { .. } => place,
        }
    }

    fn pair(self, word: u16) -> [u8; 2] {
        if self.bytes_swapped {
            word.to_le_bytes()
        } else {
            word.to_be_bytes()
        }
    }

    fn pair_word(self, pair: [u8; 2]) -> u16 {
        if self.bytes_swapped {
            u16::from_le_bytes(pair)
        } else {
            u16::from_be_bytes(pair)
        }
    }
}

impl Default for WordOrder {
    fn default() -> WordOrder {
        WordOrder::ABCD
    }
}

impl FromStr for WordOrder {
    type Err = &'static str;

    /// Reads `ABCD`, `BA`, `CDABEF`, `GHEFCDAB`.
    fn from_str(text: &str) -> Result<WordOrder, &'static str> {
        let count = text.len() / 2;
        if !text.len().is_multiple_of(2) || !(1..=REGISTERS_MAX).contains(&count) {
            return Err("write the letters of 2, 4, 6 or 8 bytes, such as ABCD or GHEFCDAB");
        }
        let mut places = [0; REGISTERS_MAX];
        let mut swapped = Vec::with_capacity(count);
        for (place, pair) in places.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (low, high) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            let letter = low.wrapping_sub(b'A');
            if usize::from(letter) >= 2 * count || letter % 2 != 0 || high != low + 1 {
                return Err("the two bytes of a register stand together: AB or BA, CD or DC, …");
            }
            *place = letter / 2;
            swapped.push(pair[0] > pair[1]);
        }
        let bytes_swapped = swapped[0];
        if swapped.iter().any(|other| *other != bytes_swapped) {
            return Err("the bytes are swapped in all registers or in none");
        }
        let listed = &places[..count];
        if (0..count).any(|word| listed.iter().filter(|at| usize::from(**at) == word).count() != 1)
        {
            return Err("each byte stands once");
        }
        Ok(WordOrder::pattern(words(count, places), bytes_swapped))
    }
}

fn words(count: usize, places: [u8; REGISTERS_MAX]) -> Words {
    let straight = places[..count].is_sorted();
    match count {
        1 | 2 if straight => Words::Straight,
        1 | 2 => Words::Reversed,
        _ => Words::Listed { count, places },
    }
}

/// As it is written.
impl fmt::Display for WordOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.registers().unwrap_or(2);
        for place in 0..count {
            let register = u8::try_from(self.significance(place, count)).unwrap_or(0);
            let high = char::from(b'A' + 2 * register);
            let low = char::from(b'B' + 2 * register);
            if self.bytes_swapped {
                write!(f, "{low}{high}")?;
            } else {
                write!(f, "{high}{low}")?;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for WordOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The letters as bytes on the wire.
    fn wire(text: &str) -> Vec<u16> {
        let pair = |pair: &[u8]| u16::from_be_bytes([pair[0], pair[1]]);
        text.as_bytes().chunks_exact(2).map(pair).collect()
    }

    fn every_order() -> Vec<&'static str> {
        vec![
            "ABCD", "CDAB", "BADC", "DCBA", "ABCDEF", "EFCDAB", "BADCFE", "FEDCBA", "CDABEF",
            "ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA", "CDABGHEF", "EFGHABCD", "FEHGBADC",
        ]
    }

    #[test]
    fn a_name_is_the_bytes_as_they_arrive() {
        for name in every_order() {
            let order: WordOrder = name.parse().expect("an order");
            let sorted = &b"ABCDEFGH"[..name.len()];
            assert_eq!(order.to_big_endian(&wire(name)), sorted, "{name}");
            assert_eq!(order.to_registers(sorted), wire(name), "{name}");
            assert_eq!(order.to_string(), name);
        }
    }

    #[test]
    fn four_letters_are_a_pattern_for_every_length() {
        for (pattern, six, eight) in [
            ("ABCD", "ABCDEF", "ABCDEFGH"),
            ("CDAB", "EFCDAB", "GHEFCDAB"),
            ("BADC", "BADCFE", "BADCFEHG"),
            ("DCBA", "FEDCBA", "HGFEDCBA"),
        ] {
            let order: WordOrder = pattern.parse().expect("an order");
            assert_eq!(order.registers(), None);
            assert_eq!(order.to_big_endian(&wire(six)), b"ABCDEF");
            assert_eq!(order.to_big_endian(&wire(eight)), b"ABCDEFGH");
        }
        assert_eq!("BA".parse(), Ok(WordOrder::BADC));
        assert_eq!("AB".parse(), Ok(WordOrder::ABCD));
    }

    #[test]
    fn what_no_device_sends_is_refused() {
        for text in [
            "",
            "A",
            "ABC",
            "ACBD",
            "ABDC",
            "ABAB",
            "abcd",
            "ABCE",
            "CDEF",
            "ABCDEFGHIJ",
            "ÄBC",
        ] {
            assert!(text.parse::<WordOrder>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn registers_come_back_from_their_bytes(
            words in prop::collection::vec(any::<u16>(), 1..=4),
            name in prop::sample::select(every_order()),
        ) {
            let order: WordOrder = name.parse().expect("an order");
            prop_assert_eq!(order.to_registers(&order.to_big_endian(&words)), words);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC*") {
            if let Ok(order) = text.parse::<WordOrder>() {
                prop_assert_eq!(order.to_big_endian(&[0; 3]).len(), 6);
            }
        }
    }
}
