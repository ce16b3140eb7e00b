//! `cargo xtask bench broker`: broker-lite beside Mosquitto and rumqttd, under the same load, one after the other.
//!
//! ```text
//! workloads ──▶ brokers: started afresh on a core of its own ──▶ load, on another core ──▶ results ──▶ report
//!                  └── in turn, round after round ◀──────────────────────────┘              broker.json  broker.md
//! ```
//! `fieldbus` does the same for those who poll Modbus devices, `store` for those who keep messages and forward them.
//! Invariant: every figure is a median of runs that alternated between the brokers, so what slows the machine for a
//! while slows all of them. A run of some workloads replaces their rows only. Shell.

pub(crate) mod fieldbus;
pub(crate) mod store;
pub(crate) mod trust;

mod brokers;
mod figures;
mod page;
mod process;
mod report;
mod results;
mod table;
mod versions;
mod workloads;

pub(crate) mod line;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::command::{cargo, output, root, run, target_dir};
use crate::packages::{self, BUILD, Consent, TEST};
use crate::tools;
use brokers::{Broker, Peer};
use process::last_core;
use results::Results;
use workloads::{Extent, Step, Workload};

/// The longest that one run of the generator may take; the longest workload needs a third of it.
const RUN_LIMIT: &str = "120s";

/// What and how long to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Only workloads whose name begins with one of these; their rows are replaced, the others stay
    workloads: Vec<String>,
    /// One short round of the most telling workloads
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Every workload at every payload over both transports, in five rounds: an hour and a half
    #[arg(long)]
    full: bool,
    /// Name the workloads and run none
    #[arg(long)]
    list: bool,
    /// Measure this broker-lite instead of building the one that ships
    #[arg(long, value_name = "FILE")]
    broker: Option<PathBuf>,
    /// Cores for the broker, as taskset takes them; the generator gets the last core of the machine
    #[arg(long, default_value = "0")]
    broker_cores: String,
}

/// Measures, and writes docs/benchmarks/broker.md with the figures behind it in broker.json.
pub(crate) fn broker(options: &Options, consent: Consent) -> Result<()> {
    let extent = match (options.quick, options.full) {
        (true, _) => Extent::Quick,
        (_, true) => Extent::Full,
        _ => Extent::Default,
    };
    let chosen = choose(workloads::all(extent), &options.workloads)?;
    if options.list {
        chosen
            .iter()
            .for_each(|workload| println!("{}", workload.name));
        return Ok(());
    }
    packages::need(&[BUILD, TEST], consent)?;
    let rumqttd = tools::rumqttd(consent)?;
    let built = build(options.broker.as_deref(), "release")?;
    let bench = Bench::new(built, Some(rumqttd), options.broker_cores.clone())?;
    let folder = root().join("docs/benchmarks");
    let mut results: Results = results::load(&folder.join("broker.json"))?;
    results.describe(&bench.peers, &options.broker_cores)?;
    for workload in &chosen {
        bench.measure(workload, extent, &mut results)?;
        results::save(&results, &folder.join("broker.json"))?;
        report::write(&results, &folder.join("broker.md"))?;
    }
    println!("written: {}", folder.join("broker.md").display());
    results.check_ours()
}

/// A few seconds of unoptimised brokers, so that nothing here rots; writes below the target folder.
pub(crate) fn smoke() -> Result<()> {
    let bench = Bench::new(build(None, "dev")?, None, "0".to_owned())?;
    let mut results = Results::default();
    results.describe(&bench.peers, "0")?;
    for workload in workloads::all(Extent::Smoke) {
        bench.measure(&workload, Extent::Smoke, &mut results)?;
    }
    let path = target_dir().join("bench/smoke.json");
    results::save(&results, &path)?;
    ensure!(
        results.rows == results::load::<Results>(&path)?.rows,
        "{} does not read back",
        path.display()
    );
    report::write(&results, &target_dir().join("bench/smoke.md"))?;
    results.check_ours()
}

/// The programs that were built.
struct Built {
    broker: PathBuf,
    load: PathBuf,
}

