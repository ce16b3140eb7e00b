//! `release verify`: follows a repository's folder to a release and checks all of it, as a device would. Shell.
//!
//! Invariant: it starts from one root and believes nothing else; what it says is whole was read from beginning to end.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use tuf::{
    Judges, UpdateError,
    directory::Directory,
    fetch::{FetchFailure, Fetcher, Place},
    floor::NoFloor,
    time::Now,
    verify::Software,
};
use update::release::{
    ContentKey, FileKey, INDEX_MAX, Index, KEY_FILE_MAX, KeyFile, Merkle, STORED_MAX, WrappedKey,
    open_chunk,
    pack::{CHUNKS_FOLDER, SBOM_FOLDER},
    sha256,
};

use super::{Exit, Failure, Repository, SMALL_MAX, print, read, read_text, refused, usage};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    repository: Repository,
    /// The root that devices were shipped with
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The target that they follow
    #[arg(long, value_name = "TARGET")]
    name: String,
    /// A file key, to open every chunk with
    #[arg(long, value_name = "FILE", conflicts_with = "content_key")]
    file_key: Option<PathBuf>,
    /// What pack kept with --content-key, to open every chunk with
    #[arg(long, value_name = "FILE")]
    content_key: Option<PathBuf>,
    /// Refuse a release that is not for this hardware
    #[arg(long, value_name = "NAME")]
    hardware: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let folder = args.repository.repository.as_path();
    let index = follow(args, folder)?;
    let about = index.about();
    if let Some(hardware) = &args.hardware
        && !about.fits(&about.product, hardware)
    {
        return Err(refused(anyhow!(
            "release {} is for {}, not for {hardware}",
            about.version,
            about.hardware.join(", ")
        )));
    }
    let key = key(args, &index)?;
    check_chunks(folder, &index, key.as_ref())?;
    check_sbom(folder, &index)?;
    let opened = match key {
        Some(_) => "every chunk opens to the image that the Merkle root names",
        None => "every chunk is there as the index names it; none was opened, as no key was given",
    };
    Ok(print(&format!(
        "{} {}: metadata and index are signed as the root says, {opened}\n",
        about.product, about.version
    ))?)
}

fn follow(args: &Args, folder: &Path) -> Result<Index, Failure> {
    let scratch = tempfile::tempdir().context("cannot make a folder for metadata")?;
    let directory = Directory::open(scratch.path()).context("cannot use a folder for metadata")?;
    let now = Now::Trusted(Timestamp::now());
    let judges = Judges {
        verifier: &Software,
        clock: &now,
    };
    let root = read(&args.root, SMALL_MAX)?;
    tuf::init(&directory, &root, judges).map_err(failure)?;
    let mut files = Files(folder.into());
    let mut update = tuf::refresh(&directory, &mut files, judges, &mut NoFloor).map_err(failure)?;
    let target = update.find(&args.name).map_err(failure)?;
    if target.length > INDEX_MAX {
        return Err(refused(anyhow!(
            "target {} is too long for an index",
            args.name
        )));
    }
    let mut bytes = Vec::new();
    update.copy(&target, &mut bytes).map_err(failure)?;
    Index::parse(&bytes).map_err(|wrong| refused(anyhow!(wrong)))
}

/// A repository on the disk.
struct Files(PathBuf);

impl Fetcher for Files {
    fn open(&mut self, place: Place, name: &str) -> Result<Box<dyn Read + '_>, FetchFailure> {
        match File::open(self.0.join(place.to_string()).join(name)) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(FetchFailure::NotFound(name.into()))
            }
            Err(error) => Err(FetchFailure::Unreachable {
                name: name.into(),
                reason: error.to_string(),
            }),
        }
    }
}

fn failure(error: UpdateError) -> Failure {
    let exit = match error {
        UpdateError::Refused(_) => Exit::Refused,
        UpdateError::Fetch(_) => Exit::Unreachable,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.into())
}

fn key(args: &Args, index: &Index) -> Result<Option<ContentKey>, Failure> {
    if let Some(path) = &args.content_key {
        let file = KeyFile::from_text(&read_text(path, KEY_FILE_MAX)?);
        return Ok(Some(
            file.map_err(|wrong| anyhow!("{}: {wrong}", path.display()))?
                .key,
        ));
    }
    let Some(path) = &args.file_key else {
        return Ok(None);
    };
    let key = FileKey::from_text(&read_text(path, KEY_FILE_MAX)?)
        .ok_or_else(|| usage(format!("{} holds no file key", path.display())))?;
    match index.content_key_for(&key.recipient()) {
        Some(WrappedKey::File(sealed)) => key
            .open(index.about().epoch, sealed)
            .map(Some)
            .ok_or_else(|| refused(anyhow!("the content key in the index does not open"))),
        _ => Err(refused(anyhow!(
            "release {} is not for the holder of {}",
            index.about().version,
            path.display()
        ))),
    }
}

fn check_chunks(folder: &Path, index: &Index, key: Option<&ContentKey>) -> Result<(), Failure> {
    let mut tree = Merkle::new();
    for (number, chunk) in index.chunks().iter().enumerate() {
        let stored = match chunk.is_zero() {
            true => Vec::new(),
            false => stored(folder, CHUNKS_FOLDER, &chunk.stored, STORED_MAX as u64)?,
        };
        if let Some(key) = key {
            let plain = open_chunk(index, number, &stored, key);
            tree.push(&sha256(&[&plain.map_err(|error| refused(anyhow!(error)))?]));
        }
    }
    match key.is_none() || tree.root() == *index.root() {
        true => Ok(()),
        false => Err(refused(anyhow!(
            "the opened image is not that of the Merkle root"
        ))),
    }
}

fn check_sbom(folder: &Path, index: &Index) -> Result<(), Failure> {
    match index.about().sbom {
        Some(sbom) => stored(folder, SBOM_FOLDER, &sbom.sha256, u64::from(sbom.length)).map(drop),
        None => Ok(()),
    }
}

/// A file under its digest.
fn stored(folder: &Path, kind: &str, digest: &[u8; 32], limit: u64) -> Result<Vec<u8>, Failure> {
    let path = folder.join(kind).join(tpm::hex::encode(digest));
    let bytes = read(&path, limit).map_err(|error| Failure::new(Exit::Unreachable, error))?;
    match sha256(&[&bytes]) == *digest {
        true => Ok(bytes),
        false => Err(refused(anyhow!(
            "{} is not what the index names: its SHA-256 differs",
            path.display()
        ))),
    }
}
