//! From a raw number to the one that is published: scale, offset, limits, decimals. A value.
//!
//! Invariant: the result is exact wherever a decimal holds it.

use crate::{
    config::{Clamp, Point},
    reading::Value,
};

use super::Decimal;

/// `value = raw × scale + offset`, as it stands in the configuration and exactly where it can be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scaling {
    pub(super) scale: f64,
    pub(super) offset: f64,
    pub(super) exact: Option<(Decimal, Decimal)>,
}

impl Scaling {
    /// `None` where neither is configured.
    pub(super) fn of(scale: Option<f64>, offset: Option<f64>) -> Option<Scaling> {
        if scale.is_none() && offset.is_none() {
            return None;
        }
        let (scale, offset) = (scale.unwrap_or(1.0), offset.unwrap_or(0.0));
        Some(Scaling {
            scale,
            offset,
            exact: Decimal::shortest(scale).zip(Decimal::shortest(offset)),
        })
    }

    /// A whole number, scaled.
    pub(super) fn integer(self, raw: i128) -> Value {
        #[expect(
            clippy::cast_precision_loss,
            reason = "only where no decimal holds the result"
        )]
        let nearest = Value::F64(raw as f64 * self.scale + self.offset);
        self.apply(Decimal::integer(raw)).unwrap_or(nearest)
    }

    /// A finite float and its shortest digits, scaled; `None` where the result is no number.
    pub(super) fn float(self, raw: f64, shortest: Option<Decimal>) -> Option<Value> {
        if let Some(value) = shortest.and_then(|raw| self.apply(raw)) {
            return Some(value);
        }
        let value = raw * self.scale + self.offset;
        value.is_finite().then_some(Value::F64(value))
    }

    /// The float that [`Scaling::float`] makes `size` of, whose digits are `wanted`; division may miss
    /// it by one step.
    pub(super) fn undone(self, size: f64, wanted: Option<Decimal>) -> f64 {
        let near = (size - self.offset) / self.scale;
        let gives = |raw: &f64| {
            let scaled = Decimal::shortest(*raw).and_then(|raw| self.exactly(raw));
            wanted.is_some() && scaled == wanted
        };
        let nearest = [near, near.next_up(), near.next_down()];
        nearest.into_iter().find(gives).unwrap_or(near)
    }

    fn apply(self, raw: Decimal) -> Option<Value> {
        self.exactly(raw).map(Decimal::value)
    }

    fn exactly(self, raw: Decimal) -> Option<Decimal> {
        let (scale, offset) = self.exact?;
        raw.times(scale)?.plus(offset)
    }
}

/// What is done with a number before it is published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Finish {
    clamp: Clamp,
    decimals: Option<u8>,
}

impl Finish {
    /// As configured.
    pub(super) fn of(point: &Point) -> Finish {
        Finish {
            clamp: point.clamp.unwrap_or_default(),
            decimals: point.round,
        }
    }

    /// The number within the limits, rounded half away from zero.
    pub(super) fn apply(self, value: Value) -> Value {
        let value = self.clamped(value);
        let exact = self.decimals.zip(Decimal::of(&value));
        exact.map_or(value, |(decimals, exact)| exact.rounded(decimals).value())
    }

    fn clamped(self, value: Value) -> Value {
        let Some(size) = value.as_f64() else {
            return value;
        };
        let bound = match (self.clamp.min, self.clamp.max) {
            (Some(min), _) if size < min => min,
            (_, Some(max)) if size > max => max,
            _ => return value,
        };
        Decimal::shortest(bound).map_or(Value::F64(bound), Decimal::value)
    }
}
