//! What a device holds that measures a number, and the numbers that it can hold. A core.
//!
//! Invariant: unlike a write, this never refuses: the nearest step is taken, as a device does.

use super::{Codec, Encoded, Form};

impl Codec {
    /// The least and the greatest number that the point can show; not every one between.
    pub(crate) fn span(&self) -> (f64, f64) {
        let (least, greatest) = match (self.form, self.registers) {
            (Form::Float, 1) => (-65_504.0, 65_504.0),
            (Form::Float, 2) => (f64::from(f32::MIN), f64::from(f32::MAX)),
            // Halved, so that the distance between them is a number, too.
            (Form::Float, _) => (f64::MIN / 2.0, f64::MAX / 2.0),
            _ => {
                let (least, greatest) = self.range();
                #[expect(clippy::cast_precision_loss, reason = "a bound for simulated values")]
                let bounds = (least as f64, greatest as f64);
                bounds
            }
        };
        let Some(scaling) = self.scaling else {
            return (least, greatest);
        };
        let scaled = |raw: f64| (raw * scaling.scale + scaling.offset).clamp(f64::MIN, f64::MAX);
        let (one, other) = (scaled(least), scaled(greatest));
        (one.min(other), one.max(other))
    }

    /// What has to stand in the point's registers so that it shows the number nearest to `value`.
    pub(crate) fn nearest(&self, value: f64) -> Encoded {
        if self.table.is_bits() {
            return Encoded::Coil(value != 0.0);
        }
        let raw = match self.scaling {
            None => value,
            Some(scaling) => (value - scaling.offset) / scaling.scale,
        };
        if self.form == Form::Float {
            let bytes = self.nearest_float(raw);
            return Encoded::Registers(self.order.to_registers(&bytes));
        }
        let (least, greatest) = self.range();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "brought into the range next"
        )]
        let whole = (raw.round() as i128).clamp(least, greatest);
        let raw = self.raw_bits(whole);
        self.bits_written(raw).unwrap_or_else(|_| {
            // Bits of several registers cannot be written alone; a device that shows them can.
            let low = raw
                .to_be_bytes()
                .last_chunk()
                .map_or(0, |low| u64::from_be_bytes(*low));
            let bytes = self.field.place(low).to_be_bytes();
            let width = 2 * usize::from(self.registers);
            let bytes = &bytes[bytes.len() - width.min(bytes.len())..];
            Encoded::Registers(self.order.to_registers(bytes))
        })
    }

    fn nearest_float(&self, raw: f64) -> Vec<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is wanted")]
        let single = raw as f32;
        match self.registers {
            1 => {
                let half = super::half::from_f64(raw).unwrap_or(0);
                half.to_be_bytes().to_vec()
            }
            2 => single.to_be_bytes().to_vec(),
            _ => raw.to_be_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Point, PointType};

    use super::*;

    fn codec(kind: PointType, scale: Option<f64>) -> Codec {
        Codec::of(&Point {
            scale,
            ..Point::example("input:0", Some(kind))
        })
    }

    #[test]
    fn the_nearest_step_is_taken_and_the_ends_hold() {
        let words = |kind, scale, value| match codec(kind, scale).nearest(value) {
            Encoded::Registers(words) => words,
            other => panic!("{other:?}"),
        };
        assert_eq!(words(PointType::U16, Some(0.1), 23.14), [231]);
        assert_eq!(words(PointType::U16, None, -3.0), [0]);
        assert_eq!(words(PointType::U16, None, 1e9), [0xffff]);
        assert_eq!(words(PointType::I16, Some(-0.1), 0.2), [0xfffe]);
        assert_eq!(words(PointType::Bcd16, None, 1234.4), [0x1234]);
        assert_eq!(words(PointType::F32, None, 1.0), [0x3f80, 0]);
    }

    #[test]
    fn a_point_shows_numbers_within_its_type_and_scale() {
        assert_eq!(codec(PointType::U16, Some(0.1)).span(), (0.0, 6553.5));
        assert_eq!(codec(PointType::I8, Some(-1.0)).span(), (-127.0, 128.0));
        assert_eq!(codec(PointType::Bcd8, None).span(), (0.0, 99.0));
    }
}
