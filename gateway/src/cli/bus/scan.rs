//! `gateway bus scan`: which units answer, at which line setting, and who they are. Shell.
//!
//! Invariant: it only reads, and what was found is printed however it ends.

use std::{cmp::Reverse, fmt::Write, ops::RangeInclusive, time::Duration};

use anyhow::anyhow;
use serde::Serialize;
use serde_json::json;

use crate::{
    config::{
        Bus, Parity,
        profile::{DIRECTORY, library::Library},
    },
    fieldbus::{
        commission::{
            identity::{self, Identity},
            scan::{self, Heard, Scan, Setting, Step},
        },
        register::{Register, Table},
        transaction::{Answer, Reply, Request, Span},
    },
};

use super::{
    super::progress::Progress,
    Exit, Failure, note, print,
    target::{Session, Target, Wire},
    usage,
};

/// How long a unit may take, unless told otherwise: most answer within 100 ms.
const TIMEOUT: Duration = Duration::from_millis(200);
/// The same behind a TCP gateway, which waits for its own line.
const TCP_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests for the identity of one unit at most; some say for ever that more follows.
const IDENTITY_REQUESTS_MAX: usize = 4;
/// What devices are asked for: nearly all answer it, be it with an exception.
const PROBE: &str = "holding:0";

/// Arguments of `bus scan`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "gateway bus scan [OPTIONS] BUS\n       \
                      gateway bus scan [OPTIONS] --port PATH\n       \
                      gateway bus scan [OPTIONS] --tcp HOST:PORT",
    after_help = "Examples:\n  \
      gateway bus scan rs485-0\n  \
      gateway bus scan --port /dev/ttyUSB0\n  \
      gateway bus scan --port /dev/ttyUSB0 --baud 9600,19200 --parity none,even --units 1-32\n  \
      gateway bus scan --tcp 10.0.0.5:502 --units 1-10\n\
      Any answer counts, exceptions too. Ctrl-C ends the scan and shows what was found."
)]
pub(in crate::cli) struct Args {
    /// A bus of the configuration
    #[arg(num_args = 0..=1, value_name = "BUS")]
    words: Vec<String>,
    /// Units to look for
    #[arg(long, value_name = "FIRST-LAST", default_value = "1-247", value_parser = units)]
    units: RangeInclusive<u8>,
    /// Try every line setting, also at a bus of the configuration and after a unit was found
    #[arg(long)]
    thorough: bool,
    /// Register that units are asked for
    #[arg(long, value_name = "REGISTER", default_value = PROBE)]
    probe: Register,
    /// Do not ask the units who they are
    #[arg(long)]
    no_identity: bool,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    wire: Wire,
}

fn units(text: &str) -> Result<RangeInclusive<u8>, &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u8>().ok();
    let (first, last) = number(first)
        .zip(number(last))
        .ok_or("write units as 1-247, or as one number")?;
    if first > last {
        return Err("the lower unit stands first");
    }
    Ok(first..=last)
}

/// A unit that answers.
#[derive(Debug, Serialize)]
struct Found {
    unit: u8,
    /// `9600 8N1`; none over TCP.
    setting: Option<Setting>,
    /// What it answered to the probe.
    answer: String,
    identity: Option<Identity>,
}

/// Everything that is needed while scanning.
struct Search<'a> {
    args: &'a Args,
    target: Target,
    /// `None`: through the service, or over TCP.
    settings: Option<Vec<Setting>>,
    session: Option<(usize, Session)>,
    progress: Progress,
    found: Vec<Found>,
}

/// Scans, and prints what was found.
pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut search = Search::new(args).await?;
    let mut scan = search.scan();
    let ended = tokio::select! {
        ended = search.go(&mut scan) => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    search.progress.clear();
    let complete = matches!(ended, Some(Ok(())));
    if ended.is_none() {
        let (done, all) = scan.progress();
        note(format!("interrupted after {done} of {all} requests"));
    }
    let text = if args.json {
        let noises: Vec<_> = scan
            .noises()
            .map(|(setting, unit)| json!({ "setting": setting, "unit": unit }))
            .collect();
        format!(
            "{}\n",
            json!({ "found": search.found, "noises": noises, "complete": complete })
        )
    } else {
        search.report(&scan)
    };
    print(&text)?;
    match ended {
        Some(Err(failure)) => Err(failure),
        _ if search.found.is_empty() => Err(Failure::new(
            Exit::Unreachable,
            anyhow!("no unit answered on {}", search.target.place()),
        )),
        _ => Ok(()),
    }
}

