//! `gateway simulate`: the devices of a configuration, or bare registers, on wires of this machine.
//! Shell.
//!
//! Invariant: only links of its own are replaced, and they go when it ends.

mod places;

use std::{io::BufRead, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow};
use settings::Period;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config, Framing, SerialSensor},
    fieldbus::simulate::{Command, HELP, Plant, Registers, Talk},
};

use super::{ConfigPath, Exit, Failure, load, print};
use places::Places;

/// Name of the line that a profile or bare registers are on.
const LINE: &str = "line";
/// Commands read ahead of their execution.
const COMMANDS_AHEAD: usize = 16;

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Simulate every bus, device and serial instrument of this configuration
    #[arg(
        short = 'c',
        long,
        value_name = "FILE",
        required_unless_present_any = ["registers", "profile"]
    )]
    config: Option<PathBuf>,
    /// Simulate a device of this profile instead; `gateway profile list` names them
    #[arg(long, value_name = "NAME", conflicts_with_all = ["config", "registers"])]
    profile: Option<String>,
    /// Simulate a device with these registers instead, such as input:0-99; may be repeated
    #[arg(long, value_name = "TABLE:FIRST-LAST", conflicts_with = "config")]
    registers: Vec<Registers>,
    /// Unit identifier of the profile or the registers; repeated: that many devices
    #[arg(long, value_name = "N", default_values_t = [1], conflicts_with = "config")]
    unit: Vec<u8>,
    /// Put them behind this address, such as 127.0.0.1:1502, instead of on a serial line
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    tcp: Option<String>,
    /// RTU frames on the TCP connection
    #[arg(long, requires = "tcp")]
    rtu: bool,
    /// Line rate of their serial line; without it, bytes take no time there
    #[arg(long, conflicts_with_all = ["config", "tcp"])]
    baud: Option<u32>,
    /// Serial lines of the configuration take no time for their bytes
    #[arg(long)]
    unpaced: bool,
    /// Where links to serial lines are made that cannot stand where the configuration says; by
    /// default a temporary folder
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write the configuration with the simulated wires in it, for `gateway run` at the desk
    #[arg(long, value_name = "FILE", requires = "config")]
    desk: Option<PathBuf>,
    /// What a serial instrument says, line by line, such as scale-1=scale.txt; may be repeated
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    replay: Vec<(String, PathBuf)>,
    /// Between two lines of a replay
    #[arg(long, value_name = "TIME", default_value = "1s")]
    replay_every: Period,
    /// What goes wrong from the start, such as meter-1=late:300ms; may be repeated
    #[arg(long, value_name = "COMMAND")]
    fault: Vec<Command>,
    /// Where faults that strike by chance begin: the same number strikes at the same requests
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

const AFTER_HELP: &str = "\
While it runs, it reads commands from standard input, such as `meter-1 late 300ms 10%`, and answers \
with how those stand whom it concerned. `help` lists them; --fault takes the same.";

