//! What is measured: each workload by its name, what the load does, and the figures that count. Values.
//!
//! Invariant: a name says all that its numbers depend on, so rows of different runs can stand in one table.

use serde_json::Value;

/// How much of the matrix is run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    Smoke,
    Quick,
    Default,
    Full,
}

impl Extent {
    /// Runs of a workload with each broker; the median counts. What is resident hardly varies.
    pub(crate) fn rounds(self, section: Section) -> usize {
        match (self, section) {
            (Extent::Smoke | Extent::Quick, _) => 1,
            (Extent::Default, Section::Memory | Section::Kill) => 1,
            (Extent::Default, _) => 3,
            (Extent::Full, _) => 5,
        }
    }

    fn seconds(self) -> &'static str {
        match self {
            Extent::Smoke => "0.2",
            Extent::Quick | Extent::Default => "1",
            Extent::Full => "2",
        }
    }
}

/// Where a workload stands in the document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Paced,
    Saturated,
    Latency,
    Durable,
    Connections,
    Memory,
    Kill,
}

/// Whether the broker keeps sessions on disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storing {
    Nothing,
    /// As the broker does it when asked to.
    AsUsual,
    /// As soon as it can.
    AtOnce,
}

/// A part of a workload.
#[derive(Clone)]
pub(crate) enum Step {
    /// Arguments for `load`.
    Load(Vec<String>),
    /// The broker was killed, and comes back.
    Restart,
}

/// One row of the document.
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) section: Section,
    pub(crate) storing: Storing,
    pub(crate) tls: bool,
    pub(crate) steps: Vec<Step>,
    /// At a tenth of the rate at which Mosquitto is saturated by this workload.
    pub(crate) tenth_of: Option<String>,
}

/// One figure of a report.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    /// Its key in the load's report.
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) more_is_better: bool,
}

/// A figure of which less is better.
pub(crate) const fn less(key: &'static str, title: &'static str) -> Figure {
    Figure {
        key,
        title,
        more_is_better: false,
    }
}

/// A figure of which more is better.
pub(crate) const fn more(key: &'static str, title: &'static str) -> Figure {
    Figure {
        key,
        title,
        more_is_better: true,
    }
}

const CPU: Figure = less("cpu_us", "CPU µs per message");
const PACED: &[Figure] = &[CPU];
const SATURATED: &[Figure] = &[more("rate", "messages/s"), CPU];
const LATENCY: &[Figure] = &[
    less("p50_us", "p50 µs"),
    less("p99_us", "p99 µs"),
    less("p999_us", "p99.9 µs"),
];
const CONNECTIONS: &[Figure] = &[
    more("rate", "connections/s"),
    less("cpu_us", "CPU µs per connection"),
];
const MEMORY: &[Figure] = &[
    less("memory_kb", "resident KB"),
    less("kb_per_connection", "KB per connection"),
    less("bytes_per_subscription", "bytes per subscription"),
    less("switches_per_s", "context switches/s"),
];
const KILL: &[Figure] = &[less("lost", "lost")];

impl Section {
    pub(crate) const ALL: [Section; 7] = [
        Section::Paced,
        Section::Saturated,
        Section::Latency,
        Section::Durable,
        Section::Connections,
        Section::Memory,
        Section::Kill,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Section::Paced => "Processor time per delivered message at a fixed rate",
            Section::Saturated => "Saturated",
            Section::Latency => "Latency at a tenth of the rate that saturates Mosquitto",
            Section::Durable => "Durable",
            Section::Connections => "Connecting",
            Section::Memory => "Memory and wake-ups",
            Section::Kill => "SIGKILL right after 200 messages were acknowledged",
        }
    }

    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Section::Paced => {
                "`even` spaces messages evenly, so that the broker wakes for nearly each; `burst` sends what is due \
                 every millisecond."
            }
            Section::Saturated => {
                "Publishers send whenever fewer than 500 messages are on their way to a subscriber, and at QoS 1 and 2 \
                 fewer than 20 are unacknowledged. Messages are counted where they arrive."
            }
            Section::Latency => {
                "From before the publisher writes until the subscriber has read, evenly spaced, the same rate for all."
            }
            Section::Durable => {
                "QoS 1 for sessions that outlive the broker, counted by acknowledgements (`absent`: the subscriber is \
                 away and messages wait in its queue) or by deliveries (`present`). broker-lite acknowledges what is \
                 on disk; Mosquitto, with `autosave_on_changes` and `autosave_interval 1`, acknowledges first and \
                 rewrites its file after; rumqttd keeps nothing."
            }
            Section::Connections => {
                "Ten at a time: TCP, then over TLS a full TLS 1.3 handshake with client certificate on P-256, then \
                 CONNECT, CONNACK, DISCONNECT."
            }
            Section::Memory => {
                "Resident memory (VmRSS) and context switches of all threads. `rest`: nothing has connected yet. \
                 `idle`: that many connections with one subscription each. `subscriptions`: 100 for each of 100 \
                 connections. `after`: ten seconds after the end of a series of saturated workloads."
            }
            Section::Kill => {
                "For a session that is away; the broker stores as it does by default when told to."
            }
        }
    }

    /// The figures of this section's tables.
    pub(crate) fn figures(self) -> &'static [Figure] {
        match self {
            Section::Paced => PACED,
            Section::Saturated | Section::Durable => SATURATED,
            Section::Latency => LATENCY,
            Section::Connections => CONNECTIONS,
            Section::Memory => MEMORY,
            Section::Kill => KILL,
        }
    }
}

