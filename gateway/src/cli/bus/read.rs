//! `gateway bus read`: registers and what they say, once or again and again. Shell.
//!
//! Invariant: what is shown was read in this moment; a failure is shown instead, never an old value.

use std::{fmt::Write, io::IsTerminal};

use serde_json::{Value as Json, json};
use settings::Period;

use crate::{
    clock,
    config::Point,
    fieldbus::{
        commission::{
            meaning::{self, Row},
            views::{self, View},
        },
        register::Register,
        transaction::{Answer, Request},
    },
};

use super::{Failure, note, print, target::Session, target::Wire, usage, value::ValueArgs};

/// Registers that the widest type takes.
const WIDEST: u16 = 4;

/// Arguments of `bus read`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "gateway bus read [OPTIONS] BUS REGISTER\n       \
                      gateway bus read [OPTIONS] --port PATH REGISTER\n       \
                      gateway bus read [OPTIONS] --tcp HOST:PORT REGISTER",
    after_help = "Examples:\n  \
      gateway bus read rs485-0 --unit 17 input:0 --type f32 --count 4\n  \
      gateway bus read --port /dev/ttyUSB0 --baud 9600 --parity none holding:100\n  \
      gateway bus read --tcp 10.0.0.5:502 coil:0 --count 16 --watch 500ms\n  \
      gateway bus read rs485-0 input:0 --all-types"
)]
pub(in crate::cli) struct Args {
    /// A bus of the configuration, and the first register: coil:N, discrete:N, input:N, holding:N
    #[arg(required = true, num_args = 1..=2, value_names = ["BUS", "REGISTER"])]
    words: Vec<String>,
    /// Unit identifier
    #[arg(short, long, default_value_t = 1)]
    unit: u8,
    /// Values to read
    #[arg(short = 'n', long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Show what the registers would be under every type and order
    #[arg(long, conflicts_with_all = ["kind", "watch"])]
    all_types: bool,
    /// Read again every interval until interrupted
    #[arg(short, long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "1s")]
    watch: Option<Period>,
    /// Print the values alone, one per line
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    value: ValueArgs,
    #[command(flatten)]
    wire: Wire,
}

/// Reads and prints.
pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let (bus, rest) = args.wire.split(&args.words)?;
    let [register] = rest else {
        return Err(usage(
            "which register? write coil:N, discrete:N, input:N or holding:N",
        ));
    };
    let point = args.value.point(register)?;
    let mut session = args.wire.target(bus)?.open(args.wire.timeout).await?;
    session.check_unit(args.unit)?;
    if args.all_types {
        return all_types(args, &point, &mut session).await;
    }
    let Some(interval) = args.watch else {
        let rows = rows(args, &point, &mut session).await?;
        return Ok(print(&text(args, &rows))?);
    };
    tokio::select! {
        failed = watch(args, &point, &mut session, interval) => failed,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn rows(args: &Args, point: &Point, session: &mut Session) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for span in meaning::spans(point, args.count).map_err(usage)? {
        let answer = session.answer(args.unit, &Request::Read(span)).await?;
        rows.extend(meaning::rows(point, span, &answer));
    }
    Ok(rows)
}

/// Shows each round; one that failed is said and the next is tried.
async fn watch(
    args: &Args,
    point: &Point,
    session: &mut Session,
    interval: Period,
) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(interval.as_duration());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let repaint = std::io::stdout().is_terminal() && !args.json && !args.raw;
    loop {
        ticks.tick().await;
        match rows(args, point, session).await {
            Ok(rows) => {
                let time = format!("{:.3}\n", clock::now().wall);
                let head = match (repaint, args.json || args.raw) {
                    (true, _) => format!("\x1b[2J\x1b[H{time}"),
                    (false, true) => String::new(),
                    (false, false) => time,
                };
                print(&(head + &text(args, &rows)))?;
            }
            Err(failure) => note(failure),
        }
    }
}

