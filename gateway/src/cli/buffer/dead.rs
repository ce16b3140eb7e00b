//! `gateway buffer dead`: shows what the upstream will never take, has it sent again, or drops it. Shell.
//!
//! Invariant: nothing is dropped that was not confirmed.

use std::fmt::Write;

use anyhow::{Context, anyhow};
use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ConfigPath, Failure, ask, load, print};
use crate::{
    appliance::{
        buffer_stats::{DeadLetterLine, DeadLetterStats},
        dead_letters::{LISTED_MAX, NAMED_MAX, Outcome},
    },
    cli::consent,
    wording::{about, counted},
};

const NOT_UNDERSTOOD: &str = "the service's answer is not understood; is it of another version?";

/// What is done about dead letters.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show them, newest first: id, topic, number, when received and given up, size, reason
    List(List),
    /// Let them wait for the upstream again, as what they were
    Resend(Resend),
    /// Remove them for good
    Drop(DropArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    config: ConfigPath,
    /// How many at most, up to 200
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = limit)]
    limit: usize,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Resend {
    #[command(flatten)]
    chosen: Chosen,
}

#[derive(Debug, clap::Args)]
pub(super) struct DropArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Do not ask first
    #[arg(long)]
    yes: bool,
}

/// Which ones.
#[derive(Debug, clap::Args)]
struct Chosen {
    #[command(flatten)]
    config: ConfigPath,
    /// Ids, as the list shows them; up to 200
    #[arg(value_name = "ID", num_args = 1..=NAMED_MAX, required_unless_present = "all")]
    ids: Vec<i64>,
    /// All that are kept
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running service.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::List(args) => list(args),
        Command::Resend(args) => settle(&args.chosen, "resend", "wait again"),
        Command::Drop(args) => {
            confirm(args)?;
            settle(&args.chosen, "drop", "dropped")
        }
    }
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=LISTED_MAX) => Ok(count),
        _ => Err(format!("write a number from 1 to {LISTED_MAX}")),
    }
}

fn list(args: &List) -> Result<(), Failure> {
    let answer = asked(&args.config, &format!("list {}", args.limit))?;
    if let Some(fault) = answer["fault"].as_str() {
        return Err(anyhow!("the service cannot list them: {fault}").into());
    }
    if args.json {
        return Ok(print(&format!("{answer}\n"))?);
    }
    Ok(print(&table(&understood(answer)?))?)
}

fn table(letters: &DeadLetterStats) -> String {
    let mut text = String::new();
    for letter in &letters.newest {
        let DeadLetterLine {
            id,
            topic,
            seq,
            received,
            buried,
            reason,
            bytes,
            whole,
        } = letter;
        let kept = if *whole { "" } else { ", payload not kept" };
        let _infallible = writeln!(
            text,
            "{id}  {topic} #{seq}  received {received}  given up {buried}  {}{kept}  {reason}",
            about(*bytes)
        );
    }
    let (shown, kept) = (letters.newest.len(), letters.kept);
    let kept = counted(kept as usize, "dead letter", "dead letters");
    let _infallible = writeln!(text, "{shown} of {kept}");
    text
}

fn settle(chosen: &Chosen, word: &str, done_word: &str) -> Result<(), Failure> {
    let answer = asked(&chosen.config, &format!("{word} {}", chosen.named()))?;
    if chosen.json {
        print(&format!("{answer}\n"))?;
    }
    let outcome: Outcome = understood(answer)?;
    if !chosen.json {
        let mut text = format!("{} {done_word}\n", outcome.done.len());
        for left in &outcome.left {
            let _infallible = writeln!(text, "{}: {}", left.id, left.reason);
        }
        print(&text)?;
    }
    match outcome.left.len() {
        0 => Ok(()),
        left => Err(anyhow!("nothing was done about {left} of those asked for").into()),
    }
}

impl Chosen {
    /// As the control socket is asked.
    fn named(&self) -> String {
        if self.all {
            return "all".to_owned();
        }
        let ids: Vec<String> = self.ids.iter().map(i64::to_string).collect();
        ids.join(" ")
    }
}

fn confirm(args: &DropArgs) -> Result<(), Failure> {
    let what = match args.chosen.all {
        true => "all dead letters".to_owned(),
        false => format!("dead letters {}", args.chosen.named()),
    };
    let question = format!("{what}: once dropped they cannot be sent again. Drop them?");
    consent::need(args.yes, &question, "nothing was dropped")
}

fn asked(config: &ConfigPath, wish: &str) -> Result<Value, Failure> {
    let socket = load(config)?.value.gateway.control;
    let answer = ask(&socket, &format!("buffer dead {wish}"))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(anyhow!("the service refused: {error}").into()),
        None => Ok(answer),
    }
}

fn understood<T: DeserializeOwned>(answer: Value) -> anyhow::Result<T> {
    serde_json::from_value(answer).context(NOT_UNDERSTOOD)
}
