//! `gateway bus trace`: the frames on a bus, as text or as a capture for Wireshark. Shell.
//!
//! Invariant: it sends nothing. Frames come from the running service's tap, or from a port on which
//! somebody else talks.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context, anyhow};
use serde_json::{Value as Json, json};

use crate::{
    config::{Bus, Framing},
    control::Answers,
    fieldbus::commission::{
        frame::{Direction, Frame, Seen, Wrapping},
        line::Listener,
        pcapng,
    },
};

use super::{
    Exit, Failure, note,
    target::{Target, Wire},
    usage,
};

/// Requests remembered to explain their responses; more are not under way.
const REQUESTS_MAX: usize = 16;

/// Arguments of `bus trace`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "gateway bus trace [OPTIONS] BUS\n       \
                      gateway bus trace [OPTIONS] --listen BUS\n       \
                      gateway bus trace [OPTIONS] --listen --port PATH",
    after_help = "Examples:\n  \
      gateway bus trace rs485-0\n  \
      gateway bus trace rs485-0 --pcapng bus.pcapng\n  \
      gateway bus trace rs485-0 --pcapng - | wireshark -k -i -\n  \
      gateway bus trace --listen --port /dev/ttyUSB0 --baud 9600 --parity none\n\
      With --listen nothing is sent: it shows what other clients and units say on the line.\n\
      Wireshark decodes the file without any setting."
)]
pub(in crate::cli) struct Args {
    /// A bus of the configuration
    #[arg(num_args = 0..=1, value_name = "BUS")]
    words: Vec<String>,
    /// Open the port and only listen
    #[arg(long)]
    listen: bool,
    /// Write a capture instead of text; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pcapng: Option<PathBuf>,
    /// End after so many frames
    #[arg(short = 'n', long, value_name = "FRAMES")]
    count: Option<u64>,
    /// Print each frame as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    wire: Wire,
}

