//! The metrics of the node or of one device: names, aliases, data types and last values.
//!
//! Invariant: an alias names one metric of the whole node for as long as the process lives, and data is written only for
//! metrics that the last birth declared with the same type. Layer: core.

use std::collections::HashMap;

use super::{
    datatype::{DataType, Published},
    sample::{Quality, Sample},
    wire,
};

/// Metrics of one device, or of the node; more could not be told in one birth.
pub(crate) const MAX_METRICS: usize = 10_000;
/// Property of a birth's metric: the unit, as Ignition and others name it.
const UNIT: &str = "engUnit";
/// Property of values that are not good.
const QUALITY: &str = "Quality";

/// Gives each metric of a node its alias.
#[derive(Debug, Default)]
pub(crate) struct Aliases(u64);

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    list: Vec<Metric>,
    by_name: HashMap<String, usize>,
    by_alias: HashMap<u64, usize>,
    /// Something is not as the last birth declared it.
    changed: bool,
}

#[derive(Debug)]
struct Metric {
    name: String,
    alias: u64,
    /// `None` until a value tells.
    datatype: Option<DataType>,
    unit: Option<String>,
    last: Option<Sample>,
    /// Time of the newest value that went up as no history since the birth.
    live_ms: u64,
}

/// A metric as commands need it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Known<'m> {
    pub(crate) name: &'m str,
    pub(crate) datatype: Option<DataType>,
}

impl Metrics {
    /// Declares a metric; a second one of the same name is the first.
    pub(crate) fn declare(
        &mut self,
        name: &str,
        datatype: Option<DataType>,
        unit: Option<&str>,
        aliases: &mut Aliases,
    ) {
        if self.by_name.contains_key(name) {
            return;
        }
        aliases.0 += 1;
        let index = self.list.len();
        self.by_name.insert(name.to_owned(), index);
        self.by_alias.insert(aliases.0, index);
        self.list.push(Metric {
            name: name.to_owned(),
            alias: aliases.0,
            datatype,
            unit: unit.map(str::to_owned),
            last: None,
            live_ms: 0,
        });
    }

    /// Takes note of a value, so that the next birth can tell it; declares what is new or no longer fits.
    ///
    /// # Errors
    /// There are too many metrics.
    pub(crate) fn learn(
        &mut self,
        name: &str,
        sample: &Sample,
        aliases: &mut Aliases,
    ) -> Result<(), TooMany> {
        if !self.by_name.contains_key(name) {
            if self.list.len() >= MAX_METRICS {
                return Err(TooMany);
            }
            self.declare(name, None, None, aliases);
        }
        let Some(metric) = self.by_name.get(name).map(|&index| &mut self.list[index]) else {
            return Ok(());
        };
        if let Some(value) = &sample.value {
            let fitting = fitting(metric.datatype, value);
            self.changed |= metric.datatype != Some(fitting);
            metric.datatype = Some(fitting);
        }
        if metric
            .last
            .as_ref()
            .is_none_or(|last| last.time_ms <= sample.time_ms)
        {
            metric.last = Some(sample.clone());
        }
        Ok(())
    }

    /// Whether a birth has to tell something new before data can go.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// What a birth says of them: each with name, alias, type and its last value. Those whose type nobody knows yet are
    /// left out; their first value brings another birth.
    pub(crate) fn birth(&mut self, now_ms: u64) -> Vec<wire::Metric> {
        self.changed = false;
        let declared = self.list.iter_mut().filter_map(|metric| {
            let datatype = metric.datatype?;
            metric.live_ms = 0;
            let mut written = match &metric.last {
                Some(last) => written(last, datatype),
                None => wire::Metric {
                    timestamp: Some(now_ms),
                    is_null: Some(true),
                    ..wire::Metric::default()
                },
            };
            written.name = Some(metric.name.clone());
            written.alias = Some(metric.alias);
            written.datatype = Some(datatype.code());
            if let Some(unit) = &metric.unit {
                property(
                    &mut written,
                    UNIT,
                    DataType::String,
                    wire::Property::String(unit.clone()),
                );
            }
            Some(written)
        });
        declared.collect()
    }

    /// A value by its alias. What is older than the birth or than what went up before is history.
    pub(crate) fn data(
        &mut self,
        name: &str,
        sample: &Sample,
        born_ms: u64,
    ) -> Option<wire::Metric> {
        let metric = &mut self.list[*self.by_name.get(name)?];
        let mut written = match metric.datatype {
            Some(datatype) => written(sample, datatype),
            // It has had no value yet, and has none now.
            None => return None,
        };
        written.alias = Some(metric.alias);
        if sample.time_ms < born_ms.max(metric.live_ms) {
            written.is_historical = Some(true);
        } else {
            metric.live_ms = sample.time_ms;
        }
        Some(written)
    }

    /// The metric that a command names, by name or alias.
    pub(crate) fn find(&self, name: Option<&str>, alias: Option<u64>) -> Option<Known<'_>> {
        let index = match (name, alias) {
            (Some(name), _) if !name.is_empty() => self.by_name.get(name)?,
            (_, Some(alias)) => self.by_alias.get(&alias)?,
            _ => return None,
        };
        let metric = &self.list[*index];
        Some(Known {
            name: &metric.name,
            datatype: metric.datatype,
        })
    }
}

/// A device or the node has as many metrics as one can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {MAX_METRICS} metrics already, and a birth names them all")]
pub(crate) struct TooMany;

/// The known type, or the next one that takes the value; it is found after a few steps, for bytes take everything.
fn fitting(known: Option<DataType>, value: &Published) -> DataType {
    let mut datatype = known.unwrap_or_else(|| DataType::fitting(value));
    while datatype != DataType::Bytes && datatype.write(value).is_none() {
        datatype = datatype.wider(value);
    }
    datatype
}

fn written(sample: &Sample, datatype: DataType) -> wire::Metric {
    let value = sample
        .value
        .as_ref()
        .and_then(|value| datatype.write(value));
    let mut metric = wire::Metric {
        timestamp: Some(sample.time_ms),
        is_null: value.is_none().then_some(true),
        value,
        ..wire::Metric::default()
    };
    if sample.quality != Quality::Good {
        let code = wire::Property::Int(sample.quality as u32);
        property(&mut metric, QUALITY, DataType::Int32, code);
    }
    metric
}

fn property(metric: &mut wire::Metric, key: &str, datatype: DataType, value: wire::Property) {
    let set = metric.properties.get_or_insert_default();
    set.keys.push(key.to_owned());
    set.values.push(wire::PropertyValue {
        datatype: Some(datatype.code()),
        value: Some(value),
    });
}
