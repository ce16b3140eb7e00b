//! `gateway bus guess`: reads registers while a reading is known, and proposes how to read them.
//! Shell.
//!
//! Invariant: it only reads.

use std::{fmt::Write, io::BufRead};

use anyhow::Context;
use serde_json::json;

use crate::{
    config::Deadband,
    fieldbus::{
        commission::{
            guess::{self, Guess, Known, Sample},
            meaning,
        },
        register::Register,
        transaction::{Answer, Request, Span},
    },
};

use super::{Failure, note, print, target::Session, target::Wire, usage};

/// Registers looked at before the place that the manual names.
const BEFORE: u16 = 2;
/// Guesses shown unless more are asked for.
const SHOWN: usize = 10;

/// Arguments of `bus guess`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "gateway bus guess [OPTIONS] --value NUMBER --near REGISTER BUS\n       \
                      gateway bus guess [OPTIONS] --value NUMBER --near REGISTER --port PATH\n       \
                      gateway bus guess [OPTIONS] --value NUMBER --near REGISTER --tcp HOST:PORT",
    after_help = "Examples:\n  \
      gateway bus guess rs485-0 --unit 17 --value 231.4 --near input:0\n  \
      gateway bus guess rs485-0 --value 231.4 --near holding:0 --count 100 --tolerance 2%\n  \
      gateway bus guess --tcp 10.0.0.5:502 --value 21.5 --value 23.0 --near input:30\n\
      With two values the second is asked for after the first was read: change the quantity,\n\
      press Enter, and what fitted by chance is gone."
)]
pub(in crate::cli) struct Args {
    /// A bus of the configuration
    #[arg(num_args = 0..=1, value_name = "BUS")]
    words: Vec<String>,
    /// The reading as the device's display shows it; twice for two moments
    #[arg(
        short,
        long,
        value_name = "NUMBER",
        required = true,
        num_args = 1,
        allow_negative_numbers = true
    )]
    value: Vec<Known>,
    /// Where the manual says that it stands, or where to start looking
    #[arg(long, value_name = "REGISTER")]
    near: Register,
    /// Registers to look at from there on
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=125))]
    count: u16,
    /// How far off the registers may be: 1%, or a number in the reading's unit
    #[arg(short, long, value_name = "SHARE", default_value = "1%", value_parser = tolerance)]
    tolerance: Deadband,
    /// Unit identifier
    #[arg(short, long, default_value_t = 1)]
    unit: u8,
    /// Show every guess, not only the ten best
    #[arg(long)]
    all: bool,
    /// Print the guesses as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    wire: Wire,
}

fn tolerance(text: &str) -> Result<Deadband, &'static str> {
    let number = text.parse::<f64>().ok();
    match number.filter(|number| number.is_finite() && *number >= 0.0) {
        Some(number) => Ok(Deadband::Absolute(number)),
        None => text.parse(),
    }
}

/// Reads and guesses.
pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    if args.near.table.is_bits() {
        return Err(usage(
            "a bit is 0 or 1; a reading stands in input: or holding: registers",
        ));
    }
    let (bus, _) = args.wire.split(&args.words)?;
    let mut session = args.wire.target(bus)?.open(args.wire.timeout).await?;
    session.check_unit(args.unit)?;
    let mut samples = Vec::new();
    for (index, known) in args.value.iter().enumerate() {
        if index > 0 {
            wait_for(known)?;
        }
        samples.push(sample(args, *known, &mut session).await?);
    }
    let guesses = guess::guess(&samples, Some(args.near.address), args.tolerance);
    let text = if args.json {
        format!("{}\n", json!(guesses))
    } else {
        text(args, &guesses)
    };
    Ok(print(&text)?)
}

fn wait_for(known: &Known) -> Result<(), Failure> {
    note(format!("press Enter once the reading is {}", known.value));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.context("cannot read from the terminal")?;
    Ok(())
}

/// The registers around the place; where not all of them exist, those that do.
async fn sample(args: &Args, known: Known, session: &mut Session) -> Result<Sample, Failure> {
    let whole = meaning::window(args.near, BEFORE, args.count);
    let words = match session.answer(args.unit, &Request::Read(whole)).await {
        Ok(Answer::Registers(words)) => vec![(whole, words)],
        Ok(_) => Vec::new(),
        Err(failure) if failure.is_unreachable() => return Err(failure),
        Err(failure) => {
            note(format!("{failure}; looking at smaller pieces"));
            pieces(args, whole, session).await?
        }
    };
    let near = u32::from(args.near.address);
    // The run of existing registers that holds the place, or else the first.
    let runs = joined(words);
    let holds = |run: &&(Span, Vec<u16>)| (u32::from(run.0.start)..run.0.end()).contains(&near);
    let run = runs.iter().find(holds).or(runs.first());
    let Some((span, words)) = run else {
        return Err(usage(format!("no register exists around {}", args.near)));
    };
    Ok(Sample {
        start: Register {
            table: span.table,
            address: span.start,
        },
        words: words.clone(),
        known,
    })
}

/// Halves what answers with an exception until single registers are left.
async fn pieces(
    args: &Args,
    whole: Span,
    session: &mut Session,
) -> Result<Vec<(Span, Vec<u16>)>, Failure> {
    let mut found = Vec::new();
    let mut left = halves(whole);
    while let Some(span) = left.pop() {
        match session.answer(args.unit, &Request::Read(span)).await {
            Ok(Answer::Registers(words)) => found.push((span, words)),
            Ok(_) => {}
            Err(failure) if failure.is_unreachable() => return Err(failure),
            Err(_) => left.extend(halves(span)),
        }
    }
    found.sort_by_key(|(span, _)| span.start);
    Ok(found)
}

fn halves(span: Span) -> Vec<Span> {
    let first = span.count / 2;
    if first == 0 {
        return Vec::new();
    }
    let second = Span {
        start: span.start + first,
        count: span.count - first,
        ..span
    };
    vec![
        second,
        Span {
            count: first,
            ..span
        },
    ]
}

/// Neighbours joined; a value may stand across two pieces.
fn joined(pieces: Vec<(Span, Vec<u16>)>) -> Vec<(Span, Vec<u16>)> {
    let mut runs: Vec<(Span, Vec<u16>)> = Vec::new();
    for (span, words) in pieces {
        match runs.last_mut() {
            Some((run, before)) if run.end() == u32::from(span.start) => {
                run.count += span.count;
                before.extend(words);
            }
            _ => runs.push((span, words)),
        }
    }
    runs
}

fn text(args: &Args, guesses: &[Guess]) -> String {
    if guesses.is_empty() {
        return "nothing fits; look further with --count, or allow more with --tolerance\n"
            .to_owned();
    }
    let shown = if args.all { guesses.len() } else { SHOWN };
    let mut text = String::new();
    for (rank, guess) in guesses.iter().take(shown).enumerate() {
        let assumed = if guess.because.is_empty() {
            "as it stands"
        } else {
            guess.because.as_str()
        };
        let _infallible = writeln!(
            text,
            "{:>3}. {} = {}  ({assumed})\n     {}",
            rank + 1,
            guess.register,
            guess.values.join(", "),
            guess.config,
        );
    }
    if guesses.len() > shown {
        let _infallible = writeln!(text, "and {} more; --all shows them", guesses.len() - shown);
    }
    text
}