/// Serves until it is told to stop.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let runtime = super::runtime()?;
    let served = runtime.block_on(serve(args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(args: &Args) -> Result<(), Failure> {
    let (plant, loaded) = plant(args)?;
    for fault in &args.fault {
        let done = match fault {
            Command::Do(target, deed) => plant.apply(target, deed).map(drop),
            _ => Err("only faults can stand here".to_owned()),
        };
        done.map_err(|wrong| Failure::new(Exit::Usage, anyhow!("--fault: {wrong}")))?;
    }
    let cancel = CancellationToken::new();
    let _ended = cancel.clone().drop_guard();
    let mut places = Places::new(args.folder.clone())?;
    for place in plant.places() {
        let at = match &loaded {
            Some(loaded) => {
                let config = &loaded.value;
                places.of_configuration(config, place, &cancel).await?
            }
            None => {
                places
                    .asked_for(args.tcp.as_deref(), place, &cancel)
                    .await?
            }
        };
        print(&format!("{}: {at}\n", place.name))?;
    }
    if let (Some(loaded), Some(desk)) = (&loaded, &args.desk) {
        let text = loaded.document.with_strings(places.replaced());
        std::fs::write(desk, text).with_context(|| format!("cannot write {}", desk.display()))?;
        print(&format!("written: {}\n", desk.display()))?;
    }
    print("ready; help lists what can be said\n")?;
    converse(&plant).await?;
    Ok(())
}

/// What is simulated, and the configuration that it is from.
fn plant(args: &Args) -> Result<(Plant, Option<config::Loaded>), Failure> {
    let mut plant = Plant::new(args.seed);
    if let Some(path) = &args.config {
        let loaded = load(&ConfigPath { path: path.clone() })?;
        plant.add_buses(&loaded.value, !args.unpaced);
        add_talkers(args, &loaded.value, &mut plant)?;
        return Ok((plant, Some(loaded)));
    }
    if let Some(profile) = &args.profile {
        let loaded = config::parse("--profile", &of_profile(args, profile));
        let loaded = loaded.map_err(|problems| Failure::new(Exit::Usage, anyhow!("{problems}")))?;
        plant.add_buses(&loaded.value, args.baud.is_some());
        return Ok((plant, None));
    }
    let framing = if args.tcp.is_some() && !args.rtu {
        Framing::Tcp
    } else {
        Framing::Rtu
    };
    plant.add_registers(LINE, framing, args.baud, &args.unit, &args.registers);
    Ok((plant, None))
}

/// A configuration with devices of a profile.
fn of_profile(args: &Args, profile: &str) -> String {
    let wire = match &args.tcp {
        Some(_) if args.rtu => "tcp = \"127.0.0.1\"\nframing = \"rtu\"".to_owned(),
        Some(_) => "tcp = \"127.0.0.1\"".to_owned(),
        None => format!(
            "port = \"simulated\"\nbaud = {}",
            args.baud.unwrap_or(19_200)
        ),
    };
    let devices = args.unit.iter().map(|unit| {
        format!(
            "[[device]]\nname = \"unit-{unit}\"\nbus = \"{LINE}\"\nunit = {unit}\nprofile = {profile:?}\n"
        )
    });
    format!(
        "[[bus]]\nname = \"{LINE}\"\n{wire}\n{}",
        devices.collect::<String>()
    )
}

fn add_talkers(args: &Args, config: &Config, plant: &mut Plant) -> Result<(), Failure> {
    for (name, _) in &args.replay {
        if !config.serials.iter().any(|sensor| sensor.name == *name) {
            let unknown = anyhow!("--replay: the configuration has no [[serial]] called {name:?}");
            return Err(Failure::new(Exit::Usage, unknown));
        }
    }
    for sensor in &config.serials {
        match talk(args, sensor)? {
            Some(talk) => plant.add_talker(sensor, talk),
            None => print(&format!(
                "{}: left out; --replay {}=FILE says what it says\n",
                sensor.name, sensor.name
            ))?,
        }
    }
    Ok(())
}

/// What an instrument says: a recording, or the weather where it speaks NMEA 0183.
fn talk(args: &Args, sensor: &SerialSensor) -> anyhow::Result<Option<Talk>> {
    let replay = args.replay.iter().find(|(name, _)| *name == sensor.name);
    let Some((_, file)) = replay else {
        return Ok(sensor.decode.nmea.is_some().then(Talk::weather));
    };
    let recording =
        std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let talk = Talk::replay(&recording, args.replay_every.as_duration());
    let talk = talk.with_context(|| format!("{} is empty", file.display()))?;
    Ok(Some(talk))
}

/// Does what is asked on standard input until a signal, or `quit`.
async fn converse(plant: &Plant) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut lines = Some(standard_input());
    loop {
        let line = async {
            match &mut lines {
                Some(lines) => lines.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            line = line => match line {
                Some(line) if line.trim().is_empty() => {}
                Some(line) => match answer(plant, &line) {
                    Some(answer) => print(&answer)?,
                    None => return Ok(()),
                },
                // Nobody is there to say anything; the devices stay.
                None => lines = None,
            }
        }
    }
}

/// What is answered to a line; `None`: it was the last.
fn answer(plant: &Plant, line: &str) -> Option<String> {
    let answer = match line.parse() {
        Ok(Command::Quit) => return None,
        Ok(Command::Help) => HELP.to_owned(),
        Ok(Command::Status) => plant.status(),
        Ok(Command::Do(target, deed)) => plant
            .apply(&target, &deed)
            .unwrap_or_else(|wrong| format!("error: {wrong}\n")),
        Err(wrong) => format!("error: {wrong}\n"),
    };
    Some(answer)
}

fn standard_input() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(COMMANDS_AHEAD);
    // Reading a terminal cannot be interrupted, so the thread ends with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("write NAME=FILE")?;
    Ok((name.to_owned(), file.into()))
}
