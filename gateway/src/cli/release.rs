//! `gateway release`: the vendor's side of a release, offline but for what `publish` writes. Shell.
//!
//! Invariant: a private key is read by the one command that signs with it, and what is published was checked as a device would.

mod advisories;
mod components;
mod draft;
mod inspect;
pub(super) mod keys;
mod pack;
mod publish;
mod published;
mod sign;
mod verify;
mod versions;

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context, anyhow};
use clap::Subcommand;

use super::{Exit, Failure, print};

/// Files of metadata and keys are no longer than that.
const SMALL_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make keys in files: for roles of the metadata, for approvals, for devices without a TPM
    Keygen(keys::Args),
    /// Write metadata that is yet to be signed
    #[command(subcommand)]
    Draft(draft::Command),
    /// Sign metadata with keys in files or in a token
    Sign(sign::SignArgs),
    /// Join signatures that were made on separate machines
    Merge(sign::MergeArgs),
    /// Make a release's index and encrypted chunks from an image
    Pack(pack::Args),
    /// Check an edition as a device would and write it to a folder for any HTTPS server
    Publish(publish::Args),
    /// Show what a release is and for whom, and which of its components are known to be vulnerable
    Inspect(inspect::Args),
    /// Follow a published repository to a release, and check all of that, as a device would
    Verify(verify::Args),
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Keygen(args) => keys::keygen(args),
        Command::Draft(command) => draft::run(command),
        Command::Sign(args) => sign::sign(args),
        Command::Merge(args) => sign::merge(args),
        Command::Pack(args) => pack::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
    }
}

/// A file that is at most `limit` bytes long.
fn read(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    match bytes.len() as u64 > limit {
        true => Err(anyhow!("{} has more than {limit} bytes", path.display())),
        false => Ok(bytes),
    }
}

fn read_text(path: &Path, limit: u64) -> anyhow::Result<String> {
    String::from_utf8(read(path, limit)?)
        .with_context(|| format!("{} is not a text", path.display()))
}

/// Replaces a file whole.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.part"));
    let replace = || -> io::Result<()> {
        fs::write(&partial, bytes)?;
        fs::rename(&partial, path)
    };
    replace().with_context(|| format!("cannot write {}", path.display()))
}

/// What a device would not take, with the code that says so.
fn refused(error: anyhow::Error) -> Failure {
    Failure::new(Exit::Refused, error)
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, anyhow!(text.into()))
}

/// The first argument of the commands that begin from what is published.
#[derive(Debug, clap::Args)]
struct Repository {
    /// The folder that is served: metadata/, targets/, chunks/, sbom/
    #[arg(long, value_name = "FOLDER")]
    repository: std::path::PathBuf,
}
