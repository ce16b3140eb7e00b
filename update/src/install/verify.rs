//! From what lies in staging to a release that may be installed here. Driver.
//!
//! Everything that the gateway checked before its download is checked again, by metadata that root alone can write.
//!
//! Invariant: nothing of a release is used before a threshold of the vendor's keys, the hardware, the security floor and, where
//! there is one, the TPM have let it pass.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tuf::{
    Judges, UpdateError,
    directory::{Directory, StoreFailure, replace_file},
    time::Clock,
};

use super::{InstallError, image::failure, staging::Staging};
use crate::{
    release::{ContentKey, FileKey, INDEX_MAX, Index, Recipient, WrappedKey},
    slots::Slot,
    trust::Trust,
};

/// Trusted metadata, in the updater's directory.
const METADATA: &str = "metadata";
/// Longest root that is shipped.
const ROOT_MAX: u64 = tuf::limits::MAX_ROOT_BYTES;

/// What this device takes, as root configured it.
#[derive(Debug, Clone)]
pub struct Taste {
    /// The target in the metadata that it follows.
    pub target: String,
    /// What releases call this hardware.
    pub hardware: String,
    /// The first root that is trusted.
    pub root: PathBuf,
    /// What opens releases on a device without TPM.
    pub file_key: Option<PathBuf>,
}

/// A release that may be installed.
pub struct Verified {
    /// What it is.
    pub index: Index,
    /// What opens its chunks.
    pub key: ContentKey,
}

/// Verifies what is staged. `directory` is for root alone.
///
/// # Errors
/// What is not to be trusted, not for this device, or not there.
pub fn verify(
    staging: &Staging,
    taste: &Taste,
    trust: &Trust,
    clock: &dyn Clock,
    directory: &Path,
) -> Result<Verified, InstallError> {
    let index = signed_index(staging, taste, trust, clock, directory)?;
    let about = index.about();
    if !about.hardware.contains(&taste.hardware) {
        return Err(InstallError::WrongHardware {
            version: about.version.clone(),
            hardware: about.hardware.join(", "),
            here: taste.hardware.clone(),
        });
    }
    trust.admit(about.epoch)?;
    let key = content_key(&index, taste, trust)?;
    Ok(Verified { index, key })
}

fn signed_index(
    staging: &Staging,
    taste: &Taste,
    trust: &Trust,
    clock: &dyn Clock,
    directory: &Path,
) -> Result<Index, InstallError> {
    let verifier = trust.verifier();
    let judges = Judges {
        verifier: verifier.as_ref(),
        clock,
    };
    let trusted = Directory::open(&directory.join(METADATA)).map_err(UpdateError::from)?;
    begin(&trusted, taste, judges)?;
    let mut floors = trust.floors();
    let mut fetcher = staging;
    let mut update = tuf::refresh(&trusted, &mut fetcher, judges, floors.as_mut())?;
    let target = update.find(&taste.target)?;
    if target.length > INDEX_MAX {
        return Err(UpdateError::from(tuf::refusal::Refusal::Oversized {
            file: target.path,
            limit: INDEX_MAX,
        })
        .into());
    }
    let mut bytes = Vec::new();
    update.copy(&target, &mut bytes)?;
    Ok(Index::parse(&bytes)?)
}

/// Puts the root that came with the device where there is none yet.
fn begin(trusted: &Directory, taste: &Taste, judges: Judges<'_>) -> Result<(), InstallError> {
    if trusted.path().join("root.json").exists() {
        return Ok(());
    }
    let read = |path: &Path| -> io::Result<Vec<u8>> {
        match path.metadata()?.len() <= ROOT_MAX {
            true => fs::read(path),
            false => Err(io::ErrorKind::FileTooLarge.into()),
        }
    };
    let root = read(&taste.root).map_err(|error| {
        UpdateError::from(StoreFailure::Disk {
            action: "read",
            path: taste.root.clone(),
            error,
        })
    })?;
    Ok(tuf::init(trusted, &root, judges)?)
}

/// The TPM's where there is one, the file's only where there is none.
fn content_key(index: &Index, taste: &Taste, trust: &Trust) -> Result<ContentKey, InstallError> {
    let refused = |why: &str| InstallError::NotForThisDevice {
        version: index.about().version.clone(),
        why: why.to_owned(),
    };
    if let Some(payload) = trust.payload_key()? {
        let wrapped = index.content_key_for(&Recipient::tpm(&payload));
        let (Some(WrappedKey::Tpm(wrapped)), Some(approval)) = (wrapped, &index.grants().approval)
        else {
            return Err(refused("its TPM's payload key is not among the recipients"));
        };
        let secret = trust.unwrap_key(wrapped, approval)?;
        return ContentKey::from_secret(&secret)
            .ok_or_else(|| refused("what the TPM unwrapped is no content key"));
    }
    let Some(path) = &taste.file_key else {
        return Err(refused(
            "it has neither a TPM nor a key in a file ([update] key)",
        ));
    };
    let text = fs::read_to_string(path).map_err(failure("read", path))?;
    let file_key =
        FileKey::from_text(&text).ok_or_else(|| refused("its key's file holds no key"))?;
    match index.content_key_for(&file_key.recipient()) {
        Some(WrappedKey::File(sealed)) => file_key
            .open(index.about().epoch, sealed)
            .ok_or_else(|| refused("the wrapped key does not open")),
        _ => Err(refused("its key in a file is not among the recipients")),
    }
}

/// What was last begun to be written to a slot; `None` when nobody remembers.
pub fn remembered(directory: &Path, slot: Slot) -> Option<Index> {
    let path = directory.join(index_name(slot));
    let length = path.metadata().ok()?.len();
    let bytes = (length <= INDEX_MAX).then(|| fs::read(&path).ok())?;
    Index::parse(&bytes?).ok()
}

/// Remembers what is begun to be written to a slot.
pub(super) fn remember(directory: &Path, slot: Slot, index: &Index) -> Result<(), InstallError> {
    let path = directory.join(index_name(slot));
    let replaced = replace_file(&path, |file| {
        use std::{io::Write, os::unix::fs::PermissionsExt};
        // The gateway reads it, to download only what the running slot lacks.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(&index.to_bytes())
    });
    replaced.map_err(failure("write", &path))
}

fn index_name(slot: Slot) -> String {
    format!("slot-{slot}.index")
}
