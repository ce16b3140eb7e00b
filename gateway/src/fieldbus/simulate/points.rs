//! Configured points as a simulated device holds them. A core.
//!
//! Invariant: a point moves until somebody writes it, and then stays; one that commands may write
//! stands still from the start.

use serde_json::Value as Json;

use crate::{
    config::{Access, Point},
    fieldbus::{
        decode::{Codec, Encoded},
        register::Register,
    },
};

use super::{
    memory::{Memory, Span},
    signal::Signal,
};

/// Elements between points that exist, too, as in most devices; no request reads across more.
const GAP_MAX: u16 = 125;

/// The points of one device.
#[derive(Debug)]
pub(super) struct Points(Vec<Moving>);

#[derive(Debug)]
struct Moving {
    name: String,
    span: Span,
    codec: Codec,
    signal: Signal,
    stands: bool,
}

impl Points {
    /// Makes the points' elements in `memory` and puts their first values there.
    pub(super) fn new(points: &[Point], seed: u64, memory: &mut Memory) -> Points {
        let moving = points.iter().zip(seed..).map(|(point, seed)| {
            let codec = Codec::of(point);
            Moving {
                name: point.name.clone(),
                span: Span {
                    table: point.register.table,
                    start: point.register.address,
                    count: point.elements(),
                },
                signal: Signal::of(point, &codec, seed),
                codec,
                stands: point.access != Access::Read,
            }
        });
        let points: Vec<Moving> = moving.collect();
        for point in &points {
            memory.make(point.span);
        }
        for point in &points {
            point.refresh(0.0, memory);
        }
        memory.fill_gaps(GAP_MAX);
        Points(points)
    }

    /// Brings the points of a span to where they are now.
    pub(super) fn refresh(&self, span: Span, seconds: f64, memory: &mut Memory) {
        let read = |point: &&Moving| !point.stands && overlap(point.span, span);
        for point in self.0.iter().filter(read) {
            point.refresh(seconds, memory);
        }
    }

    /// What was written no longer moves.
    pub(super) fn written(&mut self, span: Span) {
        for point in &mut self.0 {
            point.stands |= overlap(point.span, span);
        }
    }

    /// Writes a point by its name, in its unit.
    ///
    /// # Errors
    /// There is no such point, or the value does not fit it.
    pub(super) fn set(
        &mut self,
        name: &str,
        value: &Json,
        memory: &mut Memory,
    ) -> Result<(), String> {
        let Some(place) = self.0.iter().position(|point| point.name == name) else {
            let names: Vec<&str> = self.0.iter().map(|point| point.name.as_str()).collect();
            return Err(format!("no point {name:?}; there are {}", names.join(", ")));
        };
        let point = &mut self.0[place];
        let encoded = match value.as_f64() {
            Some(number) => Ok(point.codec.nearest(number)),
            None => point.codec.encode(value),
        };
        let encoded = encoded.map_err(|error| format!("point {name}: {error}"))?;
        point.put(&encoded, memory);
        point.stands = true;
        Ok(())
    }
}

impl Moving {
    fn refresh(&self, seconds: f64, memory: &mut Memory) {
        if let Some(number) = self.signal.number(seconds) {
            self.put(&self.codec.nearest(number), memory);
        } else if let Some(state) = self.signal.state(seconds)
            && let Ok(encoded) = self.codec.encode(state)
        {
            self.put(&encoded, memory);
        }
    }

    fn put(&self, encoded: &Encoded, memory: &mut Memory) {
        let table = self.span.table;
        let register = |offset: u16| Register {
            table,
            address: self.span.start.saturating_add(offset),
        };
        match encoded {
            Encoded::Coil(bit) => memory.put(register(0), u16::from(*bit)),
            Encoded::Registers(words) => {
                for (word, offset) in words.iter().zip(0..) {
                    memory.put(register(offset), *word);
                }
            }
            Encoded::Mask { and, or } => {
                let old = memory.at(register(0)).unwrap_or(0);
                memory.put(register(0), old & and | or & !and);
            }
        }
    }
}

