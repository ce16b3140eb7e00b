//! What a repository's folder holds already, as the next drafts need it. Shell.
//!
//! Invariant: nothing here is trusted: it is the vendor's own folder, and `publish` checks what comes of it as a device would.

use std::path::Path;

use anyhow::{Context, anyhow};
use tuf::{json::Json, repository::TargetDraft};

use super::{SMALL_MAX, read};

/// The edition that is served now.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// The timestamp's version; 0 before there is one.
    pub(super) timestamp: u64,
    /// The snapshot's.
    pub(super) snapshot: u64,
    /// The top-level targets'.
    pub(super) targets: u64,
    /// The top-level targets' file.
    pub(super) targets_file: Vec<u8>,
}

impl Published {
    /// Reads the folder; of one without a timestamp, nothing.
    pub(super) fn read(repository: &Path) -> anyhow::Result<Published> {
        let metadata = repository.join("metadata");
        let timestamp = metadata.join("timestamp.json");
        if !timestamp.exists() {
            return Ok(Published::default());
        }
        let timestamp = file(&timestamp)?.1;
        let snapshot = listed(&timestamp, "snapshot.json")?;
        let path = metadata.join(format!("{snapshot}.snapshot.json"));
        let targets = listed(&file(&path)?.1, "targets.json")?;
        let path = metadata.join(format!("{targets}.targets.json"));
        Ok(Published {
            timestamp: number(&timestamp)?,
            snapshot,
            targets,
            targets_file: file(&path)?.0,
        })
    }

    /// The targets that are described now.
    pub(super) fn described(&self) -> anyhow::Result<Vec<TargetDraft>> {
        match self.targets_file.is_empty() {
            true => Ok(Vec::new()),
            false => described(&self.targets_file),
        }
    }
}

/// The targets in a file of metadata.
pub(super) fn described(targets: &[u8]) -> anyhow::Result<Vec<TargetDraft>> {
    let signed = Json::parse(targets)?;
    let signed = signed.member("signed")?;
    if signed.optional("delegations").is_some() {
        return Err(anyhow!(
            "the targets delegate to other roles, which this command does not draft; draft them with another TUF tool"
        ));
    }
    let targets = signed.member("targets")?.object("targets")?;
    targets
        .iter()
        .map(|(path, target)| {
            let sha256 = target.member("hashes")?.member("sha256")?.text("sha256")?;
            let sha256 = tpm::hex::decode(sha256).and_then(|bytes| bytes.try_into().ok());
            Ok(TargetDraft {
                path: path.clone(),
                length: target.member("length")?.number("length")?,
                sha256: sha256.with_context(|| format!("target {path} has no SHA-256"))?,
                custom: target.optional("custom").cloned(),
            })
        })
        .collect()
}

/// The version that a file of metadata bears.
pub(super) fn version(bytes: &[u8]) -> anyhow::Result<u64> {
    number(&Json::parse(bytes)?)
}

fn number(file: &Json) -> anyhow::Result<u64> {
    Ok(file
        .member("signed")?
        .member("version")?
        .number("version")?)
}

fn listed(file: &Json, name: &str) -> anyhow::Result<u64> {
    let meta = file.member("signed")?.member("meta")?.member(name)?;
    Ok(meta.member("version")?.number("version")?)
}

fn file(path: &Path) -> anyhow::Result<(Vec<u8>, Json)> {
    let bytes = read(path, SMALL_MAX)?;
    let json = Json::parse(&bytes).with_context(|| path.display().to_string())?;
    Ok((bytes, json))
}
