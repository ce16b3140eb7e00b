//! `release pack`: an image becomes an index and encrypted chunks. Shell.
//!
//! Invariant: the content key leaves this process wrapped, or into the file of `--content-key`, for its owner alone.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, anyhow};
use tpm::EpochApproval;
use update::release::{
    About, ContentKey, FileKey, Grants, Index, KEY_FILE_MAX, KeyFile, Recipient, SBOM_MAX,
    WrappedKey, fresh,
    pack::{INDEX_FILE, Parameters, pack},
};

use crate::wording;

use super::{
    super::progress::Progress, Failure, components, keys, print, read, read_text, refused, usage,
};

/// Bytes of a recipient's key and of an approval at most.
const KEY_MAX: u64 = 16 * 1024;

/// Bytes by which the bar counts.
const PART: u64 = 64 * 1024;

/// Arguments of `pack`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image of a slot
    image: PathBuf,
    /// The release's folder, made where it is missing
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Whose release it is
    #[arg(long)]
    product: String,
    /// Its version
    #[arg(long)]
    version: String,
    /// Hardware that it runs on, as [update] hardware names it
    #[arg(long, required = true, num_args = 1.., value_name = "NAME")]
    hardware: Vec<String>,
    /// Its security epoch: where the floor is higher, it is not installed
    #[arg(long)]
    epoch: u64,
    /// Who may open it: a TPM's payload key (gateway tpm payload-key), or a file key
    #[arg(long, num_args = 1.., value_name = "FILE", required_unless_present = "content_key")]
    recipient: Vec<PathBuf>,
    /// The vendor's approval of the epoch, for recipients with a TPM (gateway tpm approve epoch)
    #[arg(long, value_name = "FILE", requires = "approval_key")]
    approval: Option<PathBuf>,
    /// The public key of who approved it
    #[arg(long, value_name = "FILE", requires = "approval")]
    approval_key: Option<PathBuf>,
    /// Keeps the content key and its recipients, to make the same release again byte for byte
    #[arg(long, value_name = "FILE")]
    content_key: Option<PathBuf>,
    /// The list of components: CycloneDX, JSON
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,
    /// How hard to compress, 1 to 19
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let sbom = match &args.sbom {
        Some(path) => Some(read(path, u64::from(SBOM_MAX))?),
        None => None,
    };
    if let (Some(path), Some(text)) = (&args.sbom, &sbom) {
        components::read(text).map_err(|wrong| usage(format!("{}: {wrong}", path.display())))?;
    }
    let mut image = fs::File::open(&args.image)
        .with_context(|| format!("cannot open {}", args.image.display()))?;
    let mut hardware = args.hardware.clone();
    hardware.sort();
    let size = image
        .metadata()
        .with_context(|| format!("cannot read {}", args.image.display()))?;
    let about = About {
        product: args.product.clone(),
        version: args.version.clone(),
        hardware,
        epoch: args.epoch,
        image_size: size.len(),
        sbom: None,
    };
    about.check().map_err(|wrong| usage(wrong.to_string()))?;
    let file = key_file(args)?;
    let parameters = Parameters {
        about,
        grants: file.grants,
        key: file.key,
        sbom: sbom.as_deref(),
        level: args.level,
    };
    let mut bar = Bar::new();
    let packed = pack(&mut image, &parameters, &args.out, &mut |progress| {
        bar.show(progress)
    });
    bar.progress.clear();
    let index = packed.with_context(|| format!("cannot pack {}", args.image.display()))?;
    Ok(print(&summary(&index, &args.out))?)
}

fn summary(index: &Index, folder: &Path) -> String {
    let about = index.about();
    format!(
        "{}: {} {}, {} in {} chunks, {} to fetch, Merkle root {}\n",
        folder.join(INDEX_FILE).display(),
        about.product,
        about.version,
        wording::about(about.image_size),
        index.chunks().len(),
        wording::about(index.stored_bytes()),
        tpm::hex::encode(index.root()),
    )
}