impl Workload {
    /// The figures that say something about this workload.
    pub(crate) fn figures(&self) -> impl Iterator<Item = &'static Figure> {
        let (per_connection, per_subscription) = (
            self.name.starts_with("idle"),
            self.name.starts_with("subscriptions"),
        );
        self.section
            .figures()
            .iter()
            .filter(move |figure| match figure.key {
                "kb_per_connection" => per_connection,
                "bytes_per_subscription" => per_subscription,
                _ => true,
            })
    }

    /// The figures of a report in one line.
    pub(crate) fn brief(&self, report: &Value) -> String {
        let figure = |figure: &Figure| {
            let value = report
                .get(figure.key)
                .and_then(Value::as_f64)
                .unwrap_or_default();
            format!("{value:>12.1} {}", figure.title)
        };
        self.figures().map(figure).collect()
    }
}

/// Every workload of this extent.
pub(crate) fn all(extent: Extent) -> Vec<Workload> {
    let mut all = paced(extent);
    all.extend(saturated(extent));
    all.extend(latency(&all));
    all.extend(durable(extent));
    all.extend(connections(extent));
    all.extend(memory(extent));
    all
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A workload over TCP against a broker that stores nothing.
fn plain(name: impl Into<String>, section: Section, arguments: &str) -> Workload {
    Workload {
        name: name.into(),
        section,
        storing: Storing::Nothing,
        tls: false,
        steps: vec![Step::Load(words(arguments))],
        tenth_of: None,
    }
}

/// The rates of the peers' figures in the specification.
fn paced(extent: Extent) -> Vec<Workload> {
    let seconds = extent.seconds();
    let mut found = Vec::new();
    for (pace, tick_us) in [("burst", 1_000), ("even", 100)] {
        for (shape, arguments) in [
            ("qos0-1to1-10k", "--rate 10000"),
            ("qos1-1to1-4k", "--rate 4000 --qos 1"),
            ("qos0-1to20-500", "--rate 500 --subscribers 20 --shape all"),
        ] {
            let arguments = format!("flow {arguments} --tick-us {tick_us} --seconds {seconds}");
            found.push(plain(format!("{pace}-{shape}"), Section::Paced, &arguments));
        }
    }
    found.truncate(if extent == Extent::Smoke {
        1
    } else {
        found.len()
    });
    found
}

fn saturated(extent: Extent) -> Vec<Workload> {
    let shapes = [
        ("1to1", ""),
        ("1to100", "--subscribers 100 --shape all"),
        ("100to1", "--publishers 100 --shape all"),
        ("50to50", "--publishers 50 --subscribers 50"),
    ];
    let seconds = extent.seconds();
    let mut found = Vec::new();
    for tls in [false, true] {
        for payload in [64, 4_096] {
            for qos in 0..3 {
                for (shape, arguments) in shapes {
                    if !is_wanted(extent, tls, payload, qos, shape) {
                        continue;
                    }
                    let transport = if tls { "tls" } else { "tcp" };
                    let name = format!("{shape}-qos{qos}-{payload}-{transport}");
                    let arguments = format!(
                        "flow {arguments} --qos {qos} --payload {payload} --seconds {seconds}"
                    );
                    let workload = plain(name, Section::Saturated, &arguments);
                    found.push(Workload { tls, ..workload });
                }
            }
        }
    }
    found
}

/// All of it takes an hour; by default each axis is walked along the most common case.
fn is_wanted(extent: Extent, tls: bool, payload: usize, qos: u8, shape: &str) -> bool {
    match extent {
        Extent::Full => true,
        Extent::Default => match (tls, payload) {
            (false, 64) => true,
            (true, 64) => qos < 2,
            _ => qos == 0,
        },
        Extent::Quick => !tls && payload == 64 && qos < 2,
        Extent::Smoke => !tls && payload == 64 && shape == "1to1",
    }
}

/// The same workloads at a tenth of the rate, one for each QoS and transport.
fn latency(saturated: &[Workload]) -> Vec<Workload> {
    let is_basis = |workload: &&Workload| {
        workload.section == Section::Saturated
            && workload.name.starts_with("1to1-")
            && workload.name.contains("-64-")
    };
    let slowed = |basis: &Workload| Workload {
        name: format!("latency-{}", basis.name),
        section: Section::Latency,
        storing: basis.storing,
        tls: basis.tls,
        steps: basis.steps.clone(),
        tenth_of: Some(basis.name.clone()),
    };
    saturated.iter().filter(is_basis).map(slowed).collect()
}

fn durable(extent: Extent) -> Vec<Workload> {
    let seconds = extent.seconds();
    let publishers: &[u32] = match extent {
        Extent::Smoke | Extent::Quick => &[1],
        Extent::Default | Extent::Full => &[1, 20],
    };
    let mut found = Vec::new();
    for count in publishers {
        for (presence, arguments) in [("present", ""), ("absent", "--absent")] {
            let arguments = format!(
                "flow --durable {arguments} --qos 1 --publishers {count} --shape all --seconds {seconds}"
            );
            let name = format!("durable-{presence}-{count}to1");
            let workload = plain(name, Section::Durable, &arguments);
            found.push(Workload {
                storing: Storing::AtOnce,
                ..workload
            });
        }
    }
    found
}

fn connections(extent: Extent) -> Vec<Workload> {
    let count = match extent {
        Extent::Smoke => 100,
        Extent::Quick => 1_000,
        Extent::Default | Extent::Full => 5_000,
    };
    let connects = |tls, name, count| Workload {
        tls,
        ..plain(
            name,
            Section::Connections,
            &format!("connects --count {count}"),
        )
    };
    vec![
        connects(false, "connects-tcp", count),
        connects(true, "connects-mutual-tls", count / 5),
    ]
}

fn memory(extent: Extent) -> Vec<Workload> {
    let idle = |tls, name: &str, count: u32| {
        let arguments = format!("idle --connections {count}");
        Workload {
            tls,
            ..plain(name, Section::Memory, &arguments)
        }
    };
    let mut found = vec![idle(false, "rest", 0)];
    if extent > Extent::Smoke {
        let many = "idle --connections 100 --subscriptions 100";
        found.push(idle(false, "idle-1000-tcp", 1_000));
        found.push(idle(true, "idle-1000-tls", 1_000));
        found.push(plain("subscriptions", Section::Memory, many));
        found.push(after(extent.seconds()));
    }
    if extent > Extent::Quick {
        found.push(idle(true, "idle-10000-tls", 10_000));
    }
    found.push(Workload {
        storing: Storing::AsUsual,
        steps: vec![
            Step::Load(words("keep")),
            Step::Restart,
            Step::Load(words("take")),
        ],
        ..plain("killed", Section::Kill, "")
    });
    found
}

/// What stays resident once the load is over.
fn after(seconds: &str) -> Workload {
    let series = [
        "--subscribers 100 --shape all --payload 4096",
        "--publishers 50 --subscribers 50 --payload 4096",
        "--publishers 100 --shape all --qos 1",
        "--publishers 50 --subscribers 50 --qos 2",
    ];
    let flow = |arguments| Step::Load(words(&format!("flow {arguments} --seconds {seconds}")));
    let mut steps: Vec<_> = series.into_iter().map(flow).collect();
    steps.push(Step::Load(words("idle --connections 0 --settle 5")));
    Workload {
        steps,
        ..plain("after", Section::Memory, "")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_basis_is_measured_before() {
        for extent in [Extent::Smoke, Extent::Quick, Extent::Default, Extent::Full] {
            let mut seen = BTreeSet::new();
            for workload in all(extent) {
                if let Some(basis) = &workload.tenth_of {
                    assert!(seen.contains(basis), "{basis}");
                }
                assert!(
                    seen.insert(workload.name.clone()),
                    "{} twice",
                    workload.name
                );
            }
        }
    }

    #[test]
    fn the_full_matrix_has_every_shape_qos_payload_and_transport() {
        let full = all(Extent::Full);
        let of = |section| {
            full.iter()
                .filter(|workload| workload.section == section)
                .count()
        };
        assert_eq!(of(Section::Saturated), 4 * 3 * 2 * 2);
        assert_eq!(of(Section::Latency), 3 * 2);
    }
}
