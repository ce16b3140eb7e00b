//! The broker as a program of its own: reads its configuration, serves until it is told to stop.
//!
//! Shell. Invariant: an error is printed once, with its chain; exit code 2 means the
//! configuration, 1 anything else.

mod cli;

use std::{
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use broker_lite::{
    config::{self, AccessRule, Config, Listener},
    server::Broker,
};
use clap::{Parser, Subcommand};
use settings::{Checks, Formats};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// A small, secured MQTT 3.1.1 and 5.0 broker.
#[derive(Parser)]
#[command(
    version,
    group = clap::ArgGroup::new("what").required(true),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file; SIGHUP reads it again.
    #[arg(long, value_name = "FILE", group = "what")]
    config: Option<PathBuf>,
    /// Serve anonymous clients on this port of the loopback, without a configuration.
    #[arg(long, value_name = "PORT", group = "what")]
    port: Option<u16>,
}

#[derive(Subcommand)]
enum Command {
    /// Make and change password files.
    #[command(subcommand)]
    Passwd(cli::passwd::Passwd),
}

/// A fault of the configuration, which has an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadConfiguration(String);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Passwd(command)) = &arguments.command {
        return cli::passwd::main(command);
    }
    log_to_journal_or_terminal();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure:#}");
            if failure.is::<BadConfiguration>() {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = configuration(arguments)?;
    let mut signals = Signals::install()?;
    let broker = Broker::start(&config, None)
        .await
        .context("cannot start the broker")?;
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.reload.recv() => reload(&broker, arguments).await,
        }
    }
    info!("stopping");
    broker.shutdown().await;
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn install() -> anyhow::Result<Signals> {
        let install = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            reload: install(SignalKind::hangup())?,
        })
    }
}

/// A configuration that cannot be used changes nothing.
async fn reload(broker: &Broker, arguments: &Arguments) {
    let config = match configuration(arguments) {
        Ok(config) => config,
        Err(failure) => return warn!("configuration left as it was: {failure:#}"),
    };
    match broker.reload(&config).await {
        Ok(reloaded) => info!(?reloaded, "configuration read again"),
        Err(failure) => warn!(
            "configuration left as it was: {:#}",
            anyhow::Error::new(failure)
        ),
    }
}

fn configuration(arguments: &Arguments) -> anyhow::Result<Config> {
    match (&arguments.config, arguments.port) {
        (Some(path), _) => load(path),
        (None, port) => Ok(bare(port.unwrap_or(1883))),
    }
}

fn load(path: &Path) -> anyhow::Result<Config> {
    let checks = Checks {
        formats: Formats::default(),
        across: |config: &Config, document| config::check(config, document, ""),
    };
    let loaded = settings::load(path, &checks);
    let loaded = loaded.map_err(|error| BadConfiguration(error.to_string()))?;
    if !loaded.warnings.is_empty() {
        warn!("{}", loaded.warnings);
    }
    Ok(loaded.value)
}

/// Anonymous clients on loopback, who may do everything.
fn bare(port: u16) -> Config {
    let listener = Listener {
        anonymous: Some(true),
        ..Listener::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    };
    Config {
        listeners: vec![listener],
        access: vec![AccessRule::everything()],
        ..Config::default()
    }
}

/// To the journal when systemd connects us to it, else as lines on standard error.
fn log_to_journal_or_terminal() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match journal {
        Some(journal) => registry.with(journal).init(),
        None => registry.with(lines).init(),
    }
}
