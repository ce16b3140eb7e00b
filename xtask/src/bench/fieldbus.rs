//! `cargo xtask bench fieldbus`: the gateway beside others who poll Modbus devices.
//!
//! ```text
//! runs ──▶ device on one core ◀── peers on the other, in turn, round after round ──▶ results ──▶ report
//!          counts what it serves      count what they publish                  fieldbus.json  fieldbus.md
//! ```
//! Invariant: every figure is a median of rounds in which the peers took turns at the same device, so what slows the
//! machine for a while slows all of them. Shell.

#![expect(clippy::disallowed_methods, reason = "a measuring tool owns a clock")]

pub(super) mod device;
mod peers;
mod report;
pub(super) mod runs;

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::brokers::{free_port, machine};
use super::figures::{Figures, Results};
use super::page::Page;
use super::process::last_core;
use super::versions;
use crate::command::{cargo, root, run, target_dir};
use crate::packages::{self, BUILD, Consent, TEST};
use crate::tools;
use device::Device;
use peers::Programs;
use runs::{Answering, Layout, Load, Peer, Run};

/// What and how long to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Only runs whose name begins with one of these; their rows are replaced, the others stay
    runs: Vec<String>,
    /// Rounds of each run; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long each peer is measured in a round, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Cargo profile of our gateway
    #[arg(long, default_value = "release")]
    profile: String,
    /// Name the runs and do none
    #[arg(long)]
    list: bool,
    /// Measure nothing, and write the page anew from the figures
    #[arg(long)]
    page: bool,
}

/// Measures, and writes docs/benchmarks/fieldbus.md with the figures behind it in fieldbus.json.
pub(crate) fn fieldbus(options: &Options, consent: Consent) -> Result<()> {
    let named = |run: &Run| {
        let mut names = options.runs.iter();
        options.runs.is_empty() || names.any(|name| run.name.starts_with(name))
    };
    let mut chosen = runs::all();
    chosen.retain(named);
    ensure!(!chosen.is_empty(), "no run begins so; --list names them");
    if options.list {
        chosen.iter().for_each(|run| println!("{}", run.name));
        return Ok(());
    }
    let page = Page::new(&root().join("docs/benchmarks"), "fieldbus", report::render);
    let mut results = page.load()?;
    if options.page {
        return page.render(&results);
    }
    packages::need(&[BUILD, TEST], consent)?;
    let thingsboard = Some(tools::thingsboard(consent)?);
    let bench = Bench::new(&options.profile, thingsboard, consent)?;
    results.machine = machine()?;
    results.profile.clone_from(&options.profile);
    results.versions = bench.versions()?;
    for run in &chosen {
        bench.measure(run, options.rounds, options.seconds, &mut results)?;
        page.write(&results)?;
    }
    page.finish(&results)
}

/// A few seconds with an unoptimised gateway, so that nothing here rots; writes below the target folder.
pub(crate) fn smoke(consent: Consent) -> Result<()> {
    let bench = Bench::new("dev", None, consent)?;
    let mut results = Results::default();
    for run in runs::few() {
        bench.measure(&run, 1, 1, &mut results)?;
    }
    Page::new(&target_dir().join("bench"), "fieldbus", report::render).prove(&results)
}

/// What all measurements share.
struct Bench {
    programs: Programs,
    device: PathBuf,
}

/// What was counted at one moment.
struct Count {
    at: Instant,
    requests: f64,
    registers: f64,
    values: f64,
    peer_cpu: f64,
    device_cpu: f64,
}

impl Bench {
    fn new(profile: &str, thingsboard: Option<PathBuf>, consent: Consent) -> Result<Bench> {
        run(cargo("build").args(["--locked", "--profile", profile, "--package", "gateway"]))?;
        let built = target_dir().join(if profile == "dev" { "debug" } else { profile });
        let folder = target_dir().join("bench/fieldbus");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let device = folder.join("bench_device");
        device::compile(&device)?;
        let programs = Programs {
            gateway: built.join("gateway"),
            python: tools::python(consent)?,
            thingsboard,
            folder,
            core: 0,
            other_core: last_core()?,
        };
        Ok(Bench { programs, device })
    }

    /// The peers' versions: of packages that apt or pip pin, as those name them.
    fn versions(&self) -> Result<Vec<String>> {
        let mut versions = versions::debian(&["mbpoll", "libmodbus-dev", "mosquitto"])?;
        let programs = &self.programs;
        for python in std::iter::once(&programs.python).chain(&programs.thingsboard) {
            let peers = ["pymodbus", "thingsboard-gateway"];
            versions.extend(versions::pip(python, &peers)?);
        }
        Ok(versions)
    }

    /// All rounds of a run.
    fn measure(&self, run: &Run, rounds: u32, seconds: u64, results: &mut Results) -> Result<()> {
        let time = Duration::from_secs(seconds);
        results.measure(&run.name, run.figures(), &run.peers, rounds, |peer| {
            (peer.key(), self.round(run, peer, time))
        })
    }

    fn round(&self, run: &Run, peer: Peer, time: Duration) -> Result<Figures> {
        match run.load {
            Load::Saturated(answering, layout) => {
                self.over_tcp(peer, answering, layout, None, time)
            }
            Load::Paced(layout, interval) => {
                self.over_tcp(peer, Answering::Libmodbus, layout, Some(interval), time)
            }
        }
    }

    fn over_tcp(
        &self,
        peer: Peer,
        answering: Answering,
        layout: Layout,
        interval: Option<Duration>,
        time: Duration,
    ) -> Result<Figures> {
        let port = free_port()?;
        let programs = &self.programs;
        let core = programs.other_core;
        let mut device = Device::start(answering, &self.device, &programs.python, port, core)?;
        let mut polling = programs.start(peer, layout, interval, port)?;
        sleep(polling.warm_up());
        let mut count = || -> Result<Count> {
            let served = device.served()?;
            let values = polling.values()?;
            Ok(Count {
                at: Instant::now(),
                requests: served.requests,
                registers: served.registers,
                values: values.unwrap_or(served.registers),
                peer_cpu: polling.cpu_seconds()?,
                device_cpu: served.cpu_seconds,
            })
        };
        let before = count()?;
        sleep(time);
        let after = count()?;
        figures(&before, &after)
    }
}

fn figures(before: &Count, after: &Count) -> Result<Figures> {
    let seconds = (after.at - before.at).as_secs_f64();
    let points = after.values - before.values;
    ensure!(points > 0.0, "nothing was polled");
    let cpu = after.peer_cpu - before.peer_cpu;
    let device_cpu = after.device_cpu - before.device_cpu;
    Ok(Figures::from([
        (runs::POINTS.key, points / seconds),
        (
            runs::REGISTERS.key,
            (after.registers - before.registers) / seconds,
        ),
        (
            runs::REQUESTS.key,
            (after.requests - before.requests) / seconds,
        ),
        (runs::CPU.key, cpu / points * 1e6),
        (runs::DEVICE.key, device_cpu / seconds * 100.0),
    ]))
}
