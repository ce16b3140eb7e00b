//! `gateway bus write`: says what it will write, asks, writes once, reads back. Shell.
//!
//! Invariant: a write is sent once; whether it was taken is read from the device, never assumed.

use anyhow::anyhow;
use serde_json::{Value as Json, json};

use crate::{
    config::Point,
    fieldbus::{
        commission::meaning::{self, Row, Write},
        transaction::Request,
    },
};

use super::{
    super::consent, Exit, Failure, note, print, target::Session, target::Wire, usage,
    value::ValueArgs,
};

/// Arguments of `bus write`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "gateway bus write [OPTIONS] BUS REGISTER VALUE...\n       \
                      gateway bus write [OPTIONS] --port PATH REGISTER VALUE...\n       \
                      gateway bus write [OPTIONS] --tcp HOST:PORT REGISTER VALUE...",
    after_help = "Examples:\n  \
      gateway bus write rs485-0 --unit 17 holding:100 21.5 --type f32\n  \
      gateway bus write --tcp 10.0.0.5:502 coil:3 on --yes\n  \
      gateway bus write rs485-0 holding:40 1 2 3 --function 16\n  \
      gateway bus write rs485-0 holding:7 on --bit 3"
)]
pub(in crate::cli) struct Args {
    /// A bus of the configuration, the first register (coil:N or holding:N), and the values
    #[arg(required = true, value_name = "WORD", allow_negative_numbers = true)]
    words: Vec<String>,
    /// Unit identifier
    #[arg(short, long, default_value_t = 1)]
    unit: u8,
    /// Function code: 5 or 15 for coils, 6, 16 or 23 for registers, 22 for bits of one
    #[arg(short, long, value_name = "CODE")]
    function: Option<u8>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Do not read before and after
    #[arg(long)]
    no_read_back: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    value: ValueArgs,
    #[command(flatten)]
    wire: Wire,
}

/// Writes.
pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let (bus, rest) = args.wire.split(&args.words)?;
    let [register, values @ ..] = rest else {
        return Err(usage(
            "which register? write coil:N or holding:N, and the value",
        ));
    };
    if values.is_empty() {
        return Err(usage(format!("what shall be written to {register}?")));
    }
    let point = args.value.point(register)?;
    let values: Vec<Json> = values
        .iter()
        .map(|text| meaning::given(&point, text))
        .collect();
    let write = Write::new(&point, &values, args.function).map_err(usage)?;
    let mut session = args.wire.target(bus)?.open(args.wire.timeout).await?;
    if session.is_broadcast(args.unit) {
        return broadcast(args, &write, &mut session).await;
    }
    session.check_unit(args.unit)?;
    let before = read(args, &point, &write, &mut session).await?;
    confirm(args, &before, &write)?;
    session.answer(args.unit, &write.request).await?;
    let after = read(args, &point, &write, &mut session).await?;
    report(args, &write, before, after)
}

/// Writes to all units of a line, of which none answers.
async fn broadcast(args: &Args, write: &Write, session: &mut Session) -> Result<(), Failure> {
    if !write.request.is_plain_write() {
        return Err(usage(
            "unit 0 means all units of the line, and none of them answers: it takes plain writes",
        ));
    }
    confirm(args, &None, write)?;
    session.answer(args.unit, &write.request).await?;
    if args.json {
        return report(args, write, None, None);
    }
    Ok(print(
        "sent to all units; none answers a broadcast, so that nothing shows who took it\n",
    )?)
}

/// What stands there; `None` where that is not wanted or cannot be read.
async fn read(
    args: &Args,
    point: &Point,
    write: &Write,
    session: &mut Session,
) -> Result<Option<(Vec<Row>, bool)>, Failure> {
    if args.no_read_back {
        return Ok(None);
    }
    match session.answer(args.unit, &Request::Read(write.span)).await {
        Ok(answer) => {
            let rows = meaning::rows(point, write.span, &answer);
            Ok(Some((rows, write.is_confirmed_by(&answer))))
        }
        Err(failure) if failure.is_unreachable() => Err(failure),
        Err(failure) => {
            note(format!("cannot be read: {failure}"));
            Ok(None)
        }
    }
}

/// Asks on a terminal; a script has decided already. Fails where the answer is no.
fn confirm(args: &Args, before: &Option<(Vec<Row>, bool)>, write: &Write) -> Result<(), Failure> {
    let now = before
        .as_ref()
        .map(|(rows, _)| format!(", which now says {}", said(rows)));
    let what = format!(
        "unit {}: {}{}",
        args.unit,
        write.request,
        now.unwrap_or_default()
    );
    if args.yes || !consent::can_be_asked() {
        note(what);
        return Ok(());
    }
    consent::ask(&format!("{what}\nWrite it?"), "nothing was written")
}

fn report(
    args: &Args,
    write: &Write,
    before: Option<(Vec<Row>, bool)>,
    after: Option<(Vec<Row>, bool)>,
) -> Result<(), Failure> {
    let confirmed = after.as_ref().map(|(_, confirmed)| *confirmed);
    let rows = |read: Option<(Vec<Row>, bool)>| read.map(|(rows, _)| rows);
    let (before, after) = (rows(before), rows(after));
    let says = after.as_ref().map(|rows| said(rows));
    if args.json {
        let outcome = json!({
            "unit": args.unit,
            "request": write.request.to_string(),
            "before": before,
            "after": after,
            "confirmed": confirmed,
        });
        print(&format!("{outcome}\n"))?;
    }
    let says = says.unwrap_or_default();
    match confirmed {
        Some(false) => Err(Failure::new(
            Exit::Failed,
            anyhow!(
                "the unit confirmed {}, but it now says {says}",
                write.request
            ),
        )),
        _ if args.json => Ok(()),
        Some(true) => Ok(print(&format!("written and read back: {says}\n"))?),
        None => Ok(print(
            "written; the unit confirmed it, and it was not read back\n",
        )?),
    }
}

fn said(rows: &[Row]) -> String {
    rows.iter()
        .map(|row| row.text.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}
