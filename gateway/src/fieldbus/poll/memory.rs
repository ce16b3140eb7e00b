//! What a device has taught, in a form that outlives the process. Values.
//!
//! Invariant: what was learned from one device is never taken for another's: a change of its bus,
//! unit, limits or points makes another fingerprint.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::config;

use crate::fieldbus::register::{Register, RegisterRange};

use super::plan::{self, Lessons};

/// Holes and cuts remembered of one device; one that teaches more is planned anew each time.
const LESSONS_MAX: usize = 1_024;
/// A turnaround is worth writing down anew when it differs by more than one part in so many.
const WORTH_WRITING: u32 = 4;

/// What devices have taught, by their names.
pub(crate) type Memories = BTreeMap<String, Memory>;

/// What one device has taught.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// Of which device: its bus, unit, limits and points.
    pub(crate) fingerprint: String,
    /// Time between a request and its answer, in microseconds, once measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) turnaround_us: Option<u32>,
    /// Addresses that it refuses to read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) holes: Vec<RegisterRange>,
    /// Addresses before which it refuses to be read across.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cuts: Vec<Register>,
    /// Names of points that answer with an exception.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parked: Vec<String>,
    /// Function codes of writes that it answered not to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unknown_functions: Vec<u8>,
}

impl Memory {
    /// Writes lessons down.
    pub(crate) fn of(
        fingerprint: &str,
        turnaround: Option<Duration>,
        lessons: &Lessons,
        parked: Vec<String>,
        unknown_functions: Vec<u8>,
    ) -> Memory {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let holes = ranges(lessons.holes.iter().copied());
        let is_much = holes.len() + lessons.cuts.len() > LESSONS_MAX;
        Memory {
            fingerprint: fingerprint.to_owned(),
            turnaround_us: turnaround.map(micros),
            holes: if is_much { Vec::new() } else { holes },
            cuts: if is_much {
                Vec::new()
            } else {
                lessons.cuts.iter().copied().collect()
            },
            parked,
            unknown_functions,
        }
    }

    /// Whether nothing was learned.
    pub(crate) fn is_empty(&self) -> bool {
        *self
            == Memory {
                fingerprint: self.fingerprint.clone(),
                ..Memory::default()
            }
    }

    /// The lessons.
    pub(crate) fn lessons(&self) -> Lessons {
        Lessons {
            holes: self
                .holes
                .iter()
                .flat_map(|range| range.registers())
                .collect(),
            cuts: self.cuts.iter().copied().collect(),
        }
    }

    /// The measured turnaround.
    pub(crate) fn turnaround(&self) -> Option<Duration> {
        self.turnaround_us
            .map(|micros| Duration::from_micros(micros.into()))
    }

    /// Whether it says so much else than `written` that it is worth a write to the disk.
    pub(crate) fn is_news(&self, written: &Memory) -> bool {
        let turnaround = match (self.turnaround_us, written.turnaround_us) {
            (Some(now), Some(before)) => now.abs_diff(before) > before / WORTH_WRITING,
            (now, before) => now != before,
        };
        let rest = |memory: &Memory| Memory {
            turnaround_us: None,
            ..memory.clone()
        };
        turnaround || rest(self) != rest(written)
    }
}

/// What tells a device and its register map from others.
pub(crate) fn fingerprint(device: &config::Device) -> String {
    let mut text = format!(
        "{} {} {:?}",
        device.bus,
        device.unit,
        plan::Limits::of(device)
    );
    for point in &device.points {
        text += &format!(" {} {}", point.name, plan::span(point));
    }
    format!("{:016x}", fnv(text.as_bytes()))
}

/// FNV-1a, 64 bits: the same in each version of this program, unlike the standard library's.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn ranges(registers: impl Iterator<Item = Register>) -> Vec<RegisterRange> {
    let mut ranges: Vec<RegisterRange> = Vec::new();
    for register in registers {
        match ranges.last_mut().and_then(|range| range.with(register)) {
            Some(longer) => {
                ranges.pop();
                ranges.push(longer);
            }
            None => ranges.push(RegisterRange::from(register)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(text: &str) -> Register {
        text.parse().expect("a register")
    }

    #[test]
    fn lessons_come_back_as_they_were_written() {
        let holes = [
            "input:3",
            "input:4",
            "input:65535",
            "holding:0",
            "holding:2",
        ];
        let lessons = Lessons {
            holes: holes.map(register).into(),
            cuts: [register("coil:7")].into(),
        };
        let turnaround = Some(Duration::from_micros(3_210));
        let memory = Memory::of("f", turnaround, &lessons, vec!["p".to_owned()], vec![6, 22]);
        let text = serde_json::to_string(&memory).expect("JSON");
        assert!(text.contains("input:3..4"), "{text}");
        let read: Memory = serde_json::from_str(&text).expect("a memory");
        assert_eq!(read, memory);
        assert_eq!((read.lessons(), read.turnaround()), (lessons, turnaround));
    }

    #[test]
    fn a_turnaround_that_hardly_moved_is_no_news() {
        let memory = |micros| Memory {
            turnaround_us: Some(micros),
            ..Memory::default()
        };
        assert!(!memory(10_000).is_news(&memory(9_000)));
        assert!(memory(20_000).is_news(&memory(9_000)));
        assert!(memory(1).is_news(&Memory::default()));
        let parked = Memory {
            parked: vec!["p".to_owned()],
            ..memory(10_000)
        };
        assert!(parked.is_news(&memory(10_000)));
    }
}
