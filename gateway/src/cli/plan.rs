//! `gateway plan`: the requests that go over each bus, why they are grouped so, and how long a
//! round takes. Shell.
//!
//! Invariant: it shows what `run` does at its start, with what the devices are remembered to have
//! taught it.

use std::{fmt::Write, time::Duration};

use serde_json::json;
use settings::{Document, Period, Problem};

use crate::{
    config::{Bus, Config, Device},
    fieldbus::{
        lessons,
        poll::device,
        poll::memory::{self, Memories, Memory},
        poll::plan::{self, Cost, Planned, Reason, Turn, load as share},
    },
};

use super::{ConfigPath, Failure, load, print};

/// Points named of those that miss their intervals; the rest is counted.
const MISSING_NAMED: usize = 8;
/// Columns of a line with names.
const WIDTH: usize = 96;
/// What stands before what belongs to a request.
const INDENT: &str = "        ";

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigPath,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the plan of every bus.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = load(&args.config)?.value;
    let (memories, note) = match lessons::read(&config.lessons()) {
        Ok(memories) => (memories, String::new()),
        Err(error) => (
            Memories::new(),
            format!("planned without what the devices have taught: {error}\n\n"),
        ),
    };
    let plans: Vec<BusPlan<'_>> = config
        .buses
        .iter()
        .map(|bus| BusPlan::of(bus, &config, &memories))
        .collect();
    let text = if args.json {
        format!(
            "{:#}\n",
            json!(plans.iter().map(BusPlan::json).collect::<Vec<_>>())
        )
    } else if plans.is_empty() {
        "no [[bus]] in this configuration\n".to_owned()
    } else {
        let texts: Vec<String> = plans.iter().map(BusPlan::text).collect();
        note + &texts.join("\n")
    };
    Ok(print(&text)?)
}

/// Buses that are asked for more than they can carry, and the points that miss their intervals.
pub(super) fn overload(config: &Config, document: &Document, memories: &Memories) -> Vec<Problem> {
    let of_bus = |(index, bus): (usize, &Bus)| {
        let plan = BusPlan::of(bus, config, memories);
        if plan.load() <= 1.0 {
            return None;
        }
        let (path, what) = (format!("bus[{index}]"), plan.overloaded());
        Some(if bus.allow_overload {
            document.warning(&path, what, "")
        } else {
            document.error(
                &path,
                what,
                "raise the line rate or the intervals, or read fewer points (gateway plan shows the requests); allow_overload = true accepts it",
            )
        })
    };
    config.buses.iter().enumerate().filter_map(of_bus).collect()
}

struct BusPlan<'a> {
    bus: &'a Bus,
    devices: Vec<DevicePlan<'a>>,
}

struct DevicePlan<'a> {
    device: &'a Device,
    /// With the turnaround that is assumed of it.
    cost: Cost,
    /// What it is remembered to have taught.
    memory: Option<&'a Memory>,
    requests: Vec<Planned>,
}

impl<'a> BusPlan<'a> {
    fn of(bus: &'a Bus, config: &'a Config, memories: &'a Memories) -> BusPlan<'a> {
        let cost = Cost::of(bus);
        let of_bus = |device: &&Device| device.bus == bus.name;
        let plan = |device: &'a Device| {
            let fits = |memory: &&Memory| memory.fingerprint == memory::fingerprint(device);
            let memory = memories.get(&device.name).filter(fits);
            DevicePlan {
                device,
                cost,
                memory,
                requests: device::requests(device, cost, memory),
            }
        };
        BusPlan {
            bus,
            devices: config.devices.iter().filter(of_bus).map(plan).collect(),
        }
    }

    fn requests(&self) -> impl Iterator<Item = &Planned> {
        self.devices.iter().flat_map(|device| &device.requests)
    }

    fn load(&self) -> f64 {
        share(self.requests()) / self.bus.window() as f64
    }

    fn round(&self) -> Duration {
        self.requests().map(|request| request.widest().time).sum()
    }

    /// What an overload does: slow points are the first to miss their intervals.
    fn overloaded(&self) -> String {
        let of_device = |plan: &'_ DevicePlan<'a>| {
            let device = plan.device;
            let requests = plan.requests.clone();
            requests
                .into_iter()
                .map(move |request| (device, request))
                .collect::<Vec<_>>()
        };
        let requests: Vec<_> = self.devices.iter().flat_map(of_device).collect();
        let missing = plan::missing(
            requests.iter().map(|(device, request)| (*device, request)),
            self.bus.window(),
        );
        let names: Vec<String> = missing
            .iter()
            .flat_map(|(device, turn)| turn.added.iter().map(move |at| (device, at)))
            .filter_map(|(device, at)| {
                Some(format!("{}/{}", device.name, device.points.get(*at)?.name))
            })
            .collect();
        let more = match names.len().saturating_sub(MISSING_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "bus {:?} is {:.0} % booked; slow points give way first, and these miss their intervals: {}{more}",
            self.bus.name,
            self.load() * 100.0,
            names[..names.len().min(MISSING_NAMED)].join(", "),
        )
    }

