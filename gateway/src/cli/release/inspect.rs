//! `release inspect`: what a release is, for people and programs. Shell.
//!
//! Invariant: nothing that an index says is taken for signed: `verify` follows the metadata.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use serde_json::json;
use update::release::{
    INDEX_MAX, Index, Recipient, SBOM_MAX,
    pack::{INDEX_FILE, SBOM_FOLDER},
    sha256,
};

use crate::wording;

use super::{
    Failure,
    advisories::{self, Finding},
    components, print, read, refused, usage,
};

/// Bytes of one file of an OSV export at most.
const EXPORT_MAX: u64 = 512 * 1024 * 1024;

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A release's folder, or its index
    release: PathBuf,
    /// Name the components that are known to be vulnerable: an OSV export, one file or a folder of them
    #[arg(long, value_name = "PATH")]
    advisories: Option<PathBuf>,
    /// The list of components, where it does not lie in the release's folder
    #[arg(long, value_name = "FILE", requires = "advisories")]
    sbom: Option<PathBuf>,
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
    let judged = match &args.advisories {
        Some(advisories) => Some(judge(args, &index, &path, advisories)?),
        None => None,
    };
    match args.json {
        true => print(&format!("{:#}\n", for_programs(&index, judged.as_ref())))?,
        false => {
            print(&(for_people(&index) + &judged.as_ref().map_or(String::new(), Judged::to_text)))?
        }
    }
    match judged.map_or(0, |judged| judged.findings.len()) {
        0 => Ok(()),
        count => Err(anyhow!(
            "{} of release {} in the advisories",
            wording::counted(count, "component", "components"),
            index.about().version
        )
        .into()),
    }
}

/// What the advisories say of the components.
struct Judged {
    components: usize,
    /// Components without a name that databases know.
    nameless: usize,
    findings: Vec<Finding>,
}

impl Judged {
    fn to_text(&self) -> String {
        let mut text = format!(
            "{}, {} of them without a name that advisories use\n",
            wording::counted(self.components, "component", "components"),
            self.nameless
        );
        for finding in &self.findings {
            let certain = match finding.certain {
                true => "is vulnerable",
                false => "may be vulnerable (its versions cannot be ordered here)",
            };
            let fixed = match finding.fixed.is_empty() {
                true => "no fix is known".to_owned(),
                false => format!("put right in {}", finding.fixed.join(", ")),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{} {} {certain}: {}, {}; {fixed}",
                finding.component,
                finding.version,
                finding.ids.join(" = "),
                finding.summary
            );
        }
        text
    }

    fn to_json(&self) -> serde_json::Value {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "component": finding.component,
                "version": finding.version,
                "ids": finding.ids,
                "summary": finding.summary,
                "fixed": finding.fixed,
                "certain": finding.certain,
            })
        });
        json!({
            "components": self.components,
            "nameless": self.nameless,
            "findings": findings.collect::<Vec<_>>(),
        })
    }
}

fn judge(args: &Args, index: &Index, path: &Path, export: &Path) -> Result<Judged, Failure> {
    let listed = index.about().sbom.ok_or_else(|| {
        usage(format!(
            "release {} has no list of components",
            index.about().version
        ))
    })?;
    let beside = path.parent().unwrap_or(Path::new("."));
    let beside = beside
        .join(SBOM_FOLDER)
        .join(tpm::hex::encode(&listed.sha256));
    let file = args.sbom.as_ref().unwrap_or(&beside);
    let text = read(file, u64::from(SBOM_MAX))?;
    if sha256(&[&text]) != listed.sha256 {
        return Err(refused(anyhow!(
            "{} is not the list that the index names",
            file.display()
        )));
    }
    let found = components::read(&text).map_err(|wrong| anyhow!("{}: {wrong}", file.display()))?;
    let mut findings = Vec::new();
    for file in exports(export)? {
        let records = advisories::read(&read(&file, EXPORT_MAX)?);
        let records = records.with_context(|| format!("{} is no OSV export", file.display()))?;
        findings.extend(advisories::findings(&found, &records));
    }
    findings.sort_by(|one, next| (&one.component, &one.ids).cmp(&(&next.component, &next.ids)));
    Ok(Judged {
        components: found.len(),
        nameless: found
            .iter()
            .filter(|component| component.package.is_none())
            .count(),
        findings,
    })
}

/// The file itself, or the records in a folder, as OSV's `all.zip` unpacks.
fn exports(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failure = || format!("cannot read {}", path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(failure)? {
        files.push(entry.with_context(failure)?.path());
    }
    files.retain(|file| file.extension().is_some_and(|end| end == "json"));
    Ok(files)
}

fn open(path: &Path) -> anyhow::Result<Index> {
    let bytes = read(path, INDEX_MAX)?;
    Index::parse(&bytes).with_context(|| path.display().to_string())
}

fn recipients(index: &Index) -> impl Iterator<Item = &Recipient> {
    index.grants().keys.iter().map(|(recipient, _)| recipient)
}

fn for_programs(index: &Index, judged: Option<&Judged>) -> serde_json::Value {
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
        "advisories": judged.map(Judged::to_json),
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
