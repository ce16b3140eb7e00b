//! What `gateway check` says about releases: slots, files, room for a download. Shell.
//!
//! Invariant: nothing is asked of the network, and nothing is written.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use broker_lite::preflight;
use nix::sys::statvfs::statvfs;
use settings::{Document, Problem, Size};

use crate::config::{BootLoader, Config, Update};

use super::plain;

/// What this machine lacks of what `[update]` needs.
pub(super) fn findings(config: &Config, document: &Document) -> Vec<Problem> {
    let Some(update) = &config.update else {
        return Vec::new();
    };
    let mut findings = slots(update, document);
    findings.extend(boot_loader(&update.slots.boot, document));
    if update.repository.starts_with("https://") {
        findings.extend(preflight::certificate(&update.ca, "update.ca", document));
    }
    if let Err(error) = fs::metadata(&update.root) {
        findings.push(document.error(
            "update.root",
            unreadable("the first root metadata", &update.root, &error),
            "take it from the vendor: gateway release publish writes it as 1.root.json",
        ));
    }
    findings.extend(staging(update, document));
    findings.extend(updater(update, document));
    findings
}

fn slots(update: &Update, document: &Document) -> Vec<Problem> {
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for (path, device) in [
        ("update.slots.a", &update.slots.a),
        ("update.slots.b", &update.slots.b),
    ] {
        match fs::metadata(device) {
            Err(error) => findings.push(document.error(
                path,
                unreadable("the slot", device, &error),
                "look at lsblk -o NAME,PARTLABEL",
            )),
            Ok(metadata) => {
                let is_tried = matches!(update.slots.boot, BootLoader::Files(_));
                if !metadata.file_type().is_block_device() && !is_tried {
                    findings.push(document.error(
                        path,
                        format!("{} is no block device", device.display()),
                        "name the slot's partition",
                    ));
                }
                seen.push(same_place(&metadata));
            }
        }
    }
    if let [a, b] = &seen[..]
        && a == b
    {
        findings.push(document.error(
            "update.slots.b",
            format!(
                "{} and {} are the same device",
                update.slots.a.display(),
                update.slots.b.display()
            ),
            "a new release is written beside the one that runs: name two devices",
        ));
    }
    findings
}

/// What two names of one device, or of one file, have in common.
fn same_place(metadata: &fs::Metadata) -> (u64, u64) {
    match metadata.rdev() {
        0 => (metadata.dev(), metadata.ino()),
        device => (0, device),
    }
}

fn boot_loader(boot: &BootLoader, document: &Document) -> Option<Problem> {
    let (path, remedy) = match boot {
        BootLoader::Uboot(path) => (
            path,
            "write it as for fw_printenv: DEVICE OFFSET SIZE, twice",
        ),
        BootLoader::Tryboot(place) => (
            &place.file,
            "mount the partition that the firmware reads first",
        ),
        BootLoader::Files(path) => (path, "create it"),
    };
    let error = fs::metadata(path).err()?;
    let what = unreadable("the boot loader's", path, &error);
    Some(document.error("update.slots.boot", what, remedy))
}

fn staging(update: &Update, document: &Document) -> Option<Problem> {
    let directory = &update.staging.directory;
    let disk = match statvfs(directory) {
        Ok(disk) => disk,
        Err(error) => {
            let what = unreadable("the staging directory", directory, &error.into());
            let remedy = "create it, writable for the gateway's user";
            return Some(document.error("update.staging.directory", what, remedy));
        }
    };
    #[allow(
        clippy::useless_conversion,
        reason = "both are 32 bits wide on 32-bit boards"
    )]
    let free = u64::from(disk.blocks_available()) * u64::from(disk.fragment_size());
    let wanted = update.staging.max_size;
    (free < wanted.as_bytes()).then(|| {
        document.warning(
            "update.staging.max_size",
            format!(
                "a download may take {wanted}, but {} are free",
                Size::from_bytes(free)
            ),
            "lower max_size to what a release really takes, or free space",
        )
    })
}

fn updater(update: &Update, document: &Document) -> Option<Problem> {
    let error = fs::metadata(&update.socket).err()?;
    Some(document.warning(
        "update.socket",
        unreadable("the updater's socket", &update.socket, &error),
        "run systemctl enable --now gateway-updater.socket",
    ))
}

fn unreadable(what: &str, path: &Path, error: &io::Error) -> String {
    format!("{what} {}: {}", path.display(), plain(error))
}
