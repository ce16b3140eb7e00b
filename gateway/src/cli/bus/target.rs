//! Which wire a command goes to, and the way there: through the running service, or opened here.
//! Shell.
//!
//! Invariant: a wire that the service owns is never opened beside it.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use serde_json::{Value as Json, json};
use settings::Period;

use crate::{
    config::{Bus, Framing},
    control::Answers,
    fieldbus::{
        commission::{
            adhoc::{Ask, Told},
            line::Line,
        },
        register::Register,
        transaction::{Answer, Reply, Request},
    },
};

use super::{ConfigPath, Exit, Failure, load, note, usage, value};

/// Units on a serial line (Modbus over serial line 2.2).
const SERIAL_UNITS: std::ops::RangeInclusive<u8> = 1..=247;
/// The unit identifier that means all of them.
const ALL_UNITS: u8 = 0;

/// The wire: a bus of the configuration by its name, or a port or address of its own.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The wire")]
pub(super) struct Wire {
    #[command(flatten)]
    config: ConfigPath,
    /// Serial port that is not in the configuration
    #[arg(long, value_name = "PATH", conflicts_with = "tcp")]
    pub(super) port: Option<PathBuf>,
    /// Address of a Modbus TCP device that is not in the configuration
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) tcp: Option<String>,
    /// Line rate of the port [default: 19200]
    #[arg(long, value_name = "BITS/S", value_delimiter = ',')]
    pub(super) baud: Vec<u32>,
    /// Parity of the port: none, even or odd [default: even]
    #[arg(long, value_name = "PARITY", value_delimiter = ',')]
    pub(super) parity: Vec<String>,
    /// Stop bits of the port [default: 1, or 2 without parity]
    #[arg(long, value_name = "1|2", value_delimiter = ',')]
    pub(super) stop_bits: Vec<u8>,
    /// Frames on the TCP connection: tcp, or rtu behind a plain converter
    #[arg(long, value_name = "FRAMING")]
    framing: Option<String>,
    /// How long a unit may take to answer, such as 500ms
    #[arg(long, value_name = "DURATION")]
    pub(super) timeout: Option<Period>,
}

/// A bus, and where the service is to be asked for it.
pub(super) struct Target {
    /// As configured or as the command line says.
    pub(super) bus: Bus,
    /// The control socket; none of a wire that is not in the configuration.
    socket: Option<PathBuf>,
}

impl Wire {
    /// Whether the command line names a wire of its own.
    pub(super) fn is_own(&self) -> bool {
        self.port.is_some() || self.tcp.is_some()
    }

