//! Which bits of its registers are a point's own, and what digits they hold. A value.
//!
//! Invariant: a field lies within the 64 bits of the longest number.

use crate::config::{Byte, Point};

use super::own_bits;

/// Bits of the longest number.
const BITS_MAX: u16 = 64;

/// Neighbouring bits, counted from the least significant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    shift: u16,
    width: u16,
    /// Whether the rest of the registers belongs to others.
    pub(super) shared: bool,
}

impl Field {
    /// The bits that a configured point is.
    pub(super) fn of(point: &Point) -> Field {
        if let Some(bit) = point.bit {
            return Field::shared(u16::from(bit), 1);
        }
        if let Some(bits) = point.bits {
            return Field::shared(u16::from(bits.low), u16::from(bits.high - bits.low) + 1);
        }
        let kind = point.kind();
        match (own_bits(kind), point.byte) {
            (Some(8), Some(Byte::High)) => Field::shared(8, 8),
            (Some(8), _) => Field::shared(0, 8),
            _ => Field {
                shift: 0,
                width: kind.bits().unwrap_or(BITS_MAX),
                shared: false,
            },
        }
    }

    fn shared(shift: u16, width: u16) -> Field {
        Field {
            shift,
            width,
            shared: true,
        }
    }

    /// Its bits, moved to the right end.
    pub(super) fn take(self, number: u64) -> u64 {
        self.cut(number.checked_shr(self.shift.into()).unwrap_or(0))
    }

    /// As many bits of a number as the field has.
    pub(super) fn cut(self, number: u64) -> u64 {
        number & self.ones()
    }

    /// Bits at the right end, put where the field is.
    pub(super) fn place(self, bits: u64) -> u64 {
        let cut = self.cut(bits);
        cut.checked_shl(self.shift.into()).unwrap_or(0)
    }

    /// As a number in two's complement.
    pub(super) fn signed(self, bits: u64) -> i64 {
        let unused = BITS_MAX - self.width.clamp(1, BITS_MAX);
        (bits << unused).cast_signed() >> unused
    }

    /// Bits that it has.
    pub(super) fn width(self) -> u16 {
        self.width
    }

    fn ones(self) -> u64 {
        let unused = BITS_MAX.saturating_sub(self.width);
        u64::MAX.checked_shr(unused.into()).unwrap_or(0)
    }
}

/// The number whose one set bit is `bit`; none is set for a bit that no number has.
pub(super) fn one(bit: i64) -> u64 {
    let bit = u32::try_from(bit).unwrap_or(u32::MAX);
    1u64.checked_shl(bit).unwrap_or(0)
}

/// The number whose decimal digits stand in half bytes; `None` if one is above nine.
pub(super) fn from_bcd(bits: u64) -> Option<u64> {
    (0..BITS_MAX / 4).rev().try_fold(0u64, |number, place| {
        let digit = bits >> (4 * place) & 0xf;
        (digit <= 9).then_some(number * 10 + digit)
    })
}

/// The digits of a number of at most sixteen in half bytes.
pub(super) fn to_bcd(mut number: u64) -> u64 {
    let mut bits = 0;
    for place in 0..BITS_MAX / 4 {
        bits |= (number % 10) << (4 * place);
        number /= 10;
    }
    bits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_stand_in_half_bytes() {
        assert_eq!(from_bcd(0x1234), Some(1234));
        assert_eq!(from_bcd(0x9999_9999_9999_9999), Some(9_999_999_999_999_999));
        assert_eq!(from_bcd(0x12A4), None);
    }

    proptest! {
        #[test]
        fn every_number_of_sixteen_digits_comes_back(number in 0..10_000_000_000_000_000u64) {
            prop_assert_eq!(from_bcd(to_bcd(number)), Some(number));
        }

        #[test]
        fn what_is_placed_is_taken(bits: u64, shift in 0u16..64, width in 1u16..=64) {
            prop_assume!(shift + width <= 64);
            let field = Field::shared(shift, width);
            prop_assert_eq!(field.take(field.place(bits)), field.cut(bits));
        }
    }
}
