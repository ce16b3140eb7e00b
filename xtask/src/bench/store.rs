//! `cargo xtask bench store`: the gateway's buffer beside a Mosquitto with persistence and a bridge, the SQLite storage of
//! the ThingsBoard gateway, and rumqttc with no store at all.
//!
//! ```text
//! runs ──▶ peers: started afresh on one core ──▶ upstream on the other ──▶ figures ──▶ report
//!             ▲ store-load, load: what is sent, waited for and timed      store.json   store.md
//! ```
//! Invariant: every figure is a median of rounds in which the peers took turns, so what slows the machine for a while
//! slows all of them. Shell.

#![expect(clippy::disallowed_methods, reason = "a measuring tool owns a clock")]

mod peers;
mod report;
mod runs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use super::brokers::{free_port, machine};
use super::fieldbus::device::{self, Device};
use super::fieldbus::runs::Answering;
use super::figures::{Figures, Results};
use super::page::Page;
use super::process::{last_core, metric, pinned};
use super::versions;
use crate::command::{cargo, output, root, run, target_dir};
use crate::packages::{self, BUILD, Consent, TEST};
use crate::tools;
use peers::{Programs, Store};
use runs::{From, Peer, Run, Task};

/// Bytes of each payload.
const PAYLOAD: f64 = 100.0;
/// Messages in the storage that is drained by itself: it takes minutes for a million.
const THINGSBOARD_MESSAGES: u64 = 100_000;
/// A drain that makes no progress for this long never will.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a store is looked at while it works.
const LOOK: Duration = Duration::from_millis(100);
/// After its start a process may still let go of memory.
const SETTLING: Duration = Duration::from_secs(2);
/// Our own count of what the upstream has acknowledged.
const FORWARDED: &str = "gateway_buffer_forwarded_total";

/// What and how long to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Only runs whose name begins with one of these; their rows are replaced, the others stay
    runs: Vec<String>,
    /// Rounds of each short run; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long each peer is measured in a round, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// With ten million waiting messages, too
    #[arg(long)]
    full: bool,
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

/// Measures, and writes docs/benchmarks/store.md with the figures behind it in store.json.
pub(crate) fn store(options: &Options, consent: Consent) -> Result<()> {
    let chosen = choose(options)?;
    if options.list {
        chosen.iter().for_each(|run| println!("{}", run.name));
        return Ok(());
    }
    let page = Page::new(&root().join("docs/benchmarks"), "store", report::render);
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
    Page::new(&target_dir().join("bench"), "store", report::render).prove(&results)
}

fn choose(options: &Options) -> Result<Vec<Run>> {
    let mut chosen = runs::all();
    chosen.retain(|run| {
        let mut names = options.runs.iter();
        let is_named = names.any(|name| run.name.starts_with(name));
        match options.runs.is_empty() {
            true => options.full || !run.is_long(),
            false => is_named && (options.full || !run.is_long()),
        }
    });
    ensure!(
        !chosen.is_empty(),
        "no run begins so; --list --full names them"
    );
    Ok(chosen)
}

/// What all measurements share.
struct Bench {
    programs: Programs,
}

impl Bench {
    fn new(profile: &str, thingsboard: Option<PathBuf>, consent: Consent) -> Result<Bench> {
        run(cargo("build")
            .args(["--locked", "--profile", profile])
            .args(["--package", "gateway", "--package", "load"])
            .args(["--package", "store-load"]))?;
        let built = target_dir().join(if profile == "dev" { "debug" } else { profile });
        let folder = target_dir().join("bench/store");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let device = folder.join("bench_device");
        device::compile(&device)?;
        let programs = Programs {
            gateway: built.join("gateway"),
            store_load: built.join("store-load"),
            load: built.join("load"),
            python: tools::python(consent)?,
            thingsboard,
            device,
            folder,
            core: 0,
            other_core: last_core()?,
        };
        Ok(Bench { programs })
    }

    /// The peers' versions, as apt and pip name them.
    fn versions(&self) -> Result<Vec<String>> {
        let mut versions = versions::debian(&["mosquitto"])?;
        if let Some(python) = &self.programs.thingsboard {
            versions.extend(versions::pip(python, &["thingsboard-gateway"])?);
        }
        Ok(versions)
    }

    /// All rounds of a run.
    fn measure(&self, run: &Run, rounds: u32, seconds: u64, results: &mut Results) -> Result<()> {
        let rounds = run.rounds(rounds);
        results.measure(&run.name, run.figures(), &run.peers, rounds, |peer| {
            (peer.key(), self.round(run, peer, seconds))
        })
    }

