//! `release draft`: metadata before anybody signed them. Shell.
//!
//! Invariant: no key is read; a draft's version follows the one that is published.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Subcommand;
use jiff::Timestamp;
use tuf::{
    metadata::TopRole,
    repository::{RootDraft, SnapshotDraft, TargetDraft, TargetsDraft, TimestampDraft},
    time::days_after,
};
use update::release::{INDEX_MAX, Index, pack::INDEX_FILE, sha256};

use super::{Failure, Repository, SMALL_MAX, keys, published::Published, read, usage, write};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Which keys the roles sign with: at first, and whenever a key is replaced
    Root(RootArgs),
    /// Which releases there are: those that are published, and new ones
    Targets(TargetsArgs),
    /// Which targets metadata is current, where its key is on a machine of its own
    Snapshot(SnapshotArgs),
    /// Which snapshot is current, where its key is on a machine of its own
    Timestamp(TimestampArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RootArgs {
    /// One more than the last root's
    #[arg(long, default_value_t = 1)]
    version: u64,
    /// The root's public keys
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    root: Vec<PathBuf>,
    /// How many of them it takes
    #[arg(long, default_value_t = 2)]
    threshold: u64,
    /// Public keys of the role targets, of which one is enough
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    targets: Vec<PathBuf>,
    /// Public keys of the role snapshot
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    snapshot: Vec<PathBuf>,
    /// Public keys of the role timestamp
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    timestamp: Vec<PathBuf>,
    /// Days until it is to be replaced by
    #[arg(long, default_value_t = 1825)]
    days: u16,
    /// The draft
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TargetsArgs {
    #[command(flatten)]
    repository: Repository,
    /// A release's folder, as pack made it
    #[arg(long, value_name = "FOLDER", requires = "name")]
    release: Option<PathBuf>,
    /// The target by which devices follow it
    #[arg(long, value_name = "TARGET", requires = "release")]
    name: Option<String>,
    /// A target that is to be there no longer
    #[arg(long, value_name = "TARGET")]
    remove: Vec<String>,
    /// Days until it is to be replaced by
    #[arg(long, default_value_t = 365)]
    days: u16,
    /// The draft
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SnapshotArgs {
    #[command(flatten)]
    repository: Repository,
    /// The signed targets
    #[arg(long, value_name = "FILE")]
    targets: PathBuf,
    /// Days until it is to be replaced by
    #[arg(long, default_value_t = 30)]
    days: u16,
    /// The draft
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TimestampArgs {
    #[command(flatten)]
    repository: Repository,
    /// The signed snapshot
    #[arg(long, value_name = "FILE")]
    snapshot: PathBuf,
    /// Days until it is to be replaced by
    #[arg(long, default_value_t = 7)]
    days: u16,
    /// The draft
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let (bytes, out) = match command {
        Command::Root(args) => (root(args)?, &args.out),
        Command::Targets(args) => (targets(args)?, &args.out),
        Command::Snapshot(args) => {
            let published = Published::read(&args.repository.repository)?;
            let targets = read(&args.targets, SMALL_MAX)?;
            (snapshot(&published, targets, args.days)?, &args.out)
        }
        Command::Timestamp(args) => {
            let published = Published::read(&args.repository.repository)?;
            let snapshot = read(&args.snapshot, SMALL_MAX)?;
            (timestamp(&published, snapshot, args.days)?, &args.out)
        }
    };
    Ok(write(out, &bytes)?)
}

fn root(args: &RootArgs) -> Result<Vec<u8>, Failure> {
    let role = |paths: &[PathBuf], threshold| -> Result<_, Failure> {
        let keys = paths.iter().map(|path| keys::public(path));
        Ok((keys.collect::<Result<Vec<_>, Failure>>()?, threshold))
    };
    let draft = RootDraft {
        version: args.version,
        expires: in_days(args.days),
        roles: BTreeMap::from([
            (TopRole::Root, role(&args.root, args.threshold)?),
            (TopRole::Targets, role(&args.targets, 1)?),
            (TopRole::Snapshot, role(&args.snapshot, 1)?),
            (TopRole::Timestamp, role(&args.timestamp, 1)?),
        ]),
    };
    Ok(draft.to_file().context("no root was drafted")?)
}

fn targets(args: &TargetsArgs) -> Result<Vec<u8>, Failure> {
    let published = Published::read(&args.repository.repository)?;
    let mut targets = published
        .described()
        .context("cannot read the published targets")?;
    for name in &args.remove {
        if !targets.iter().any(|target| target.path == *name) {
            return Err(usage(format!("no target {name} is published")));
        }
        targets.retain(|target| target.path != *name);
    }
    if let (Some(folder), Some(name)) = (&args.release, &args.name) {
        targets.retain(|target| target.path != *name);
        targets.push(release(folder, name)?);
    }
    let draft = TargetsDraft {
        version: published.targets + 1,
        expires: in_days(args.days),
        targets,
        delegations: Vec::new(),
    };
    Ok(draft.to_file().context("no targets were drafted")?)
}

fn release(folder: &Path, name: &str) -> Result<TargetDraft, Failure> {
    let path = folder.join(INDEX_FILE);
    let bytes = read(&path, INDEX_MAX)?;
    Index::parse(&bytes).with_context(|| path.display().to_string())?;
    Ok(TargetDraft {
        path: name.to_owned(),
        length: bytes.len() as u64,
        sha256: sha256(&[&bytes]),
        custom: None,
    })
}

/// The snapshot that follows the published one.
pub(super) fn snapshot(
    published: &Published,
    targets: Vec<u8>,
    days: u16,
) -> anyhow::Result<Vec<u8>> {
    let draft = SnapshotDraft {
        version: published.snapshot + 1,
        expires: in_days(days),
        roles: [("targets".to_owned(), targets)].into(),
    };
    draft.to_file().context("no snapshot was drafted")
}

/// The timestamp that follows the published one.
pub(super) fn timestamp(
    published: &Published,
    snapshot: Vec<u8>,
    days: u16,
) -> anyhow::Result<Vec<u8>> {
    let draft = TimestampDraft {
        version: published.timestamp + 1,
        expires: in_days(days),
        snapshot,
    };
    draft.to_file().context("no timestamp was drafted")
}

/// Counted from now.
fn in_days(days: u16) -> Timestamp {
    days_after(Timestamp::now(), days)
}
