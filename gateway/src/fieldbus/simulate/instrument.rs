//! What a simulated device measures and how it answers a request. A core.
//!
//! Invariant: the answer depends on the request, what was written before, and the time alone.

use std::{collections::BTreeMap, f64::consts::TAU};

/// Exception codes (application protocol, section 7).
const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_ADDRESS: u8 = 2;
const ILLEGAL_VALUE: u8 = 3;

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An energy meter with floating-point input registers: voltage at 0, current at 6, power at
    /// 12, frequency at 70, energy in kWh at 72; holding register 0 is a current limit in tenths.
    Meter,
    /// A pump controller: temperature in tenths (signed) at input register 0, humidity in tenths
    /// at 1; a setpoint in tenths at holding register 0 and a mode at 1; the pump at coil 0, its
    /// feedback at discrete input 0.
    Controller,
}

/// A device's registers.
#[derive(Debug, Clone)]
pub struct Instrument {
    kind: Kind,
    unit: u8,
    holding: [u16; 16],
    coils: [bool; 8],
}

impl Instrument {
    /// A device as it comes from the factory.
    pub fn new(kind: Kind, unit: u8) -> Instrument {
        let mut holding = [0; 16];
        holding[0] = 400;
        Instrument {
            kind,
            unit,
            holding,
            coils: [false; 8],
        }
    }

    /// Its unit identifier.
    pub fn unit(&self) -> u8 {
        self.unit
    }

    /// A holding register as it is now.
    pub fn holding(&self, address: u16) -> Option<u16> {
        self.holding.get(usize::from(address)).copied()
    }

    /// The answer to a protocol data unit (application protocol, section 6), `seconds` after the
    /// device was switched on.
    pub fn answer(&mut self, pdu: &[u8], seconds: f64) -> Vec<u8> {
        let function = pdu.first().copied().unwrap_or(0);
        let answered = match *pdu {
            [1 | 2, a, b, c, d] => self.bits(function, word(a, b), word(c, d)),
            [3 | 4, a, b, c, d] => self.registers(function, word(a, b), word(c, d), seconds),
            [5, a, b, c, d] => self.write_coil(word(a, b), word(c, d)),
            [6, a, b, c, d] => self.write(word(a, b), &[c, d]),
            [15, a, b, c, d, _, ref data @ ..] => self.write_coils(word(a, b), word(c, d), data),
            [16, a, b, _, _, _, ref data @ ..] => self.write(word(a, b), data),
            [22, a, b, c, d, e, f] => self.mask(word(a, b), word(c, d), word(e, f)),
            _ => Err(ILLEGAL_FUNCTION),
        };
        match answered {
            Ok(Some(data)) => {
                let count = u8::try_from(data.len()).unwrap_or(u8::MAX);
                [vec![function, count], data].concat()
            }
            // A write is confirmed by its first five bytes; a mask by all of it.
            Ok(None) if function == 22 => pdu.to_vec(),
            Ok(None) => pdu[..5].to_vec(),
            Err(exception) => vec![function | 0x80, exception],
        }
    }

    fn bits(&self, function: u8, start: u16, count: u16) -> Result<Option<Vec<u8>>, u8> {
        if !(1..=2_000).contains(&count) {
            return Err(ILLEGAL_VALUE);
        }
        let mut data = vec![0; usize::from(count).div_ceil(8)];
        for index in 0..usize::from(count) {
            let address = usize::from(start) + index;
            let bit = match function {
                1 => self.coils.get(address).copied(),
                // Feedback: the pump runs when its coil says so.
                _ => (address < 8).then(|| address == 0 && self.coils[0]),
            };
            data[index / 8] |= u8::from(bit.ok_or(ILLEGAL_ADDRESS)?) << (index % 8);
        }
        Ok(Some(data))
    }

    fn registers(
        &self,
        function: u8,
        start: u16,
        count: u16,
        seconds: f64,
    ) -> Result<Option<Vec<u8>>, u8> {
        if !(1..=125).contains(&count) {
            return Err(ILLEGAL_VALUE);
        }
        let inputs = self.inputs(seconds);
        let register = |address: u16| match function {
            3 => self.holding(address),
            _ => inputs.get(&address).copied(),
        };
        let addresses = (0..count).map(|index| start.checked_add(index));
        let words: Option<Vec<u16>> = addresses.map(|address| register(address?)).collect();
        let words = words.ok_or(ILLEGAL_ADDRESS)?;
        Ok(Some(words.into_iter().flat_map(u16::to_be_bytes).collect()))
    }

    fn write_coil(&mut self, address: u16, value: u16) -> Result<Option<Vec<u8>>, u8> {
        let coil = self.coils.get_mut(usize::from(address));
        let coil = coil.ok_or(ILLEGAL_ADDRESS)?;
        *coil = match value {
            0xff00 => true,
            0 => false,
            _ => return Err(ILLEGAL_VALUE),
        };
        Ok(None)
    }

    fn write_coils(
        &mut self,
        address: u16,
        count: u16,
        data: &[u8],
    ) -> Result<Option<Vec<u8>>, u8> {
        let (start, count) = (usize::from(address), usize::from(count));
        if data.len() != count.div_ceil(8) {
            return Err(ILLEGAL_VALUE);
        }
        let coils = self.coils.get_mut(start..start + count);
        for (index, coil) in coils.ok_or(ILLEGAL_ADDRESS)?.iter_mut().enumerate() {
            *coil = data[index / 8] >> (index % 8) & 1 == 1;
        }
        Ok(None)
    }

