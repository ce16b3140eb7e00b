//! What is measured of the field bus: each run by its name, which devices and points, who takes part. Values.
//!
//! Invariant: a name says all that its numbers depend on, so rows of different runs can stand in one table.

use std::time::Duration;

use crate::bench::workloads::{Figure, less, more};

/// Who polls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    Pymodbus,
    Mbpoll,
    ThingsBoard,
    Ours(Mode),
}

/// How our gateway is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// One message per point and poll.
    EveryPoll,
    /// One message per device and poll.
    Devices,
    /// Messages for points that changed.
    OnChange,
    /// The same, with 16 requests under way at once.
    Pipelined,
    /// One message per point and poll, and somebody who reads them all.
    Subscribed,
}

impl Peer {
    /// Its key in the results.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Peer::Pymodbus => "pymodbus",
            Peer::Mbpoll => "mbpoll",
            Peer::ThingsBoard => "thingsboard",
            Peer::Ours(Mode::EveryPoll) => "every-poll",
            Peer::Ours(Mode::Devices) => "devices",
            Peer::Ours(Mode::OnChange) => "on-change",
            Peer::Ours(Mode::Pipelined) => "pipelined",
            Peer::Ours(Mode::Subscribed) => "subscribed",
        }
    }
}

/// Who answers over TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answering {
    Libmodbus,
    Pymodbus,
}

/// Which points are polled: each a holding register, the same ones of every unit.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    name: &'static str,
    pub(crate) units: u16,
    pub(crate) points: u16,
    /// From one point's address to the next one's.
    pub(crate) stride: u16,
}

impl Layout {
    /// Address of each point of a unit.
    pub(crate) fn addresses(self) -> impl Iterator<Item = u16> {
        (0..self.points).map(move |point| point * self.stride)
    }
}

const CONTIGUOUS: Layout = Layout {
    name: "1x125-contiguous",
    units: 1,
    points: 125,
    stride: 1,
};
const SCATTERED: Layout = Layout {
    name: "1x100-scattered",
    units: 1,
    points: 100,
    stride: 10,
};
const UNITS: Layout = Layout {
    name: "10x50-contiguous",
    units: 10,
    points: 50,
    stride: 1,
};
/// Many small devices behind one gateway: what counts is how many requests are under way at once.
const MANY: Layout = Layout {
    name: "40x10-contiguous",
    units: 40,
    points: 10,
    stride: 1,
};
/// 100 points, so that an interval of 100 ms makes 1,000 a second.
const HUNDRED: Layout = Layout {
    name: "1x100-contiguous",
    units: 1,
    points: 100,
    stride: 1,
};

/// What is asked of everybody in a run.
#[derive(Clone)]
pub(crate) enum Load {
    /// As fast as each peer goes.
    Saturated(Answering, Layout),
    /// All points at this interval, of libmodbus' device.
    Paced(Layout, Duration),
}

/// One row.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) load: Load,
    pub(crate) peers: Vec<Peer>,
}

pub(crate) const POINTS: Figure = more("points_per_s", "points/s");
pub(crate) const REGISTERS: Figure = more("registers_per_s", "registers read/s");
pub(crate) const REQUESTS: Figure = more("requests_per_s", "requests/s");
pub(crate) const CPU: Figure = less("cpu_us", "CPU µs per point");
pub(crate) const DEVICE: Figure = less("device_percent", "% of a core used by the device");

const SATURATED_FIGURES: [Figure; 5] = [POINTS, REGISTERS, REQUESTS, CPU, DEVICE];
const PACED_FIGURES: [Figure; 2] = [POINTS, CPU];

impl Run {
    /// The figures that say something about it.
    pub(crate) fn figures(&self) -> &'static [Figure] {
        match self.load {
            Load::Saturated(..) => &SATURATED_FIGURES,
            Load::Paced(..) => &PACED_FIGURES,
        }
    }
}

/// Every run.
pub(crate) fn all() -> Vec<Run> {
    let mut all = Vec::new();
    for answering in [Answering::Libmodbus, Answering::Pymodbus] {
        for layout in [CONTIGUOUS, SCATTERED, UNITS] {
            all.push(saturated(answering, layout));
        }
    }
    // Not beside pymodbus' server, which takes one request at a time.
    all.push(saturated(Answering::Libmodbus, MANY));
    for (rate, interval) in [(1_000, 100), (10_000, 10)] {
        let interval = Duration::from_millis(interval);
        let mut peers = vec![
            Peer::Ours(Mode::EveryPoll),
            Peer::Ours(Mode::Subscribed),
            Peer::Ours(Mode::Devices),
            Peer::Ours(Mode::OnChange),
        ];
        if rate == 1_000 {
            // It does not keep up with ten times as many.
            peers.insert(0, Peer::ThingsBoard);
        }
        all.push(Run {
            name: format!("paced-{rate}-{}", HUNDRED.name),
            load: Load::Paced(HUNDRED, interval),
            peers,
        });
    }
    all
}

/// A run of each kind without what takes long to install.
pub(crate) fn few() -> Vec<Run> {
    let mut saturated = saturated(Answering::Libmodbus, CONTIGUOUS);
    saturated.peers.retain(|peer| *peer != Peer::ThingsBoard);
    let paced = Run {
        name: "paced".to_owned(),
        load: Load::Paced(HUNDRED, Duration::from_millis(100)),
        peers: vec![Peer::Ours(Mode::OnChange)],
    };
    vec![saturated, paced]
}

fn saturated(answering: Answering, layout: Layout) -> Run {
    let device = match answering {
        Answering::Libmodbus => "libmodbus",
        Answering::Pymodbus => "pymodbus",
    };
    let mut peers = vec![
        Peer::Pymodbus,
        Peer::Mbpoll,
        Peer::ThingsBoard,
        Peer::Ours(Mode::EveryPoll),
        Peer::Ours(Mode::OnChange),
        Peer::Ours(Mode::Pipelined),
    ];
    if layout.stride > 1 {
        // It reads one range.
        peers.retain(|peer| *peer != Peer::Mbpoll);
    }
    if answering == Answering::Pymodbus {
        // Its answers nearly stop when several requests come at once.
        peers.retain(|peer| *peer != Peer::Ours(Mode::Pipelined));
    }
    Run {
        name: format!("{device}-{}", layout.name),
        load: Load::Saturated(answering, layout),
        peers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_runs_share_a_name_and_no_two_peers_of_a_run_a_key() {
        let distinct = |mut keys: Vec<String>| {
            let all = keys.len();
            keys.sort();
            keys.dedup();
            keys.len() == all
        };
        let runs = all();
        assert!(distinct(runs.iter().map(|run| run.name.clone()).collect()));
        for run in &runs {
            let keys = run.peers.iter().map(|peer| peer.key().to_owned());
            assert!(distinct(keys.collect()), "{}", run.name);
        }
    }
}
