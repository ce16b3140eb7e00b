//! `release inspect`: what a release is, for people and programs. Shell.
//!
//! Invariant: nothing that an index says is taken for signed: `verify` follows the metadata.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::json;
use update::release::{INDEX_MAX, Index, Recipient, pack::INDEX_FILE};

use crate::wording;

use super::{Failure, print, read};

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A release's folder, or its index
    release: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let path = match args.release.is_dir() {
        true => args.release.join(INDEX_FILE),
        false => args.release.clone(),
    };
    let index = open(&path)?;
    match args.json {
        true => print(&format!("{:#}\n", for_programs(&index)))?,
        false => print(&for_people(&index))?,
    }
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<Index> {
    let bytes = read(path, INDEX_MAX)?;
    Index::parse(&bytes).with_context(|| path.display().to_string())
}

fn recipients(index: &Index) -> impl Iterator<Item = &Recipient> {
    index.grants().keys.iter().map(|(recipient, _)| recipient)
}

fn for_programs(index: &Index) -> serde_json::Value {
    let about = index.about();
    json!({
        "product": about.product,
        "version": about.version,
        "hardware": about.hardware,
        "epoch": about.epoch,
        "image_size": about.image_size,
        "chunks": index.chunks().len(),
        "zero_chunks": index.chunks().iter().filter(|chunk| chunk.is_zero()).count(),
        "stored_bytes": index.stored_bytes(),
        "merkle_root": tpm::hex::encode(index.root()),
        "sbom": about.sbom.map(|sbom| json!({
            "sha256": tpm::hex::encode(&sbom.sha256),
            "length": sbom.length,
        })),
        "recipients": recipients(index).map(Recipient::to_string).collect::<Vec<_>>(),
        "approved": index.grants().approval.is_some(),
    })
}

fn for_people(index: &Index) -> String {
    let about = index.about();
    let zeros = index
        .chunks()
        .iter()
        .filter(|chunk| chunk.is_zero())
        .count();
    let mut text = format!(
        "{} {}, security epoch {}\nfor {}\nimage: {} in {} of which {zeros} are zeros, {} to fetch\nMerkle root {}\n",
        about.product,
        about.version,
        about.epoch,
        about.hardware.join(", "),
        wording::about(about.image_size),
        wording::counted(index.chunks().len(), "chunk", "chunks"),
        wording::about(index.stored_bytes()),
        tpm::hex::encode(index.root()),
    );
    // Writing to a string cannot fail.
    let _ = match about.sbom {
        Some(sbom) => writeln!(
            text,
            "list of components: {}, SHA-256 {}",
            wording::about(u64::from(sbom.length)),
            tpm::hex::encode(&sbom.sha256)
        ),
        None => writeln!(text, "no list of components"),
    };
    for recipient in recipients(index) {
        let _ = writeln!(text, "opens for {recipient}");
    }
    text
}
