//! `cargo xtask bench line`: how much of a serial line's ceiling the gateway uses in real time.
//!
//! ```text
//! gateway simulate ◀── pseudo-terminal, no byte earlier than on the line ──▶ gateway run ──▶ answers it published
//!                                                                                            ──▶ line.md
//! ```
//! The ceiling counts what nobody can avoid: the characters of request and answer, and the silence behind each. The
//! simulated devices take no time beyond that silence, in which a client could hide its own.
//! Invariant: an answer counts when it was published, so time-outs and repetitions are lost time. Shell.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::brokers::{free_port, machine};
use crate::command::{cargo, run, target_dir};
use crate::packages::{self, BUILD, Consent};

/// The line rates that are measured.
const BAUDS: [u32; 3] = [9_600, 19_200, 115_200];
/// Registers of a read: as many as fit a frame, and one.
const REGISTERS: [u16; 2] = [125, 1];
/// Devices on the line: at the shortest interval of 10 ms they ask for more than any of the rates carries.
const UNITS: u16 = 4;
/// Share of the ceiling that is to be reached, in percent.
const GOAL: f64 = 90.0;
/// What the gateway may take until its polls are in step.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// How often the next answer is looked for at both ends of a measurement.
const LOOK: Duration = Duration::from_millis(1);
/// How long something may take to show itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// How long each rate and size is measured, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Cargo profile of the gateway
    #[arg(long, default_value = "demo")]
    profile: String,
    /// Measure this gateway, which was built so, instead of building it
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// Where the page is written
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks/line.md")]
    page: PathBuf,
}

/// Measures every rate with long and with short requests, prints and writes the page.
pub(crate) fn line(options: &Options, consent: Consent) -> Result<()> {
    packages::need(&[BUILD], consent)?;
    let gateway = match &options.gateway {
        Some(gateway) => gateway.clone(),
        None => build(&options.profile)?,
    };
    let time = Duration::from_secs(options.seconds);
    let mut measured = Vec::new();
    for baud in BAUDS {
        for registers in REGISTERS {
            let load = Load { baud, registers };
            let figures = load.measure(&gateway, time)?;
            println!("{}", row(load, &figures));
            measured.push((load, figures));
        }
    }
    let page = crate::command::root().join(&options.page);
    fs::write(&page, document(&machine()?, options, &measured))
        .with_context(|| format!("cannot write {}", page.display()))?;
    println!("written: {}", page.display());
    let below = measured
        .iter()
        .filter(|(load, one)| one.share(*load) < GOAL);
    let below: Vec<String> = below.map(|(load, one)| row(*load, one)).collect();
    ensure!(below.is_empty(), "below {GOAL} %:\n{}", below.join("\n"));
    Ok(())
}

/// A second with an unoptimised gateway, so that nothing here rots; writes below the target folder.
pub(crate) fn smoke() -> Result<()> {
    let options = Options {
        seconds: 1,
        profile: "dev".to_owned(),
        gateway: None,
        page: target_dir().join("bench/line.md"),
    };
    let load = Load {
        baud: 115_200,
        registers: 125,
    };
    let figures = load.measure(&build(&options.profile)?, Duration::from_secs(1))?;
    fs::write(
        &options.page,
        document(&machine()?, &options, &[(load, figures)]),
    )
    .with_context(|| format!("cannot write {}", options.page.display()))
}

fn build(profile: &str) -> Result<PathBuf> {
    run(cargo("build").args(["--locked", "--profile", profile, "--package", "gateway"]))?;
    let built = if profile == "dev" { "debug" } else { profile };
    Ok(target_dir().join(built).join("gateway"))
}

/// Reads of one size, again and again at one line rate.
#[derive(Clone, Copy)]
struct Load {
    baud: u32,
    registers: u16,
}

/// What was counted meanwhile.
struct Figures {
    answers: f64,
    time: Duration,
    cpu: Duration,
}

impl Figures {
    /// Share of the ceiling, in percent.
    fn share(&self, load: Load) -> f64 {
        self.answers * load.at_best().as_secs_f64() / self.time.as_secs_f64() * 100.0
    }
}

impl Load {
    /// What one read takes at best: both frames of eleven bits a character, and the silence behind each, of 3.5 characters
    /// or, above 19,200 baud, 1.75 ms (Modbus over serial line 2.5.1.1).
    fn at_best(self) -> Duration {
        let character = 11.0 / f64::from(self.baud);
        let silence = if self.baud > 19_200 {
            0.001_75
        } else {
            3.5 * character
        };
        let (request, answer) = (8.0, 5.0 + 2.0 * f64::from(self.registers));
        Duration::from_secs_f64((request + answer) * character + 2.0 * silence)
    }

    fn measure(self, gateway: &Path, time: Duration) -> Result<Figures> {
        let folder = target_dir().join("bench/line");
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut simulator = Program::start(&mut self.simulator(gateway, &folder))?;
        simulator.wait_until(|| folder.join("line").exists())?;
        let metrics = free_port()?;
        let file = folder.join("gateway.toml");
        fs::write(&file, self.configuration(&folder, metrics, free_port()?))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut polling =
            Program::start(Command::new(gateway).arg("run").arg("--config").arg(&file))?;
        polling.wait_until(|| published(metrics).is_ok())?;
        sleep(WARM_UP);
        let (began, first) = next_answer(metrics)?;
        let cpu = polling.cpu()?;
        sleep(time);
        let cpu = polling.cpu()?.saturating_sub(cpu);
        let (ended, last) = next_answer(metrics)?;
        Ok(Figures {
            answers: last - first,
            time: ended - began,
            cpu,
        })
    }