fn build(given: Option<&Path>, profile: &str) -> Result<Built> {
    let mut packages = vec!["--package", "load"];
    if given.is_none() {
        packages.extend(["--package", "broker-lite"]);
    }
    run(cargo("build")
        .args(["--locked", "--profile", profile])
        .args(packages))?;
    let folder = target_dir().join(if profile == "dev" { "debug" } else { profile });
    Ok(Built {
        broker: given.map_or_else(|| folder.join("broker-lite"), Path::to_owned),
        load: folder.join("load"),
    })
}

/// Those that are named, with those whose result they start from.
fn choose(all: Vec<Workload>, names: &[String]) -> Result<Vec<Workload>> {
    for name in names {
        ensure!(
            all.iter().any(|workload| workload.name.starts_with(name)),
            "no workload begins with \"{name}\"; --list names them"
        );
    }
    let is_named = |workload: &Workload| {
        names.is_empty() || names.iter().any(|name| workload.name.starts_with(name))
    };
    Ok(all.into_iter().filter(is_named).collect())
}

/// What all measurements share.
struct Bench {
    peers: Vec<Peer>,
    load: PathBuf,
    folder: PathBuf,
    broker_cores: String,
    load_core: String,
}

impl Bench {
    fn new(built: Built, rumqttd: Option<PathBuf>, broker_cores: String) -> Result<Bench> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let folder = target_dir().join("bench");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        run(Command::new(&built.load).arg("pki").arg(&folder))?;
        let mut peers = vec![Peer::mosquitto()];
        peers.extend(rumqttd.map(Peer::rumqttd));
        peers.push(Peer::ours(built.broker));
        Ok(Bench {
            peers,
            load: built.load,
            folder,
            broker_cores,
            load_core: last_core()?.to_string(),
        })
    }

    /// All rounds of one workload.
    fn measure(&self, workload: &Workload, extent: Extent, results: &mut Results) -> Result<()> {
        println!("==> {}", workload.name);
        let rate = workload
            .tenth_of
            .as_ref()
            .map(|basis| results.tenth_of_mosquitto(basis))
            .transpose()?;
        let mut runs = Vec::new();
        for _ in 0..extent.rounds(workload.section) {
            for peer in &self.peers {
                let report = self.run_once(workload, peer, rate);
                match &report {
                    Ok(report) => println!("    {:<12} {}", peer.name, workload.brief(report)),
                    Err(failure) => println!("    {:<12} {failure:#}", peer.name),
                }
                runs.push((peer.name, report));
            }
        }
        results.enter(workload, runs)
    }

    /// A fresh broker goes through all steps; the last one's report counts.
    fn run_once(&self, workload: &Workload, peer: &Peer, rate: Option<u64>) -> Result<Value> {
        let mut broker = Broker::start(peer, workload.storing, &self.folder, &self.broker_cores)?;
        let mut report = Value::Null;
        for step in &workload.steps {
            match step {
                Step::Load(arguments) => {
                    report = self.load(&broker, workload.tls, arguments, rate)?;
                }
                Step::Restart => broker = broker.restart()?,
            }
        }
        Ok(report)
    }

    fn load(
        &self,
        broker: &Broker,
        tls: bool,
        arguments: &[String],
        rate: Option<u64>,
    ) -> Result<Value> {
        // A broker that stops answering must not stop the bench.
        let mut command = Command::new("timeout");
        command
            .args(["--signal", "KILL", RUN_LIMIT])
            .args(["taskset", "--cpu-list", &self.load_core])
            .arg(&self.load);
        command.args(arguments);
        command.args(["--port", &broker.port(tls).to_string()]);
        command.args(["--pid", &broker.pid().to_string()]);
        if tls {
            command.arg("--tls").arg(&self.folder);
        }
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        // Its command line names folders of this machine, which do not belong into the results.
        let text = output(&mut command)
            .ok()
            .context("the generator ended, and says why above")?;
        let Ok(report) = serde_json::from_str(&text) else {
            bail!("the load printed no report: {text}");
        };
        Ok(report)
    }
}