    fn text(&self) -> String {
        let wire = self.bus.port.as_ref().map_or_else(
            || self.bus.tcp.clone().unwrap_or_default(),
            |port| format!("{} at {} baud", port.display(), self.bus.baud),
        );
        let mut text = format!(
            "bus {} on {wire}: {} booked, one round of everything takes {}\n",
            self.bus.name,
            percent(self.load()),
            milliseconds(self.round())
        );
        if self.load() > 1.0 {
            let _infallible = writeln!(text, "  {}", self.overloaded());
        }
        for device in &self.devices {
            text += &device.text();
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "bus": self.bus.name,
            "load": self.load(),
            "round_ms": as_milliseconds(self.round()),
            "devices": self.devices.iter().map(DevicePlan::json).collect::<Vec<_>>(),
        })
    }
}

impl DevicePlan<'_> {
    fn text(&self) -> String {
        let how = match self.measured() {
            Some(_) => "measured",
            None => "assumed until it is measured",
        };
        let mut text = format!(
            "\n  {} (unit {}): {} of the bus, answers after {} ({how})\n",
            self.device.name,
            self.device.unit,
            percent(share(&self.requests)),
            milliseconds(self.turnaround()),
        );
        for request in &self.requests {
            text += &self.request(request);
        }
        let parked = self.parked();
        if !parked.is_empty() {
            text += "    now and then, because the device answered an exception\n";
            text += &wrapped(parked);
        }
        text
    }

    fn measured(&self) -> Option<Duration> {
        self.memory.and_then(Memory::turnaround)
    }

    fn turnaround(&self) -> Duration {
        self.measured().unwrap_or_else(|| self.cost.turnaround())
    }

    fn parked(&self) -> &[String] {
        self.memory
            .map(|memory| &*memory.parked)
            .unwrap_or_default()
    }

    fn request(&self, request: &Planned) -> String {
        let mut text = String::new();
        let mut narrower = Duration::ZERO;
        for (index, (turn, share)) in request.shares().enumerate() {
            let reads = match index {
                0 => turn.span.to_string(),
                _ => format!("widened to {}-{}", turn.span.start, turn.span.end() - 1),
            };
            let time = milliseconds(turn.time.saturating_sub(narrower));
            let time = if index == 0 { time } else { format!("+{time}") };
            narrower = turn.time;
            let _infallible = writeln!(
                text,
                "    every {:<6} {reads:<28} {time:>10} {:>8}",
                period(turn.interval).to_string(),
                percent(share),
            );
            if index == 0 && request.reason != Reason::First {
                let _infallible = writeln!(text, "{INDENT}apart: {}", request.reason);
            }
            text += &wrapped(&self.names(turn, turn.added.iter()));
            if turn.across > 0 && turn == request.widest() {
                let _infallible = writeln!(
                    text,
                    "{INDENT}and {} between that nobody wants",
                    turn.across
                );
            }
        }
        text
    }

    /// Names of points, with the interval of those that are wanted more rarely than read.
    fn names<'i>(&self, turn: &Turn, points: impl Iterator<Item = &'i usize>) -> Vec<String> {
        let name = |index: &usize| {
            let point = self.device.points.get(*index)?;
            let interval = point.interval.unwrap_or(self.device.interval);
            Some(if interval.as_duration() > turn.interval {
                format!("{} (every {interval})", point.name)
            } else {
                point.name.clone()
            })
        };
        points.filter_map(name).collect()
    }

    fn json(&self) -> serde_json::Value {
        let turn = |turn: &Turn| {
            let name = |at: &usize| Some(self.device.points.get(*at)?.name.as_str());
            json!({
                "reads": turn.span.to_string(),
                "every": period(turn.interval).to_string(),
                "time_ms": as_milliseconds(turn.time),
                "points": turn.points.iter().filter_map(name).collect::<Vec<_>>(),
                "read_across": turn.across,
            })
        };
        let request = |request: &Planned| {
            let mut json = turn(&request.base);
            json["reason"] = json!(request.reason.to_string());
            json["wider"] = request.wider.iter().map(turn).collect();
            json
        };
        json!({
            "device": self.device.name,
            "unit": self.device.unit,
            "load": share(&self.requests),
            "turnaround_ms": as_milliseconds(self.turnaround()),
            "turnaround_measured": self.measured().is_some(),
            "parked": self.parked(),
            "requests": self.requests.iter().map(request).collect::<Vec<_>>(),
        })
    }
}

/// Words in lines that fit a terminal.
fn wrapped(words: &[String]) -> String {
    let mut text = String::new();
    let mut width = 0;
    for word in words {
        if width == 0 || width + word.chars().count() > WIDTH {
            text += if width == 0 { INDENT } else { "\n" };
            if width > 0 {
                text += INDENT;
            }
            width = INDENT.len();
        } else {
            text += ", ";
        }
        text += word;
        width += word.chars().count() + 2;
    }
    text + "\n"
}

fn period(interval: Duration) -> Period {
    Period::from_micros(u64::try_from(interval.as_micros()).unwrap_or(u64::MAX))
}

fn as_milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", as_milliseconds(time))
}

/// A share of time; what is little is not nothing.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        0.05.. => format!("{percent:.1} %"),
        0.001.. => format!("{percent:.3} %"),
        0.0 => "0 %".to_owned(),
        _ => "< 0.001 %".to_owned(),
    }
}