    fn round(&self, run: &Run, peer: Peer, seconds: u64) -> Result<Figures> {
        let report = match (run.task, peer) {
            (Task::Library, Peer::ThingsBoard) => self.programs.thingsboard("append", seconds)?,
            (Task::Library, _) => self.library(seconds)?,
            (Task::Process, _) => return self.process(peer, seconds),
            (Task::Drain(_), Peer::Bare) => self.bare(seconds)?,
            (Task::Drain(_), Peer::ThingsBoard) => {
                self.programs.thingsboard("drain", THINGSBOARD_MESSAGES)?
            }
            (Task::Drain(messages), Peer::Ours) => return self.drain_ours(messages),
            (Task::Drain(messages), Peer::Mosquitto) => return self.drain_mosquitto(messages),
            (Task::Latency(from, load), _) => self.latency(peer, from, load, seconds)?,
            (Task::Memory(rows), _) => return self.memory(rows),
        };
        figures(run, &report)
    }

    fn library(&self, seconds: u64) -> Result<Value> {
        let file = self.programs.empty("library")?.join("buffer.db");
        let file = file.display().to_string();
        let arguments = ["append", &file, "--seconds", &seconds.to_string()];
        self.programs.store_load(&arguments, None)
    }

    /// Nobody listens upstream, so that everything stays.
    fn process(&self, peer: Peer, seconds: u64) -> Result<Figures> {
        let folder = self.programs.empty(peer.key())?;
        let store = self.programs.start(peer, &folder, free_port()?, "")?;
        let before = store.process.written_bytes()?;
        let report = self.load(&store, seconds)?;
        let written = store.process.written_bytes()? - before;
        let number = |key: &str| number(&report, key);
        Ok(Figures::from([
            (runs::RATE.key, number("rate")?),
            (
                runs::WRITTEN.key,
                written / (number("acknowledged")? * PAYLOAD),
            ),
            (runs::CPU.key, number("cpu_us")?),
            (runs::MEMORY.key, number("memory_kb")?),
        ]))
    }

    /// Four publishers at QoS 1, as fast as they are acknowledged.
    fn load(&self, store: &Store, seconds: u64) -> Result<Value> {
        let mut command = Command::new(&self.programs.load);
        command
            .args([
                "flow",
                "--publishers",
                "4",
                "--subscribers",
                "1",
                "--absent",
            ])
            .args(["--qos", "1", "--payload", "100", "--in-flight", "100"])
            .args(["--seconds", &seconds.to_string()])
            .args(["--port", &store.port.to_string()])
            .args(["--pid", &store.process.id().to_string()]);
        let mut command = pinned(&command, self.programs.other_core);
        let text = output(&mut command)
            .ok()
            .context("the generator ended, and says why above")?;
        serde_json::from_str(&text).with_context(|| format!("no report but {text:?}"))
    }

    /// What the upstream accepts from a client that does nothing else.
    fn bare(&self, seconds: u64) -> Result<Value> {
        let port = free_port()?;
        let _upstream = self.programs.upstream(port)?;
        let arguments = [
            "bare",
            "--port",
            &port.to_string(),
            "--seconds",
            &seconds.to_string(),
        ];
        self.programs
            .store_load(&arguments, Some(self.programs.core))
    }

    fn fill(&self, folder: &Path, messages: u64) -> Result<()> {
        let file = folder.join("buffer.db").display().to_string();
        let arguments = ["fill", &file, "--messages", &messages.to_string()];
        self.programs.store_load(&arguments, None).map(drop)
    }

    fn drain_ours(&self, messages: u64) -> Result<Figures> {
        let folder = self.programs.empty("ours")?;
        self.fill(&folder, messages)?;
        let port = free_port()?;
        let _upstream = self.programs.upstream(port)?;
        let store = self.programs.start(Peer::Ours, &folder, port, "")?;
        let metrics = store.metrics.context("ours has metrics")?;
        let mut seen = Drained::default();
        let mut progress = Instant::now();
        while !seen.is_over(messages) {
            ensure!(progress.elapsed() < PATIENCE, "the drain stands still");
            let forwarded = metric(metrics, FORWARDED)?;
            if seen.enter(forwarded, store.process.memory_kb()?) {
                progress = Instant::now();
            }
            sleep(LOOK);
        }
        seen.figures()
    }

    /// The upstream's own count tells, once a second.
    fn drain_mosquitto(&self, messages: u64) -> Result<Figures> {
        let (folder, port) = (self.programs.empty("mosquitto")?, free_port()?);
        let store = self.programs.start(Peer::Mosquitto, &folder, port, "")?;
        let mut waiting = 0.0;
        while waiting < messages as f64 {
            waiting += number(&self.load(&store, 10)?, "acknowledged")?;
        }
        let mut memory = vec![store.process.memory_kb()?];
        let _upstream = self.programs.upstream(port)?;
        let mut command = Command::new(&self.programs.store_load);
        command
            .args(["passed", "--port", &port.to_string()])
            .args(["--messages", &messages.to_string()]);
        let watching = thread::spawn(move || output(&mut command));
        while !watching.is_finished() {
            memory.push(store.process.memory_kb()?);
            sleep(LOOK);
        }
        let Ok(text) = watching.join() else {
            bail!("the thread that watches the upstream ended by a bug");
        };
        let text = text.ok().context("it ended, and says why above")?;
        let rate = number(&serde_json::from_str(&text)?, runs::RATE.key)?;
        Ok(drained(rate, &memory))
    }

