//! `gateway plan`: the requests that go over each bus, why they are grouped so, and how long a
//! round takes. Shell.
//!
//! Invariant: it shows what `run` does before the devices have taught it anything.

use std::{fmt::Write, time::Duration};

use serde_json::json;
use settings::{Document, Period, Problem};

use crate::{
    config::{Bus, Config, Device},
    fieldbus::{
        poll::device,
        poll::plan::{Cost, Planned, Reason, load as share},
    },
};

use super::{ConfigPath, Failure, load, print};

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
    let plans: Vec<BusPlan<'_>> = config
        .buses
        .iter()
        .map(|bus| BusPlan::of(bus, &config))
        .collect();
    let text = if args.json {
        format!(
            "{:#}\n",
            json!(plans.iter().map(BusPlan::json).collect::<Vec<_>>())
        )
    } else if plans.is_empty() {
        "no [[bus]] in this configuration\n".to_owned()
    } else {
        plans
            .iter()
            .map(BusPlan::text)
            .collect::<Vec<_>>()
            .join("\n")
    };
    Ok(print(&text)?)
}

/// Buses that are asked for more than their line can carry.
pub(super) fn overload(config: &Config, document: &Document) -> Vec<Problem> {
    let plans = config
        .buses
        .iter()
        .enumerate()
        .map(|(index, bus)| (index, BusPlan::of(bus, config)));
    plans
        .filter(|(_, plan)| plan.load() > 1.0)
        .map(|(index, plan)| {
            document.error(
                &format!("bus[{index}]"),
                format!("bus {:?} is {:.0} % booked: its points miss their intervals", plan.bus.name, plan.load() * 100.0),
                "raise the line rate or the intervals, or read fewer points; gateway plan shows the requests",
            )
        })
        .collect()
}

struct BusPlan<'a> {
    bus: &'a Bus,
    devices: Vec<(&'a Device, Vec<Planned>)>,
}

impl<'a> BusPlan<'a> {
    fn of(bus: &'a Bus, config: &'a Config) -> BusPlan<'a> {
        let cost = Cost::of(bus);
        let devices = config
            .devices
            .iter()
            .filter(|device| device.bus == bus.name);
        BusPlan {
            bus,
            devices: devices
                .map(|device| (device, device::requests(device, cost)))
                .collect(),
        }
    }

    fn requests(&self) -> impl Iterator<Item = &Planned> {
        self.devices.iter().flat_map(|(_, requests)| requests)
    }

    fn load(&self) -> f64 {
        share(self.requests())
    }

    fn round(&self) -> Duration {
        self.requests().map(|request| request.time).sum()
    }

    fn text(&self) -> String {
        let wire = self.bus.port.as_ref().map_or_else(
            || self.bus.tcp.clone().unwrap_or_default(),
            |port| format!("{} at {} baud", port.display(), self.bus.baud),
        );
        let mut text = format!(
            "bus {} on {wire}: {:.0} % booked, one round of everything takes {}\n",
            self.bus.name,
            self.load() * 100.0,
            milliseconds(self.round())
        );
        for (device, requests) in &self.devices {
            let _infallible = writeln!(text, "  {} (unit {})", device.name, device.unit);
            for request in requests {
                text += &line(device, request);
            }
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let requests = |device: &Device, requests: &[Planned]| {
            requests
                .iter()
                .map(|request| {
                    json!({
                        "reads": request.span.to_string(),
                        "every": interval(request).to_string(),
                        "time_ms": request.time.as_secs_f64() * 1_000.0,
                        "points": names(device, request),
                        "read_across": request.across,
                        "reason": request.reason.to_string(),
                    })
                })
                .collect::<Vec<_>>()
        };
        json!({
            "bus": self.bus.name,
            "load": self.load(),
            "round_ms": self.round().as_secs_f64() * 1_000.0,
            "devices": self.devices.iter().map(|(device, planned)| json!({
                "device": device.name,
                "unit": device.unit,
                "requests": requests(device, planned),
            })).collect::<Vec<_>>(),
        })
    }
}

fn line(device: &Device, request: &Planned) -> String {
    let across = match request.across {
        0 => String::new(),
        count => format!(", {count} read across"),
    };
    let reason = match request.reason {
        Reason::First => String::new(),
        reason => format!("           apart because: {reason}\n"),
    };
    format!(
        "    every {:<6} {:<28} {:>9}  {}{across}\n{reason}",
        interval(request).to_string(),
        request.span.to_string(),
        milliseconds(request.time),
        names(device, request).join(" "),
    )
}

fn names<'d>(device: &'d Device, request: &Planned) -> Vec<&'d str> {
    request
        .points
        .iter()
        .filter_map(|index| Some(device.points.get(*index)?.name.as_str()))
        .collect()
}

fn interval(request: &Planned) -> Period {
    Period::from_micros(u64::try_from(request.interval.as_micros()).unwrap_or(u64::MAX))
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}
