//! `release sign` and `release merge`. Shell.
//!
//! Invariant: signatures are added, and nothing else of a file changes.

use std::path::PathBuf;

use anyhow::Context;

use super::{Failure, SMALL_MAX, keys, print, read, usage, write};

/// Arguments of `sign`.
#[derive(Debug, clap::Args)]
pub(crate) struct SignArgs {
    /// The metadata: as drafted, or with others' signatures
    file: PathBuf,
    #[command(flatten)]
    source: keys::Source,
    /// Where the signed file goes; by default in place
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Arguments of `merge`.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// Copies of one draft, each signed elsewhere
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where the file with all signatures goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn sign(args: &SignArgs) -> Result<(), Failure> {
    let mut file = read(&args.file, SMALL_MAX)?;
    for signer in args.source.signers()? {
        file = tuf::repository::sign(&file, signer.as_ref())
            .with_context(|| args.file.display().to_string())?;
        print(&format!("signed by {}\n", signer.public_key().id()))?;
    }
    Ok(write(args.out.as_ref().unwrap_or(&args.file), &file)?)
}

pub(super) fn merge(args: &MergeArgs) -> Result<(), Failure> {
    let Some((first, others)) = args.files.split_first() else {
        return Err(usage("name the copies"));
    };
    let mut file = read(first, SMALL_MAX)?;
    for path in others {
        file = tuf::repository::merge(&file, &read(path, SMALL_MAX)?)
            .with_context(|| format!("cannot merge {}", path.display()))?;
    }
    let ids = tuf::repository::signed_by(&file).context("cannot read what was merged")?;
    print(
        &ids.iter()
            .map(|id| format!("signed by {id}\n"))
            .collect::<String>(),
    )?;
    Ok(write(&args.out, &file)?)
}
