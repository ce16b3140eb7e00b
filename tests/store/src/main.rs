//! `store-load`: works on the gateway's buffer as a library, and on brokers as a client, and prints one JSON object.
//!
//! ```text
//! main ──┬── library  appends with durable acknowledgement; fills a file for others to drain
//!        ├── client   what an upstream accepts from a bare rumqttc client; what passed it
//!        └── latency  from a publisher or a sensor to a subscriber behind the upstream
//! ```
//! Invariant: what is measured is what an acknowledgement or a delivery has shown. Shell.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring tool owns a clock and prints what it measured"
)]

mod client;
mod latency;
mod library;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::Value;

/// Loads a store of messages, and prints what came of it as JSON.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Append to a buffer for a while
    Append(library::Append),
    /// Append so many messages and close the file
    Fill(library::Fill),
    /// Publish at QoS 1 with rumqttc and nothing around it
    Bare(client::Bare),
    /// Watch a broker's own count of messages until nothing more comes
    Passed(client::Passed),
    /// Time messages from their publisher, or from their sensor, to a subscriber
    Latency(latency::Plan),
}

fn main() -> Result<()> {
    let report = match Arguments::parse().work {
        Work::Append(plan) => library::append(&plan),
        Work::Fill(plan) => library::fill(&plan),
        Work::Bare(plan) => run(client::bare(&plan)),
        Work::Passed(plan) => run(client::passed(&plan)),
        Work::Latency(plan) => run(latency::run(&plan)),
    };
    println!("{}", report?);
    Ok(())
}

/// One thread, as the other clients of the benchmarks have.
fn run(work: impl Future<Output = Result<Value>>) -> Result<Value> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
