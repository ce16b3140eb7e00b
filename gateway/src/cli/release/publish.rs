//! `release publish`: an edition is checked and written to the folder that is served. Shell.
//!
//! Invariant: chunks and lists come before the index, files before those that name them, the timestamp last; what is
//! published was checked as a device would.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use tuf::repository::{Edition, PublishFailure, Signer, Tree};
use update::release::{
    INDEX_MAX, Index,
    pack::{CHUNKS_FOLDER, INDEX_FILE, SBOM_FOLDER},
    sha256,
};

use super::{
    Failure, Repository, SMALL_MAX, draft, keys, print,
    published::{Published, described, version},
    read, refused, usage, write,
};

/// Arguments of `publish`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    repository: Repository,
    /// A signed root, the first or a new one
    #[arg(long, value_name = "FILE")]
    root: Vec<PathBuf>,
    /// The vendor's approval of that root, for devices with a TPM (gateway tpm approve root)
    #[arg(long, value_name = "FILE", requires = "root")]
    root_approval: Vec<PathBuf>,
    /// The signed targets; by default those that are published
    #[arg(long, value_name = "FILE")]
    targets: Option<PathBuf>,
    /// The release that is new in them
    #[arg(long, value_name = "FOLDER", requires = "targets")]
    release: Vec<PathBuf>,
    /// The signed snapshot, where it was drafted elsewhere; else it is made and signed with --key
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// The signed timestamp, where it was drafted elsewhere; else it is made and signed with --key
    #[arg(long, value_name = "FILE", requires = "snapshot")]
    timestamp: Option<PathBuf>,
    #[command(flatten)]
    source: keys::Source,
    /// Days until a snapshot that is made here is to be replaced by
    #[arg(long, default_value_t = 30)]
    snapshot_days: u16,
    /// Days until a timestamp that is made here is to be replaced by
    #[arg(long, default_value_t = 7)]
    timestamp_days: u16,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let repository = args.repository.repository.as_path();
    let edition = edition(args, repository)?;
    for folder in &args.release {
        let release = describe(folder, &edition.targets["targets"])?;
        copy(folder, repository, &release)?;
    }
    approvals(args, repository)?;
    let published = Tree::new(repository).publish(&edition, Timestamp::now());
    published.map_err(|failure| match failure {
        PublishFailure::Disk { .. } => Failure::from(anyhow!(failure)),
        other => refused(anyhow!(other)),
    })?;
    let targets = Published::read(repository)?.targets;
    Ok(print(&format!(
        "{}: targets version {targets}\n",
        repository.display()
    ))?)
}

fn edition(args: &Args, repository: &Path) -> Result<Edition, Failure> {
    let published = Published::read(repository)?;
    let targets = match &args.targets {
        Some(path) => read(path, SMALL_MAX)?,
        None if published.targets_file.is_empty() => {
            return Err(usage(
                "nothing is published yet: name the first --targets FILE",
            ));
        }
        None => published.targets_file.clone(),
    };
    let snapshot = match &args.snapshot {
        Some(path) => read(path, SMALL_MAX)?,
        None => signed(
            draft::snapshot(&published, targets.clone(), args.snapshot_days)?,
            &signers(args, "snapshot")?,
        )?,
    };
    let timestamp = match &args.timestamp {
        Some(path) => read(path, SMALL_MAX)?,
        None => signed(
            draft::timestamp(&published, snapshot.clone(), args.timestamp_days)?,
            &signers(args, "timestamp")?,
        )?,
    };
    let mut roots = BTreeMap::new();
    for path in &args.root {
        let bytes = read(path, SMALL_MAX)?;
        let version = version(&bytes).with_context(|| path.display().to_string())?;
        roots.insert(version, bytes);
    }
    Ok(Edition {
        roots,
        timestamp,
        snapshot,
        targets: [("targets".to_owned(), targets)].into(),
    })
}

fn signers(args: &Args, role: &str) -> Result<Vec<Box<dyn Signer>>, Failure> {
    match args.source.is_empty() {
        true => Err(usage(format!(
            "name the key that signs the {role} with --key FILE, or the signed file with --{role} FILE"
        ))),
        false => args.source.signers(),
    }
}

fn signed(mut file: Vec<u8>, signers: &[Box<dyn Signer>]) -> anyhow::Result<Vec<u8>> {
    for signer in signers {
        file = tuf::repository::sign(&file, signer.as_ref()).context("cannot sign")?;
    }
    Ok(file)
}

/// A release's folder, and the target by which the edition names it.
struct Described {
    index: Index,
    target: String,
}

fn describe(folder: &Path, targets: &[u8]) -> Result<Described, Failure> {
    let path = folder.join(INDEX_FILE);
    let bytes = read(&path, INDEX_MAX)?;
    let digest = sha256(&[&bytes]);
    let target = described(targets)?
        .into_iter()
        .find(|target| target.sha256 == digest);
    let target = target.ok_or_else(|| {
        usage(format!(
            "the targets do not name the release in {}",
            folder.display()
        ))
    })?;
    Ok(Described {
        index: Index::parse(&bytes).with_context(|| path.display().to_string())?,
        target: target.path,
    })
}

/// Chunks and list first: nobody looks for them before an index names them.
fn copy(folder: &Path, repository: &Path, release: &Described) -> Result<(), Failure> {
    let stored = release
        .index
        .chunks()
        .iter()
        .filter(|chunk| !chunk.is_zero());
    let chunks = stored.map(|chunk| (CHUNKS_FOLDER, chunk.stored));
    let sbom = release
        .index
        .about()
        .sbom
        .map(|sbom| (SBOM_FOLDER, sbom.sha256));
    for (kind, digest) in chunks.chain(sbom) {
        let name = tpm::hex::encode(&digest);
        copy_one(
            &folder.join(kind).join(&name),
            &repository.join(kind),
            &name,
            &digest,
        )?;
    }
    let added = Tree::new(repository).add_target(&release.target, &folder.join(INDEX_FILE));
    added.map(drop).map_err(|failure| refused(anyhow!(failure)))
}

fn copy_one(source: &Path, folder: &Path, name: &str, digest: &[u8; 32]) -> Result<(), Failure> {
    let bytes = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    if sha256(&[&bytes]) != *digest {
        return Err(refused(anyhow!(
            "{} is not what the index names: pack the release again",
            source.display()
        )));
    }
    let path = folder.join(name);
    if fs::read(&path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(write(&path, &bytes)?)
}

fn approvals(args: &Args, repository: &Path) -> Result<(), Failure> {
    for path in &args.root_approval {
        let text = String::from_utf8_lossy(&read(path, tpm::APPROVAL_MAX)?).into_owned();
        let approval = tpm::Approval::from_json(&text)
            .map_err(|wrong| anyhow!("{}: {wrong}", path.display()))?;
        let tpm::Subject::Root(root) = approval.subject() else {
            return Err(usage(format!("{} approves no root", path.display())));
        };
        let of_this = args.root.iter().any(|file| {
            read(file, SMALL_MAX).is_ok_and(|bytes| {
                sha256(&[&bytes]) == root.digest && version(&bytes).ok() == Some(root.version)
            })
        });
        if !of_this {
            return Err(refused(anyhow!(
                "{} approves other bytes than those of --root: a root is approved after it was signed",
                path.display()
            )));
        }
        let folder = repository.join("metadata");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let name = format!("{}.root.approval.json", root.version);
        write(&folder.join(name), text.as_bytes())?;
    }
    Ok(())
}
