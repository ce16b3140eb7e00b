//! How long characters and frames take on a serial line. A value.
//!
//! Invariant: times are those of a line without gaps, rounded up to whole nanoseconds.

use std::time::Duration;

use crate::config::{Bus, Parity};

/// Above this rate the silence between frames is fixed (Modbus over serial line 2.5.1.1).
const FIXED_SILENCE_ABOVE_BAUD: u32 = 19_200;
/// The fixed silence.
const FIXED_SILENCE: Duration = Duration::from_micros(1_750);
/// Start bit and eight data bits, which every RTU character has.
const START_AND_DATA_BITS: u8 = 9;

/// Bits per second and bits per character of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRate {
    baud: u32,
    bits_per_character: u8,
}

impl LineRate {
    /// The rate of a line; `stop_bits` by default 1, or 2 without parity, which keeps eleven bits
    /// per character (Modbus over serial line 2.5.1).
    pub fn new(baud: u32, parity: Parity, stop_bits: Option<u8>) -> LineRate {
        let parity_bits = u8::from(parity != Parity::None);
        let stop_bits = stop_bits.unwrap_or(2 - parity_bits);
        LineRate {
            baud: baud.max(1),
            bits_per_character: START_AND_DATA_BITS + parity_bits + stop_bits,
        }
    }

    /// The rate as a bus is configured.
    pub fn of(bus: &Bus) -> LineRate {
        LineRate::new(bus.baud, bus.parity, bus.stop_bits)
    }

    /// Time of one character.
    pub fn character(self) -> Duration {
        self.frame(1)
    }

    /// Time of a frame of so many bytes without gaps.
    pub fn frame(self, bytes: usize) -> Duration {
        let bits = bytes as u128 * u128::from(self.bits_per_character);
        self.bits(bits)
    }

    /// Silence that ends a frame: 3.5 characters, or 1.75 ms above 19,200 baud (2.5.1.1).
    pub fn silence(self) -> Duration {
        if self.baud > FIXED_SILENCE_ABOVE_BAUD {
            return FIXED_SILENCE;
        }
        self.frame(7) / 2
    }

    fn bits(self, bits: u128) -> Duration {
        let nanos = (bits * 1_000_000_000).div_ceil(u128::from(self.baud));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_has_eleven_bits_unless_told_otherwise() {
        let even = LineRate::new(9_600, Parity::Even, None);
        let none = LineRate::new(9_600, Parity::None, None);
        let short = LineRate::new(9_600, Parity::None, Some(1));
        assert_eq!(even.character(), Duration::from_nanos(1_145_834));
        assert_eq!(none, even);
        assert_eq!(short.character(), Duration::from_nanos(1_041_667));
    }

    #[test]
    fn silence_is_three_and_a_half_characters_up_to_19200_baud_and_fixed_above() {
        let silence = |baud| {
            LineRate::new(baud, Parity::Even, None)
                .silence()
                .as_micros()
        };
        assert_eq!(silence(9_600), 4_010);
        assert_eq!(silence(19_200), 2_005);
        assert_eq!(silence(38_400), 1_750);
        assert_eq!(silence(115_200), 1_750);
    }

    #[test]
    fn a_frame_takes_as_long_as_its_characters() {
        let rate = LineRate::new(19_200, Parity::Even, None);
        assert_eq!(rate.frame(256).as_micros(), 146_666);
    }
}