fn overlap(one: Span, other: Span) -> bool {
    let end = |span: Span| u32::from(span.start) + u32::from(span.count);
    one.table == other.table
        && u32::from(one.start) < end(other)
        && u32::from(other.start) < end(one)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{config::PointType, fieldbus::register::Table};

    fn points(written: serde_json::Value) -> Vec<Point> {
        serde_json::from_value(written).expect("points")
    }

    /// What the client would publish of a point at this moment.
    fn seen(point: &Point, points: &Points, memory: &mut Memory, seconds: f64) -> Json {
        let codec = Codec::of(point);
        let Register { table, address } = point.register;
        let count = point.elements();
        let span = Span {
            table,
            start: address,
            count,
        };
        points.refresh(span, seconds, memory);
        let words: Vec<u16> = span
            .addresses()
            .flatten()
            .filter_map(|address| memory.at(Register { table, address }))
            .collect();
        assert_eq!(words.len(), usize::from(count), "{} exists", point.name);
        let value = if table.is_bits() {
            codec.decode_bit(words[0] != 0)
        } else {
            codec.decode(&words).expect("a value")
        };
        serde_json::from_str(&value.to_string()).unwrap_or_else(|_| json!(value.to_string()))
    }

    #[test]
    fn every_type_shows_a_value_that_the_client_can_read() {
        use PointType::*;
        let types = [
            Bool, U8, I8, U16, I16, U24, I24, U32, I32, U48, I48, U64, I64, F16, F32, F64, Bcd8,
            Bcd16, Bcd24, Bcd32, Bcd48, Bcd64, String, Raw,
        ];
        let points: Vec<Point> = (0..)
            .zip(types)
            .map(|(place, kind)| Point {
                name: kind.word().to_owned(),
                length: matches!(kind, String | Raw).then_some(4),
                order: if place % 2 == 0 { "ABCD" } else { "DCBA" }
                    .parse()
                    .expect("order"),
                ..Point::example(&format!("input:{}", 10 * place), Some(kind))
            })
            .collect();
        let mut memory = Memory::default();
        let simulated = Points::new(&points, 1, &mut memory);
        for point in &points {
            for second in [0.0, 7.0, 13.0, 1e6] {
                let value = seen(point, &simulated, &mut memory, second);
                assert!(!value.is_null(), "{}", point.name);
            }
        }
        assert_eq!(
            seen(&points[22], &simulated, &mut memory, 0.0),
            json!("SIM-stri")
        );
    }

    #[test]
    fn states_follow_each_other_and_neighbouring_bits_do_not_touch() {
        let points = points(json!([
            { "name": "mode", "register": "input:0", "bits": "0..3", "values": { "0": "off", "1": "on" } },
            { "name": "alarm", "register": "input:0", "bit": 7 },
            { "name": "faults", "register": "input:1", "flags": { "0": "low", "3": "high" } },
        ]));
        let mut memory = Memory::default();
        let simulated = Points::new(&points, 1, &mut memory);
        let mut look =
            |index: usize, seconds| seen(&points[index], &simulated, &mut memory, seconds);
        assert_eq!(look(0, 0.0), json!("off"));
        assert_eq!(look(1, 12.0), json!(true));
        assert_eq!(look(0, 12.0), json!("on"));
        assert_eq!(look(1, 12.0), json!(true));
        assert_ne!(look(2, 12.0), look(2, 22.0));
    }

    #[test]
    fn what_is_written_stays_and_what_commands_may_write_stands_still() {
        let points = points(json!([
            { "name": "voltage", "register": "holding:0", "type": "f32", "unit": "V" },
            { "name": "setpoint", "register": "holding:4", "scale": 0.1, "unit": "°C", "access": "read-write" },
        ]));
        let mut memory = Memory::default();
        let mut simulated = Points::new(&points, 1, &mut memory);
        let before = seen(&points[1], &simulated, &mut memory, 0.0);
        assert_eq!(seen(&points[1], &simulated, &mut memory, 5.0), before);
        let moved = seen(&points[0], &simulated, &mut memory, 5.0);
        assert_ne!(seen(&points[0], &simulated, &mut memory, 8.0), moved);
        simulated
            .set("voltage", &json!(199.5), &mut memory)
            .expect("set");
        assert_eq!(seen(&points[0], &simulated, &mut memory, 9.0), json!(199.5));
        let table = Table::Holding;
        simulated.written(Span {
            table,
            start: 4,
            count: 1,
        });
        memory.put(Register { table, address: 4 }, 300);
        assert_eq!(seen(&points[1], &simulated, &mut memory, 9.0), json!(30));
        let refused = simulated.set("volts", &json!(1), &mut memory);
        assert!(refused.is_err_and(|said| said.contains("voltage, setpoint")));
    }
}