    fn simulator(self, gateway: &Path, folder: &Path) -> Command {
        let mut command = Command::new(gateway);
        command
            .args(["simulate", "--baud", &self.baud.to_string(), "--registers"])
            .arg(format!("holding:0-{}", self.registers - 1))
            .arg("--folder")
            .arg(folder);
        for unit in 1..=UNITS {
            command.args(["--unit", &unit.to_string()]);
            command.args(["--fault", &format!("unit-{unit}=turnaround:0ms")]);
        }
        command
    }

    /// One message per answer.
    fn configuration(self, folder: &Path, metrics: u16, broker: u16) -> String {
        let folder = folder.display();
        let points: String = (0..self.registers)
            .map(|at| format!("  {{ name = \"p{at}\", register = \"holding:{at}\", type = \"u16\", report = \"poll\" }},\n"))
            .collect();
        let devices: String = (1..=UNITS)
            .map(|unit| {
                format!(
                    "[[device]]\nname = \"d{unit}\"\nbus = \"line\"\nunit = {unit}\ninterval = \"10ms\"\n\
                     publish = \"device\"\npoint = [\n{points}]\n"
                )
            })
            .collect();
        format!(
            "[gateway]\nid = \"bench\"\ncontrol = \"{folder}/control.sock\"\n\
             [buffer]\npath = \"{folder}/buffer.db\"\n\
             [metrics]\naddress = \"127.0.0.1:{metrics}\"\n\
             [[broker.listener]]\naddress = \"127.0.0.1:{broker}\"\n\
             [[bus]]\nname = \"line\"\nport = \"{folder}/line\"\nbaud = {}\nallow_overload = true\n\
             {devices}",
            self.baud
        )
    }
}

/// A row of the page.
fn row(load: Load, figures: &Figures) -> String {
    let seconds = figures.time.as_secs_f64();
    format!(
        "| {} | {} | {:.2} | {:.2} | {:.1} | {:.1} % | {:.1} % |",
        load.baud,
        load.registers,
        load.at_best().as_secs_f64() * 1e3,
        seconds / figures.answers * 1e3,
        figures.answers / seconds,
        figures.share(load),
        figures.cpu.as_secs_f64() / seconds * 100.0,
    )
}

fn document(machine: &str, options: &Options, measured: &[(Load, Figures)]) -> String {
    let mut text = format!(
        "# How much of a serial line is used\n\n\
         Written by `cargo xtask bench line`; {} s each, profile `{}`.\n\n\
         - Machine: {machine}.\n\
         - Method: `gateway run` polls {UNITS} devices of `gateway simulate` on a pseudo-terminal on which no byte is earlier \
         than on a line of that rate, each at 10 ms, which is more than the line carries. Answers are counted as they are \
         published.\n\
         - Ceiling: eleven bits a character, request and answer, and the silence of 3.5 characters (1.75 ms above 19,200 \
         baud) behind each. The devices need no time beyond it.\n\
         - Goal: {GOAL} %. What is missing are the times that processes take to wake up: two here, and two of the \
         simulator's, which a real line does not have.\n\n\
         | baud | registers per request | ms per request at best | ms measured | requests/s | share of the ceiling | \
         gateway, of one core |\n|---:|---:|---:|---:|---:|---:|---:|\n",
        options.seconds, options.profile,
    );
    for (load, figures) in measured {
        // Writing to a text cannot fail.
        let _written = writeln!(text, "{}", row(*load, figures));
    }
    text
}

/// When the next answer is published, and how many have been by then.
fn next_answer(metrics: u16) -> Result<(Instant, f64)> {
    let before = published(metrics)?;
    let give_up = Instant::now() + PATIENCE;
    while Instant::now() < give_up {
        let now = published(metrics)?;
        if now > before {
            return Ok((Instant::now(), now));
        }
        sleep(LOOK);
    }
    bail!("no answer came over the line")
}

/// Messages that the gateway's broker has taken, as its metrics tell.
fn published(metrics: u16) -> Result<f64> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, metrics))?;
    connection
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    connection.read_to_string(&mut page)?;
    let count = page
        .lines()
        .find_map(|line| line.strip_prefix("broker_messages_received_total "));
    Ok(count
        .context("the metrics do not count messages")?
        .parse()?)
}

/// A program that ends with its owner.
struct Program {
    child: Child,
    clock: ClockId,
    name: String,
}

impl Program {
    fn start(command: &mut Command) -> Result<Program> {
        let name = crate::command::line(command);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = quiet
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(child.id())?))?;
        Ok(Program { child, clock, name })
    }

    fn wait_until(&mut self, ready: impl Fn() -> bool) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("`{}` ended at its start with {status}", self.name);
            }
            ensure!(
                Instant::now() < give_up,
                "`{}` does not get ready",
                self.name
            );
            sleep(LOOK);
        }
        Ok(())
    }

    /// Processor time that all its threads have used, kernel included.
    fn cpu(&self) -> Result<Duration> {
        let used = clock_gettime(self.clock)
            .with_context(|| format!("`{}` ended while it was measured", self.name))?;
        Ok(used.into())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already, which is said where it is waited for.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_is_both_frames_and_a_silence_behind_each() {
        let micros = |baud, registers| Load { baud, registers }.at_best().as_micros();
        assert_eq!(micros(9_600, 125), 309_375);
        assert_eq!(micros(115_200, 1), 4_932);
    }

    #[test]
    fn answers_that_took_twice_their_time_used_half_of_the_line() {
        let load = Load {
            baud: 9_600,
            registers: 125,
        };
        let figures = Figures {
            answers: 10.0,
            time: load.at_best() * 20,
            cpu: Duration::ZERO,
        };
        assert!((figures.share(load) - 50.0).abs() < 0.01);
    }
}
