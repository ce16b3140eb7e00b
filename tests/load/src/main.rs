//! `load`: drives an MQTT broker over plain TCP or mutual TLS and prints one JSON object about it.
//!
//! ```text
//! main ──┬── flow      publishers and subscribers: rate, latency, losses
//!        ├── idle      connections that only stay: memory, wake-ups
//!        ├── connects  how many clients can come in a second
//!        ├── kept      what a kill takes of what was acknowledged
//!        └── pki       the certificates for all of them
//!   packets, wire: the client side of MQTT, no more than it takes · gauge: the broker as /proc shows it
//! ```
//! It knows the broker by its port and process alone, and shares no code with it. Shell.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring tool owns a clock and prints what it measured"
)]

mod connects;
mod flow;
mod idle;
mod kept;

mod gauge;
mod histogram;
mod packets;
mod pki;
mod wire;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use crate::wire::Tls;

/// Loads an MQTT broker on loopback, and prints what came of it as JSON.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Publish and subscribe for a while
    Flow(flow::Plan),
    /// Connect clients that only subscribe, and see what they cost the broker
    Idle(idle::Plan),
    /// Connect and leave again, as fast as it goes
    Connects(connects::Plan),
    /// Publish at QoS 1 to a session that is away, then kill the broker at once
    Keep(kept::Keep),
    /// Count what came through for that session
    Take(kept::Take),
    /// Write ca.pem, server.pem, server.key, client.pem and client.key
    Pki {
        /// Folder to write to
        directory: PathBuf,
    },
}

/// Which broker, and how to reach it.
#[derive(Args)]
struct Target {
    /// Its port on 127.0.0.1
    #[arg(long)]
    port: u16,
    /// Its process, to be measured
    #[arg(long)]
    pid: i32,
    /// Use TLS, with client.pem and client.key of this folder
    #[arg(long)]
    tls: Option<PathBuf>,
}

impl Target {
    fn tls(&self) -> Result<Option<Tls>> {
        self.tls.as_deref().map(Tls::from_folder).transpose()
    }
}

fn main() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    match Arguments::parse().work {
        Work::Flow(plan) => print(&flow::run(&plan)?),
        Work::Idle(plan) => print(&idle::run(&plan)?),
        Work::Connects(plan) => print(&connects::run(&plan)?),
        Work::Keep(plan) => print(&kept::keep(&plan)?),
        Work::Take(plan) => print(&kept::take(&plan)?),
        Work::Pki { directory } => pki::write(&directory),
    }
}

fn print(report: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}
