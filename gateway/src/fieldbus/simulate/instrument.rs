//! What a simulated device holds, and how it moves. A core.
//!
//! Invariant: what a table holds depends on what was written before and on the time alone.

use std::f64::consts::TAU;

use crate::{
    config::Point,
    fieldbus::register::{Register, Table},
};

use super::{
    memory::{Memory, Span},
    points::Points,
};

/// Elements of the meter's and the controller's tables.
const METER_INPUTS: u16 = 80;
const CONTROLLER_INPUTS: u16 = 2;
const BITS: u16 = 8;
const HOLDING: u16 = 16;

/// What a device of the demonstration is.
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

/// A device's tables and what moves in them.
#[derive(Debug)]
pub(super) struct Instrument {
    pub(super) memory: Memory,
    pub(super) contents: Contents,
}

/// What moves in a device's tables.
#[derive(Debug)]
pub(super) enum Contents {
    Meter,
    Controller,
    /// Configured points.
    Points(Points),
    /// Input registers and discrete inputs that count.
    Counters,
}

impl Instrument {
    /// A device of the demonstration as it comes from the factory.
    pub(super) fn of(kind: Kind) -> Instrument {
        let (inputs, contents) = match kind {
            Kind::Meter => (METER_INPUTS, Contents::Meter),
            Kind::Controller => (CONTROLLER_INPUTS, Contents::Controller),
        };
        let mut memory = Memory::default();
        for (table, count) in [
            (Table::Coil, BITS),
            (Table::Discrete, BITS),
            (Table::Input, inputs),
            (Table::Holding, HOLDING),
        ] {
            let start = 0;
            memory.make(Span {
                table,
                start,
                count,
            });
        }
        memory.put(register(Table::Holding, 0), 400);
        Instrument { memory, contents }
    }

    /// A device with these points.
    pub(super) fn with_points(points: &[Point], seed: u64) -> Instrument {
        let mut memory = Memory::default();
        let points = Points::new(points, seed, &mut memory);
        Instrument {
            memory,
            contents: Contents::Points(points),
        }
    }

    /// A device with these elements: what only it can write counts, the rest is zero.
    pub(super) fn with_spans(spans: &[Span]) -> Instrument {
        let mut memory = Memory::default();
        for span in spans {
            memory.make(*span);
        }
        Instrument {
            memory,
            contents: Contents::Counters,
        }
    }
}

impl Contents {
    /// Brings what is about to be read to where it is `seconds` after the device was switched on.
    pub(super) fn refresh(&mut self, span: Span, seconds: f64, memory: &mut Memory) {
        match self {
            Contents::Meter => meter(seconds, memory),
            Contents::Controller => controller(seconds, memory),
            Contents::Points(points) => points.refresh(span, seconds, memory),
            Contents::Counters => count(span, seconds, memory),
        }
    }

    /// What a client has written stays as it is.
    pub(super) fn written(&mut self, span: Span) {
        if let Contents::Points(points) = self {
            points.written(span);
        }
    }

    /// Writes a point by its name.
    ///
    /// # Errors
    /// What is wrong with the name or the value.
    pub(super) fn set(
        &mut self,
        point: &str,
        value: &serde_json::Value,
        memory: &mut Memory,
    ) -> Result<(), String> {
        match self {
            Contents::Points(points) => points.set(point, value, memory),
            _ => Err("this device has no points, only registers".to_owned()),
        }
    }
}

/// A three-phase load that comes and goes; unused registers read zero.
fn meter(seconds: f64, memory: &mut Memory) {
    let wave = |period_s: f64| (seconds * TAU / period_s).sin();
    let voltage = 230.0 + 2.5 * wave(47.0) + 0.4 * wave(3.0);
    let current = 12.0 + 4.0 * wave(31.0) + 0.5 * wave(5.0);
    let frequency = 50.0 + 0.02 * wave(19.0);
    let energy = 4_711.0 + seconds * 2.76 / 3.6;
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
        let [a, b, c, d] = single.to_be_bytes();
        memory.put(register(Table::Input, address), word(a, b));
        memory.put(register(Table::Input, address + 1), word(c, d));
    }
}

/// A room that the pump cools; the pump runs when its coil says so.
fn controller(seconds: f64, memory: &mut Memory) {
    let wave = |period_s: f64| (seconds * TAU / period_s).sin();
    let pump = memory.at(register(Table::Coil, 0)).unwrap_or(0);
    let cooled = if pump == 0 { 0.0 } else { 4.0 };
    let temperature = 21.5 + 1.5 * wave(90.0) + 0.2 * wave(7.0) - cooled;
    let humidity = 55.0 - 5.0 * wave(90.0);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "tenths of a room's values are small"
    )]
    let tenths = |value: f64| ((value * 10.0).round() as i16).cast_unsigned();
    memory.put(register(Table::Input, 0), tenths(temperature));
    memory.put(register(Table::Input, 1), tenths(humidity));
    memory.put(register(Table::Discrete, 0), pump);
}

/// Each register counts seconds, from its own address on; each bit changes every second.
fn count(span: Span, seconds: f64, memory: &mut Memory) {
    if span.table.is_writable() {
        return;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds, of which the low bits count"
    )]
    let ticks = (seconds as u64 & 0xffff) as u16;
    for address in span.addresses().flatten() {
        let count = address.wrapping_add(ticks);
        let value = if span.table.is_bits() {
            count & 1
        } else {
            count
        };
        memory.put(register(span.table, address), value);
    }
}

fn register(table: Table, address: u16) -> Register {
    Register { table, address }
}

fn word(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::{super::memory::Access, *};

    fn read(instrument: &mut Instrument, pdu: &[u8], seconds: f64) -> Vec<u8> {
        let access = Access::parse(pdu).expect("a request");
        let span = access.reads().expect("a read");
        let Instrument { memory, contents } = instrument;
        contents.refresh(span, seconds, memory);
        memory.execute(&access, pdu).expect("an answer")
    }

    #[test]
    fn a_meter_measures_a_mains_voltage() {
        let answer = read(&mut Instrument::of(Kind::Meter), &[4, 0, 0, 0, 2], 10.0);
        let bytes = [answer[1], answer[2], answer[3], answer[4]];
        assert_eq!(answer[0], 4);
        assert!((220.0..240.0).contains(&f32::from_be_bytes(bytes)));
    }

    #[test]
    fn a_pump_that_is_switched_on_says_so_and_cools() {
        let mut pump = Instrument::of(Kind::Controller);
        let warm = read(&mut pump, &[4, 0, 0, 0, 1], 0.0);
        pump.memory.put(register(Table::Coil, 0), 1);
        let cool = read(&mut pump, &[4, 0, 0, 0, 1], 0.0);
        assert_eq!(word(warm[1], warm[2]) - word(cool[1], cool[2]), 40);
        assert_eq!(read(&mut pump, &[2, 0, 0, 0, 8], 0.0), [1, 1]);
    }

    #[test]
    fn bare_registers_count_and_writable_ones_keep_what_they_have() {
        let span = |table| Span {
            table,
            start: 10,
            count: 2,
        };
        let mut device = Instrument::with_spans(&[
            span(Table::Input),
            span(Table::Discrete),
            span(Table::Holding),
        ]);
        assert_eq!(read(&mut device, &[4, 0, 10, 0, 2], 5.5), [4, 0, 15, 0, 16]);
        assert_eq!(read(&mut device, &[2, 0, 10, 0, 2], 5.5), [1, 0b01]);
        assert_eq!(read(&mut device, &[3, 0, 10, 0, 2], 5.5), [4, 0, 0, 0, 0]);
    }
}