/// Shows frames until interrupted.
pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let (name, _) = args.wire.split(&args.words)?;
    let target = args.wire.target(name)?;
    let source = Source::open(args, &target).await?;
    let mut shown = Shown::new(args, &target.bus)?;
    tokio::select! {
        ended = follow(source, &mut shown) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// Where frames come from.
enum Source {
    Service(Answers),
    Line(Listener),
}

impl Source {
    async fn open(args: &Args, target: &Target) -> Result<Source, Failure> {
        match target.service().await? {
            Some(_) if args.listen => Err(usage(format!(
                "the running service owns bus {:?}; leave --listen away to see its frames",
                target.bus.name
            ))),
            Some(socket) => {
                let question = format!("trace {}", target.bus.name);
                let answers = Answers::ask(&socket, &question).await;
                let answers = answers
                    .with_context(|| format!("cannot ask the service at {}", socket.display()))
                    .map_err(|error| Failure::new(Exit::Unreachable, error))?;
                note(format!(
                    "frames of bus {}, from the running service; Ctrl-C ends",
                    target.bus.name
                ));
                Ok(Source::Service(answers))
            }
            None if !args.listen => Err(Failure::new(
                Exit::Unreachable,
                anyhow!(
                    "the service does not run, so nothing talks on {} from here; --listen shows \
                     what others say on a serial line",
                    target.place()
                ),
            )),
            None => {
                let listener = Listener::open(&target.bus);
                let listener =
                    listener.map_err(|error| Failure::new(Exit::Unreachable, anyhow!(error)))?;
                note(format!("listening on {}; Ctrl-C ends", target.place()));
                Ok(Source::Line(listener))
            }
        }
    }

    /// The next bytes; `None` when there will be no more.
    async fn next(&mut self) -> Result<Option<Event>, Failure> {
        match self {
            Source::Service(answers) => {
                let line = answers.next().await.context("the service went away")?;
                line.map(event).transpose()
            }
            Source::Line(listener) => {
                let seen = listener.next().await;
                Ok(Some(Event::Seen(seen.map_err(|error| {
                    Failure::new(Exit::Unreachable, anyhow!(error))
                })?)))
            }
        }
    }
}

/// What a source tells.
enum Event {
    Seen(Seen),
    Lost(u64),
}

fn event(line: Json) -> Result<Event, Failure> {
    if let Some(lost) = line["lost"].as_u64() {
        return Ok(Event::Lost(lost));
    }
    if let Some(error) = line["error"].as_str() {
        return Err(Failure::new(
            Exit::Failed,
            anyhow!("the service says: {error}"),
        ));
    }
    let seen = serde_json::from_value(line);
    Ok(Event::Seen(seen.context(
        "the service's frame is not understood; is it of another version?",
    )?))
}

async fn follow(mut source: Source, shown: &mut Shown) -> Result<(), Failure> {
    while let Some(event) = source.next().await? {
        match event {
            Event::Lost(frames) => note(format!(
                "{frames} frames were lost: this is too slow for the bus"
            )),
            Event::Seen(seen) => {
                if !shown.take(seen)? {
                    return Ok(());
                }
            }
        }
    }
    note("the bus was stopped");
    Ok(())
}

/// What is shown, and how.
struct Shown {
    out: Box<dyn Write>,
    format: Format,
    framing: Wrapping,
    /// Unit and PDU of requests whose response is still to come.
    requests: VecDeque<(u8, Vec<u8>)>,
    last: Option<jiff::Timestamp>,
    left: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Pcapng,
}

impl Shown {
    fn new(args: &Args, bus: &Bus) -> Result<Shown, Failure> {
        let (format, mut out): (Format, Box<dyn Write>) = match &args.pcapng {
            Some(path) if path.as_os_str() == "-" => (Format::Pcapng, Box::new(io::stdout())),
            Some(path) => {
                let file = File::create(path);
                let file = file.with_context(|| format!("cannot write {}", path.display()))?;
                (Format::Pcapng, Box::new(file))
            }
            None if args.json => (Format::Json, Box::new(io::stdout())),
            None => (Format::Text, Box::new(io::stdout())),
        };
        if format == Format::Pcapng {
            let start = pcapng::start(&bus.name);
            out.write_all(&start).context("cannot write the capture")?;
        }
        let mbap = bus.port.is_none() && bus.framing != Some(Framing::Rtu);
        Ok(Shown {
            out,
            format,
            framing: if mbap { Wrapping::Tcp } else { Wrapping::Rtu },
            requests: VecDeque::new(),
            last: None,
            left: args.count,
        })
    }

    /// Shows a frame; `false` when it was the last.
    fn take(&mut self, seen: Seen) -> Result<bool, Failure> {
        let frame = Frame::of(seen, self.framing, self.last);
        self.last = Some(frame.time);
        let request = self.request_of(&frame);
        let bytes = match self.format {
            Format::Text => format!("{}\n", frame.line(request.as_deref())).into_bytes(),
            Format::Json => {
                let mut line = json!(frame);
                line["whole"] = json!(frame.content().is_some());
                line["says"] = json!(frame.says(request.as_deref()));
                format!("{line}\n").into_bytes()
            }
            Format::Pcapng => pcapng::packet(&frame),
        };
        match self.out.write_all(&bytes).and_then(|()| self.out.flush()) {
            // Who reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            other => other.context("cannot write the frames")?,
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(self.left != Some(0))
    }

    /// Remembers a request; gives the one that a response answers.
    fn request_of(&mut self, frame: &Frame) -> Option<Vec<u8>> {
        let (unit, pdu) = frame.content()?;
        match frame.direction {
            Direction::Request => {
                if self.requests.len() == REQUESTS_MAX {
                    self.requests.pop_front();
                }
                self.requests.push_back((unit, pdu.to_vec()));
                None
            }
            Direction::Response => {
                let function = pdu.first()? & 0x7f;
                let mut requests = self.requests.iter();
                let answered = requests
                    .rposition(|(of, asked)| *of == unit && asked.first() == Some(&function))?;
                let (_, request) = self.requests.remove(answered)?;
                Some(request)
            }
            Direction::Echo | Direction::Stray => None,
        }
    }
}