/// The content key, from its file or new.
fn key_file(args: &Args) -> Result<KeyFile, Failure> {
    if let Some(path) = args.content_key.as_ref().filter(|path| path.exists()) {
        let file = KeyFile::from_text(&read_text(path, KEY_FILE_MAX)?)
            .map_err(|wrong| anyhow!("{}: {wrong}", path.display()))?;
        if file.epoch != args.epoch {
            return Err(usage(format!(
                "the content key in {} is for epoch {}; leave it to be made anew, or keep the epoch",
                path.display(),
                file.epoch
            )));
        }
        if !args.recipient.is_empty() {
            return Err(usage(format!(
                "{} says for whom the content key is wrapped; leave --recipient out, or the file",
                path.display()
            )));
        }
        return Ok(file);
    }
    let key = fresh::content_key().context("no content key")?;
    let file = KeyFile {
        epoch: args.epoch,
        grants: grants(args, &key)?,
        key,
    };
    if let Some(path) = &args.content_key {
        keys::write_private(path, &file.to_text())?;
    }
    Ok(file)
}

fn grants(args: &Args, key: &ContentKey) -> Result<Grants, Failure> {
    let approved = approved(args)?;
    let mut keys = Vec::new();
    let mut for_tpm = false;
    for path in &args.recipient {
        let text = read_text(path, KEY_MAX)?;
        if let Some(file_key) = FileKey::from_text(&text) {
            let wrapped = WrappedKey::File(file_key.wrap(args.epoch, key));
            keys.push((file_key.recipient(), wrapped));
            continue;
        }
        let payload = tpm::PublicKey::from_pem(&text).ok_or_else(|| {
            usage(format!(
                "{} holds neither a TPM's payload key nor a file key",
                path.display()
            ))
        })?;
        let Some((vendor, _)) = &approved else {
            return Err(usage(format!(
                "{} is a TPM's: name the epoch's approval with --approval FILE --approval-key FILE",
                path.display()
            )));
        };
        let wrapped = tpm::wrap(&payload, vendor, args.epoch, key.bytes())
            .with_context(|| format!("cannot wrap the content key for {}", path.display()))?;
        for_tpm = true;
        keys.push((Recipient::tpm(&payload), WrappedKey::Tpm(wrapped)));
    }
    keys.sort_by_key(|(recipient, _)| *recipient);
    let grants = Grants {
        approval: approved.map(|(_, approval)| approval).filter(|_| for_tpm),
        keys,
    };
    grants
        .check(args.epoch)
        .map_err(|wrong| usage(wrong.to_string()))?;
    Ok(grants)
}

/// The approval of this epoch, which the key it is said to be of did sign.
fn approved(args: &Args) -> Result<Option<(tpm::PublicKey, EpochApproval)>, Failure> {
    let (Some(path), Some(key)) = (&args.approval, &args.approval_key) else {
        return Ok(None);
    };
    let vendor = tpm::PublicKey::from_pem(&read_text(key, KEY_MAX)?)
        .ok_or_else(|| usage(format!("{} holds no P-256 public key", key.display())))?;
    let approval = EpochApproval::from_json(&read_text(path, KEY_MAX)?)
        .map_err(|wrong| anyhow!("{}: {wrong}", path.display()))?;
    match approval.epoch == args.epoch && approval.is_by(&vendor) {
        true => Ok(Some((vendor, approval))),
        false => Err(refused(anyhow!(
            "{} is not the approval of epoch {} by the key in {}: no TPM would open the release",
            path.display(),
            args.epoch,
            key.display()
        ))),
    }
}

/// The bar and what is left, by the pace so far.
struct Bar {
    progress: Progress,
    began: Instant,
}

impl Bar {
    #[expect(clippy::disallowed_methods, reason = "driver: owns the clock")]
    fn new() -> Bar {
        Bar {
            progress: Progress::new(),
            began: Instant::now(),
        }
    }

    fn show(&mut self, progress: update::release::pack::Progress) {
        let done = progress.done.max(1) as f64;
        let left = (progress.total - progress.done) as f64;
        let doing = format!(
            "{} packed, {} stored",
            wording::about(progress.done),
            wording::about(progress.stored)
        );
        // Units that a 32-bit number holds a hundred times.
        let parts = (
            progress.done.div_ceil(PART) as usize,
            progress.total.div_ceil(PART) as usize,
        );
        self.progress
            .show(parts, self.began.elapsed().mul_f64(left / done), &doing);
    }
}