    fn latency(&self, peer: Peer, from: From, load: u32, seconds: u64) -> Result<Value> {
        let (folder, upstream) = (self.programs.empty(peer.key())?, free_port()?);
        let _upstream = self.programs.upstream(upstream)?;
        let (mut bus, mut device) = (String::new(), None);
        if from == From::Sensor {
            let port = free_port()?;
            let programs = &self.programs;
            device = Some(Device::start(
                Answering::Libmodbus,
                &programs.device,
                &programs.python,
                port,
                programs.other_core,
            )?);
            bus = sensor(port);
        }
        let store = self.programs.start(peer, &folder, upstream, &bus)?;
        let (filter, probes) = match from {
            From::Publisher => ("bench/telemetry/probe", "100"),
            From::Sensor => ("bench/telemetry/d1/#", "0"),
        };
        let report = self.programs.store_load(
            &[
                "latency",
                "--local",
                &store.port.to_string(),
                "--upstream",
                &upstream.to_string(),
                "--filter",
                filter,
                "--probes",
                probes,
                "--load",
                &load.to_string(),
                "--seconds",
                &seconds.to_string(),
            ],
            Some(self.programs.other_core),
        );
        drop(device);
        report
    }

    fn memory(&self, rows: u64) -> Result<Figures> {
        let folder = self.programs.empty("ours")?;
        if rows > 0 {
            self.fill(&folder, rows)?;
        }
        let store = self.programs.start(Peer::Ours, &folder, free_port()?, "")?;
        let metrics = store.metrics.context("ours has metrics")?;
        let waiting = metric(metrics, "gateway_buffer_messages")?;
        ensure!(
            waiting == rows as f64,
            "{waiting} messages wait, not {rows}"
        );
        sleep(SETTLING);
        Ok(Figures::from([(
            runs::MEMORY.key,
            store.process.memory_kb()?,
        )]))
    }
}

/// Ten points every 100 ms.
fn sensor(port: u16) -> String {
    let points: String = (0..10)
        .map(|at| {
            format!("  {{ name = \"p{at}\", register = \"holding:{at}\", type = \"u16\", report = \"poll\" }},\n")
        })
        .collect();
    format!(
        "[[bus]]\nname = \"bus\"\ntcp = \"127.0.0.1:{port}\"\n\
         [[device]]\nname = \"d1\"\nbus = \"bus\"\nunit = 1\ninterval = \"100ms\"\npoint = [\n{points}]\n"
    )
}

/// What was seen of a drain.
#[derive(Default)]
struct Drained {
    first: Option<(Instant, f64)>,
    last: Option<(Instant, f64)>,
    memory: Vec<f64>,
}

impl Drained {
    /// One look; whether more has left since the one before.
    fn enter(&mut self, forwarded: f64, memory_kb: f64) -> bool {
        let now = Instant::now();
        self.memory.push(memory_kb);
        if forwarded == 0.0 {
            return false;
        }
        self.first.get_or_insert((now, forwarded));
        let before = self.last.replace((now, forwarded));
        before.is_none_or(|(_, before)| forwarded > before)
    }

    fn is_over(&self, messages: u64) -> bool {
        self.last
            .is_some_and(|(_, forwarded)| forwarded >= messages as f64)
    }

    fn figures(&self) -> Result<Figures> {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            bail!("nothing was drained");
        };
        let seconds = (last.0 - first.0).as_secs_f64();
        ensure!(seconds > 0.0, "it was over before it was looked at twice");
        Ok(drained((last.1 - first.1) / seconds, &self.memory))
    }
}

fn drained(rate: f64, memory: &[f64]) -> Figures {
    let at = |place: usize| memory.get(place).copied().unwrap_or_default();
    Figures::from([
        (runs::RATE.key, rate),
        ("start_kb", at(0)),
        ("middle_kb", at(memory.len() / 2)),
        ("end_kb", at(memory.len().saturating_sub(1))),
    ])
}

/// The figures of a run that a report has.
fn figures(run: &Run, report: &Value) -> Result<Figures> {
    let found = run.figures().iter().filter_map(|figure| {
        let value = report.get(figure.key)?.as_f64()?;
        Some((figure.key, value))
    });
    let found: Figures = found.collect();
    ensure!(!found.is_empty(), "{report} has none of the figures");
    Ok(found)
}

fn number(report: &Value, key: &str) -> Result<f64> {
    let number = report.get(key).and_then(Value::as_f64);
    number.with_context(|| format!("{report} has no {key}"))
}