    fn write(&mut self, address: u16, data: &[u8]) -> Result<Option<Vec<u8>>, u8> {
        let start = usize::from(address);
        let words: Vec<u16> = data
            .chunks_exact(2)
            .map(|pair| word(pair[0], pair[1]))
            .collect();
        let place = self.holding.get_mut(start..start + words.len());
        place.ok_or(ILLEGAL_ADDRESS)?.copy_from_slice(&words);
        Ok(None)
    }

    fn mask(&mut self, address: u16, and: u16, or: u16) -> Result<Option<Vec<u8>>, u8> {
        let register = self.holding.get_mut(usize::from(address));
        let register = register.ok_or(ILLEGAL_ADDRESS)?;
        *register = *register & and | or & !and;
        Ok(None)
    }

    fn inputs(&self, seconds: f64) -> BTreeMap<u16, u16> {
        match self.kind {
            Kind::Meter => meter(seconds),
            Kind::Controller => controller(seconds, self.coils[0]),
        }
    }
}

/// A three-phase load that comes and goes; unused registers read zero.
fn meter(seconds: f64) -> BTreeMap<u16, u16> {
    let wave = |period_s: f64| (seconds * TAU / period_s).sin();
    let voltage = 230.0 + 2.5 * wave(47.0) + 0.4 * wave(3.0);
    let current = 12.0 + 4.0 * wave(31.0) + 0.5 * wave(5.0);
    let frequency = 50.0 + 0.02 * wave(19.0);
    let energy = 4_711.0 + seconds * 2.76 / 3.6;
    let mut registers: BTreeMap<u16, u16> = (0..80).map(|address| (address, 0)).collect();
    for (address, value, step) in [
        (0, voltage, 0.1),
        (6, current, 0.01),
        (12, voltage * current, 1.0),
        (70, frequency, 0.01),
        (72, energy, 0.01),
    ] {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the register is single precision"
        )]
        let single = ((value / step).round() * step) as f32;
        let bits = single.to_bits();
        for (offset, half) in [(0, bits >> 16), (1, bits & 0xffff)] {
            registers.insert(address + offset, u16::try_from(half).unwrap_or(0));
        }
    }
    registers
}

/// A room that the pump cools.
fn controller(seconds: f64, pump: bool) -> BTreeMap<u16, u16> {
    let wave = |period_s: f64| (seconds * TAU / period_s).sin();
    let cooled = if pump { 4.0 } else { 0.0 };
    let temperature = 21.5 + 1.5 * wave(90.0) + 0.2 * wave(7.0) - cooled;
    let humidity = 55.0 - 5.0 * wave(90.0);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "tenths of a room's values are small"
    )]
    let tenths = |value: f64| ((value * 10.0).round() as i16).cast_unsigned();
    BTreeMap::from([(0, tenths(temperature)), (1, tenths(humidity))])
}

fn word(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_measures_a_mains_voltage() {
        let answer = Instrument::new(Kind::Meter, 1).answer(&[4, 0, 0, 0, 2], 10.0);
        let bytes = [answer[2], answer[3], answer[4], answer[5]];
        assert_eq!(answer[..2], [4, 4]);
        assert!((220.0..240.0).contains(&f32::from_be_bytes(bytes)));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut controller = Instrument::new(Kind::Controller, 1);
        assert_eq!(controller.answer(&[6, 0, 0, 1, 5], 0.0), [6, 0, 0, 1, 5]);
        assert_eq!(controller.answer(&[3, 0, 0, 0, 1], 0.0), [3, 2, 1, 5]);
        let many = [16, 0, 2, 0, 2, 4, 0, 1, 0, 2];
        assert_eq!(controller.answer(&many, 0.0), [16, 0, 2, 0, 2]);
        assert_eq!(controller.answer(&[3, 0, 2, 0, 2], 0.0), [3, 4, 0, 1, 0, 2]);
        assert_eq!(
            controller.answer(&[5, 0, 0, 0xff, 0], 0.0),
            [5, 0, 0, 0xff, 0]
        );
        assert_eq!(controller.answer(&[2, 0, 0, 0, 8], 0.0), [2, 1, 1]);
        let coils = [15, 0, 2, 0, 3, 1, 0b101];
        assert_eq!(controller.answer(&coils, 0.0), [15, 0, 2, 0, 3]);
        assert_eq!(controller.answer(&[1, 0, 0, 0, 8], 0.0), [1, 1, 0b1_0101]);
        let masked = [22, 0, 0, 0xff, 0xfe, 0, 0];
        assert_eq!(controller.answer(&masked, 0.0), masked);
        assert_eq!(controller.holding(0), Some(0x0104));
    }

    #[test]
    fn what_it_does_not_have_is_answered_by_an_exception() {
        let mut controller = Instrument::new(Kind::Controller, 1);
        assert_eq!(controller.answer(&[4, 0, 9, 0, 1], 0.0), [0x84, 2]);
        assert_eq!(controller.answer(&[3, 0, 0, 0, 0], 0.0), [0x83, 3]);
        assert_eq!(controller.answer(&[15, 0, 7, 0, 2, 1, 3], 0.0), [0x8f, 2]);
        assert_eq!(
            controller.answer(&[15, 0, 0, 0, 2, 2, 3, 3], 0.0),
            [0x8f, 3]
        );
        assert_eq!(controller.answer(&[43, 14, 1, 0], 0.0), [0xab, 1]);
        assert_eq!(controller.answer(&[], 0.0), [0x80, 1]);
    }
}
