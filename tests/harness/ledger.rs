//! What arrived, compared with what was said: readings per topic in the order of arrival.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Process;

/// Seconds that a reading's time may lie before the device says that it served it: clock grain.
const EARLY_S: f64 = 0.05;
/// Seconds that an answer may take from the device to the gateway on a busy machine.
const LATE_S: f64 = 2.0;

/// A message as a client received it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    /// Topic name.
    pub(crate) topic: String,
    /// Payload as text.
    pub(crate) payload: String,
}

/// The messages that a client has recorded, in the order of arrival.
pub(crate) fn messages(process: &Process) -> Result<Vec<Message>> {
    let as_message = |event: Value| {
        Some(Message {
            topic: event["topic"].as_str()?.to_owned(),
            payload: event["payload"].as_str()?.to_owned(),
        })
    };
    let is_message = |event: &Value| event.get("event").is_none_or(|name| name == "message");
    let events = process.events()?.into_iter().filter(is_message);
    Ok(events.filter_map(as_message).collect())
}

/// One reading as it was published.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// The number within its topic.
    pub(crate) seq: u64,
    /// When it was taken, as published.
    pub(crate) time: String,
    /// The value.
    pub(crate) value: Value,
    payload: String,
}

impl Entry {
    fn parse(payload: &str) -> Result<Entry> {
        let json: Value = serde_json::from_str(payload)?;
        Ok(Entry {
            seq: json["seq"].as_u64().context("no seq")?,
            time: json["time"].as_str().context("no time")?.to_owned(),
            value: json["value"].clone(),
            payload: payload.to_owned(),
        })
    }

    /// When it was taken, in seconds since 1970.
    pub(crate) fn seconds(&self) -> Result<f64> {
        let time: jiff::Timestamp = self.time.parse()?;
        Ok(time.as_duration().as_secs_f64())
    }
}

/// The readings of a recording, by topic.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    topics: BTreeMap<String, Vec<Entry>>,
}

impl Ledger {
    /// Reads what a client recorded below `prefix`, which is taken off the topics.
    pub(crate) fn read(process: &Process, prefix: &str) -> Result<Ledger> {
        Ledger::of(messages(process)?, prefix)
    }

    fn of(messages: Vec<Message>, prefix: &str) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        for message in messages {
            let Some(topic) = message.topic.strip_prefix(prefix) else {
                continue;
            };
            if !topic.starts_with("telemetry/") || topic.starts_with("telemetry/press-3/") {
                continue;
            }
            let entry = Entry::parse(&message.payload)
                .with_context(|| format!("{topic} bears {}", message.payload))?;
            ledger
                .topics
                .entry(topic.to_owned())
                .or_default()
                .push(entry);
        }
        Ok(ledger)
    }

    /// The readings of a topic in the order of arrival.
    pub(crate) fn entries(&self, topic: &str) -> &[Entry] {
        self.topics.get(topic).map_or(&[], Vec::as_slice)
    }

    /// Topics that have readings.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    /// The highest sequence number of a topic; 0 without readings.
    pub(crate) fn last(&self, topic: &str) -> u64 {
        let numbers = self.entries(topic).iter().map(|entry| entry.seq);
        numbers.max().unwrap_or_default()
    }

    /// Whether each topic of `other` has come as far here.
    pub(crate) fn has_caught_up(&self, other: &Ledger) -> bool {
        other
            .topics()
            .all(|topic| self.last(topic) >= other.last(topic))
    }

    /// The readings of a topic without repetitions: they must follow each other without a gap, and
    /// what is repeated must be the same to the byte.
    pub(crate) fn in_order(&self, topic: &str) -> Result<Vec<&Entry>> {
        let mut firsts: Vec<&Entry> = Vec::new();
        for entry in self.entries(topic) {
            let Some(last) = firsts.last() else {
                firsts.push(entry);
                continue;
            };
            if entry.seq > last.seq {
                let next = last.seq + 1;
                ensure!(
                    entry.seq == next,
                    "{topic}: {} follows {}",
                    entry.seq,
                    last.seq
                );
                firsts.push(entry);
            } else {
                let first = firsts.iter().find(|first| first.seq == entry.seq);
                let first = first.with_context(|| format!("{topic}: {} is late", entry.seq))?;
                ensure!(*first == entry, "{topic}: {entry:?} repeats {first:?}");
            }
        }
        Ok(firsts)
    }

    /// How many readings came more than once, over all topics.
    pub(crate) fn repetitions(&self) -> usize {
        let repeated = |entries: &Vec<Entry>| {
            let distinct: BTreeSet<u64> = entries.iter().map(|entry| entry.seq).collect();
            entries.len() - distinct.len()
        };
        self.topics.values().map(repeated).sum()
    }

    /// Every reading of `other` is here, the same to the byte, but for those that `excused` names.
    pub(crate) fn holds_all_of(
        &self,
        other: &Ledger,
        excused: impl Fn(&Entry) -> Result<bool>,
    ) -> Result<()> {
        for (topic, entries) in &other.topics {
            let mine: BTreeSet<&str> = self
                .entries(topic)
                .iter()
                .map(|entry| entry.payload.as_str())
                .collect();
            for entry in entries {
                let here = mine.contains(entry.payload.as_str());
                ensure!(here || excused(entry)?, "{topic}: {entry:?} never arrived");
            }
        }
        Ok(())
    }
}