    /// Takes the bus' name off the words of the command line, unless the wire is one of its own.
    pub(super) fn split<'w>(
        &self,
        words: &'w [String],
    ) -> Result<(Option<&'w str>, &'w [String]), Failure> {
        if self.is_own() {
            return Ok((None, words));
        }
        match words.split_first() {
            Some((first, _)) if first.parse::<Register>().is_ok() => Err(usage(format!(
                "which bus? write its name before {first}, or --port PATH, or --tcp HOST:PORT"
            ))),
            Some((name, rest)) => Ok((Some(name), rest)),
            None => Err(usage(
                "which bus? write its name, or --port PATH, or --tcp HOST:PORT",
            )),
        }
    }

    /// The bus called `name`, or the command line's own.
    pub(super) fn target(&self, name: Option<&str>) -> Result<Target, Failure> {
        let Some(name) = name else {
            return Ok(Target {
                bus: self.own()?,
                socket: None,
            });
        };
        let given = !self.baud.is_empty() || !self.parity.is_empty() || !self.stop_bits.is_empty();
        if given || self.framing.is_some() {
            return Err(usage(format!(
                "bus {name:?} has its line settings in the configuration; --baud, --parity, \
                 --stop-bits and --framing go with --port or --tcp"
            )));
        }
        self.configured(name)
    }

    /// The bus called `name` in the configuration.
    pub(super) fn configured(&self, name: &str) -> Result<Target, Failure> {
        let config = load(&self.config)?.value;
        let known: Vec<String> = config.buses.iter().map(|bus| bus.name.clone()).collect();
        let mut buses = config.buses.into_iter();
        let bus = buses.find(|bus| bus.name == name).ok_or_else(|| {
            usage(format!(
                "{} has no bus {name:?}; it has {}",
                self.config.path.display(),
                if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                }
            ))
        })?;
        Ok(Target {
            bus,
            socket: Some(config.gateway.control),
        })
    }

    fn own(&self) -> Result<Bus, Failure> {
        let one = |name: &str, count: usize| {
            (count <= 1)
                .then_some(())
                .ok_or_else(|| usage(format!("one --{name} is enough here")))
        };
        one("baud", self.baud.len())?;
        one("parity", self.parity.len())?;
        one("stop-bits", self.stop_bits.len())?;
        let port = self.port.as_ref().map(|port| port.display().to_string());
        let texts = [
            ("port", port.as_ref()),
            ("tcp", self.tcp.as_ref()),
            ("parity", self.parity.first()),
            ("framing", self.framing.as_ref()),
        ];
        let numbers = [
            ("baud", self.baud.first().copied()),
            ("stop_bits", self.stop_bits.first().copied().map(u32::from)),
        ];
        let texts = texts
            .iter()
            .filter_map(|(key, text)| Some(format!("{key} = {:?}", (*text)?)));
        let numbers = numbers
            .iter()
            .filter_map(|(key, number)| Some(format!("{key} = {}", (*number)?)));
        let lines: Vec<String> = texts.chain(numbers).collect();
        value::bus(&lines)
    }
}

impl Target {
    /// The port or address of the command line, whose line settings are to be found out.
    pub(super) fn of_port(wire: &Wire) -> Result<Target, Failure> {
        let place = match (&wire.port, &wire.tcp) {
            (Some(port), _) => format!("port = {:?}", port.display().to_string()),
            (None, address) => format!("tcp = {:?}", address.clone().unwrap_or_default()),
        };
        let framing = wire
            .framing
            .as_ref()
            .map(|framing| format!("framing = {framing:?}"));
        let lines: Vec<String> = [Some(place), framing].into_iter().flatten().collect();
        Ok(Target {
            bus: value::bus(&lines)?,
            socket: None,
        })
    }

    /// Port or address.
    pub(super) fn place(&self) -> String {
        match (&self.bus.port, &self.bus.tcp) {
            (Some(port), _) => port.display().to_string(),
            (None, address) => address.clone().unwrap_or_default(),
        }
    }

    /// The control socket of the service, if that runs and serves this bus.
    pub(super) async fn service(&self) -> Result<Option<PathBuf>, Failure> {
        let Some(socket) = &self.socket else {
            return Ok(None);
        };
        let answer = match asked(socket, &format!("bus {}", self.bus.name)).await {
            Ok(answer) => answer,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => {
                let failure = anyhow!(error).context(format!(
                    "cannot ask the service at {}; it owns the bus {:?} while it runs",
                    socket.display(),
                    self.bus.name
                ));
                return Err(Failure::new(Exit::Unreachable, failure));
            }
        };
        match answer["error"].as_str() {
            None => Ok(Some(socket.clone())),
            Some(error) => Err(Failure::new(
                Exit::Failed,
                anyhow!("the service at {} says: {error}", socket.display()),
            )),
        }
    }

    /// Opens the way to the bus, and says which it is.
    pub(super) async fn open(&self, timeout: Option<Period>) -> Result<Session, Failure> {
        let session = self.open_quietly(timeout).await?;
        let place = self.place();
        match session.way {
            Way::Service(_) => note(format!(
                "bus {} on {place}, through the running service",
                self.bus.name
            )),
            Way::Direct(_) => note(format!("{place}, opened directly")),
        }
        Ok(session)
    }