impl<'a> Search<'a> {
    async fn new(args: &'a Args) -> Result<Search<'a>, Failure> {
        let target = match args.wire.split(&args.words)? {
            (Some(name), _) => args.wire.configured(name)?,
            (None, _) => Target::of_port(&args.wire)?,
        };
        if target.bus.port.is_some() && (*args.units.start() < 1 || *args.units.end() > 247) {
            return Err(usage("units on a serial line are 1 to 247"));
        }
        let own = !args.wire.baud.is_empty()
            || !args.wire.parity.is_empty()
            || !args.wire.stop_bits.is_empty();
        let served = target.service().await?.is_some();
        if served && (own || args.thorough) {
            return Err(usage(format!(
                "the running service owns bus {:?} at its configured line setting; stop the \
                 service to try others",
                target.bus.name
            )));
        }
        let tries = target.bus.port.is_some() && !served;
        let settings = tries.then(|| settings(args, &target.bus)).transpose()?;
        Ok(Search {
            args,
            target,
            settings,
            session: None,
            progress: Progress::new(),
            found: Vec::new(),
        })
    }

    fn timeout(&self) -> Duration {
        let usual = if self.target.bus.port.is_some() {
            TIMEOUT
        } else {
            TCP_TIMEOUT
        };
        self.args
            .wire
            .timeout
            .map_or(usual, |timeout| timeout.as_duration())
    }

    fn scan(&self) -> Scan {
        let line = self.target.bus.port.is_some();
        let settings = self
            .settings
            .clone()
            .unwrap_or_else(|| vec![setting_of(&self.target.bus)]);
        Scan::new(
            settings,
            self.args.units.clone(),
            self.timeout(),
            self.args.thorough,
            line,
        )
    }

    async fn go(&mut self, scan: &mut Scan) -> Result<(), Failure> {
        while let Some(step) = scan.next_step() {
            let setting = scan.setting(step);
            // Opened first, so that what is said of it stands above the bar.
            self.session(step.setting, setting).await?;
            let at = if self.settings.is_some() {
                format!(" at {setting}")
            } else {
                String::new()
            };
            let doing = format!("unit {}{at}, {} found", step.unit, self.found.len());
            self.progress
                .show(scan.progress(), scan.remaining(), &doing);
            let reply = self.ask(step, setting, scan.timeout(step)).await?;
            let heard = match &reply {
                Reply::Answer(_) => Heard::Answer,
                Reply::Exception(exception) if exception.means_silence() => Heard::Silence,
                Reply::Exception(_) => Heard::Answer,
                Reply::TimedOut => Heard::Silence,
                Reply::Garbled(_) => Heard::Noise,
            };
            if heard == Heard::Answer {
                self.take(step, setting, &reply).await?;
            }
            scan.heard(step, heard);
        }
        Ok(())
    }

    /// Asks a unit; opens the line anew where another setting is to be tried.
    async fn ask(
        &mut self,
        step: Step,
        setting: Setting,
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        let probe = Request::Read(Span {
            table: self.args.probe.table,
            start: self.args.probe.address,
            count: 1,
        });
        let session = self.session(step.setting, setting).await?;
        session.transact_within(step.unit, &probe, timeout).await
    }

    async fn session(&mut self, index: usize, setting: Setting) -> Result<&mut Session, Failure> {
        if self.settings.is_some() {
            self.target.bus.baud = setting.baud;
            self.target.bus.parity = setting.parity;
            self.target.bus.stop_bits = Some(setting.stop_bits);
        }
        let session = match self.session.take() {
            Some((open, session)) if open == index => session,
            Some((_, session)) => {
                session.close().await;
                self.target.open_quietly(self.args.wire.timeout).await?
            }
            None => self.target.open(self.args.wire.timeout).await?,
        };
        Ok(&mut self.session.insert((index, session)).1)
    }

    async fn take(&mut self, step: Step, setting: Setting, reply: &Reply) -> Result<(), Failure> {
        let identity = if self.args.no_identity {
            None
        } else {
            self.identify(step.unit).await?
        };
        let answer = match reply {
            Reply::Exception(exception) => exception.to_string(),
            _ => format!("{} answered", self.args.probe),
        };
        let found = Found {
            unit: step.unit,
            setting: (self.target.bus.port.is_some()).then_some(setting),
            answer,
            identity,
        };
        self.progress.say(&format!("found {}", found.line()));
        self.found.push(found);
        Ok(())
    }

    /// Asks a unit who it is; most do not say.
    async fn identify(&mut self, unit: u8) -> Result<Option<Identity>, Failure> {
        let Some((_, session)) = &mut self.session else {
            return Ok(None);
        };
        let mut identity = Identity::default();
        let mut object = Some(0);
        for _ in 0..IDENTITY_REQUESTS_MAX {
            let Some(from) = object else { break };
            let request = Request::Raw(identity::read_identification(from).to_vec());
            match session
                .transact_within(unit, &request, scan::PATIENT)
                .await?
            {
                Reply::Answer(Answer::Raw(pdu)) => object = identity.take(&pdu),
                _ => break,
            }
        }
        if identity == Identity::default() {
            let request = Request::Raw(identity::REPORT_SERVER_ID.to_vec());
            if let Reply::Answer(Answer::Raw(pdu)) = session
                .transact_within(unit, &request, scan::PATIENT)
                .await?
            {
                identity.take_server_id(&pdu);
            }
        }
        Ok((identity != Identity::default()).then_some(identity))
    }

    fn report(&self, scan: &Scan) -> String {
        let mut text = String::new();
        for found in &self.found {
            let _infallible = writeln!(text, "{}", found.line());
        }
        for (setting, unit) in scan.noises() {
            let _infallible = writeln!(
                text,
                "something answered unit {unit} at {setting} that cannot be read: another rate or \
                 parity, or two units with one number?"
            );
        }
        if let Some(first) = self.found.first() {
            text += &blocks(
                &self.target.bus,
                first.setting,
                &self.found,
                self.args.probe,
            );
        }
        text
    }
}

impl Found {
    /// `unit 17 at 9600 8N1: Acme M-1 1.0`.
    fn line(&self) -> String {
        let at = self
            .setting
            .map_or_else(String::new, |setting| format!(" at {setting}"));
        let who = self
            .identity
            .as_ref()
            .map_or_else(|| self.answer.clone(), ToString::to_string);
        format!("unit {}{at}: {who}", self.unit)
    }
}

/// The settings that are tried on a port.
fn settings(args: &Args, bus: &Bus) -> Result<Vec<Setting>, Failure> {
    let wire = &args.wire;
    let own = setting_of(bus);
    let free = wire.is_own() || args.thorough;
    let or = |given: &[u32], all: &[u32], own: u32| match (given.is_empty(), free) {
        (false, _) => given.to_vec(),
        (true, true) => all.to_vec(),
        (true, false) => vec![own],
    };
    let bauds = or(
        &wire.baud,
        &bauds(&Library::new(DIRECTORY.as_ref())),
        own.baud,
    );
    let given: Result<Vec<Parity>, Failure> = wire.parity.iter().map(|word| parity(word)).collect();
    let parities = match (given?, free) {
        (given, _) if !given.is_empty() => given,
        (_, true) => scan::PARITIES.to_vec(),
        (_, false) => vec![own.parity],
    };
    if wire.stop_bits.iter().any(|bits| !(1..=2).contains(bits)) {
        return Err(usage("stop bits are 1 or 2"));
    }
    let settled = (!free).then_some(own.stop_bits);
    let stop_bits = match (wire.stop_bits.as_slice(), settled) {
        ([], Some(own)) => vec![own],
        (given, _) => given.to_vec(),
    };
    Ok(scan::settings(&bauds, &parities, &stop_bits))
}

/// The rates that are tried: first those at which most of the described devices leave the factory.
fn bauds(library: &Library) -> Vec<u32> {
    let names = library.names();
    let profiles = names.keys().filter_map(|name| library.read(name).ok()?);
    let factory: Vec<u32> = profiles
        .filter_map(|loaded| loaded.value.line?.baud.first().copied())
        .collect();
    let mut bauds = scan::BAUDS.to_vec();
    for baud in &factory {
        if !bauds.contains(baud) {
            bauds.push(*baud);
        }
    }
    bauds.sort_by_key(|baud| Reverse(factory.iter().filter(|one| *one == baud).count()));
    bauds
}

fn parity(word: &str) -> Result<Parity, Failure> {
    match word {
        "none" => Ok(Parity::None),
        "even" => Ok(Parity::Even),
        "odd" => Ok(Parity::Odd),
        other => Err(usage(format!(
            "{other:?} is no parity; write none, even or odd"
        ))),
    }
}

fn setting_of(bus: &Bus) -> Setting {
    Setting {
        baud: bus.baud,
        parity: bus.parity,
        stop_bits: bus.stop_bits.unwrap_or(bus.parity.usual_stop_bits()),
    }
}

/// What was found as the configuration has it.
fn blocks(bus: &Bus, setting: Option<Setting>, found: &[Found], probe: Register) -> String {
    let wire = match (&bus.port, &bus.tcp, setting) {
        (
            Some(port),
            _,
            Some(Setting {
                baud,
                parity,
                stop_bits,
            }),
        ) => {
            let parity = match parity {
                Parity::None => "none",
                Parity::Even => "even",
                Parity::Odd => "odd",
            };
            format!(
                "port = {:?}\nbaud = {baud}\nparity = {parity:?}\nstop_bits = {stop_bits}\n",
                port.display().to_string()
            )
        }
        (_, address, _) => format!("tcp = {:?}\n", address.clone().unwrap_or_default()),
    };
    let mut text = format!(
        "\n# For gateway.toml:\n[[bus]]\nname = {:?}\n{wire}",
        bus.name
    );
    let at_it = found.iter().filter(|found| found.setting == setting);
    for found in at_it {
        let who = found
            .identity
            .as_ref()
            .map_or_else(String::new, |identity| format!(" # {identity}"));
        let kind = if matches!(probe.table, Table::Coil | Table::Discrete) {
            "bool"
        } else {
            "u16"
        };
        let _infallible = write!(
            text,
            "\n[[device]]{who}\nname = \"unit-{unit}\"\nbus = {:?}\nunit = {unit}\n\
             point = [\n  {{ name = \"first\", register = \"{probe}\", type = \"{kind}\" }},\n]\n",
            bus.name,
            unit = found.unit,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_rate_is_tried_and_those_that_most_devices_leave_the_factory_with_first() {
        let tried = bauds(&Library::new("/nowhere".as_ref()));
        assert!(
            scan::BAUDS.iter().all(|baud| tried.contains(baud)),
            "{tried:?}"
        );
        assert_eq!(tried[..2], [9_600, 19_200]);
    }
}
