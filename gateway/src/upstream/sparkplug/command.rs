//! Reads NCMD and DCMD payloads, which anybody upstream may have written.
//!
//! Invariant: whatever the bytes are, there is an answer, and it is bounded. Layer: core.

use prost::Message as _;

use super::{
    datatype::DataType,
    metrics::Known,
    wire::{Metric, Payload, Value},
};

/// Writes that one DCMD may ask for.
pub(crate) const MAX_WRITES: usize = 64;
/// The metric by which a host asks for all births.
pub(crate) const REBIRTH: &str = "Node Control/Rebirth";

/// A command that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it is no Sparkplug B payload: {0}")]
    Unreadable(String),
    #[error("it asks for {0} writes at once; {MAX_WRITES} are taken")]
    TooMany(usize),
}

/// Whether an NCMD asks for a rebirth; there is nothing else to command at a node.
pub(crate) fn asks_for_rebirth(payload: &[u8]) -> Result<bool, Refused> {
    let asks = |metric: &Metric| {
        metric.name.as_deref() == Some(REBIRTH) && metric.value == Some(Value::Boolean(true))
    };
    Ok(decode(payload)?.metrics.iter().any(asks))
}

/// The writes that a DCMD asks for: each a point and its value as JSON. A metric that the device does not have keeps
/// the name it was given, so that the command path refuses it in its own words; one without a value is written as `null`.
pub(crate) fn writes<'m>(
    payload: &[u8],
    find: impl Fn(Option<&str>, Option<u64>) -> Option<Known<'m>>,
) -> Result<Vec<(String, String)>, Refused> {
    let payload = decode(payload)?;
    if payload.metrics.len() > MAX_WRITES {
        return Err(Refused::TooMany(payload.metrics.len()));
    }
    let writes = payload.metrics.into_iter().map(|metric| {
        let known = find(metric.name.as_deref(), metric.alias);
        let told = metric.datatype.and_then(DataType::from_code);
        let datatype = told.or(known.and_then(|known| known.datatype));
        let point = match known {
            Some(known) => known.name.to_owned(),
            None => metric.name.unwrap_or_default(),
        };
        let value = match metric.is_null {
            Some(true) => None,
            _ => metric.value,
        };
        let json = value.and_then(|value| datatype.unwrap_or(DataType::String).read(value));
        (point, json.unwrap_or_default().to_string())
    });
    Ok(writes.collect())
}

fn decode(payload: &[u8]) -> Result<Payload, Refused> {
    Payload::decode(payload).map_err(|error| Refused::Unreadable(error.to_string()))
}