    /// Opens the way to the bus.
    pub(super) async fn open_quietly(&self, timeout: Option<Period>) -> Result<Session, Failure> {
        let timeout = timeout.unwrap_or(self.bus.response_timeout).as_duration();
        let way = match self.service().await? {
            Some(socket) => Way::Service(socket),
            None => {
                let line = Line::open(&self.bus).await;
                Way::Direct(
                    line.map_err(|reason| Failure::new(Exit::Unreachable, anyhow!(reason)))?,
                )
            }
        };
        Ok(Session {
            bus: self.bus.clone(),
            way,
            timeout,
        })
    }
}

/// A way to a bus.
pub(super) struct Session {
    pub(super) bus: Bus,
    way: Way,
    pub(super) timeout: Duration,
}

enum Way {
    Service(PathBuf),
    Direct(Line),
}

impl Session {
    /// Closes the wire, so that it can be opened with other settings.
    pub(super) async fn close(self) {
        if let Way::Direct(line) = self.way {
            line.close().await;
        }
    }

    /// Refuses units that cannot be on this wire.
    pub(super) fn check_unit(&self, unit: u8) -> Result<(), Failure> {
        if self.bus.port.is_some() && !SERIAL_UNITS.contains(&unit) {
            return Err(usage(format!(
                "unit {unit} cannot be on a serial line: 1 to 247 can"
            )));
        }
        Ok(())
    }

    /// Whether a request to this unit goes to all units of a line, and none answers (Modbus over
    /// serial line 2.1).
    pub(super) fn is_broadcast(&self, unit: u8) -> bool {
        let line = self.bus.port.is_some() || self.bus.framing == Some(Framing::Rtu);
        line && unit == ALL_UNITS
    }

    /// Sends a request and waits for what comes of it.
    pub(super) async fn transact(&mut self, unit: u8, request: &Request) -> Result<Reply, Failure> {
        self.transact_within(unit, request, self.timeout).await
    }

    /// The same with another time for the unit.
    pub(super) async fn transact_within(
        &mut self,
        unit: u8,
        request: &Request,
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        let ask = Ask {
            bus: self.bus.name.clone(),
            unit,
            request: request.clone(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        ask.check().map_err(usage)?;
        let told = match &mut self.way {
            Way::Service(socket) => through(socket, &ask).await?,
            Way::Direct(line) => line.transact(unit, ask.request, timeout).await,
        };
        match told {
            Told::Reply(reply) => Ok(reply),
            Told::Error(reason) => Err(Failure::new(Exit::Unreachable, anyhow!(reason))),
        }
    }

    /// Sends a request and takes the answer; anything else is a failure that says what was asked.
    pub(super) async fn answer(&mut self, unit: u8, request: &Request) -> Result<Answer, Failure> {
        let reply = self.transact(unit, request).await?;
        let what = format!("unit {unit}, {request}");
        match reply {
            Reply::Answer(answer) => Ok(answer),
            Reply::Exception(exception) => {
                Err(Failure::new(Exit::Failed, anyhow!("{what}: {exception}")))
            }
            Reply::TimedOut => Err(Failure::new(
                Exit::Unreachable,
                anyhow!(
                    "{what}: no answer in {:?}; is there such a unit? gateway bus scan looks for it",
                    self.timeout
                ),
            )),
            Reply::Garbled(why) => Err(Failure::new(Exit::Failed, anyhow!("{what}: {why}"))),
        }
    }
}

async fn through(socket: &Path, question: &Ask) -> Result<Told, Failure> {
    let question = json!(question);
    let answer = asked(socket, &format!("transact {question}")).await;
    let told = answer
        .with_context(|| format!("the service at {} went away", socket.display()))
        .map_err(|error| Failure::new(Exit::Unreachable, error))?;
    let told = serde_json::from_value(told)
        .context("the service's answer is not understood; is it of another version?")?;
    Ok(told)
}

/// One question to the service, one answer.
pub(super) async fn asked(socket: &Path, question: &str) -> io::Result<Json> {
    let mut answers = Answers::ask(socket, question).await?;
    let answer = answers.next().await?;
    answer.ok_or_else(|| io::Error::other("it closed the connection without an answer"))
}

/// Whether nobody serves the control socket.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}
