//! What is measured of stores that forward: each run by its name, what is asked, who takes part. Values.
//!
//! Invariant: a name says all that its numbers depend on, so rows of different runs can stand in one table.

use crate::bench::workloads::{Figure, less, more};

/// Who keeps messages and forwards them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    Ours,
    /// A Mosquitto with persistence and a bridge.
    Mosquitto,
    /// The SQLite storage of the ThingsBoard gateway, by itself.
    ThingsBoard,
    /// No store at all: rumqttc, straight to the upstream.
    Bare,
}

impl Peer {
    /// Its key in the results.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Peer::Ours => "ours",
            Peer::Mosquitto => "mosquitto",
            Peer::ThingsBoard => "thingsboard",
            Peer::Bare => "bare",
        }
    }
}

/// Who is timed on the way to a subscriber behind the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum From {
    /// A local MQTT client.
    Publisher,
    /// A Modbus device, polled by the gateway.
    Sensor,
}

/// What is asked of everybody in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// Append through the store's own interface, as fast as it acknowledges.
    Library,
    /// The same by MQTT, QoS 1, through the whole process, while the upstream is away.
    Process,
    /// Send so many waiting messages.
    Drain(u64),
    /// Bring messages through, beside so many others a second.
    Latency(From, u32),
    /// Wait, with so many messages in the store.
    Memory(u64),
}

/// One row.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) task: Task,
    pub(crate) peers: Vec<Peer>,
}

pub(crate) const RATE: Figure = more("rate", "messages/s");
pub(crate) const WRITTEN: Figure = less("written_ratio", "bytes written per payload byte");
pub(crate) const CPU: Figure = less("cpu_us", "CPU µs per message");
pub(crate) const MEMORY: Figure = less("memory_kb", "resident, KB");
pub(crate) const P50: Figure = less("p50_ms", "ms, median");
pub(crate) const P99: Figure = less("p99_ms", "ms, 99th percentile");
const START: Figure = less("start_kb", "resident at the start, KB");
const MIDDLE: Figure = less("middle_kb", "resident in the middle, KB");
const END: Figure = less("end_kb", "resident at the end, KB");

impl Run {
    fn new(name: impl Into<String>, task: Task, peers: &[Peer]) -> Run {
        Run {
            name: name.into(),
            task,
            peers: peers.to_vec(),
        }
    }

    /// The figures that say something about it.
    pub(crate) fn figures(&self) -> &'static [Figure] {
        match self.task {
            Task::Library => &[RATE, WRITTEN, MEMORY],
            Task::Process => &[RATE, WRITTEN, CPU, MEMORY],
            Task::Drain(_) => &[RATE, START, MIDDLE, END],
            Task::Latency(..) => &[P50, P99],
            Task::Memory(_) => &[MEMORY],
        }
    }

    /// What takes long is done once, unless more is asked for.
    pub(crate) fn rounds(&self, wanted: u32) -> u32 {
        match self.task {
            Task::Drain(_) | Task::Memory(_) => wanted.div_ceil(3),
            _ => wanted,
        }
    }

    /// Whether it needs `--full`.
    pub(crate) fn is_long(&self) -> bool {
        matches!(self.task, Task::Memory(rows) if rows > 1_000_000)
    }
}

/// Messages a second beside those that are timed, in the runs under load.
const LOAD: u32 = 5_000;

/// Every run.
pub(crate) fn all() -> Vec<Run> {
    use Peer::{Bare, Mosquitto, Ours, ThingsBoard};
    vec![
        Run::new("append-library-100", Task::Library, &[ThingsBoard, Ours]),
        Run::new("append-mqtt-100", Task::Process, &[Mosquitto, Ours]),
        Run::new(
            "drain-1000000",
            Task::Drain(1_000_000),
            &[Bare, Mosquitto, ThingsBoard, Ours],
        ),
        Run::new(
            "latency-publisher-rest",
            Task::Latency(From::Publisher, 0),
            &[Mosquitto, Ours],
        ),
        Run::new(
            "latency-publisher-load",
            Task::Latency(From::Publisher, LOAD),
            &[Mosquitto, Ours],
        ),
        Run::new(
            "latency-sensor-rest",
            Task::Latency(From::Sensor, 0),
            &[Ours],
        ),
        Run::new(
            "latency-sensor-load",
            Task::Latency(From::Sensor, LOAD),
            &[Ours],
        ),
        Run::new("memory-0", Task::Memory(0), &[Ours]),
        Run::new("memory-1000000", Task::Memory(1_000_000), &[Ours]),
        Run::new("memory-10000000", Task::Memory(10_000_000), &[Ours]),
    ]
}

/// A small one of each kind, without what takes long to install.
pub(crate) fn few() -> Vec<Run> {
    use Peer::{Bare, Mosquitto, Ours};
    vec![
        Run::new("append-library", Task::Library, &[Ours]),
        Run::new("append-mqtt", Task::Process, &[Mosquitto, Ours]),
        Run::new("drain", Task::Drain(5_000), &[Bare, Ours]),
        Run::new(
            "latency-publisher",
            Task::Latency(From::Publisher, 200),
            &[Mosquitto, Ours],
        ),
        Run::new("latency-sensor", Task::Latency(From::Sensor, 0), &[Ours]),
        Run::new("memory", Task::Memory(1_000), &[Ours]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_runs_share_a_name() {
        let mut names: Vec<String> = all().into_iter().map(|run| run.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_takes_long_is_done_once_where_the_rest_is_done_three_times() {
        let rounds = |name: &str| {
            let runs = all();
            let run = runs.iter().find(|run| run.name == name).unwrap();
            (run.rounds(1), run.rounds(3), run.rounds(6))
        };
        assert_eq!(rounds("drain-1000000"), (1, 1, 2));
        assert_eq!(rounds("append-mqtt-100"), (1, 3, 6));
    }
}