/// What a device gave, one entry per answer, in order.
pub(crate) struct Served {
    values: Vec<(f64, Value)>,
}

impl Served {
    /// All answers of a device that bore this quantity.
    pub(crate) fn read(device: &Process, quantity: &str) -> Result<Served> {
        let mut values = Vec::new();
        for event in device.events_named("served")? {
            if let Some(value) = event["values"].get(quantity) {
                let at = event["at"].as_f64().context("an event without a time")?;
                values.push((at, value.clone()));
            }
        }
        Ok(Served { values })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.values.len()
    }

    /// The readings are what the device gave, each at its time, in the device's order, with at
    /// most `missing` left out between the first and the last. `scale` makes a raw number the
    /// configured quantity.
    pub(crate) fn became(
        &self,
        readings: &[&Entry],
        missing: usize,
        scale: impl Fn(&Value) -> Value,
    ) -> Result<()> {
        let mut answers = self.values.iter();
        let mut left_out = 0;
        for (position, reading) in readings.iter().enumerate() {
            let taken = reading.seconds()?;
            let fits = |(at, value): &&(f64, Value)| {
                (at - EARLY_S..at + LATE_S).contains(&taken) && same(&scale(value), &reading.value)
            };
            let skipped = answers
                .by_ref()
                .position(|answer| fits(&answer))
                .with_context(|| {
                    format!(
                        "{reading:?} is none of the device's answers {:?}",
                        self.values
                    )
                })?;
            if position > 0 {
                left_out += skipped;
            }
        }
        ensure!(
            left_out <= missing,
            "{left_out} answers of the device became no reading"
        );
        Ok(())
    }
}

fn same(one: &Value, other: &Value) -> bool {
    let as_floats = || Some((one.as_f64()?, other.as_f64()?));
    one == other
        || (one.is_f64() || other.is_f64())
            && as_floats().is_some_and(|(one, other)| (one - other).abs() < 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(readings: &[(u64, &str, f64)]) -> Ledger {
        let message = |&(seq, time, value): &(u64, &str, f64)| Message {
            topic: "plant-7/telemetry/meter-1/voltage".to_owned(),
            payload: format!(
                r#"{{"value":{value},"time":"2026-11-22T11:35:{time}Z","quality":"good","seq":{seq}}}"#
            ),
        };
        Ledger::of(readings.iter().map(message).collect(), "plant-7/").unwrap()
    }

    const TOPIC: &str = "telemetry/meter-1/voltage";

    #[test]
    fn a_repeated_reading_counts_once_and_a_gap_or_a_changed_one_is_seen() {
        let repeated = heard(&[
            (7, "01", 1.0),
            (8, "02", 2.0),
            (7, "01", 1.0),
            (9, "03", 3.0),
        ]);
        assert_eq!(repeated.in_order(TOPIC).unwrap().len(), 3);
        assert_eq!(repeated.repetitions(), 1);
        assert!(
            heard(&[(7, "01", 1.0), (9, "03", 3.0)])
                .in_order(TOPIC)
                .is_err()
        );
        assert!(
            heard(&[(7, "01", 1.0), (8, "02", 2.0), (7, "04", 1.0)])
                .in_order(TOPIC)
                .is_err()
        );
        assert!(
            heard(&[(8, "02", 2.0), (7, "01", 1.0)])
                .in_order(TOPIC)
                .is_err()
        );
    }

    #[test]
    fn a_reading_that_arrived_with_another_time_has_not_arrived() {
        let local = heard(&[(7, "01", 1.0), (8, "02", 2.0)]);
        let never = |_: &Entry| Ok(false);
        assert!(local.holds_all_of(&local, never).is_ok());
        assert!(
            heard(&[(7, "01", 1.0), (8, "05", 2.0)])
                .holds_all_of(&local, never)
                .is_err()
        );
        assert!(
            heard(&[(7, "01", 1.0)])
                .holds_all_of(&local, never)
                .is_err()
        );
        assert!(
            heard(&[(7, "01", 1.0)])
                .holds_all_of(&local, |e| Ok(e.seq == 8))
                .is_ok()
        );
    }

    #[test]
    fn a_reading_that_no_device_gave_is_seen_and_so_is_an_answer_without_reading() {
        let start: f64 = Entry::parse(r#"{"seq":1,"time":"2026-11-22T11:35:00Z"}"#)
            .and_then(|entry| entry.seconds())
            .unwrap();
        let answers = [1.0, 2.0, 3.0, 4.0].map(|n| (start + n, Value::from(n)));
        let served = Served {
            values: answers.to_vec(),
        };
        let became = |readings: &[(u64, &str, f64)], missing| {
            let ledger = heard(readings);
            served.became(&ledger.in_order(TOPIC).unwrap(), missing, Value::clone)
        };
        assert!(became(&[(7, "02", 2.0), (8, "03", 3.0)], 0).is_ok());
        assert!(became(&[(7, "02", 2.0), (8, "03", 3.5)], 0).is_err());
        assert!(became(&[(7, "01", 1.0), (8, "03", 3.0)], 0).is_err());
        assert!(became(&[(7, "01", 1.0), (8, "03", 3.0)], 1).is_ok());
        assert!(became(&[(7, "02", 2.0), (8, "59", 3.0)], 0).is_err());
    }
}
