//! `tuf-client`: the command line that the TUF project's conformance suite drives, and a tool to look at a repository.
//!
//! Invariant: exit code 0 only if all of what was asked for was done, and 1 otherwise. The shell.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "the shell: reads the clock once, speaks to a person"
)]

mod http;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use tuf::directory::Directory;
use tuf::floor::NoFloor;
use tuf::time::Now;
use tuf::verify::Software;
use tuf::{Judges, init, refresh};

use http::{Addresses, Http};

/// Follows a TUF repository, and downloads what it describes.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where trusted metadata are kept.
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    #[command(flatten)]
    repository: Repository,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Repository {
    /// The address that metadata files are below, for `refresh` and `download`.
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
    /// The address that target files are below, for `download`.
    #[arg(long, value_name = "URL")]
    target_base_url: Option<String>,
    /// A target to download; several in their order.
    #[arg(long = "target-name", value_name = "NAME")]
    target_names: Vec<String>,
    /// Where targets are kept.
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// The certificates that HTTPS servers are checked against.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/ssl/certs/ca-certificates.crt"
    )]
    ca_file: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin with a root that came another way.
    Init {
        /// The root's file.
        root: PathBuf,
    },
    /// Bring the metadata up to date.
    Refresh,
    /// Bring the metadata up to date, and download targets.
    Download,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tuf-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let clock = Now::Trusted(Timestamp::now());
    let judges = Judges {
        verifier: &Software,
        clock: &clock,
    };
    let directory = Directory::open(&arguments.metadata_dir)?;
    let repository = &arguments.repository;
    match &arguments.command {
        Command::Init { root } => {
            let bytes =
                fs::read(root).with_context(|| format!("cannot read {}", root.display()))?;
            Ok(init(&directory, &bytes, judges)?)
        }
        Command::Refresh => {
            let mut http = repository.http()?;
            refresh(&directory, &mut http, judges, &mut NoFloor)?;
            Ok(())
        }
        Command::Download => {
            let folder = repository.target_dir.as_deref();
            let folder = folder.context("download needs --target-dir")?;
            let mut http = repository.http()?;
            let mut update = refresh(&directory, &mut http, judges, &mut NoFloor)?;
            for name in &repository.target_names {
                let target = update.find(name)?;
                update.download(&target, folder)?;
            }
            Ok(())
        }
    }
}

impl Repository {
    fn http(&self) -> Result<Http> {
        let metadata = self.metadata_url.clone();
        Http::new(
            Addresses {
                metadata: metadata.context("this needs --metadata-url")?,
                targets: self.target_base_url.clone(),
            },
            &self.ca_file,
        )
    }
}