fn text(args: &Args, rows: &[Row]) -> String {
    if args.json {
        let time = clock::now().wall.to_string();
        return format!(
            "{}\n",
            json!({ "unit": args.unit, "time": time, "values": rows })
        );
    }
    if args.raw {
        return rows.iter().map(|row| format!("{}\n", row.text)).collect();
    }
    table(rows)
}

fn table(rows: &[Row]) -> String {
    let hex = |row: &Row| joined(&row.words, |word| format!("{word:04x}"));
    let decimal = |row: &Row| joined(&row.words, |word| word.to_string());
    let width = |title: &str, of: &dyn Fn(&Row) -> String| {
        let widest = rows.iter().map(|row| of(row).len()).max().unwrap_or(0);
        widest.max(title.len())
    };
    let (a, b, c) = (
        width("register", &|row| row.register.to_string()),
        width("hex", &hex),
        width("decimal", &decimal),
    );
    let bits = rows.iter().all(|row| row.words.is_empty());
    let mut text = String::new();
    let mut line = |register: &str, hex: &str, decimal: &str, value: &str| {
        let _infallible = if bits {
            writeln!(text, "{register:<a$}  {value}")
        } else {
            writeln!(text, "{register:<a$}  {hex:<b$}  {decimal:<c$}  {value}")
        };
    };
    line("register", "hex", "decimal", "value");
    for row in rows {
        line(
            &row.register.to_string(),
            &hex(row),
            &decimal(row),
            &row.text,
        );
    }
    text
}

fn joined(words: &[u16], show: impl Fn(&u16) -> String) -> String {
    words.iter().map(show).collect::<Vec<_>>().join(" ")
}

async fn all_types(args: &Args, point: &Point, session: &mut Session) -> Result<(), Failure> {
    if point.register.table.is_bits() {
        return Err(usage("bits have one type; --all-types is for registers"));
    }
    let (register, words) = widest(args, point.register, session).await?;
    let starts = 0..words.len().min(usize::from(args.count));
    let views: Vec<(Register, Vec<View>)> = starts
        .map(|start| {
            let address = register.address + u16::try_from(start).unwrap_or(0);
            (
                Register {
                    address,
                    ..register
                },
                views::views(&words[start..]),
            )
        })
        .collect();
    let text = if args.json {
        let of = |(register, views): &(Register, Vec<View>)| json!({ "register": register.to_string(), "types": views });
        format!("{}\n", Json::Array(views.iter().map(of).collect()))
    } else {
        let of = |(index, (register, views)): (usize, &(Register, Vec<View>))| {
            all_types_text(*register, &words[index..], views)
        };
        views
            .iter()
            .enumerate()
            .map(of)
            .collect::<Vec<_>>()
            .join("\n")
    };
    Ok(print(&text)?)
}

/// The registers, and as many behind them as a wide type takes where there are so many.
async fn widest(
    args: &Args,
    register: Register,
    session: &mut Session,
) -> Result<(Register, Vec<u16>), Failure> {
    let mut last = None;
    for more in (0..WIDEST).rev() {
        let span = meaning::window(register, 0, args.count.saturating_add(more));
        match session.answer(args.unit, &Request::Read(span)).await {
            Ok(Answer::Registers(words)) => return Ok((register, words)),
            Ok(_) => {}
            Err(failure) if failure.is_unreachable() => return Err(failure),
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or_else(|| usage("nothing was read")))
}

fn all_types_text(register: Register, words: &[u16], views: &[View]) -> String {
    let shown = &words[..words.len().min(usize::from(WIDEST))];
    let mut text = format!(
        "{register}: {}\n",
        joined(shown, |word| format!("{word:04x}"))
    );
    let _infallible = writeln!(
        text,
        "  {:<7}{:<22}{:<22}{:<22}DCBA",
        "type", "ABCD", "CDAB", "BADC"
    );
    for view in views {
        let cell = |value: &Option<String>| value.clone().unwrap_or_else(|| "·".to_owned());
        let [a, b, c, d] = view.values.each_ref().map(cell);
        let _infallible = writeln!(text, "  {:<7}{a:<22}{b:<22}{c:<22}{d}", view.kind);
    }
    text
}
